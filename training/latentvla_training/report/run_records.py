"""Whether what a run's record says of it is still so: recipe, host, codebook, Scenes.

A record holds all settings that decided the run. They are compared with those of the shipped recipe
of that name as the run would take them today; of a recipe that does not ship nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_training.distill.runs import (
    ContestRecords,
    PseudoRun,
    ReasonerRun,
    StudentRun,
    TeacherContenderRun,
)
from latentvla_training.distill.settings import STUDENT, DistillRecipe, load_distill_recipe
from latentvla_training.distill.settings import of_seed as of_distill_seed
from latentvla_training.engine.recipe import (
    Recipe,
    build,
    different_settings,
    load_recipe,
    load_record,
)
from latentvla_training.latent_action.codes import Vocabulary
from latentvla_training.latent_action.settings import CodebookRecipe, load_codebook_recipe
from latentvla_training.latent_action.stages import DynamicsRun, FrameRun
from latentvla_training.planner.contenders import HOST, ContenderRun
from latentvla_training.planner.motion_net import PseudoOdometryRecipe, load_pseudo_recipe
from latentvla_training.planner.oracle_codes import OracleRecipe
from latentvla_training.planner.oracle_codes import of_seed as of_oracle_seed
from latentvla_training.planner.trunk_pretraining import TrunkRecipe, load_trunk_recipe
from latentvla_training.report.places import SplitOnDisk
from latentvla_training.report.present import Present
from latentvla_training.teacher.settings import (
    TeacherRecipe,
    VisionRecipe,
    load_teacher_recipe,
    vision_recipe,
)

#: So many settings that differ are named.
_NAMED = 3
_RECORD, _ORACLE, _VISION = "recipe.yaml", "oracle_", "_vision"
#: Recipes that are their own records, and how they are read by name, by an entry that others lack.
_RECIPES: dict[str, tuple[type[Any], Callable[[str], Any]]] = {
    "pretraining": (CodebookRecipe, load_codebook_recipe),
    "baseline": (TeacherRecipe, load_teacher_recipe),
    "hidden_share": (
        VisionRecipe, lambda name: vision_recipe(load_teacher_recipe(name.removesuffix(_VISION)))
    ),
    "reach": (PseudoOdometryRecipe, load_pseudo_recipe),
    "loss": (Recipe, load_recipe),
    "model": (TrunkRecipe, load_trunk_recipe),
}  # fmt: skip
#: Records of contenders by an entry that the ones below lack.
_CONTENDERS: dict[str, type[Any]] = {
    "reasoner": StudentRun, "pooled_by": ReasonerRun, "assumed": PseudoRun,
    "pooling": TeacherContenderRun, "contender": ContenderRun,
}  # fmt: skip


def stale_run(
    folder: Path, values: Mapping[str, Any], splits: Sequence[SplitOnDisk], present: Present
) -> list[str]:
    """Return in words what of a run is no longer so.

    Args:
        folder: of the run. values: of its record.
    """
    reasons = other_settings(values, folder)
    found, here = str(values.get("scenes") or "").partition(",")[0], None
    data = _data(folder, values)
    for split in splits:
        if found and not data.get("recordings") and split.name == data.get("train_split"):
            # A codebook reads the pictures of all drives alike.
            share = 1.0 if "follows" in values else data.get("odometry_share", 1.0)
            here = split.scenes_id(data.get("max_shards", 0), share)
    if here not in (None, found):
        reasons.append(f"trained on Scenes {found}, here {here}")
    reasons += present.other_codebook(str(values.get("codebook") or ""))
    return reasons + _other_host(str(values.get("host") or ""), present)


def other_settings(values: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Return in words how a record differs from that of a run of the shipped recipe.

    Args:
        values: of the record, or of a recipe in a manifest. folder: of the run, if any.
    """
    try:
        compared = _compared(values, folder)
    except ContractError as error:
        return [f"its settings are of another version: {error}"]
    if compared is None:
        return []
    name, found, now = compared
    different = different_settings(found, now)
    if not different:
        return []
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return [f"recipe {name} has changed: {', '.join(different[:_NAMED])}{more}"]


def _compared(values: Mapping[str, Any], folder: Path | None) -> tuple[str, Any, Any] | None:
    """Return a recipe's name, a record and what it would be today; None where that is unknown."""
    if "contender" in values:
        return None if folder is None else _contender(values, folder)
    if "stage" in values or {"frames", "run"} <= set(values):
        return None if folder is None else _stage(values, folder)
    for entry, (kind, load) in _RECIPES.items():
        if entry in values:
            found = build(kind, dict(values), "recipe")
            shipped = _shipped(load, found.name)
            return None if shipped is None else (found.name, found, _noting(shipped, found))
    return None


def _shipped(load: Callable[[str], Any], name: str) -> Any | None:
    try:
        return load(name)
    except ContractError:
        return None


