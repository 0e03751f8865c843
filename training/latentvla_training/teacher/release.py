"""Released teachers: half precision, with tokenizer, image processor and a manifest of hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.recipe import build
from latentvla_training.report.identity import commit
from latentvla_training.report.network_sums import sums_from_json
from latentvla_training.teacher.cache import teacher_id
from latentvla_training.teacher.model import Teacher, make_teacher
from latentvla_training.teacher.processor import TeacherProcessor, save_processor
from latentvla_training.teacher.settings import TINY, TeacherRecipe
from latentvla_training.teacher.training import TeacherRun, load_teacher_run

WEIGHTS, MANIFEST = "teacher.safetensors", "manifest.json"
_FORMAT = "latentvla-teacher-release-1"
_PROCESSOR = "processor"

#: The same storage under a second name: the embeddings are also the last layer.
_TIED = "vlm.lm_head.weight"


def released_folder() -> Path:
    """Return the folder of the teachers that come with the package, one folder each."""
    return Path(__file__).resolve().parents[1] / "released" / "teacher"


def release(run: TeacherRun, folder: Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a teacher for release; returns the folder.

    The manifest is written last, so that a folder without one is no teacher.

    Args:
        about: figures and provenance for the manifest.

    Raises:
        ContractError: it is not ``tiny``: what others have published is not handed on.
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    recipe = run.recipe
    if recipe.model.source != TINY:
        raise ContractError("model.source", recipe.model.source, f"{TINY}, to be released here")
    weights = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in run.teacher.state_dict().items()
        if name != _TIED
    }
    (folder / MANIFEST).unlink(missing_ok=True)
    write_whole(folder / WEIGHTS, save(weights))
    save_processor(run.processor, folder / _PROCESSOR)
    files = [folder / WEIGHTS, *sorted((folder / _PROCESSOR).glob("*.json"))]
    digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    manifest = {
        "format": _FORMAT,
        "name": recipe.name,
        "codebook_id": recipe.codebook,
        "processor": run.processor.identity,
        "sha256": digests,
        "recipe": asdict(recipe),
        "seed": recipe.run.seed,
        "steps": run.steps,
        **(about or {}),
    }
    write_whole(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return folder


def release_run(run: Path, folder: Path | None = None, result: Path | None = None) -> Path:
    """Write the teacher of a run for release; returns the folder.

    Args:
        folder: where to; by default among those that ship, under the recipe's name.
        result: JSON of ``teacher evaluate``, of this run among others; its figures are noted.

    Raises:
        FileNotFoundError: there is no run. ContractError: the result is of other teachers.
    """
    trained = load_teacher_run(run)
    about: dict[str, Any] = {"commit": commit(), "torch": version("torch")}
    about["transformers"] = version("transformers")
    if result is not None:
        about["metrics"] = _figures(result, teacher_id(trained.recipe, trained.teacher))
    return release(trained, folder or released_folder() / trained.recipe.name, about)


def _figures(result: Path, wanted: str) -> dict[str, Any]:
    document = json.loads(result.read_text(encoding="utf-8"))
    for seed in document["seeds"].values():
        if seed["identity"]["teacher_id"] == wanted:
            sums = sums_from_json(seed["sums"], str(result))
            rows = list(sums.groups["all"]["nll"].rows)
            means = {row: round(sums.mean(row, "nll").value, 4) for row in rows}
            return {"split": document["split"], "scenes": seed["identity"]["scenes"], "nll": means}
    found = [seed["identity"]["teacher_id"] for seed in document["seeds"].values()]
    raise ContractError(f"teachers of {result}", found, wanted)


def load_teacher(name_or_path: str | Path = "nano", codebook_id: str | None = None) -> TeacherRun:
    """Load a released teacher by its name, or a run by its folder, and verify it.

    Args:
        codebook_id: whose codes it must speak; None for any.

    Raises:
        FileNotFoundError: there is none.
        ContractError: a hash, the format, the processor or the codebook is not the one expected;
            both are named.
    """
    folder = released_folder() / str(name_or_path)
    if not (folder / MANIFEST).is_file():
        folder = Path(name_or_path)
    if (folder / MANIFEST).is_file():
        run = _load_released(folder)
    elif (folder / "recipe.yaml").is_file():
        run = load_teacher_run(folder)
    else:
        shipped = sorted(entry.parent.name for entry in released_folder().glob(f"*/{MANIFEST}"))
        raise FileNotFoundError(
            f"no teacher {name_or_path}; one of {shipped}, or the folder of a run of teacher train"
        )
    if codebook_id is not None and run.recipe.codebook != codebook_id:
        raise ContractError(f"codebook of the teacher {folder}", run.recipe.codebook, codebook_id)
    return run


def _load_released(folder: Path) -> TeacherRun:
    from safetensors.torch import load_file

    manifest = read_manifest(folder)
    for name, wanted in manifest["sha256"].items():
        path = folder / name
        found = sha256_of(path) if path.is_file() else "no such file"
        if found != wanted:
            raise ContractError(f"{path} sha256", found, wanted)
    values = json.loads(json.dumps(manifest["recipe"]))
    recipe = build(TeacherRecipe, values, str(folder / MANIFEST))
    processor = _load_processor(folder / _PROCESSOR, recipe)
    if processor.identity != manifest["processor"]:
        raise ContractError(
            f"processor of {folder}",
            f"{processor.identity}, of this version",
            f"{manifest['processor']}, that the teacher was trained with",
        )
    teacher = make_teacher(recipe.model, processor)
    weights = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
    _fill(teacher, weights, folder)
    teacher.vlm.set_attn_implementation("sdpa")  # quicker where nothing is trained
    return TeacherRun(recipe, processor, teacher.eval(), int(manifest["steps"]))


def _load_processor(folder: Path, recipe: TeacherRecipe) -> TeacherProcessor:
    declare_missing_operators()
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return TeacherProcessor(
        AutoTokenizer.from_pretrained(folder),
        Qwen2VLImageProcessorPil.from_pretrained(folder),
        recipe.pictures,
    )


def _fill(teacher: Teacher, weights: dict[str, torch.Tensor], folder: Path) -> None:
    wanted = {
        name: tuple(value.shape) for name, value in teacher.state_dict().items() if name != _TIED
    }
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != wanted:
        name = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise ContractError(
            f"weights of {folder}", f"{name}: {found.get(name)}", f"{wanted.get(name)}"
        )
    teacher.load_state_dict(weights, strict=False)  # the tied name is left out
    teacher.vlm.tie_weights()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a released teacher.

    Raises:
        ContractError: it is none.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = {name: manifest[name] for name in ("format", "sha256", "recipe", "processor")}
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(str(path), repr(error), "a manifest of teacher release") from error
    if known["format"] != _FORMAT:
        raise ContractError(f"{path} format", known["format"], _FORMAT)
    return dict(manifest)
