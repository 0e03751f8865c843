"""What a codebook costs, before any Scene of it is made: counted, and one step of every stage.

Parameters and operations are counted on the meta device, where tensors have shapes and no memory;
operations are those of torch's ``FlopCounterMode`` (a multiplication and an addition are two). A
dry run makes one optimiser step of every stage at full shape: on a GPU where there is one, on a CPU
where its memory clearly does, otherwise on the meta device. There what looks at values cannot run:
entries are taken as found (no k-means), and vectors are normalised by what is known before the
batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.engine.pretrained import from_pretrained
from latentvla_training.latent_action.codebook import empty_reader
from latentvla_training.latent_action.dynamics import Batch, LatentDynamics
from latentvla_training.latent_action.frame_encoder import DinoTrunk, FrameEncoder
from latentvla_training.latent_action.pairs import STATE_WIDTH, TRAJECTORY_POINTS
from latentvla_training.latent_action.picture_reader import PICTURES, PictureReader
from latentvla_training.latent_action.pretraining import FramePretraining
from latentvla_training.latent_action.settings import DINOV2, FRAMES, CodebookRecipe
from latentvla_training.latent_action.unexplained_change import WIDTH as CHANGE_WIDTH
from latentvla_training.planner.dry_run import DryRun, one_step, step_that_fits

#: Whose shapes are known here without a connection: those of its published config.json.
DINOV2_BASE = "facebook/dinov2-with-registers-base"

_GIB = 2.0**30

#: A step is made on a CPU where so many times what it holds at least is free.
_CLEARLY = 4


@dataclass(frozen=True)
class StageCost:
    """What a stage costs.

    Attributes:
        stage: its name. parameters: trained. encode_flops: of the codes of one pair.
        training_flops: of one pair (stage 0: frame) forward and backward, three times forward.
        passes: pairs that it is trained on. batch_size: of one step.
    """

    stage: str
    parameters: int
    encode_flops: float
    training_flops: float
    passes: int
    batch_size: int

    def line(self) -> str:
        """Return it in a line for people."""
        what = f"codes of a pair {self.encode_flops / 1e9:,.2f} GFLOP, " * bool(self.encode_flops)
        return (
            f"  {self.stage}: {self.parameters / 1e6:,.1f} M parameters, {what}"
            f"a training pass {self.training_flops / 1e9:,.2f} GFLOP; "
            f"{self.passes // self.batch_size:,} steps of {self.batch_size}, "
            f"{self.passes * self.training_flops / 1e15:,.3f} PFLOP; weights, gradients and AdamW "
            f"{16.0 * self.parameters / _GIB:,.2f} GiB"
        )


def shaped_encoder(recipe: CodebookRecipe) -> FrameEncoder:
    """Return the frame encoder of a recipe on the meta device.

    Raises:
        ContractError: the shapes of its DINOv2 are neither known here nor to be had.
    """
    frames, trunk = recipe.frames, None
    if frames.encoder == DINOV2:
        declare_missing_operators()  # transformers imports torchvision
        from transformers import AutoModel

        config = _dinov2_config(frames.pretrained)
        with torch.device("meta"):
            trunk = DinoTrunk(AutoModel.from_config(config))
    with torch.device("meta"):
        return FrameEncoder(frames, trunk)


def _dinov2_config(name_or_path: str) -> Any:
    from transformers import AutoConfig, Dinov2WithRegistersConfig

    if name_or_path == DINOV2_BASE:
        return Dinov2WithRegistersConfig(patch_size=14, image_size=518)
    try:
        return from_pretrained(AutoConfig, name_or_path)
    except (OSError, ValueError) as error:
        found = str(error).partition("\n")[0]
        expected = f"a DINOv2 on the hub or in a folder, or {DINOV2_BASE}"
        raise ContractError(f"frames.pretrained {name_or_path}", found, expected) from error


def networks(
    stage: str, recipe: CodebookRecipe, encoder: FrameEncoder, device: torch.device
) -> nn.Module:
    """Return the networks that a stage of a recipe trains."""
    run = recipe.stage(stage).run
    with device:
        if stage == FRAMES:
            return FramePretraining(recipe.frames)
        if stage == PICTURES:
            return empty_reader(recipe, encoder)
        sizes = (encoder.grid, encoder.channels)
        # Entries are revived by what they stand for, which the meta device does not know.
        revived = () if device.type == "meta" else (run.steps, run.batch_size)
        module = LatentDynamics(stage, *recipe.dynamics(stage), *sizes, *revived)
    if device.type == "meta":
        _look_at_no_value(module)
    return module


def _look_at_no_value(module: LatentDynamics) -> None:
    """Let a stage on the meta device be trained without what looks at values."""
    bottleneck = module.bottleneck
    bottleneck.steps = torch.zeros((), dtype=torch.int64, device="cpu")
    assert bottleneck.quantizer is not None
    bottleneck.quantizer._codebook.initted = torch.tensor(True, device="cpu")
    bottleneck.norm.eval()


def random_batch(
    stage: str, recipe: CodebookRecipe, encoder: FrameEncoder, size: int, device: torch.device
) -> Batch:
    """Return a batch as the stage's task gives it, of noise."""
    if stage == FRAMES:
        shape = (size, 3, recipe.frames.height, recipe.frames.width)
        return {name: torch.randn(shape, device=device) for name in ("first", "second")}
    model, rows = recipe.model, encoder.grid[0] * encoder.grid[1]
    batch: dict[str, Tensor] = {
        "earlier": torch.randn(size, rows, encoder.channels, device=device),
        "later": torch.randn(size, rows, encoder.channels, device=device),
        "interval": torch.arange(size, device=device) % len(model.intervals_s),
        "trajectory": torch.randn(size, 3 * TRAJECTORY_POINTS, device=device),
        "state": torch.randn(size, STATE_WIDTH, device=device),
        "later_state": torch.randn(size, STATE_WIDTH, device=device),
        "motion": torch.randn(size, 3, device=device),
        "unforeseen": torch.randn(size, 3 * TRAJECTORY_POINTS, device=device),
        "environment": torch.randint(0, model.codebook_size, (size, model.codes), device=device),
        "change": torch.randn(size, CHANGE_WIDTH, device=device),
    }
    if recipe.pictures_alone:
        batch["known"] = torch.arange(size, device=device) % 2 == 0
    return batch


