"""The teacher: a Qwen2.5-VL, an encoder of the ego state, 12 places for codes behind the prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentvla_ros.contract import NUM_LATENT_ACTIONS
from latentvla_ros.model.ego_encoder import EgoEncoder
from latentvla_training.planner.dataset import EGO_INPUTS
from latentvla_training.teacher.action_tokens import ActionVocabulary
from latentvla_training.teacher.processor import EGO_TOKENS, TeacherProcessor
from latentvla_training.teacher.settings import ModelSettings
from latentvla_training.teacher.vlm import build_vlm

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

Batch = dict[str, Tensor]


class Teacher(nn.Module):
    """Views, command and ego state to 12 ego codes, one after the other.

    A batch holds ``pixel_values_videos`` (B, N, 1176), ``pixel_values`` (B, M, 1176) of
    ``TeacherProcessor.pictures`` and ``EGO_INPUTS`` as ``Observation``.
    """

    prompts: Tensor
    positions: Tensor
    video_grid: Tensor
    image_grid: Tensor

    def __init__(
        self, vlm: Qwen2_5_VLForConditionalGeneration, processor: TeacherProcessor
    ) -> None:
        super().__init__()
        self.vlm = vlm
        self.layout = processor.layout
        self.actions: ActionVocabulary = processor.actions
        self.width = int(vlm.config.text_config.hidden_size)
        self.ego = EgoEncoder(self.width)
        layout = processor.layout
        constant: dict[str, Any] = {"persistent": False}
        self.register_buffer("prompts", torch.from_numpy(layout.ids), **constant)
        self.register_buffer("video_grid", torch.from_numpy(layout.video_grid), **constant)
        self.register_buffer("image_grid", torch.from_numpy(layout.image_grid), **constant)
        self.register_buffer("positions", self._positions(), **constant)

    def _positions(self) -> Tensor:
        """Return the positions (3, 1, P + 12) in time, height and width of every token."""
        answer = torch.zeros(1, NUM_LATENT_ACTIONS, dtype=torch.int64)
        kinds = torch.cat([torch.from_numpy(self.layout.kinds)[None], answer], dim=1)
        found, _ = self.vlm.model.get_rope_index(
            torch.cat([self.prompts[:1], answer], dim=1),
            mm_token_type_ids=kinds,
            image_grid_thw=self.image_grid,
            video_grid_thw=self.video_grid,
        )
        return found

    @property
    def prompt_length(self) -> int:
        """Tokens before the first code."""
        return self.layout.length

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., D) of token ids."""
        found: Tensor = self.vlm.get_input_embeddings()(ids)
        return found

    def prompt_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ids (B, P) and embeddings (B, P, D) of the prompts, the ego state in its place."""
        ids = self.prompts[batch["command"].argmax(dim=1)]
        tokens, mixed = self.ego(*(batch[name] for name in EGO_INPUTS))
        ego = torch.cat([tokens, mixed[:, None]], dim=1)
        embedded = self.embed(ids)
        start, end = self.layout.ego_start, self.layout.ego_start + EGO_TOKENS
        parts = [embedded[:, :start], ego.to(embedded.dtype), embedded[:, end:]]
        return ids, torch.cat(parts, dim=1)

    def see(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the tower's tokens of clips (B, T, D) and of images (B, U, D), in one run."""
        clips, images = batch["pixel_values_videos"], batch["pixel_values"]
        count = len(clips)
        grids = [self.video_grid.repeat(count, 1), self.image_grid.repeat(count, 1)]
        pixels = torch.cat([clips.flatten(0, 1), images.flatten(0, 1)])
        tokens = self.vlm.model.visual(pixels, grid_thw=torch.cat(grids)).pooler_output
        split = count * self.layout.pictures[0].tokens
        return tokens[:split].unflatten(0, (count, -1)), tokens[split:].unflatten(0, (count, -1))

    def run(self, batch: Batch, ids: Tensor, embedded: Tensor, **options: Any) -> Any:
        """Run the model over prompts, with or without codes behind them (B, L[, D]).

        The pictures of a batch may be those of one Scene, seen once: they stand for all.
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        count, length = ids.shape
        kinds = zip(("video", "image"), self.see(batch), strict=True)
        seen = {
            kind: BaseModelOutputWithPooling(
                pooler_output=(tokens.expand(count, -1, -1).flatten(0, 1),)
            )
            for kind, tokens in kinds
        }
        return self.vlm.model(
            input_ids=ids,
            inputs_embeds=embedded,
            mm_encoder_outputs=seen,
            position_ids=self.positions[:, :, :length].expand(-1, count, -1),
            **options,
        )

    def read(self, batch: Batch, codes: Tensor) -> Tensor:
        """Return the states (B, 12, D) that predict each code from the true ones before it.

        Args:
            codes: (B, 12), ``MISSING`` where there is none. The last is never read.
        """
        ids, embedded = self.prompt_inputs(batch)
        answer = self.actions.encode(codes[:, :-1])
        ids, embedded = (
            torch.cat([ids, answer], dim=1),
            torch.cat([embedded, self.embed(answer)], dim=1),
        )
        found = self.run(batch, ids, embedded, use_cache=False)
        states: Tensor = found.last_hidden_state[:, -NUM_LATENT_ACTIONS:]
        return states

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """Return logits (..., V) over the whole vocabulary, float32: bf16 would round them."""
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.vlm.lm_head(states.to(self.vlm.lm_head.weight.dtype))
        return logits.float()

    def logits(self, states: Tensor) -> Tensor:
        """Return logits (..., 16) of the codes: decoding is held to action tokens."""
        return self.vocabulary_logits(states)[..., list(self.actions.ids)]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the teacher's own greedy codes (B, 12) and their logits (B, 12, 16)."""
        from latentvla_training.teacher.decoding import answer

        found = answer(self, batch)
        return found.codes, found.logits


def make_teacher(settings: ModelSettings, processor: TeacherProcessor, seed: int = 0) -> Teacher:
    """Build a teacher; ``seed`` is that of weights that no checkpoint brings."""
    torch.manual_seed(seed)
    teacher = Teacher(build_vlm(settings, processor), processor)
    # One matrix product a head is quicker than the fused kernel's backward pass on a CPU.
    on_gpu = torch.cuda.is_available()
    teacher.vlm.set_attn_implementation("sdpa" if on_gpu else "eager")
    return teacher


def weights_identity(module: nn.Module) -> str:
    """Return 16 hex over the names and values of a module's weights."""
    return state_identity(module.state_dict())


def state_identity(state: Mapping[str, Tensor]) -> str:
    """Return ``weights_identity`` of the module whose ``state_dict`` this is."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
