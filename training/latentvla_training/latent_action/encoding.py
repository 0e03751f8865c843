"""From frames to codes: pairs of a stage, and the ``LatentCodes`` of a split.

Computed in float32, always in the same batches: codes do not hang on what else is computed.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.latent_action.codebook import Codebook, OneStage
from latentvla_training.latent_action.codes import (
    MISSING,
    LatentCodes,
    Vocabulary,
    load_codes,
    save_codes,
    scenes_identity,
)
from latentvla_training.latent_action.dynamics import (
    TRAINING_ONLY,
    LatentDynamics,
    weights_hash,
)
from latentvla_training.latent_action.feature_store import ensure_features
from latentvla_training.latent_action.frame_encoder import FrameEncoder
from latentvla_training.latent_action.front_camera import check_front_camera
from latentvla_training.latent_action.kept_array import kept_array
from latentvla_training.latent_action.pairs import Pairs, find_pairs
from latentvla_training.latent_action.picture_reader import PictureReader
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.latent_action.settings import DynamicsSettings
from latentvla_training.latent_action.stages import PairData
from latentvla_training.latent_action.unexplained_change import unexplained_change
from latentvla_training.world.networks import data_root

logger = logging.getLogger(__name__)

BATCH = 128


def pair_data(
    settings: DynamicsSettings,
    encoder: FrameEncoder,
    scenes: SceneSet,
    root: Path | None = None,
    progress: bool = True,
    odometry: NDArray[np.bool_] | None = None,
) -> PairData:
    """Return the pairs of Scenes with what stages read of their pictures, made where it is absent.

    Args:
        odometry: see ``find_pairs``.
        root: of the caches of features and of unexplained change; below the data by default.

    Raises:
        ContractError: a picture is damaged or of another size. OSError: no space left.
    """
    pairs = find_pairs(scenes, settings, odometry)
    features = ensure_features(encoder, scenes, root, progress)
    change = None
    if settings.unexplained_change and pairs.known.any():
        change = unexplained_change(scenes, pairs, encoder.settings, root, progress)
    return PairData(pairs, features, change=change)


def cached_codes(
    stage: LatentDynamics | PictureReader,
    data: PairData,
    scenes_id: str,
    root: Path | None = None,
    progress: bool = False,
) -> NDArray[np.int64]:
    """Return the codes (P, codes) of every pair, from a file if they were computed before.

    The file's name holds what decides them: the stage's weights and settings, the frame encoder's
    and the Scenes; stage 1 is frozen before anything asks.

    Raises:
        OSError: no space left for the file.
    """
    digest = hashlib.sha256(repr((stage.settings, data.features.encoder_id)).encode())
    digest.update(weights_hash(stage, TRAINING_ONLY).encode())
    folder = root or data_root() / "cache" / "pair_codes"
    path = folder / f"{stage.stage}-{digest.hexdigest()[:16]}-{scenes_id}.npy"
    shape = (len(data.pairs), stage.settings.codes)
    return kept_array(path, shape, np.int64, lambda: pair_codes(stage, data, progress))


@torch.inference_mode()
def pair_codes(
    stage: LatentDynamics | PictureReader, data: PairData, progress: bool = False
) -> NDArray[np.int64]:
    """Return the codes (P, codes) of every pair."""
    return pair_latents(stage, data, progress)[0]


@torch.inference_mode()
def pair_latents(
    stage: LatentDynamics | PictureReader, data: PairData, progress: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return codes (P, codes) and the vectors behind them (P, codes, code width)."""
    from tqdm import tqdm

    stage.eval()
    device = next(stage.parameters()).device
    count, settings = len(data.pairs), stage.settings
    codes = np.empty((count, settings.codes), np.int64)
    vectors = np.empty((count, settings.codes, settings.code_width), np.float32)
    with tqdm(total=count, desc=f"{stage.stage} codes", disable=not progress, leave=False) as bar:
        for rows, batch in data.batches(BATCH):
            encoded = stage.encode({name: value.to(device) for name, value in batch.items()})
            codes[rows] = encoded.codes.cpu().numpy()
            vectors[rows] = encoded.vectors.float().cpu().numpy()
            bar.update(len(rows))
    return codes, vectors