def count(recipe: CodebookRecipe, encoder: FrameEncoder) -> list[StageCost]:
    """Count parameters and operations of every stage of a recipe."""
    meta, found = torch.device("meta"), []
    for name in recipe.stages:
        module = networks(name, recipe, encoder, meta)
        batch = random_batch(name, recipe, encoder, 1, meta)
        module.eval()
        encode = 0.0
        with torch.no_grad():
            if isinstance(module, LatentDynamics | PictureReader):
                with FlopCounterMode(display=False) as counter:
                    module.encode(batch)
                encode = float(counter.get_total_flops())
            with FlopCounterMode(display=False) as counter:
                module(batch)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        run = recipe.stage(name).run
        training = 3.0 * counter.get_total_flops()
        found.append(StageCost(name, parameters, encode, training, run.passes, run.batch_size))
    return found


def describe(recipe: CodebookRecipe) -> str:
    """Return parameters, operations and memory of a recipe, in lines for people."""
    encoder, frames = shaped_encoder(recipe), recipe.frames
    image = torch.zeros(1, frames.height, frames.width, 3, dtype=torch.uint8, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(image)
    size = sum(parameter.numel() for parameter in encoder.parameters())
    rows, columns = encoder.grid
    lines = [
        f"{recipe.name}: Scenes of {frames.source_width}x{frames.source_height}, "
        f"frames of {frames.width}x{frames.height}",
        f"  frame encoder {frames.pretrained or frames.encoder}: {size / 1e6:,.1f} M parameters, "
        f"{rows}x{columns} places of {encoder.channels}, a frame "
        f"{counter.get_total_flops() / 1e9:,.2f} GFLOP, "
        f"{2 * rows * columns * encoder.channels / 1e3:,.1f} kB when kept",
    ]
    return "\n".join([*lines, *(cost.line() for cost in count(recipe, encoder))])


def dry_run(recipe: CodebookRecipe, processes: int = 1) -> list[DryRun]:
    """Make one optimiser step of every stage of a recipe, at full shape.

    Args:
        processes: that share every batch.

    Raises:
        ContractError: a weight that is to be trained gets no gradient; names it.
    """
    encoder = shaped_encoder(recipe)
    return [_dry_step(name, recipe, encoder, processes) for name in recipe.stages]


def _dry_step(stage: str, recipe: CodebookRecipe, encoder: FrameEncoder, processes: int) -> DryRun:
    settings = recipe.stage(stage)

    def step(device: torch.device, batch_size: int) -> DryRun:
        module = networks(stage, recipe, encoder, device)
        batch = random_batch(stage, recipe, encoder, batch_size, device)
        return one_step(f"stage {stage}", module, batch, settings)

    size = max(1, settings.run.batch_size // processes)
    found = step_that_fits(step, size, processes)
    if found.device != "meta" or found.note:
        return found
    if _CLEARLY * found.least_bytes > psutil.virtual_memory().available:
        return found
    return step(torch.device("cpu"), size)
