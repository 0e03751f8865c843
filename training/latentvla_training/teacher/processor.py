"""What the teacher is shown: four views, command and ego state as one Qwen2.5-VL conversation.

Choices of ours, with reasons:

- front@-0.5 s and front@0 are one clip of two frames. Qwen2.5-VL samples video at 2 Hz and joins
  two frames in its first layer, so this is what it was trained on, and the past costs no token.
- The command is a word. Past, speed, yaw rate and acceleration are *tokens*, not text: four places
  in the prompt whose embeddings the planner's ego encoder makes of the numbers and their masks. A
  small model does not learn to read decimals in an hour, a masked number has no good spelling, and
  so every prompt has one length, which needs no padding.

Tokenizer and image processor are those of ``Qwen2_5_VLProcessor``; its third part, for videos,
needs a torchvision that works and resizes in another way, so a clip is joined from two images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.data.shard_footer import read_shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.teacher.action_tokens import ActionVocabulary, add_action_tokens
from latentvla_training.teacher.settings import TINY, ModelSettings, PictureSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessorPil

#: Words of the commands in the order of the one-hot (``contract.Command``).
COMMANDS = ("left", "straight", "right", "unknown")

#: Embeddings of the ego state in the prompt: past, motion now, command, and all of them mixed.
EGO_TOKENS = 4

#: Views of the Scenes that the teacher reads, by place: front, left, right, front 0.5 s ago.
VIEWS = (("front", 0.0), ("left", 0.0), ("right", 0.0), ("front", -0.5))
NOW, SIDES, PAST = 0, (1, 2), 3

_CLIP = "<|vision_start|><|video_pad|><|vision_end|>"
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def prompt(command: str, filler: str) -> str:
    """Return the conversation up to the teacher's answer; ``filler`` marks the ego tokens."""
    return (
        "<|im_start|>system\nYou drive.<|im_end|>\n"
        f"<|im_start|>user\nfront{_CLIP}left{_IMAGE}right{_IMAGE}"
        f"command: {command}. ego:{filler * EGO_TOKENS}<|im_end|>\n<|im_start|>assistant\n"
    )


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Make the tokenizer of ``tiny``: byte-level BPE of the prompt's own words, Qwen's marks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked later
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [prompt(command, "") for command in COMMANDS]
    for mark in _SPECIAL:
        texts = [text.replace(mark, "\n") for text in texts]
    bpe.train_from_iterator(texts * 4, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=learned["vocab"], merges=merges)
    tokenizer.add_tokens(list(_SPECIAL), special_tokens=True)
    return tokenizer


@dataclass(frozen=True)
class Picture:
    """Where a picture's tokens stand in the prompt, and how they lie in the picture."""

    name: str
    start: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """How many tokens."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Layout:
    """The prompt of a rig, the same for every Scene but for the command's word.

    Attributes:
        ids: (4, P) token ids by command.
        kinds: (P,) 0 text, 1 image, 2 video (``mm_token_type_ids``).
        pictures: front clip, left, right.
        ego_start: place of the first of ``EGO_TOKENS`` places.
        video_grid: (1, 3), image_grid: (2, 3) patches in time, height, width.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.int64]
    pictures: tuple[Picture, ...]
    ego_start: int
    video_grid: NDArray[np.int64]
    image_grid: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return int(self.ids.shape[1])


