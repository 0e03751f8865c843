"""What a result hangs on: bundle, scenes, code of the world and of the scores, commit.

Written into every result file and compared with what is here when the report is made.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentvla_ros.runtime.bundle import Bundle
from latentvla_training.data.shard_footer import read_shard_info
from latentvla_training.data.source_hash import code_hash, files_hash, package_hash

if TYPE_CHECKING:
    from latentvla_training.data.shards import ShardReader
    from latentvla_training.planner.hosts import Host
    from latentvla_training.teacher.settings import TeacherRecipe

#: The bundle that ships, and that the report is about.
SHIPPED = "nano"
#: Modules of ``distill`` that change no figure of a comparison.
DISTILL_PRESENTATION = frozenset({
    "choice", "commands", "driving", "dry_run", "export", "tables",
})  # fmt: skip
#: Modules of ``planner`` that no comparison of contenders hangs on: how hosts are trained, tables.
NOT_OF_CONTENDERS = frozenset({
    "auxiliary", "commands", "describe", "dry_run", "evaluation_table", "lamps", "light_probe",
    "release", "released", "targets", "training", "trunk_pretraining",
})  # fmt: skip
_PACKAGE = Path(__file__).resolve().parents[1]
#: What contenders hang on elsewhere: the loop, what is hidden of drives, intervals.
_OF_CONTENDERS = (
    "data/hidden.py", "engine/averaging.py", "engine/loop.py", "report/network_sums.py",
)  # fmt: skip
#: What contenders at the wheel hang on besides: the driver, and how the teacher is asked.
_OF_DRIVING = (
    "distill/driving.py", "teacher/cache.py", "teacher/decoding.py", "teacher/model.py",
    "teacher/processor.py", "teacher/vlm.py",
)  # fmt: skip


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


def driving_identity() -> dict[str, str]:
    """Return a hash of the code that lets contenders drive, beside theirs and the closed loop's.

    That of the teacher who answers as they drive is part of it.
    """
    return {"driving": files_hash([_PACKAGE / name for name in _OF_DRIVING])}


def contender_identity() -> dict[str, str]:
    """Return a hash of the code that trains contenders and computes their plans."""
    import latentvla_ros.model
    import latentvla_training.planner

    files = sorted(Path(latentvla_ros.model.__path__[0]).glob("*.py"))
    planner = sorted(Path(latentvla_training.planner.__path__[0]).glob("*.py"))
    files += [path for path in planner if path.stem not in NOT_OF_CONTENDERS]
    return {"training": files_hash([*files, *(_PACKAGE / name for name in _OF_CONTENDERS)])}


def comparison_identity(
    host: Host, recipes: Mapping[str, Any], readers: Mapping[str, ShardReader]
) -> dict[str, Any]:
    """Return what a comparison of contenders that go on from one host hangs on.

    Args:
        recipes: settings by name. readers: of the Scenes by split, as they are shown.
    """
    return {
        "host": host.identity,
        "bundle_sha256": host.bundle_sha256,
        "recipes": {name: settings_hash(recipe) for name, recipe in recipes.items()},
        **code_identity(),
        **contender_identity(),
        "commit": commit(),
        "data": {split: scenes_identity(reader.paths) for split, reader in readers.items()},
    }


def shipped_recipes() -> dict[str, dict[str, str]]:
    """Return the hash of the settings of every shipped recipe that results name, by kind.

    The kinds are the folders ``distill``, ``oracle_codes`` and ``teacher``.
    """
    from latentvla_training.distill.settings import load_distill_recipe
    from latentvla_training.engine.recipe import load_record
    from latentvla_training.planner.oracle_codes import OracleRecipe
    from latentvla_training.teacher.settings import load_teacher_recipe

    def names(kind: str) -> list[str]:
        return [path.stem for path in sorted((_PACKAGE / "recipes" / kind).glob("*.yaml"))]

    oracle = "oracle_codes"
    return {
        "distill": {name: settings_hash(load_distill_recipe(name)) for name in names("distill")},
        oracle: {
            name: settings_hash(load_record(OracleRecipe, name, oracle)) for name in names(oracle)
        },
        "teacher": {
            name: teacher_recipe_hash(load_teacher_recipe(name)) for name in names("teacher")
        },
    }


def teacher_recipe_hash(recipe: TeacherRecipe) -> str:
    """Return the hash of a teacher's settings, whatever its seed and what a run has noted.

    A run notes its codebook, its Scenes and which teacher it went on from.
    """
    run = replace(recipe.run, seed=0)
    return settings_hash(replace(recipe, codebook="", scenes="", start_from="", run=run))


def recipe_of(codebook_id: str) -> str:
    """Return the name of the recipe of a codebook, whose id is ``<recipe>-<16 hex>``."""
    return codebook_id.rpartition("-")[0]


def shipped_codebooks(released: Path) -> dict[str, str]:
    """Return the ids of the codebooks among released weights, by the names of their recipes."""
    manifests = sorted((released / "codebook").glob("*/manifest.json"))
    ids = [json.loads(path.read_text(encoding="utf-8")).get("codebook_id") for path in manifests]
    return {recipe_of(found): found for found in ids if found}


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


def bundle_identity(bundle: Bundle) -> dict[str, Any]:
    """Return which bundle it is and what it was trained with, by its manifest."""
    made = bundle.manifest.provenance
    return {
        "bundle_id": bundle.manifest.bundle_id,
        "bundle_sha256": bundle.content_sha256,
        **{name: made.get(name) for name in ("recipe", "start_from", "seed", "passes")},
        "trained_on": ((made.get("data") or {}).get("train") or {}).get("content_sha256"),
    }


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
    """Return in words what of ``found`` is not as ``present``, or is not said.

    Args:
        present: all that ``found`` has to say; what is None is not known and not compared.
    """
    reasons = []
    for name, value in present.items():
        if value is None or found.get(name) == value:
            continue
        if found.get(name) is None:
            reasons.append(f"does not say by which {name} it was made (now {_short(value)})")
        else:
            reasons.append(f"{name} {_short(found[name])}, now {_short(value)}")
    return reasons


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) > 16 else text
