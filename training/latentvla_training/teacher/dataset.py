"""Scenes as the teacher's inputs, with the codes of what was driven as targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader
from latentvla_training.latent_action.codes import MISSING, LatentCodes, scenes_identity
from latentvla_training.planner.augmentation import AugmentationSettings, augment
from latentvla_training.planner.dataset import EGO_INPUTS
from latentvla_training.teacher.processor import VIEWS, TeacherProcessor, check_rig

Item = dict[str, Any]

#: What ``augment`` changes beside them and the teacher does not read.
_CALIBRATION = ("view_mask", "intrinsics", "ego_from_camera")


class TeacherDataset(Dataset[Item]):
    """Inputs of the Scenes of a split; with codes also ``codes`` (12,), ``MISSING`` where masked.

    Args:
        reader: the split. processor: of the teacher. codes: of the same Scenes; None for none.
        augmentation: None for none. blank: black views, without decoding any.
        seed: of the augmentation. others: (N,) Scenes whose pictures are shown instead.

    Raises:
        ContractError: cameras that the teacher's prompt is not made for; codes of other Scenes.
    """

    def __init__(
        self,
        reader: ShardReader,
        processor: TeacherProcessor,
        codes: LatentCodes | None = None,
        augmentation: AugmentationSettings | None = None,
        blank: bool = False,
        seed: int = 0,
        others: NDArray[np.int64] | None = None,
    ) -> None:
        check_rig(reader, processor.settings)
        if codes is not None:
            check_codes(reader, codes)
        self.reader, self.processor = reader, processor
        self.sequence = None if codes is None else codes.sequence
        self.augmentation, self.blank, self.seed, self.others = augmentation, blank, seed, others

    def __len__(self) -> int:
        return len(self.reader)

    def views(self, index: int) -> NDArray[np.uint8]:
        """Return the views (4, H, W, 3) uint8 RGB of a Scene.

        Raises:
            ContractError: a picture is damaged or of another size.
        """
        settings = self.processor.settings
        if self.blank:
            return np.zeros((len(VIEWS), settings.height, settings.width, 3), np.uint8)
        if self.others is not None:
            index = int(self.others[index])
        return self.reader.views(index, settings.width, settings.height)

    def __getitem__(self, address: int | tuple[int, int]) -> Item:
        """Return Scene ``index``, or (position in the run, index) for an augmented sample."""
        position, index = address if isinstance(address, tuple) else (0, int(address))
        columns = self.reader.columns
        item: Item = {name: columns[name][index].copy() for name in (*EGO_INPUTS, *_CALIBRATION)}
        item["images"] = self.views(index)
        if self.augmentation is not None:
            augment(item, self.augmentation, np.random.default_rng((self.seed, position)))
        item |= self.processor.pictures(item.pop("images"))
        for name in _CALIBRATION:
            del item[name]
        if self.sequence is not None:
            item["codes"] = self.sequence[index].astype(np.int64)
        return item


def check_codes(reader: ShardReader, codes: LatentCodes) -> None:
    """Check that codes are of the Scenes of a reader.

    Raises:
        ContractError: they are of others, or of another vocabulary; names both.
    """
    found = scenes_identity(reader)
    if codes.scenes_id != found:
        raise ContractError(f"codes of {codes.split}: scenes_id", codes.scenes_id, found)
    if not np.array_equal(codes.tokens, reader.columns["token"]):
        raise ContractError(
            f"codes of {codes.split}: tokens", f"{len(codes.tokens)} Scenes", f"{len(reader)}"
        )
    codes.vocabulary.check_spoken(codes.codebook_id)


def scenes_with_codes(codes: LatentCodes, scenes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some Scenes that have at least one code.

    Raises:
        ContractError: none has.
    """
    kept = scenes[(codes.sequence[scenes] != MISSING).any(axis=1)]
    if not len(kept):
        raise ContractError(f"codes of {codes.split}", "none", "at least one Scene with codes")
    return kept
