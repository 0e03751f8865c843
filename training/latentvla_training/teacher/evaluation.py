"""How well a teacher knows the codes of unseen networks, and how well it knows that.

Everything is kept as sums by network (``report.network_sums``), so that seeds are pooled and
intervals made without a Scene.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from latentvla_ros.contract import NUM_LATENT_ACTIONS, ContractError
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.run_log import run_cost
from latentvla_training.latent_action.codes import MISSING
from latentvla_training.planner.dataset import collate
from latentvla_training.report.identity import commit, teacher_recipe_hash
from latentvla_training.report.network_sums import NetworkSums, sums_of
from latentvla_training.teacher.baselines import (
    TrainedBaseline,
    previous_token,
    train_baseline,
    unigram,
)
from latentvla_training.teacher.cache import prefix_uniforms, teacher_id
from latentvla_training.teacher.calibration import Calibration, calibrate
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.decoding import answer
from latentvla_training.teacher.model import Teacher
from latentvla_training.teacher.processor import TeacherProcessor
from latentvla_training.teacher.settings import TeacherRecipe
from latentvla_training.teacher.training import CodedSplit, TeacherRun, open_coded_split

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Rows of the table.
TEACHER, BLIND, SHUFFLED = "teacher", "teacher_blind", "teacher_other_pictures"
UNIGRAM, PREVIOUS, MLP, MLP_PREVIOUS = "unigram", "previous_token", "ego_mlp", "ego_mlp_previous"

_BATCH = 16


@dataclass(frozen=True)
class SeedResult:
    """What one teacher scored on a split.

    Attributes:
        identity: of teacher, codebook, Scenes, processor, recipe(s), seed, passes, commit.
        sums: by network: ``nll``, ``accuracy``, each also by place (``nll_1`` ...), of codes after
            the true ones; ``own_nll`` of codes when only t0 is known.
        calibration: of the teacher after the true codes; own_calibration: of its marginals.
        baselines: validation NLL by row and dropout of the ego state.
        costs: of the stages ``vision`` and ``codes`` where they are kept, as ``run_cost`` tells.
    """

    identity: dict[str, Any]
    sums: NetworkSums
    calibration: Calibration
    own_calibration: Calibration
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "identity": self.identity,
            "sums": self.sums.to_json(),
            "calibration": self.calibration.to_json(),
            "own_calibration": self.own_calibration.to_json(),
            "baselines": self.baselines,
            "costs": self.costs,
        }


def evaluate_teacher(
    run: TeacherRun,
    train: CodedSplit,
    val: CodedSplit,
    split: CodedSplit,
    blind: TeacherRun | None = None,
    progress: bool = True,
) -> SeedResult:
    """Evaluate one teacher on a split against all that knows less.

    Args:
        run: the teacher. train, val: that baselines are trained and chosen on.
        split: with networks that the teacher has not seen.
        blind: the same teacher, trained on black pictures.

    Raises:
        ContractError: codes of another codebook than the teacher's, or networks that it has seen.
    """
    check_codebook(run.recipe, split)
    check_unseen(train, split)
    recipe, sequence = run.recipe, split.codes.sequence
    after_true: dict[str, F32] = {
        TEACHER: after_true_codes(run, split, "teacher", progress),
        SHUFFLED: after_true_codes(
            run, split, "pictures of others", progress, others=of_other_networks(split)
        ),
    }
    if blind is not None:
        if not blind.recipe.blank_images:
            raise ContractError("--blind", blind.recipe.name, "a run with blank_images: true")
        check_codebook(blind.recipe, split)
        after_true[BLIND] = after_true_codes(blind, split, "blind", progress)
    learned = train.codes.sequence
    after_true[UNIGRAM] = unigram(learned, sequence)
    after_true[PREVIOUS] = previous_token(learned, sequence)
    baselines: dict[str, TrainedBaseline] = {}
    for name in (MLP, MLP_PREVIOUS):
        baselines[name] = train_baseline(
            (train.reader, train.codes),
            (val.reader, val.codes),
            recipe.baseline,
            name == MLP_PREVIOUS,
            recipe.run.seed,
            progress,
        )
        after_true[name] = baselines[name].net.log_probabilities(split.reader, split.codes)
    own = {
        TEACHER: own_marginals(run, split, progress),
        MLP: after_true[MLP],
        UNIGRAM: after_true[UNIGRAM],
    }
    figures: dict[str, dict[str, F64]] = {row: {} for row in after_true}
    for row, chances in after_true.items():
        figures[row] |= code_figures(chances, sequence)
    for row, chances in own.items():
        figures[row] |= {f"own_{k}": v for k, v in code_figures(chances, sequence, False).items()}
    networks = split.reader.columns["network"]
    return SeedResult(
        identity_of(run, split),
        sums_of(networks, figures, {}, {}),
        calibrate(networks, after_true[TEACHER], sequence),
        calibrate(networks, own[TEACHER], sequence),
        {
            name: {f"{drop:g}": round(nll, 4) for drop, nll in found.val_nll.items()}
            for name, found in baselines.items()
        },
    )


def identity_of(run: TeacherRun, split: CodedSplit) -> dict[str, Any]:
    """Return what a result hangs on."""
    return {
        "teacher_id": teacher_id(run.recipe, run.teacher),
        "codebook_id": split.codes.codebook_id,
        "scenes_id": split.codes.scenes_id,
        "trained_on": run.recipe.scenes,
        "processor": run.processor.identity,
        "recipe": run.recipe.name,
        "recipes": {run.recipe.name: teacher_recipe_hash(run.recipe)},
        "seed": run.recipe.run.seed,
        "passes": run.steps * run.recipe.run.batch_size,
        "split": split.codes.split,
        "scenes": len(split.reader),
        "commit": commit(),
    }


def check_codebook(recipe: TeacherRecipe, split: CodedSplit) -> None:
    """Check that codes are those that a teacher has learned to say.

    Raises:
        ContractError: they are another codebook's; names both.
    """
    if recipe.codebook != split.codes.codebook_id:
        raise ContractError(
            f"codebook of the codes of {split.codes.split}",
            split.codes.codebook_id,
            f"{recipe.codebook}, the teacher's",
        )


def check_unseen(train: CodedSplit, split: CodedSplit) -> None:
    """Check that no network of a split is one of the training (experiments.md section 4).

    Raises:
        ContractError: some are; names them.
    """
    seen = set(train.reader.columns["network"]) & set(split.reader.columns["network"])
    if seen:
        raise ContractError(f"networks of {split.codes.split}", sorted(seen)[:3], "unseen networks")


def of_other_networks(split: CodedSplit) -> NDArray[np.int64]:
    """Return (N,) for every Scene another one, of another network where there are several."""
    count = len(split.reader)
    return (np.arange(count) + max(1, count // 2)) % count


def code_figures(chances: F32, sequence: NDArray[np.int8], by_place: bool = True) -> dict[str, F64]:
    """Return ``nll`` (nats) and ``accuracy`` (S,) of Scenes, mean over codes and of each place.

    Args:
        chances: (S, 12, 16) log-probabilities. sequence: (S, 12) codes. What is missing is NaN.
    """
    known = sequence != MISSING
    chosen = np.take_along_axis(chances, sequence.clip(0)[..., None].astype(int), axis=2)[..., 0]
    surprise = np.where(known, -chosen.astype(np.float64), np.nan)
    right = np.where(known, chances.argmax(axis=2) == sequence, np.nan)
    some = known.any(axis=1)
    figures: dict[str, F64] = {}
    for name, values in (("nll", surprise), ("accuracy", right)):
        mean = np.full(len(sequence), np.nan)
        mean[some] = np.nanmean(values[some], axis=1)
        figures[name] = mean
        if by_place:
            for place in range(NUM_LATENT_ACTIONS):
                figures[f"{name}_{place + 1}"] = values[:, place]
    return figures


def _loader(dataset: TeacherDataset, title: str, progress: bool) -> Any:
    from tqdm import tqdm

    loader = DataLoader(dataset, batch_size=_BATCH, collate_fn=collate)
    return tqdm(loader, desc=title, unit="batch", leave=False, disable=not progress)


@torch.inference_mode()
def after_true_codes(
    run: TeacherRun,
    split: CodedSplit,
    title: str,
    progress: bool = True,
    others: NDArray[np.int64] | None = None,
) -> F32:
    """Return log-probabilities (N, 12, 16) of each code after the true ones before it."""
    device = _device(run.teacher)
    dataset = _dataset(run.recipe, run.processor, split, others)
    parts = []
    for batch in _loader(dataset, title, progress):
        moved = {name: value.to(device) for name, value in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, run.mixed):
            logits = run.teacher.logits(run.teacher.read(moved, moved["codes"]))
        parts.append(logits.log_softmax(dim=-1).cpu())
    return torch.cat(parts).numpy()


@torch.inference_mode()
def own_marginals(run: TeacherRun, split: CodedSplit, progress: bool = True) -> F32:
    """Return logs (N, 12, 16) of the teacher's marginals over its sampled prefixes."""
    device = _device(run.teacher)
    dataset = _dataset(run.recipe, run.processor, split, None)
    tokens, settings = split.reader.columns["token"], run.recipe.cache
    parts, done = [], 0
    for batch in _loader(dataset, "own codes", progress):
        moved = {name: value.to(device) for name, value in batch.items()}
        count = len(moved["codes"])
        uniforms = prefix_uniforms(tokens[done : done + count], settings)
        done += count
        with torch.autocast(device.type, torch.bfloat16, run.mixed):
            found = answer(run.teacher, moved, torch.from_numpy(uniforms).to(device))
        assert found.marginals is not None
        parts.append(found.marginals.float().clamp(min=1e-7).log().cpu())
    return torch.cat(parts).numpy()


