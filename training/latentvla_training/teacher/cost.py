"""What a teacher costs: parameters, floating-point operations, memory; counted, on no device.

The model is built on the meta device, where tensors have shapes and no memory, so that the paper's
size is counted anywhere. Operations are those of torch's ``FlopCounterMode`` (a multiplication and
an addition are two).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentvla_ros.contract import NUM_LATENT_ACTIONS, ContractError
from latentvla_training.teacher.processor import Layout, TeacherProcessor, load_processor
from latentvla_training.teacher.settings import TINY, ModelSettings, TeacherRecipe
from latentvla_training.teacher.vlm import (
    QWEN_3B,
    meta_vlm,
    qwen_3b_config,
    source_config,
    tiny_config,
)

_GIB = 2.0**30

#: Codes behind the first, which comes with the prompt.
_FURTHER = NUM_LATENT_ACTIONS - 1


@dataclass(frozen=True)
class PromptShape:
    """How many tokens the model sees.

    Attributes:
        grids: (rows, columns) of patches of each picture; a clip of two frames is one.
        text: tokens of the prompt that are no picture's.
    """

    grids: tuple[tuple[int, int], ...]
    text: int

    @property
    def visual(self) -> int:
        """Tokens of pictures, one for 2 x 2 patches."""
        return sum(rows * columns // 4 for rows, columns in self.grids)

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.visual + self.text


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one Scene: vision tower, prompt, 11 further codes one by one."""

    vision: float
    prefill: float
    decode: float

    @property
    def inference(self) -> float:
        """Of one greedy answer."""
        return self.vision + self.prefill + self.decode

    @property
    def training(self) -> float:
        """Of one Scene forward and backward: three times forward, codes in parallel."""
        return 3.0 * (self.vision + self.prefill)


def count_parameters(module: Any) -> dict[str, int]:
    """Return parameters of the vision tower, of the language model and of all; shared ones once."""
    vision = sum(p.numel() for p in module.model.visual.parameters())
    total = sum(p.numel() for p in module.parameters())
    return {"vision": vision, "language": total - vision, "total": total}


def count_operations(vlm: Any, shape: PromptShape) -> Operations:
    """Count the operations of one Scene on a model of the meta device."""
    width = vlm.config.text_config.hidden_size

    vlm.set_attn_implementation("sdpa")
    grid = torch.tensor([[1, rows, columns] for rows, columns in shape.grids])
    patches = torch.empty(int(grid.prod(dim=1).sum()), 1176, device="meta")
    with torch.no_grad():
        with FlopCounterMode(display=False) as vision:
            _run_tower(vlm.model.visual, patches, grid)
        with FlopCounterMode(display=False) as prefill:
            found = vlm.model.language_model(
                inputs_embeds=torch.empty(1, shape.length, width, device="meta"),
                position_ids=torch.arange(shape.length, device="meta").expand(3, 1, -1),
                use_cache=False,
            )
            vlm.lm_head(found.last_hidden_state[:, -1:])
        steps = [_count_step(vlm, shape.length + step, width) for step in (0, _FURTHER - 1)]
    return Operations(
        float(vision.get_total_flops()),
        float(prefill.get_total_flops()),
        _FURTHER * sum(steps) / 2.0,  # each step reads one more token: first and last tell all
    )


def _count_step(vlm: Any, length: int, width: int) -> float:
    """Count the operations of one token behind ``length`` others."""
    from transformers import DynamicCache

    config = vlm.config.text_config
    head = width // config.num_attention_heads
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        past = torch.empty(1, config.num_key_value_heads, length, head, device="meta")
        cache.update(past, past, layer)
    with FlopCounterMode(display=False) as counter:
        found = vlm.model.language_model(
            inputs_embeds=torch.empty(1, 1, width, device="meta"),
            position_ids=torch.full((3, 1, 1), length, device="meta"),
            past_key_values=cache,
            use_cache=True,
        )
        vlm.lm_head(found.last_hidden_state)
    return float(counter.get_total_flops())