class TeacherProcessor:
    """Tokenizer and image processor of a Qwen2.5-VL, with the action tokens and our prompt.

    Args:
        tokenizer, images: parts of ``Qwen2_5_VLProcessor``. settings: sizes of the pictures.

    Raises:
        ContractError: the tokenizer is not one of Qwen2.5-VL, or the commands' words are of
            different lengths.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        images: Qwen2VLImageProcessorPil,
        settings: PictureSettings,
    ) -> None:
        self.tokenizer, self.images, self.settings = tokenizer, images, settings
        lacking = [mark for mark in _SPECIAL if mark not in tokenizer.get_vocab()]
        if lacking:
            raise ContractError("tokenizer", f"no {lacking}", "the tokenizer of a Qwen2.5-VL")
        self.actions: ActionVocabulary = add_action_tokens(tokenizer)
        self.layout = self._layout()

    @property
    def image_token_id(self) -> int:
        """Id of ``<|image_pad|>``."""
        return int(self.tokenizer.convert_tokens_to_ids("<|image_pad|>"))

    @property
    def video_token_id(self) -> int:
        """Id of ``<|video_pad|>``."""
        return int(self.tokenizer.convert_tokens_to_ids("<|video_pad|>"))

    @property
    def identity(self) -> str:
        """16 hex over all that turns a Scene into the model's input."""
        about = {
            "class": type(self.images).__name__,
            "images": json.loads(self.images.to_json_string()),
            "vocabulary": self.tokenizer.get_vocab(),
            "merges": self.tokenizer.backend_tokenizer.to_str(),
            "prompts": [prompt(command, "|") for command in COMMANDS],
            "pictures": asdict(self.settings),
            "views": VIEWS,
        }
        text = json.dumps(about, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def pictures(self, views: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return the patches of views (4, H, W, 3) uint8 RGB in the order of ``VIEWS``.

        Returns:
            ``pixel_values_videos`` (N, 1176) of the front clip, ``pixel_values`` (M, 1176) of left
            and right, one after the other.

        Raises:
            ContractError: views of another number or size.
        """
        wanted = (len(VIEWS), self.settings.height, self.settings.width, 3)
        if views.shape != wanted or views.dtype != np.uint8:
            raise ContractError("views", f"{views.dtype} {views.shape}", f"uint8 {wanted}")
        past, now = self._patches(views[[PAST, NOW]], self.settings.front_pixels)
        clip = np.stack([past[:, :, 0], now[:, :, 0]], axis=2)  # (N, 3, 2, 196)
        sides = self._patches(views[list(SIDES)], self.settings.side_pixels)
        return {
            "pixel_values_videos": clip.reshape(len(clip), -1),
            "pixel_values": sides.reshape(-1, clip[0].size),
        }

    def _patches(self, views: NDArray[np.uint8], area: tuple[int, int]) -> NDArray[np.float32]:
        """Return the patches (V, N, 3, 2, 196) of views of one size, each frame there twice."""
        found = self.images(
            list(views),
            size={"shortest_edge": area[0], "longest_edge": area[1]},
            return_tensors="np",
        )["pixel_values"]
        patches: NDArray[np.float32] = np.asarray(found, np.float32).reshape(
            len(views), -1, 3, 2, self.images.patch_size**2
        )
        return patches

    def _grid(self, area: tuple[int, int]) -> tuple[int, int]:
        blank = np.zeros((1, self.settings.height, self.settings.width, 3), np.uint8)
        size = {"shortest_edge": area[0], "longest_edge": area[1]}
        grid = self.images(list(blank), size=size, return_tensors="np")["image_grid_thw"][0]
        return int(grid[1]), int(grid[2])

    def _layout(self) -> Layout:
        merge = self.images.merge_size
        front, side = self._grid(self.settings.front_pixels), self._grid(self.settings.side_pixels)
        counts = {
            self.video_token_id: [front[0] * front[1] // merge**2],
            self.image_token_id: [side[0] * side[1] // merge**2] * len(SIDES),
        }
        rows = []
        for command in COMMANDS:
            ids: list[int] = []
            left = {token: list(numbers) for token, numbers in counts.items()}
            for token in self.tokenizer(prompt(command, self.tokenizer.pad_token))["input_ids"]:
                ids += [token] * (left[token].pop(0) if token in left else 1)
            rows.append(ids)
        if len({len(row) for row in rows}) > 1:
            found = dict(zip(COMMANDS, (len(row) for row in rows), strict=True))
            raise ContractError("tokens of the prompts", found, "commands of as many tokens each")
        ids = np.asarray(rows, np.int64)
        kinds = 2 * (ids[0] == self.video_token_id) + (ids[0] == self.image_token_id)
        starts = np.flatnonzero((kinds > 0) & (np.append(0, kinds[:-1]) == 0))
        grids = {"front": front, "left": side, "right": side}
        pictures = tuple(
            Picture(name, int(start), grid[0] // merge, grid[1] // merge)
            for (name, grid), start in zip(grids.items(), starts, strict=True)
        )
        ego = np.flatnonzero(ids[0] == self.actions.filler)
        if len(ego) != EGO_TOKENS or ego[-1] - ego[0] != EGO_TOKENS - 1:
            raise ContractError("ego tokens in the prompt", ego.tolist(), f"{EGO_TOKENS} in a row")
        return Layout(
            ids,
            kinds.astype(np.int64),
            pictures,
            int(ego[0]),
            np.array([[1, *front]], np.int64),
            np.array([[1, *side]] * len(SIDES), np.int64),
        )


def load_processor(
    model: ModelSettings, pictures: PictureSettings, ask_hub: bool = True
) -> TeacherProcessor:
    """Return the processor of a model: from the hub or a folder, or made here for ``tiny``.

    Args:
        ask_hub: False for what is on this machine alone.

    Raises:
        ContractError: there is no such processor, or it is not that of a Qwen2.5-VL.
    """
    declare_missing_operators()
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    if model.source == TINY:
        return TeacherProcessor(make_tokenizer(), Qwen2VLImageProcessorPil(), pictures)
    arguments: dict[str, Any] = {"local_files_only": not ask_hub}
    if model.revision:
        arguments["revision"] = model.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.source, **arguments)
        images = Qwen2VLImageProcessorPil.from_pretrained(model.source, **arguments)
    except (OSError, ValueError) as error:
        raise ContractError(
            "model.source",
            f"{model.source}: {str(error).splitlines()[0]}",
            f"a hub name that can be reached, a folder with a Qwen2.5-VL processor, or {TINY}",
        ) from error
    return TeacherProcessor(tokenizer, images, pictures)


def save_processor(processor: TeacherProcessor, folder: Path) -> None:
    """Write tokenizer and image processor as ``from_pretrained`` reads them."""
    processor.tokenizer.save_pretrained(folder)
    processor.images.save_pretrained(folder)


def rig_identity(reader: ShardReader) -> str:
    """Return what the views of a split are, in words that can be compared.

    The world says slots and time offsets in its shards, and so do recordings; those that were
    imported before they did are known by the number of views alone. Calibration is no part of it:
    no two vehicles share one, nor do the world's episodes with ``jitter_rig``.

    Raises:
        ContractError: shards of several rigs.
    """
    unnamed = f"{reader.columns['view_mask'].shape[1]} views"
    found = {_rig_of(path) or unnamed for path in reader.paths}
    if len(found) != 1:
        raise ContractError("rig of the shards", sorted(found), "one rig")
    return found.pop()


def _rig_of(path: Path) -> str:
    info = read_shard_info(path)
    made: dict[str, Any] = {} if info is None else info.recipe
    views: Sequence[dict[str, Any]] = made.get("views") or ()
    names = [f"{view['slot']}@{view['time_offset_s']:g}" for view in views]
    if not names:
        return ""
    return f"{' '.join(names)} {made.get('image_width')}x{made.get('image_height')}"


def expected_rig(settings: PictureSettings) -> str:
    """Return the rig that the teacher's prompt is made for, as ``rig_identity`` says it."""
    names = " ".join(f"{slot}@{offset:g}" for slot, offset in VIEWS)
    return f"{names} {settings.width}x{settings.height}"


def check_rig(reader: ShardReader, settings: PictureSettings) -> str:
    """Return the identity of the rig of a split after a check that the teacher can read it.

    Raises:
        ContractError: other cameras, other times or another size; names both rigs.
    """
    found, wanted = rig_identity(reader), expected_rig(settings)
    views = reader.columns["view_mask"].shape[1]
    if found not in (wanted, f"{len(VIEWS)} views") or views != len(VIEWS):
        raise ContractError("rig of the Scenes", found, wanted)
    return found
