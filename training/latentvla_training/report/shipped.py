"""What ships: who speaks it, whether a release may take its place, whether a run here is newer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.planner.released import MANIFEST as BASELINES
from latentvla_training.report.places import Places, json_object

_MANIFEST, _RECIPE = "manifest.json", "recipe.yaml"


def check_replaced(folder: Path, replace: bool, places: Places | None = None) -> None:
    """Check that a release into a folder takes the place of nothing that ships, unless it may.

    Folders elsewhere belong to whoever names them: a command that is repeated writes them again.

    Args:
        folder: where a bundle, a codebook, a teacher or baselines go.
        replace: whether it may take another's place.

    Raises:
        ContractError: one ships there; names it and what speaks it.
    """
    places = Places() if places is None else places
    ship = [place.resolve() for place in (places.released, places.bundles)]
    if replace or not any(folder.resolve().is_relative_to(place) for place in ship):
        return
    manifest = json_object(folder / _MANIFEST)
    if manifest:
        said = identity_of(manifest)
        if "bundle_id" not in manifest:
            speakers = speakers_of(manifest, places)
            said += f", spoken by {', '.join(speakers) or 'nothing that ships'}"
    elif (folder / BASELINES).is_file():
        said = "the baselines"
    else:
        return
    wanted = "an empty place: --replace to ship another instead, or --out and a folder of your own"
    raise ContractError(f"release into {folder}", said, wanted)


def identity_of(manifest: Mapping[str, Any]) -> str:
    """Return in words which bundle, codebook or teacher a manifest is of."""
    if "bundle_id" in manifest:
        return f"bundle {manifest['bundle_id']}"
    codebook = str(manifest.get("codebook_id"))
    if "processor" not in manifest:
        return f"codebook {codebook}"
    seed, steps = manifest.get("seed"), manifest.get("steps")
    return f"teacher {manifest.get('name')} (seed {seed}, {steps} steps) of codebook {codebook}"


def speakers_of(manifest: Mapping[str, Any], places: Places) -> list[str]:
    """Return what else ships and names a codebook, or a teacher of that name and codebook."""
    codebook, teacher = manifest.get("codebook_id"), manifest.get("name")
    of_teacher = "processor" in manifest
    found = []
    for path in sorted(places.released.glob(f"teacher/*/{_MANIFEST}")):
        if not of_teacher and json_object(path).get("codebook_id") == codebook:
            found.append(f"teacher {path.parent.name}")
    for path in sorted(places.bundles.glob(f"*/{_MANIFEST}")):
        bundle = json_object(path)
        taught = str((bundle.get("provenance") or {}).get("teacher_id")).rpartition("-")[0]
        if bundle.get("codebook_id") == codebook and (not of_teacher or taught == teacher):
            found.append(f"bundle {bundle.get('bundle_id')}")
    return found


def newer_run(manifest: Path, runs: Path, finished: Callable[[Path], Path | None]) -> Path | None:
    """Return the newest finished run that was saved after a release was written, if any.

    Args:
        manifest: of the release. runs: the folder of runs.
        finished: returns the last checkpoint of the run in a folder, None where it is of another
            recipe or not at its end.
    """
    written = manifest.stat().st_mtime
    newest = None
    for folder in sorted(path.parent for path in runs.glob(f"*/{_RECIPE}")):
        checkpoint = finished(folder)
        if checkpoint is not None and (saved := checkpoint.stat().st_mtime) > written:
            newest, written = folder, saved
    return newest