def _run_tower(tower: Any, patches: torch.Tensor, grid: torch.Tensor) -> None:
    """Run a vision tower on the meta device; what it would read from values is computed here."""
    from transformers.vision_utils import (
        get_vision_cu_seqlens,
        get_vision_position_ids,
        get_vision_window_index,
    )

    config = tower.config
    merge = config.spatial_merge_size
    window, bounds = get_vision_window_index(grid, merge, config.window_size, config.patch_size)
    tower(
        patches,
        grid_thw=grid,
        position_ids=get_vision_position_ids(grid, merge).to("meta"),
        window_index=window.to("meta"),
        cu_window_seqlens=bounds,
        cu_seqlens=get_vision_cu_seqlens(grid),
    )


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs at least, activations aside.

    Attributes:
        weights, gradients: of the model. optimizer: AdamW's two moments.
    """

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer


def training_memory(settings: ModelSettings, vlm: Any) -> Memory:
    """Return what weights, gradients and AdamW take: float32; frozen under adapters bf16."""
    counts = count_parameters(vlm)
    if settings.lora_rank:
        trained = adapter_parameters(settings, vlm)
        return Memory(2.0 * counts["total"] + 4.0 * trained, 4.0 * trained, 8.0 * trained)
    trained = counts["language"] if settings.freeze_vision else counts["total"]
    return Memory(4.0 * counts["total"], 4.0 * trained, 8.0 * trained)


def adapter_parameters(settings: ModelSettings, vlm: Any) -> int:
    """Return how many parameters LoRA trains, and the rows of the action tokens."""
    config = vlm.config.text_config
    head = config.hidden_size // config.num_attention_heads
    width, kv = config.hidden_size, config.num_key_value_heads * head
    sides = [(width, width), (width, kv), (width, kv), (width, width)]
    sides += [(width, config.intermediate_size)] * 3
    per_layer = sum(settings.lora_rank * (inside + outside) for inside, outside in sides)
    return per_layer * config.num_hidden_layers + 16 * width


def prompt_shape(layout: Layout) -> PromptShape:
    """Return the shape of a prompt."""
    grids = [*layout.video_grid, *layout.image_grid]
    shape = PromptShape(tuple((int(grid[1]), int(grid[2])) for grid in grids), 0)
    return PromptShape(shape.grids, layout.length - shape.visual)


@dataclass(frozen=True)
class Shapes:
    """The model of a recipe without its weights.

    Attributes:
        config: of the model. processor: of the recipe; where the source is not on this machine,
            that of ``tiny``, whose prompt has the same pictures and about as many words.
        own: whether both are the source's own.
    """

    config: Any
    processor: TeacherProcessor
    own: bool


def recipe_shapes(recipe: TeacherRecipe) -> Shapes:
    """Return the shapes of a recipe's model.

    Raises:
        ContractError: neither the source can be loaded nor its shapes are known here.
    """
    if recipe.model.source == TINY:
        processor = load_processor(recipe.model, recipe.pictures)
        return Shapes(tiny_config(recipe.model, processor), processor, True)
    ask_hub = recipe.model.source != QWEN_3B  # whose shapes are known: no wait for a connection
    try:
        processor = load_processor(recipe.model, recipe.pictures, ask_hub)
        return Shapes(source_config(recipe.model, ask_hub), processor, True)
    except ContractError:
        if ask_hub:
            raise
    processor = load_processor(ModelSettings(), recipe.pictures)
    config = qwen_3b_config()
    config.image_token_id, config.video_token_id = (
        processor.image_token_id,
        processor.video_token_id,
    )
    return Shapes(config, processor, False)


def describe(recipe: TeacherRecipe) -> str:
    """Return parameters, operations and memory of a recipe, in lines for people."""
    shapes = recipe_shapes(recipe)
    vlm, shape = meta_vlm(shapes.config), prompt_shape(shapes.processor.layout)
    lines = [f"{recipe.name}: {recipe.model.source}"]
    if not shapes.own:
        lines.append("  not on this machine: shapes as published, words of tiny's tokenizer")
    counts = count_parameters(vlm)
    cost = count_operations(vlm, shape)
    memory = training_memory(recipe.model, vlm)
    sizes = ", ".join(f"{14 * rows}x{14 * columns}" for rows, columns in shape.grids)
    lines += [
        f"  parameters: {counts['total'] / 1e6:,.1f} M "
        f"({counts['vision'] / 1e6:,.1f} M vision, {counts['language'] / 1e6:,.1f} M language)",
        f"  pictures: clip and views of {sizes}",
        f"  prompt: {shape.visual} visual and {shape.text} other tokens, then 12 codes",
        f"  GFLOP a Scene: vision {cost.vision / 1e9:,.1f}, prompt {cost.prefill / 1e9:,.1f}, "
        f"11 further codes {cost.decode / 1e9:,.1f}; one answer {cost.inference / 1e9:,.1f}, "
        f"one training pass {cost.training / 1e9:,.1f}",
        f"  training: {recipe.run.steps:,} steps of {recipe.run.batch_size}, "
        f"{recipe.run.passes * cost.training / 1e15:,.3f} PFLOP",
        f"  memory of training, activations aside: {memory.total / _GIB:,.2f} GiB "
        f"(weights {memory.weights / _GIB:,.2f}, gradients {memory.gradients / _GIB:,.2f}, "
        f"AdamW {memory.optimizer / _GIB:,.2f}), divided by the processes with FSDP2",
    ]
    return "\n".join(lines)
