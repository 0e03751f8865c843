"""The latent codes of a split's Scenes: what the codebook hands to the teacher and to later work.

Codes belong to one codebook and to one set of Scenes, and say so; others are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import (
    CODEBOOK_SIZE,
    CODES_PER_TRANSITION,
    TRANSITIONS_S,
    ContractError,
)
from latentvla_training.data.shards import ShardReader, read_shard_info
from latentvla_training.data.whole_file import write_whole

#: Stands where a transition has a frame missing.
MISSING = -1

_FORMAT = "latentvla-codes-1"


@dataclass(frozen=True)
class Vocabulary:
    """Which codes there are; by default those that teachers and cars speak.

    Attributes:
        entries: of the codebook. times_s: after t0, of the frames that transitions lie between.
        stages: that the codebook was trained in; with one, codes say ego and environment at once.
    """

    entries: int = CODEBOOK_SIZE
    times_s: tuple[float, ...] = (TRANSITIONS_S[0][0], *(end for _, end in TRANSITIONS_S))
    stages: int = 2

    def check_spoken(self, what: str) -> None:
        """Check that it is the one that teachers and cars speak.

        Raises:
            ContractError: it is another, for ablation only; names ``what`` and both.
        """
        if self != Vocabulary():
            raise ContractError(f"vocabulary of {what}", self, str(Vocabulary()))


@dataclass(frozen=True)
class LatentCodes:
    """Codes of the Scenes of one split, in the order of the split's ``ShardReader``.

    Attributes:
        split: its name, or the folder of its shards.
        codebook_id: ``<recipe>-<first 16 hex of the sha256 of the released weights>``.
        scenes_id: ``scenes_identity`` of the split's shards.
        tokens: (N,) Scene tokens.
        environment, ego: (N, 3, 4) int8 codes of the transitions, (0, 1), (1, 2), (2, 4) s unless
            the vocabulary is another; ``MISSING`` where one of the two frames is missing.
        vectors: (12, 16, W) float32 what an ego code stands for at each place of ``sequence``, of
            about unit spread: of a codebook its entries, the same everywhere. None: unknown.
        vocabulary: of the codebook. odometry_share: of the drives that it was trained on, that it
            was told the odometry of, or reads it of Scenes like these.

    Raises:
        ContractError: shapes or values that are no codes.
    """

    split: str
    codebook_id: str
    scenes_id: str
    tokens: NDArray[np.str_]
    environment: NDArray[np.int8]
    ego: NDArray[np.int8]
    vectors: NDArray[np.float32] | None = None
    vocabulary: Vocabulary = Vocabulary()
    odometry_share: float = 1.0

    def __post_init__(self) -> None:
        shape = (len(self.tokens), len(TRANSITIONS_S), CODES_PER_TRANSITION)
        entries = self.vocabulary.entries
        for name in ("environment", "ego"):
            codes = getattr(self, name)
            if codes.shape != shape or codes.dtype != np.int8:
                found = f"{codes.dtype} {codes.shape}"
                raise ContractError(f"codes.{name}", found, f"int8 {shape}")
            if codes.size and not (codes.min() >= MISSING and codes.max() < entries):
                found = f"{codes.min()} to {codes.max()}"
                raise ContractError(f"codes.{name}", found, f"-1 to {entries - 1}")
        places = (len(TRANSITIONS_S) * CODES_PER_TRANSITION, entries)
        if self.vectors is not None and self.vectors.shape[:2] != places:
            raise ContractError("codes.vectors", self.vectors.shape, f"{places} and a width")
        if not ((self.ego >= 0) == self.mask[..., None]).all() or not np.array_equal(
            self.environment >= 0, self.ego >= 0
        ):
            raise ContractError("codes", "partly missing", "a transition whole or missing")

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(N, 3) whether a transition is whole."""
        return np.asarray((self.ego >= 0).all(axis=-1))

    @property
    def sequence(self) -> NDArray[np.int8]:
        """(N, 12) ego codes, transition-major: what the teacher predicts."""
        return self.ego.reshape(len(self.tokens), -1)

    def of_scenes(self, reader: ShardReader) -> LatentCodes:
        """Return those of a reader's Scenes, which are some of them in the same order."""
        rows = np.flatnonzero(np.isin(self.tokens, reader.columns["token"].astype(str)))
        return replace(
            self,
            scenes_id=scenes_identity(reader),
            tokens=self.tokens[rows],
            environment=self.environment[rows],
            ego=self.ego[rows],
        )

    def check_told(self, odometry_share: float) -> None:
        """Check that codes say no more of how drives went than may be read.

        Raises:
            ContractError: their codebook was told of a larger share of them; names both.
        """
        if self.odometry_share > odometry_share:
            wanted = f"at most {odometry_share}, as data.odometry_share here"
            what = f"odometry_share of codebook {self.codebook_id}"
            raise ContractError(what, self.odometry_share, wanted)


