"""A finished codebook: frozen frame encoder and both stages, in a run's folder or as released.

Released: one safetensors file in half precision and ``manifest.json`` with its sha256, recipe,
seed, Scenes and figures. Its id names recipe and weights; codes and whatever is trained on them
carry it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.checkpoint import load_checkpoint
from latentvla_training.engine.recipe import build
from latentvla_training.latent_action.dynamics import (
    EGO,
    ENVIRONMENT,
    ONE_STAGE,
    TRAINING_ONLY,
    LatentDynamics,
    weights_hash,
)
from latentvla_training.latent_action.frame_encoder import FrameEncoder, freeze
from latentvla_training.latent_action.front_camera import FRONT_CAMERA, kept_front_camera
from latentvla_training.latent_action.picture_reader import PICTURES, PictureReader
from latentvla_training.latent_action.settings import DINOV2, FRAMES, CodebookRecipe, FrameSettings
from latentvla_training.latent_action.stages import DynamicsRun, load_averaged

WEIGHTS, MANIFEST = "codebook.safetensors", "manifest.json"
#: In a run's folder: the recipe of all stages, and the frozen frame encoder.
RECIPE, FRAME_WEIGHTS = "recipe.yaml", "frame_encoder.safetensors"

_FORMAT = "latentvla-codebook-1"

_Stage = TypeVar("_Stage", bound=nn.Module)


@dataclass(frozen=True)
class Codebook:
    """A codebook that encodes frame pairs.

    Attributes:
        codebook_id: ``<recipe>-<16 hex of the weights' sha256>``; of a run by those of stage 2.
        recipe: with its seed. encoder: of frames. environment, ego: the frozen stages.
        manifest: what was written beside the weights; of a run its front cameras alone.
        pictures: reads environment codes where there is no odometry; None where all have some.
    """

    codebook_id: str
    recipe: CodebookRecipe
    encoder: FrameEncoder
    environment: LatentDynamics
    ego: LatentDynamics
    manifest: Mapping[str, Any]
    pictures: PictureReader | None = None

    @property
    def environment_reader(self) -> LatentDynamics | PictureReader:
        """What the environment codes are read by that stage 2 is told."""
        return self.pictures or self.environment


@dataclass(frozen=True)
class OneStage:
    """A control that encodes frame pairs in one stage: its codes stand for ego and environment.

    Attributes:
        codebook_id, recipe, encoder, manifest: as of a ``Codebook``. stage: frozen.
    """

    codebook_id: str
    recipe: CodebookRecipe
    encoder: FrameEncoder
    stage: LatentDynamics
    manifest: Mapping[str, Any] = field(default_factory=dict)


def released_folder() -> Path:
    """Return the folder of the codebooks that come with the package, one folder each."""
    return Path(__file__).resolve().parents[1] / "released" / "codebook"


def codes_device() -> torch.device:
    """Return where a codebook is loaded to, and codes are computed: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def empty_stage(stage: str, recipe: CodebookRecipe, encoder: FrameEncoder) -> LatentDynamics:
    """Return the networks of a stage with random weights, for evaluation."""
    return LatentDynamics(stage, *recipe.dynamics(stage), encoder.grid, encoder.channels)


def empty_reader(recipe: CodebookRecipe, encoder: FrameEncoder) -> PictureReader:
    """Return the reader of environment codes off pictures with random weights."""
    model, _ = recipe.dynamics(ENVIRONMENT)
    return PictureReader(model, encoder.grid, encoder.channels)


def load_run(folder: Path) -> Codebook:
    """Return the codebook of a finished run.

    Raises:
        FileNotFoundError: the folder holds no run, or one that is not finished.
        ContractError: a file is damaged, or of another run; names both.
    """
    recipe, encoder = _run_encoder(folder)
    environment = load_stage(folder, ENVIRONMENT, recipe, encoder)
    reader: LatentDynamics | PictureReader = environment
    pictures = None
    if recipe.pictures_alone:
        empty = empty_reader(recipe, encoder)
        reader = pictures = _finished(folder, PICTURES, recipe, encoder, empty, environment)
    ego = load_stage(folder, EGO, recipe, encoder, reader)
    manifest = kept_front_camera(folder)
    name = _run_id(recipe.name, ego)
    return Codebook(name, recipe, encoder, environment, ego, manifest, pictures)


def load_one_stage(folder: Path) -> OneStage:
    """Return the control of a run whose codes come from one stage.

    Raises:
        FileNotFoundError: the folder holds no run, or it was trained without controls.
        ContractError: a file is damaged, or of another run; names both.
    """
    recipe, encoder = _run_encoder(folder)
    if load_checkpoint(folder / ONE_STAGE) is None:
        raise FileNotFoundError(f"{folder} has no control {ONE_STAGE}; codebook train --controls")
    stage = load_stage(folder, ONE_STAGE, recipe, encoder)
    name = _run_id(f"{recipe.name}_{ONE_STAGE}", stage)
    return OneStage(name, recipe, encoder, stage, kept_front_camera(folder))


