"""What a result hangs on: bundle, scenes, code of the world and of the scores, commit.

Written into every result file and compared with what is here when the report is made.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import Bundle, BundleError, load_bundle
from latentvla_training.data.shard_footer import read_shard_info
from latentvla_training.data.shards import load_split
from latentvla_training.data.source_hash import code_hash, package_hash

#: The bundle that ships, and that the report is about.
SHIPPED = "nano"
#: Modules of ``distill`` that change no figure.
DISTILL_PRESENTATION = frozenset({"commands", "dry_run", "export", "tables"})


def joined_hash(hashes: Mapping[str, str]) -> str:
    """Return one sha256 of named hashes."""
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def code_identity() -> dict[str, Any]:
    """Return hashes of the code that results hang on, and the version of the reference."""
    import latentvla_training.scoring
    from latentvla_training.scoring.pdm_closed import REFERENCE_VERSION

    return {
        "world": code_hash(),
        "scoring": package_hash(latentvla_training.scoring),
        "reference": REFERENCE_VERSION,
    }


def distill_identity() -> dict[str, str]:
    """Return a hash of the code that comparisons with a teacher hang on, beside the others."""
    import latentvla_training.distill

    return {"distill": package_hash(latentvla_training.distill, DISTILL_PRESENTATION)}


def distill_recipes() -> dict[str, str]:
    """Return the hash of the settings of every shipped recipe of a comparison with a teacher."""
    from latentvla_training.distill.settings import RECIPES, load_distill_recipe

    folder = Path(__file__).resolve().parents[1] / "recipes" / RECIPES
    recipes = [load_distill_recipe(path.stem) for path in sorted(folder.glob("*.yaml"))]
    return {recipe.name: settings_hash(recipe) for recipe in recipes}


def settings_hash(settings: Any) -> str:
    """Return 16 hex of a dataclass of settings and all below it."""
    text = json.dumps(asdict(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scenes_identity(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the number of Scenes in shards and one hash of their contents."""
    infos = {path.stem: read_shard_info(path) for path in paths}
    hashes = {name: info.content_sha256 for name, info in infos.items() if info is not None}
    count = sum(info.scenes for info in infos.values() if info is not None)
    return {"scenes": count, "shards": len(hashes), "content_sha256": joined_hash(hashes)}


def split_identity(split: str) -> dict[str, Any] | None:
    """Return the identity of the Scenes of a split that are here; None where there are none.

    Of those that ``evaluate`` would use: shards that ``load_split`` leaves out are not among them.
    """
    try:
        return scenes_identity(load_split(split).paths)
    except (FileNotFoundError, ContractError):
        return None


def coded_scenes(split: str) -> str | None:
    """Return the identity of the Scenes of a split as codes and teachers name them, or None."""
    from latentvla_training.latent_action.codes import scenes_identity as identity_of

    try:
        return identity_of(load_split(split))
    except (FileNotFoundError, ContractError):
        return None


def bundle_identity(bundle: Bundle) -> dict[str, Any]:
    """Return which bundle it is and what it was trained with, by its manifest."""
    made = bundle.manifest.provenance
    return {
        "bundle_id": bundle.manifest.bundle_id,
        "bundle_sha256": bundle.content_sha256,
        **{name: made.get(name) for name in ("recipe", "start_from", "seed", "passes")},
        "trained_on": ((made.get("data") or {}).get("train") or {}).get("content_sha256"),
    }


def shipped_identity() -> dict[str, Any] | None:
    """Return the identity of the bundle that ships; None where there is none."""
    try:
        return bundle_identity(load_bundle(SHIPPED))
    except BundleError:
        return None


def commit() -> str:
    """Return the commit of this checkout, or ``unknown``."""
    root = Path(__file__).resolve().parents[3]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def different(found: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Return in words what of ``found`` is not as ``present``, of what both know."""
    return [
        f"{name} {_short(found[name])}, now {_short(value)}"
        for name, value in present.items()
        if value is not None and found.get(name) is not None and found[name] != value
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) > 16 else text