def encode_scenes(
    codebook: Codebook | OneStage,
    reader: ShardReader,
    split: str,
    root: Path | None = None,
    progress: bool = True,
) -> LatentCodes:
    """Return the codes of the Scenes of a split.

    Args:
        split: its name. root: of the cache of features, by default below the data.

    Raises:
        ContractError: the codebook's codes are not of the shape of ``LatentCodes``, or pictures are
            not of its size, or of another front camera than it was trained on.
    """
    model = codebook.recipe.model
    vocabulary = vocabulary_of(codebook)
    scenes = SceneSet([reader])
    frames = codebook.recipe.frames
    check_front_camera(codebook.manifest, codebook.codebook_id, scenes, frames)
    hides = isinstance(codebook, Codebook) and codebook.pictures is not None
    nobody = np.zeros(len(scenes), np.bool_) if hides else None
    data = pair_data(model, codebook.encoder, scenes, root, progress, nobody)
    scenes_id = scenes_identity(reader)
    if isinstance(codebook, OneStage):
        environment = ego = pair_codes(codebook.stage, data, progress)
    else:
        environment = cached_codes(codebook.environment_reader, data, scenes_id, progress=progress)
        ego = pair_codes(codebook.ego, replace(data, environment=environment), progress)
    return LatentCodes(
        split,
        codebook.codebook_id,
        scenes_id,
        np.asarray(reader.columns["token"], dtype=np.str_),
        of_scenes(data.pairs, environment),
        of_scenes(data.pairs, ego),
        code_vectors(codebook),
        vocabulary,
        codebook.recipe.data.odometry_share,
    )


def vocabulary_of(codebook: Codebook | OneStage) -> Vocabulary:
    """Return which codes a codebook gives.

    Raises:
        ContractError: more or fewer a Scene than later work is made for.
    """
    found = codebook.recipe.model.vocabulary()
    return replace(found, stages=1) if isinstance(codebook, OneStage) else found


def code_vectors(codebook: Codebook | OneStage) -> NDArray[np.float32]:
    """Return the entries of the ego codebook (12, 16, code width), the same at every place."""
    stage = codebook.stage if isinstance(codebook, OneStage) else codebook.ego
    entries = stage.bottleneck.entries.cpu().numpy().astype(np.float32)
    places = len(codebook.recipe.model.transitions) * codebook.recipe.model.codes
    return np.ascontiguousarray(np.broadcast_to(entries, (places, *entries.shape)))


def of_scenes(pairs: Pairs, codes: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the codes (N, K, codes) of every Scene from those of pairs (P, codes)."""
    none = np.full((1, codes.shape[1]), MISSING, codes.dtype)
    return np.concatenate([codes, none])[pairs.of_scene].astype(np.int8)


def codes_folder(codebook_id: str, root: Path | None = None) -> Path:
    """Return where the codes of a codebook are kept, one file a split."""
    return (root or data_root() / "codes") / codebook_id


def encode_split(
    codebook: Codebook | OneStage, split: str, root: Path | None = None
) -> tuple[Path, bool]:
    """Encode a split into a file, unless it is there; returns the file and whether it was made.

    Raises:
        FileNotFoundError: the split is not there. OSError: the file cannot be written.
        ContractError: see ``encode_scenes``.
    """
    reader = load_split(split, cached_shards=4)
    path = codes_folder(codebook.codebook_id, root) / f"{split}.safetensors"
    if path.is_file():
        try:
            kept = load_codes(path, codebook.codebook_id, scenes_identity(reader))
            what = (kept.vocabulary, kept.odometry_share)
            told = codebook.recipe.data.odometry_share
            if kept.vectors is not None and what == (vocabulary_of(codebook), told):
                return path, False
        except ContractError as error:
            logger.warning("%s; made again", error)
    save_codes(path, encode_scenes(codebook, reader, split))
    return path, True