def _noting(shipped: Any, found: Any) -> Any:
    """Return a recipe with what a run notes of itself: seed, codebook, Scenes, what was before."""
    noted = {
        name: getattr(found, name)
        for name in ("seed", "codebook", "scenes", "start_from")
        if hasattr(found, name)
    }
    if hasattr(found, "run"):
        noted["run"] = replace(shipped.run, seed=found.run.seed)
    return replace(shipped, **noted)


def _stage(values: Mapping[str, Any], folder: Path) -> tuple[str, Any, Any] | None:
    """Compare a stage of a codebook, whose recipe is in the folder above."""
    above = _record(folder.parent)
    recipe = _shipped(load_codebook_recipe, str(above.get("name")))
    if recipe is None:
        return None
    found = build(DynamicsRun if "stage" in values else FrameRun, dict(values), _RECORD)
    stage = getattr(found, "stage", "frames")
    settings = replace(recipe, seed=above.get("seed", 0)).stage(stage)
    own: dict[str, Any] = {"optimizer": settings.optimizer, "run": settings.run}
    if isinstance(found, FrameRun):
        own["frames"] = recipe.frames
    else:
        own["model"], own["loss"] = recipe.dynamics(stage)
    return recipe.name, found, replace(found, **own)


def _contender(values: Mapping[str, Any], folder: Path) -> tuple[str, Any, Any] | None:
    """Compare a contender's run, in ``<family of recipes>/seed<N>/<run>`` or a name of its own."""
    kind = next(kind for entry, kind in _CONTENDERS.items() if entry in values)
    found = build(kind, dict(values), _RECORD)
    name, seed = folder.parent.parent.name, found.run.seed
    if name.startswith(_ORACLE):
        name = name.removeprefix(_ORACLE)
        oracle = _shipped(lambda own: load_record(OracleRecipe, own, "oracle_codes"), name)
        if oracle is None:
            return None
        heads = of_oracle_seed(oracle, seed).heads
        return name, found, replace(found, settings=heads.of(found.contender))
    if isinstance(found, StudentRun):
        name = found.recipe
    elif isinstance(found, ReasonerRun):
        name = _named(folder)
    recipe = _shipped(load_distill_recipe, name)
    if recipe is None and not isinstance(found, (StudentRun, ReasonerRun)):
        recipe = _family_beside(folder.parent)
    if recipe is None:
        return None
    name = recipe.name
    records = ContestRecords(
        of_distill_seed(recipe, seed),
        found.host,
        getattr(found, "model", PlannerConfig()),
        found.scenes,
        found.codebook,
        getattr(found, "vocabulary", Vocabulary()),
        getattr(found, "teacher", ""),
    )
    if isinstance(found, StudentRun):
        return name, found, records.student(found.reasoner)
    if isinstance(found, ReasonerRun):
        return name, found, records.reasoner(found.pooled_by)
    if isinstance(found, PseudoRun):
        return name, found, records.pseudo(found.assumed)
    if isinstance(found, TeacherContenderRun):
        return name, found, records.online()
    return name, found, records.plain(found.contender)


def _family_beside(seed: Path) -> DistillRecipe | None:
    """Return the recipe of a comparison by the students beside its run; None where none ships.

    Its other contenders are trained alike whichever student of the family is asked.

    Args:
        seed: folder of all runs of a seed, in a family's that is named otherwise.
    """
    names = [str(_record(folder).get("recipe")) for folder in sorted(seed.glob(f"{STUDENT}-*"))]
    names += [_named(folder) for folder in sorted(seed.glob("reasoner-*"))]
    found = (_shipped(load_distill_recipe, name) for name in dict.fromkeys(names))
    recipe = next((recipe for recipe in found if recipe is not None), None)
    return None if recipe is None else _shipped(load_distill_recipe, recipe.family)


def _named(reasoner: Path) -> str:
    """Return the recipe of a student's first phase, ``reasoner-<recipe>-<of whom>``."""
    return reasoner.name.split("-")[1]


def _data(folder: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return which Scenes a run was trained on, by its record or that of a run beside or above."""
    if "phase" in values:
        values = _record(folder.parent / HOST)
    elif "data" not in values and "settings" not in values:
        values = _record(folder.parent)
    found = values.get("data") or (values.get("settings") or {}).get("data") or {}
    return found if isinstance(found, dict) else {}


def _record(folder: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _other_host(host: str, present: Present) -> list[str]:
    """Say that a host is not that of the present bundle, where both are of one name.

    Hosts are ``<name>-<revision>-<16 hex>``; of a run, ``<run>-step<N>-<16 hex>``.
    """
    now = present.bundle_host
    if now is None or not host or host == now:
        return []
    one_name = host.rsplit("-", 2)[0] == now.rsplit("-", 2)[0]
    return [f"host {host}, that of the bundle is {now}"] if one_name else []
