"""Builds or loads the vision-language model: always ``Qwen2_5_VLForConditionalGeneration``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.engine.pretrained import from_pretrained
from latentvla_training.teacher.processor import TeacherProcessor
from latentvla_training.teacher.settings import TINY, ModelSettings

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

#: The teacher of the paper, by its name on the hub.
QWEN_3B = "Qwen/Qwen2.5-VL-3B-Instruct"

#: Matrices of the language model that get adapters.
_ADAPTED = (
    r".*language_model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)


def qwen_3b_config() -> Qwen2_5_VLConfig:
    """Return the shapes of Qwen2.5-VL-3B as published: 3,754.6 M parameters."""
    declare_missing_operators()
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
            "patch_size": 14,
            "tokens_per_second": 2,
        },
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        tie_word_embeddings=True,
    )


def tiny_config(settings: ModelSettings, processor: TeacherProcessor) -> Qwen2_5_VLConfig:
    """Return the shapes of ``tiny``; its pictures are too small for attention in windows."""
    declare_missing_operators()
    from transformers import Qwen2_5_VLConfig

    marks = processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    side = 3 * settings.head_width // 16
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": settings.vision_layers,
            "hidden_size": settings.vision_width,
            "intermediate_size": 3 * settings.vision_width,
            "num_heads": settings.vision_width // settings.head_width,
            "out_hidden_size": settings.width,
            "fullatt_block_indexes": list(range(settings.vision_layers)),
            "initializer_range": settings.vision_width**-0.5,
        },
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": settings.width,
            "intermediate_size": 4 * settings.width,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.width // settings.head_width,
            "num_key_value_heads": 1,
            # 0.02 is for widths in thousands: narrow layers would begin as nearly nothing.
            "initializer_range": settings.width**-0.5,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                # Time, height, width: in the proportions of Qwen2.5-VL.
                "mrope_section": [settings.head_width // 2 - 2 * side, side, side],
            },
            "bos_token_id": processor.actions.filler,
            "eos_token_id": processor.actions.filler,
            "pad_token_id": processor.actions.filler,
        },
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=marks[0],
        vision_end_token_id=marks[1],
        tie_word_embeddings=True,
    )


def build_vlm(
    settings: ModelSettings, processor: TeacherProcessor
) -> Qwen2_5_VLForConditionalGeneration:
    """Build ``tiny``, or load a Qwen2.5-VL, with rows for the action tokens; adapters if wanted.

    Full fine-tuning keeps float32 weights (mixed precision computes in bf16); what adapters leave
    frozen is kept in bf16.

    Raises:
        ContractError: the source cannot be loaded, or is another kind of model; names both.
    """
    declare_missing_operators()
    from transformers import Qwen2_5_VLForConditionalGeneration

    if settings.source == TINY:
        vlm = Qwen2_5_VLForConditionalGeneration(tiny_config(settings, processor))
    else:
        vlm = _load(settings)
        _check_marks(vlm.config, processor)
        make_room(vlm, processor)
    return prepare_for_training(vlm, settings, processor)


def prepare_for_training(
    vlm: Qwen2_5_VLForConditionalGeneration, settings: ModelSettings, processor: TeacherProcessor
) -> Qwen2_5_VLForConditionalGeneration:
    """Freeze, adapt and checkpoint what the settings say; the first layer becomes a product."""
    patches_by_matrix(vlm.model.visual)
    if settings.gradient_checkpointing:
        vlm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.lora_rank:
        vlm = _with_adapters(vlm, settings, processor)
    elif settings.freeze_vision:
        vlm.model.visual.requires_grad_(False)
    return vlm


def source_config(settings: ModelSettings, ask_hub: bool = True) -> Any:
    """Return the configuration of a source that is not ``tiny``.

    Args:
        ask_hub: False for what is on this machine alone.

    Raises:
        ContractError: it cannot be reached, or is no Qwen2.5-VL.
    """
    declare_missing_operators()
    from transformers import AutoConfig

    arguments: dict[str, Any] = {"local_files_only": not ask_hub}
    if settings.revision:
        arguments["revision"] = settings.revision
    try:
        config = AutoConfig.from_pretrained(settings.source, **arguments)
    except (OSError, ValueError) as error:
        raise ContractError(
            "model.source",
            f"{settings.source}: {str(error).splitlines()[0]}",
            f"a hub name that can be reached, a folder with a Qwen2.5-VL, or {TINY}",
        ) from error
    if config.model_type != "qwen2_5_vl":
        found = f"{settings.source}, a model of type {config.model_type}"
        raise ContractError("model.source", found, "a model of type qwen2_5_vl")
    return config


def _load(settings: ModelSettings) -> Qwen2_5_VLForConditionalGeneration:
    from safetensors import SafetensorError
    from transformers import Qwen2_5_VLForConditionalGeneration

    config = source_config(settings)
    arguments = {"revision": settings.revision} if settings.revision else {}
    kind = torch.bfloat16 if settings.lora_rank else torch.float32
    try:
        return from_pretrained(
            Qwen2_5_VLForConditionalGeneration,
            settings.source,
            config=config,
            dtype=kind,
            **arguments,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ContractError(
            "model.source",
            f"{settings.source}: {str(error).splitlines()[0]}",
            "whole weights of a Qwen2.5-VL",
        ) from error


def _check_marks(config: Any, processor: TeacherProcessor) -> None:
    """Check that model and processor mean the same tokens."""
    found = (processor.image_token_id, processor.video_token_id)
    wanted = (config.image_token_id, config.video_token_id)
    if found != wanted:
        raise ContractError("image and video token of the processor", found, f"{wanted}")


@torch.no_grad()
def make_room(vlm: Qwen2_5_VLForConditionalGeneration, processor: TeacherProcessor) -> None:
    """Give the action tokens rows: near the mean of all, a little apart, as new words get.

    Qwen2.5-VL has more rows than tokens, so that most often none is added.
    """
    tokens = len(processor.tokenizer)
    if tokens > vlm.get_input_embeddings().weight.shape[0]:
        vlm.resize_token_embeddings(tokens, mean_resizing=False)
    weight = vlm.get_input_embeddings().weight
    rows = list(processor.actions.ids)
    old = weight[: min(rows)].float()
    noise = torch.randn(len(rows), weight.shape[1], generator=torch.Generator().manual_seed(0))
    fresh = old.mean(dim=0) + 0.1 * old.std(dim=0) * noise.to(weight.device)
    weight[rows] = fresh.to(weight.dtype)


def _with_adapters(
    vlm: Qwen2_5_VLForConditionalGeneration, settings: ModelSettings, processor: TeacherProcessor
) -> Qwen2_5_VLForConditionalGeneration:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=_ADAPTED,
        trainable_token_indices={"embed_tokens": list(processor.actions.ids)},
    )
    wrapped = get_peft_model(vlm, config, autocast_adapter_dtype=True)
    base: Qwen2_5_VLForConditionalGeneration = wrapped.get_base_model()  # adapters stay in it
    if settings.gradient_checkpointing:
        base.enable_input_require_grads()
    return base


class _MatrixPatchEmbed(nn.Module):
    """The tower's first layer as the matrix product that it is: its kernel is its stride.

    A convolution of millions of one-voxel outputs takes a third of a training step on a CPU.
    """

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the embeddings (N, D) of patches (N, 1176)."""
        weight = self.proj.weight.flatten(1)
        return functional.linear(hidden_states.to(weight.dtype), weight)


def patches_by_matrix(tower: nn.Module) -> None:
    """Let a vision tower embed its patches by a matrix product; weights and names stay."""
    layer = tower.patch_embed
    tower.patch_embed = _MatrixPatchEmbed(layer.proj)


def meta_vlm(config: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Return a model of these shapes without any memory behind it."""
    declare_missing_operators()
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        vlm = Qwen2_5_VLForConditionalGeneration(config)
    vlm.tie_weights()
    patches_by_matrix(vlm.model.visual)
    return vlm
