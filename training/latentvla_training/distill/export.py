"""The bundle of a distilled student: planner, reasoner and fusion; nothing of a teacher."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from latentvla_ros.contract import ContractError
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.distill.choice import seed_scores
from latentvla_training.distill.runs import StudentRun
from latentvla_training.distill.settings import STUDENT
from latentvla_training.distill.student import StudentOnFeatures, make_source, student_planner
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.recipe import build
from latentvla_training.export.parity import Parity
from latentvla_training.latent_action.release import find_names
from latentvla_training.planner.losses import LossSettings
from latentvla_training.planner.release import (
    export_planner,
    record_metrics,
    run_provenance,
    shipped,
)

logger = logging.getLogger(__name__)


def find_student(place: Path) -> Path:
    """Return the folder of a student's second phase: ``place``, or the only one in it.

    Raises:
        FileNotFoundError: there is none, or there are several.
    """
    if (place / "recipe.yaml").is_file():
        return place
    found = sorted(path.parent for path in place.glob(f"{STUDENT}-*/recipe.yaml"))
    if len(found) != 1:
        names = [path.name for path in found]
        raise FileNotFoundError(f"{place} holds {names or 'no'} students of distill; name one")
    return found[0]


def load_student(folder: Path) -> tuple[StudentRun, StudentPlanner, int]:
    """Return the record of a student's run, its averaged planner and the step of its checkpoint.

    Raises:
        FileNotFoundError: the folder holds no run with a checkpoint.
        ContractError: it is the run of another contender, not finished, or of a student that
            cannot be exported: causal, or of another vocabulary than cars speak.
    """
    path = folder / "recipe.yaml"
    state = load_checkpoint(folder)
    if not path.is_file() or state is None:
        raise FileNotFoundError(f"{folder} holds no student with a checkpoint; distill train first")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or "reasoner" not in values:
        found = values.get("contender") if isinstance(values, dict) else values
        raise ContractError(f"run {folder}", found, "the second phase of a student")
    record = build(StudentRun, values, str(path))
    if state["step"] < record.run.steps:
        raise ContractError(f"steps of {folder}", state["step"], f"{record.run.steps}: finish it")
    record.vocabulary.check_spoken(f"student {folder.name}")
    planner = StudentPlanner(record.model)
    source = make_source(planner, record.student, record.pooling)
    module = StudentOnFeatures(planner, source, LossSettings(auxiliary=0.0))
    module.load_state_dict(state["averaged"])
    return record, student_planner(module).eval(), int(state["step"])


def spoken_codebook(record: StudentRun) -> str | None:
    """Return the codebook whose codes a student says; None where nobody has taught it any."""
    return record.codebook if record.student.says_codes else None


def provenance(record: StudentRun, step: int) -> dict[str, Any]:
    """Return what a student was made from, for its manifest."""
    return {
        "recipe": record.recipe,
        "start_from": record.host,
        "codebook_id": spoken_codebook(record),
        "teacher_id": record.teacher,
        "reasoner": record.reasoner,
        **run_provenance(record.settings.data, record.run, step),
    }


def measured(record: StudentRun, result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a student scored by a result of ``distill evaluate``, by split.

    Raises:
        ContractError: the result is not of this student; names what differs.
    """
    found = {
        "recipe": result.get("distilled"),
        "teacher": result.get("teacher") if record.teacher else "",
        "codebook": result.get("codebook"),
        "host": (result.get("identity") or {}).get("host"),
    }
    for name, value in found.items():
        if value != getattr(record, name):
            raise ContractError(f"--result {name}", value, str(getattr(record, name)))
    by_split = {}
    for split, entry in result["splits"].items():
        seeds = {scores.seed: scores for scores in seed_scores(result, split)}
        if record.run.seed not in seeds:
            raise ContractError("--result seeds", sorted(seeds), f"{record.run.seed} among them")
        counts = entry["scenes"], entry["decision_scenes"]
        by_split[split] = seeds[record.run.seed].figures(*counts)
    return by_split


def export_student(
    run: Path,
    name: str,
    revision: int,
    folder: Path | None = None,
    split: str = "val",
    codes: Path | None = None,
    result: Path | None = None,
) -> Parity:
    """Write the bundle of a student, checked on Scenes of ``split``.

    One that nobody has taught codes names no codebook: its latent actions carry no meaning.

    Args:
        run: see ``find_student``. name, revision: of the bundle. folder: where to; by default among
            the shipped bundles.
        codes: folder of its codebook's codes, with their names; None: see ``find_names``.
        result: of ``distill evaluate``: what its seed scored goes into the manifest's metrics.

    Raises:
        FileNotFoundError, ContractError: see ``load_student``, ``measured`` and ``find_names``;
            torch and ONNX Runtime disagree.
    """
    record, planner, step = load_student(find_student(run))
    made = provenance(record, step)
    metrics = {}
    if result is not None:
        metrics = measured(record, json.loads(result.read_text(encoding="utf-8")))
    where = folder or shipped(name)
    codebook = spoken_codebook(record)
    found = None if codebook is None else find_names(codebook, codes)
    if codebook is None:
        logger.warning("%s: nobody taught it codes, so its bundle names no codebook", run)
    elif found is None:
        logger.warning("codebook %s: its codes have no names, nor has the bundle", codebook)
    names = None if found is None else found.names
    parity = export_planner(planner, f"{name}-{revision}", made, where, split, codebook, names)
    for of_split, figures in metrics.items():
        record_metrics(str(where.resolve()), of_split, figures)
    return parity
