"""From a finished run to the codebook that ships: figures on validation Scenes, names of codes."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.shards import load_split, split_shards
from latentvla_training.data.whole_file import write_whole
from latentvla_training.engine.run_log import log_entries
from latentvla_training.latent_action.codebook import (
    MANIFEST,
    Codebook,
    codebook_folder,
    load_codebook,
    load_run,
    release,
    released_folder,
)
from latentvla_training.latent_action.codes import load_codes, scenes_identity
from latentvla_training.latent_action.dynamics import EGO, ENVIRONMENT
from latentvla_training.latent_action.encoding import codes_folder, encode_split
from latentvla_training.latent_action.meaning import Motion
from latentvla_training.latent_action.naming import (
    NAMES_FILE,
    CodeNames,
    manifest_entry,
    name_codes,
    read_names,
    recorded_names,
    write_names,
)
from latentvla_training.latent_action.pairs import Pairs, find_pairs
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.report.identity import commit

#: Codes are named by networks that no stage was fitted on, as the report describes them.
NAMED_SPLITS = ("test", "val")


def release_run(run: Path, folder: Path | None = None) -> Codebook:
    """Write the codebook of a run; returns it as it is loaded again.

    Args:
        folder: where to; by default among those that ship, under the recipe's name.

    Raises:
        FileNotFoundError: the run is not finished, or a split that codes are named on is absent.
        ContractError: its codes are not of the shape that later work is made for.
    """
    codebook = load_run(run)
    for split in NAMED_SPLITS:
        split_shards(split)
    folder = folder or released_folder() / codebook.recipe.name
    about: dict[str, Any] = {
        "scenes_id": _stage_recipe(run, EGO)["scenes"],
        "commit": commit(),
        "validation": {name: _last_figures(run, name) for name in (ENVIRONMENT, EGO)},
    }
    name_released(release(codebook, folder, about))
    return load_codebook(folder)


def name_released(folder: str | Path, splits: tuple[str, ...] = NAMED_SPLITS) -> CodeNames:
    """Measure what the codes of a released codebook mean and put their names into its manifest.

    Its weights and its id stay as they are.

    Args:
        folder: of the codebook, or the name of one that ships. splits: to measure on.

    Raises:
        FileNotFoundError: the codebook or a split is absent. ContractError: it is damaged.
        OSError: the manifest cannot be written.
    """
    codebook = load_codebook(folder)
    names = measure_names(codebook, splits)
    manifest = {**codebook.manifest, **manifest_entry(names)}
    path = codebook_folder(folder) / MANIFEST
    write_whole(path, (json.dumps(manifest, indent=1) + "\n").encode())
    return names


def measure_names(codebook: Codebook, splits: tuple[str, ...] = NAMED_SPLITS) -> CodeNames:
    """Name the ego codes of a codebook by the motion of the frame pairs of splits.

    Their codes are encoded where they are not yet.
    """
    readers = [load_split(split, cached_shards=4) for split in splits]
    ego = []
    for split, reader in zip(splits, readers, strict=True):
        path, _ = encode_split(codebook, split)
        ego.append(load_codes(path, codebook.codebook_id, scenes_identity(reader)).ego)
    scenes = SceneSet(readers)
    pairs = find_pairs(scenes, codebook.recipe.model)
    names = name_codes(
        codes_of_pairs(pairs, np.concatenate(ego)),
        Motion.of(scenes, pairs),
        pairs.interval,
        scenes.column("network")[pairs.earlier],
        codebook.recipe.model.codebook_size,
    )
    return CodeNames(codebook.codebook_id, names, splits, len(pairs))


def codes_of_pairs(pairs: Pairs, codes: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the codes (P, codes) of every pair from those of Scenes (N, K, codes)."""
    found = np.empty((len(pairs), codes.shape[2]), np.int64)
    there = pairs.of_scene >= 0
    found[pairs.of_scene[there]] = codes[there]
    return found


def names_beside_codes(codebook: Codebook, encoded: Collection[str]) -> Path | None:
    """Write the names of a codebook beside its codes, measured where its manifest has none.

    Args:
        encoded: splits that are there; without those that codes are named on nothing is measured.

    Returns:
        the file; None where there are no names.

    Raises:
        ContractError: the names in its manifest are damaged. OSError: no space left.
    """
    names = recorded_names(codebook.codebook_id, codebook.manifest, "codebook manifest")
    if names is None and set(NAMED_SPLITS) <= set(encoded):
        names = measure_names(codebook)
    if names is None:
        return None
    path = codes_folder(codebook.codebook_id) / NAMES_FILE
    write_names(path, names)
    return path


def find_names(codebook_id: str, codes: Path | None = None) -> CodeNames | None:
    """Return the names of a codebook: those beside its codes, or of a codebook that ships.

    Args:
        codes: folder of its codes; by default where ``codebook encode`` puts them.

    Raises:
        ContractError: names are damaged, or are of another codebook; names both.
        FileNotFoundError: ``codes`` is given and has none.
    """
    path = (codes or codes_folder(codebook_id)) / NAMES_FILE
    if codes is not None or path.is_file():
        names = read_names(path)
        if names.codebook_id != codebook_id:
            raise ContractError(f"codebook_id of {path}", names.codebook_id, codebook_id)
        return names
    for released in sorted(released_folder().glob(f"*/{MANIFEST}")):
        manifest = json.loads(released.read_text(encoding="utf-8"))
        if manifest.get("codebook_id") == codebook_id:
            return recorded_names(codebook_id, manifest, str(released))
    return None


def _stage_recipe(run: Path, stage: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((run / stage / "recipe.yaml").read_text())
    return values


def _last_figures(run: Path, stage: str) -> dict[str, float]:
    """Return what a stage was validated at when it ended."""
    entries = [entry for entry in log_entries(run / stage) if "val/gain" in entry]
    return {
        name.removeprefix("val/"): value
        for name, value in entries[-1].items()
        if name.startswith("val/")
    }