class Shards(Protocol):
    """What has shards in an order: a ``ShardReader``, or several together."""

    @property
    def paths(self) -> Sequence[Path]: ...


def scenes_identity(reader: Shards) -> str:
    """Return the identity of the Scenes of a reader: 16 hex over its shards' names and contents.

    Raises:
        ContractError: a shard has no readable footer.
    """
    contents = {}
    for path in reader.paths:
        info = read_shard_info(path)
        if info is None:
            raise ContractError(f"shard {path}", "no readable footer", "a whole shard")
        contents[info.name] = info.content_sha256
    return contents_identity(contents)


def contents_identity(contents: Mapping[str, str]) -> str:
    """Return the identity of Scenes by the hashes of their shards' contents, in their order."""
    digest = hashlib.sha256(b"latentvla scenes of a split")
    for name, content_sha256 in contents.items():
        digest.update(f"\0{name}\0{content_sha256}".encode())
    return digest.hexdigest()[:16]


def save_codes(path: Path, codes: LatentCodes) -> None:
    """Write codes to one safetensors file, which appears under its name only when it is whole.

    Raises:
        OSError: it cannot be written (a full disk); what was there before stays.
    """
    from safetensors.numpy import save

    about = {
        "format": _FORMAT,
        "split": codes.split,
        "codebook_id": codes.codebook_id,
        "scenes_id": codes.scenes_id,
        "tokens": json.dumps([str(token) for token in codes.tokens]),
        "vocabulary": json.dumps(asdict(codes.vocabulary)),
        "odometry_share": str(codes.odometry_share),
    }
    tensors = {"environment": codes.environment, "ego": codes.ego}
    if codes.vectors is not None:
        tensors["vectors"] = np.ascontiguousarray(codes.vectors, np.float32)
    content = save(tensors, about)
    write_whole(path, content)


def load_codes(
    path: Path, codebook_id: str | None = None, scenes_id: str | None = None
) -> LatentCodes:
    """Read codes, of the codebook and the Scenes that are asked for (None: of any).

    Raises:
        FileNotFoundError: there is no such file.
        ContractError: it is damaged, or of another codebook or other Scenes; names both.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no codes at {path}; make them with latentvla-train codebook")
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            environment, ego = file.get_tensor("environment"), file.get_tensor("ego")
            vectors = file.get_tensor("vectors") if "vectors" in file.keys() else None  # noqa: SIM118
            tokens, vocabulary = _tokens(about), _vocabulary(about)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ContractError(f"codes {path}", str(error), "a whole codes file") from error
    if about.get("format") != _FORMAT:
        raise ContractError(f"codes {path} format", about.get("format"), _FORMAT)
    for name, wanted in (("codebook_id", codebook_id), ("scenes_id", scenes_id)):
        if wanted is not None and about[name] != wanted:
            raise ContractError(f"codes {path} {name}", about[name], wanted)
    return LatentCodes(
        about["split"],
        about["codebook_id"],
        about["scenes_id"],
        tokens,
        environment,
        ego,
        vectors,
        vocabulary,
        float(about.get("odometry_share", 1.0)),
    )


def _vocabulary(about: dict[str, str]) -> Vocabulary:
    values = json.loads(about.get("vocabulary", "{}"))
    if "times_s" in values:
        values["times_s"] = tuple(values["times_s"])
    return Vocabulary(**values)


def _tokens(about: dict[str, str]) -> NDArray[np.str_]:
    tokens: Sequence[str] = json.loads(about["tokens"])
    return np.asarray(tokens, dtype=np.str_)