def _device(teacher: Teacher) -> torch.device:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher.to(device).eval()
    return device


def _dataset(
    recipe: TeacherRecipe,
    processor: TeacherProcessor,
    split: CodedSplit,
    others: NDArray[np.int64] | None,
) -> TeacherDataset:
    return TeacherDataset(
        split.reader, processor, split.codes, blank=recipe.blank_images, others=others
    )


def evaluate_seeds(
    places: Mapping[str, str | Path],
    blind: Sequence[str | Path],
    codes_folder: Path,
    split: str,
    progress: bool = True,
) -> dict[str, SeedResult]:
    """Evaluate teachers of one recipe and several seeds on a split.

    Args:
        places: where ``load_teacher`` finds each, by name. blind: of as many, or none.
        codes_folder: of ``<split>.safetensors``.

    Raises:
        ContractError: teachers of several recipes; see ``evaluate_teacher``.
    """
    from latentvla_training.teacher.release import load_teacher

    coded = open_coded_split(split, codes_folder)
    found: dict[str, SeedResult] = {}
    recipes = set()
    for number, (name, place) in enumerate(places.items()):
        run = load_teacher(place, coded.codes.codebook_id)
        recipes.add(run.recipe.name)
        if len(recipes) > 1:
            raise ContractError("--runs", sorted(recipes), "seeds of one recipe")
        data = run.recipe.data
        train = open_coded_split(data.train_split, codes_folder, data)
        val = open_coded_split(data.val_split, codes_folder)
        control = load_teacher(blind[number], coded.codes.codebook_id) if blind else None
        result = evaluate_teacher(run, train, val, coded, control, progress)
        found[name] = replace(result, costs=stage_costs(Path(place), run.recipe.name))
    return found


def stage_costs(folder: Path, recipe: str) -> dict[str, dict[str, float]]:
    """Return what the stages of a teacher's run have cost, by their names; {} of a released one."""
    stages = {"vision": folder.parent / f"{recipe}-vision", "codes": folder}
    found = {name: run_cost(place) for name, place in stages.items()}
    return {name: cost for name, cost in found.items() if cost}


def write_document(results: Mapping[str, SeedResult], split: str, path: Path) -> None:
    """Write several seeds on one split as JSON."""
    document = {
        "kind": "teacher",
        "split": split,
        "seeds": {name: result.to_json() for name, result in results.items()},
    }
    write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