def _run_encoder(folder: Path) -> tuple[CodebookRecipe, FrameEncoder]:
    """Return the recipe of a run and its frozen frame encoder, on a GPU where there is one."""
    recipe = run_recipe(folder)
    encoder = FrameEncoder(recipe.frames)
    load_frame_encoder(folder, encoder)
    freeze(encoder)  # of a public DINOv2 too, as the stages were trained on it
    return recipe, encoder.to(codes_device())


def _run_id(name: str, ego: nn.Module) -> str:
    return f"{name}-{weights_hash(ego, TRAINING_ONLY)}"


def run_recipe(folder: Path) -> CodebookRecipe:
    """Return the recipe of a run.

    Raises:
        FileNotFoundError: there is no run.
    """
    path = folder / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"no codebook run in {folder}; see latentvla-train codebook train")
    return build(CodebookRecipe, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def load_stage(
    folder: Path,
    stage: str,
    recipe: CodebookRecipe,
    encoder: FrameEncoder,
    before: nn.Module | None = None,
) -> LatentDynamics:
    """Return a finished stage of a run, frozen.

    Args:
        before: what of the run read the environment codes that the stage was told, to be checked.

    Raises:
        FileNotFoundError: it is not trained to its end.
        ContractError: it is damaged or of another run, or what it builds on is; names both.
    """
    empty = empty_stage(stage, recipe, encoder)
    return _finished(folder, stage, recipe, encoder, empty, before)


def _finished(
    folder: Path,
    stage: str,
    recipe: CodebookRecipe,
    encoder: FrameEncoder,
    module: _Stage,
    before: nn.Module | None = None,
) -> _Stage:
    """Fill the networks of a stage with those of a run, frozen, where the encoder is."""
    state = load_checkpoint(folder / stage)
    if state is None or int(state["step"]) < recipe.stage(stage).run.steps:
        raise FileNotFoundError(f"{folder}: stage {stage} is not done; give codebook train again")
    path = folder / stage / RECIPE
    record = build(DynamicsRun, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    told, _, of_stage = record.follows.partition(" ")
    found = [encoder.identity(), of_stage if before is None else weights_hash(before)]
    if found != [told, of_stage]:
        expected = f"{record.follows}, that stage {stage} was trained on"
        raise ContractError(f"weights before stage {stage} in {folder}", " ".join(found), expected)
    load_averaged(module, folder / stage, record)
    freeze(module)
    return module.to(encoder.centre.device)


def save_frame_encoder(folder: Path, encoder: FrameEncoder) -> None:
    """Keep the frozen frame encoder of a run."""
    from safetensors.torch import save

    own = encoder.settings.encoder != DINOV2
    kept = {
        name: value.cpu().contiguous()
        for name, value in encoder.state_dict().items()
        if own or not name.startswith("trunk.")
    }
    write_whole(folder / FRAME_WEIGHTS, save(kept))


def load_frame_encoder(folder: Path, encoder: FrameEncoder) -> None:
    """Give an encoder the weights that ``save_frame_encoder`` kept of a run.

    Raises:
        FileNotFoundError: there are none yet.
        ContractError: they are damaged, or of another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FRAME_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: stage 0 is not done; give codebook train again")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        expected = "a whole file; remove it and give codebook train again"
        raise ContractError(f"frame encoder {path}", str(error), expected) from error
    _fill(encoder, weights, _frames_kept_elsewhere(encoder.settings))


def release(codebook: Codebook, folder: Path, about: Mapping[str, Any]) -> Path:
    """Write a codebook for release; returns the folder.

    Args:
        about: figures and provenance for the manifest.

    Raises:
        ContractError: its codes are not of the shape that later work is made for.
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    codebook.recipe.model.vocabulary().check_spoken(codebook.codebook_id)
    parts: dict[str, nn.Module] = {
        FRAMES: codebook.encoder,
        ENVIRONMENT: codebook.environment,
        EGO: codebook.ego,
    }
    if codebook.pictures is not None:
        parts[PICTURES] = codebook.pictures
    left_out = (f"{FRAMES}.trunk.",) if _frames_kept_elsewhere(codebook.recipe.frames) else ("\0",)
    weights = {
        f"{part}.{name}": _half(value.detach().cpu()).contiguous()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
        if not name.endswith(TRAINING_ONLY) and not f"{part}.{name}".startswith(left_out)
    }
    write_whole(folder / WEIGHTS, save(weights))
    digest = sha256_of(folder / WEIGHTS)
    manifest = {
        "format": _FORMAT,
        "codebook_id": f"{codebook.recipe.name}-{digest[:16]}",
        "sha256": digest,
        "recipe": asdict(codebook.recipe),
        "seed": codebook.recipe.seed,
        "frame_encoder": codebook.encoder.identity(),
        **{name: codebook.manifest[name] for name in (FRONT_CAMERA,) if name in codebook.manifest},
        **about,
    }
    write_whole(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return folder


def codebook_folder(name_or_path: str | Path) -> Path:
    """Return the folder of a codebook that ships, by its name, or any other."""
    folder = released_folder() / str(name_or_path)
    return folder if (folder / MANIFEST).is_file() else Path(name_or_path)


def load_codebook(name_or_path: str | Path = "nano") -> Codebook:
    """Load a released codebook by its name, or one of any folder, and verify it.

    Raises:
        FileNotFoundError: there is none.
        ContractError: hash, format or a shape is not what its manifest says; both are named.
    """
    from safetensors.torch import load_file

    folder = codebook_folder(name_or_path)
    manifest = _read_manifest(folder)
    found = sha256_of(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else "no such file"
    if found != manifest["sha256"]:
        raise ContractError(f"{folder / WEIGHTS} sha256", found, manifest["sha256"])
    values = json.loads(json.dumps(manifest["recipe"]))
    recipe = build(CodebookRecipe, values, str(folder / MANIFEST))
    weights = load_file(folder / WEIGHTS)  # taken up in single precision
    encoder = FrameEncoder(recipe.frames)
    modules: dict[str, nn.Module] = {
        FRAMES: encoder,
        ENVIRONMENT: empty_stage(ENVIRONMENT, recipe, encoder),
        EGO: empty_stage(EGO, recipe, encoder),
    }
    if recipe.pictures_alone:
        modules[PICTURES] = empty_reader(recipe, encoder)
    for part, module in modules.items():
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in weights.items()
            if name.startswith(f"{part}.")
        }
        _fill(module, own, _frames_kept_elsewhere(recipe.frames) if part == FRAMES else ())
        module.eval().requires_grad_(False)
    if encoder.identity() != manifest["frame_encoder"]:
        freeze(encoder)  # first releases have a public DINOv2 as it is published
    if encoder.identity() != manifest["frame_encoder"]:
        raise ContractError(
            f"frame encoder {recipe.frames.pretrained or recipe.frames.encoder}",
            encoder.identity(),
            f"{manifest['frame_encoder']}, that {manifest['codebook_id']} was trained on",
        )
    for module in modules.values():
        module.to(codes_device())
    environment, ego, pictures = modules[ENVIRONMENT], modules[EGO], modules.get(PICTURES)
    assert isinstance(environment, LatentDynamics) and isinstance(ego, LatentDynamics)
    assert pictures is None or isinstance(pictures, PictureReader)
    return Codebook(manifest["codebook_id"], recipe, encoder, environment, ego, manifest, pictures)


def _half(value: Tensor) -> Tensor:
    return value.to(torch.float16) if value.is_floating_point() else value


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        shipped = sorted(entry.parent.name for entry in released_folder().glob(f"*/{MANIFEST}"))
        raise FileNotFoundError(
            f"no codebook in {folder}; one of {shipped}, or make one with codebook release"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = {name: manifest[name] for name in ("format", "sha256", "codebook_id", "recipe")}
    except (ValueError, KeyError, TypeError) as error:
        raise ContractError(str(path), repr(error), "a manifest of codebook release") from error
    if known["format"] != _FORMAT:
        raise ContractError(f"{path} format", known["format"], _FORMAT)
    return dict(manifest)


def _frames_kept_elsewhere(frames: FrameSettings) -> tuple[str, ...]:
    """Return the beginnings of weights that a codebook does not carry: of a public DINOv2."""
    return ("trunk.",) if frames.encoder == DINOV2 else ()


def _fill(module: nn.Module, weights: Mapping[str, Tensor], elsewhere: tuple[str, ...]) -> None:
    """Load weights; what only training uses may be absent.

    Raises:
        ContractError: a weight is absent, of another shape, or not the module's.
    """
    try:
        missing, unexpected = module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:300]
        raise ContractError("codebook weights", found, "those of its own recipe") from error
    lacking = [
        name
        for name in missing
        if not name.endswith(TRAINING_ONLY) and not name.startswith(elsewhere or ("\0",))
    ]
    if lacking or unexpected:
        raise ContractError(
            "codebook weights", [*lacking, *unexpected][:3], "exactly those of its recipe"
        )
    for name, value in module.named_buffers():
        if name.endswith("initted"):
            value.fill_(True)
