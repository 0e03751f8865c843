"""``latentvla inspect``: what is in a bundle, a recording or a rig file, and how they fit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentvla_ros.cli.errors import CommandError, print_error

if TYPE_CHECKING:
    from latentvla_ros.contract import BundleManifest, LatentActionNames, Rig

_BAG_SUFFIXES = (".mcap", ".db3")
_RIG_SUFFIXES = (".yaml", ".yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latentvla inspect``."""
    parser.add_argument(
        "what", metavar="BUNDLE|BAG|RIG", help="a bundle's name or folder, a rosbag2, or a rig file"
    )
    parser.add_argument("--rig", metavar="FILE", help="for a BAG: default rig.yaml in its folder")
    parser.add_argument(
        "--bundle", default="nano", help="that a BAG or RIG is held against (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Inspect; returns 0, 1 when the parts do not fit, 2 when one cannot be read."""
    try:
        kind = kind_of(args.what)
        if kind == "bag":
            found = inspect_bag(Path(args.what), args.rig, args.bundle)
        elif kind == "rig":
            found = inspect_rig(Path(args.what), args.bundle)
        else:
            found = inspect_bundle(args.what)
    except CommandError as error:
        return print_error(error)
    print(json.dumps(found, indent=2) if args.json else "\n".join(_lines(found)))
    return 0 if found["fits"] else 1


def kind_of(what: str) -> str:
    """Return ``bundle``, ``bag`` or ``rig``, by what lies at the path; a bare name is a bundle."""
    path = Path(what)
    if path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").exists():
        return "bag"
    if path.is_dir() and any(entry.suffix in _BAG_SUFFIXES for entry in path.iterdir()):
        return "bag"
    if path.suffix in _RIG_SUFFIXES:
        return "rig"
    return "bundle"


def inspect_bundle(name: str) -> dict[str, Any]:
    """Verify a bundle and return its manifest in a form for people.

    Raises:
        CommandError: it is absent or damaged.
    """
    from latentvla_ros.contract import ContractError
    from latentvla_ros.runtime.bundle import load_bundle

    try:
        bundle = load_bundle(name)
    except ContractError as error:
        raise CommandError(
            "bad-bundle",
            str(error),
            "copy or export that bundle again, or give a shipped name or another folder",
        ) from None
    manifest = bundle.manifest
    return {
        "kind": "bundle",
        "fits": True,
        "bundle_id": manifest.bundle_id,
        "folder": str(bundle.path),
        "schema_version": ".".join(str(part) for part in manifest.schema_version),
        "cameras": [
            {
                "slot": slot.name,
                "required": slot.required,
                "horizontal_fov_deg": slot.horizontal_fov_deg,
                "fov_range_deg": list(slot.fov_range_deg),
                "yaw_deg": slot.yaw_deg,
                "yaw_tolerance_deg": slot.yaw_tolerance_deg,
                "x_range_m": list(slot.x_range_m),
                "y_range_m": list(slot.y_range_m),
                "z_range_m": list(slot.z_range_m),
            }
            for slot in manifest.slots
        ],
        "views": [f"{view.slot}@{view.time_offset_s:g}" for view in manifest.views],
        "input_size": f"{manifest.image_width}x{manifest.image_height}",
        "plan": f"{manifest.num_candidates} candidates, {manifest.horizon_s:g} s, a pose every "
        f"{manifest.knot_interval_s:g} s",
        "base_frame": manifest.base_frame_definition,
        "codebook": manifest.codebook_id or "none: latent actions carry no meaning yet",
        **(
            {"latent_actions": _names_by_code(manifest.latent_action_names)}
            if manifest.latent_action_names is not None
            else {}
        ),
        "metrics": manifest.metrics,
        "provenance": manifest.provenance,
        "files": {
            file: f"{(bundle.path / file).stat().st_size / 1e6:.1f} MB, sha256 verified"
            for file in sorted(manifest.files)
        },
    }


def _names_by_code(names: LatentActionNames) -> dict[str, str]:
    """Return what each code means at the positions of a transition, in their order."""
    return {f"code {code}": " / ".join(row) for code, row in enumerate(zip(*names, strict=True))}


def inspect_rig(path: Path, bundle: str) -> dict[str, Any]:
    """Read a rig file and hold it against a bundle.

    Raises:
        CommandError: the rig or the bundle cannot be read.
    """
    from latentvla_ros.contract import ContractError
    from latentvla_ros.sensing.rig_file import check_rig, load_rig

    try:
        rig = load_rig(path)
    except ContractError as error:
        raise CommandError("bad-rig", str(error), f"correct {error.field} in {path}") from None
    manifest = _manifest(bundle)
    try:
        check_rig(rig, manifest)
        verdict = f"fits bundle {manifest.bundle_id}"
    except ContractError as error:
        verdict = f"does not fit: {error}"
    return {
        "kind": "rig",
        "fits": not verdict.startswith("does not"),
        "verdict": verdict,
        **_rig_words(rig),
    }


def inspect_bag(path: Path, rig_path: str | None, bundle: str) -> dict[str, Any]:
    """List a recording's topics and say whether it can be replayed with its rig and a bundle.

    Raises:
        CommandError: the recording, the rig or the bundle cannot be read.
    """
    from latentvla_ros.cli.bag_file import BagFile
    from latentvla_ros.cli.replay_inputs import choose_inputs, find_rig

    with BagFile(path) as bag:
        found: dict[str, Any] = {
            "kind": "bag",
            "fits": True,
            "path": str(path),
            "duration_s": round(bag.duration_s, 3),
            "topics": {
                name: f"{topic.message_type}, {topic.count} messages, "
                f"{topic.count / max(bag.duration_s, 1e-9):.1f} Hz"
                for name, topic in sorted(bag.topics.items())
            },
        }
        try:
            rig, file = find_rig(bag, rig_path)
            inputs = choose_inputs(bag, rig, file, _manifest(bundle))
        except CommandError as error:
            return found | {"fits": False, "verdict": str(error)}
        return found | {
            "verdict": f"can be replayed with bundle {bundle}",
            "rig": str(file),
            "inputs": {
                **{camera.slot: camera.topic for camera in inputs.cameras},
                "odometry": inputs.odometry,
                "command": inputs.command or inputs.route or "none: the command will be unknown",
            },
            "absent": list(inputs.absent),
        }


def _manifest(bundle: str) -> BundleManifest:
    from latentvla_ros.contract import ContractError
    from latentvla_ros.runtime.bundle import load_bundle

    try:
        return load_bundle(bundle).manifest
    except ContractError as error:
        raise CommandError("bad-bundle", str(error), "give --bundle NAME|FOLDER") from None


def _rig_words(rig: Rig) -> dict[str, Any]:
    from latentvla_ros.sensing.rig_file import mounting_angles_deg

    cameras = {}
    for camera in rig.cameras:
        yaw, pitch, roll = mounting_angles_deg(camera.ego_from_camera)
        x, y, z = (float(value) for value in camera.ego_from_camera[:3, 3])
        cameras[camera.slot] = (
            f"{camera.topic} ({camera.message_type}, {camera.reliability}, "
            f"{'rectified' if camera.rectified else 'not rectified'}), "
            f"at {x:.2f} {y:.2f} {z:.2f} m, yaw {yaw:.1f} pitch {pitch:.1f} roll {roll:.1f} deg, "
            f"intrinsics from {'the rig file' if camera.model else camera.camera_info_topic}"
        )
    return {
        "name": rig.name,
        "base_frame": rig.base_frame,
        "reference_camera": rig.reference_camera,
        "cameras": cameras,
    }


def _lines(value: Any, name: str = "", depth: int = -1) -> list[str]:
    """Return ``value`` as an indented listing."""
    indent = "  " * max(depth, 0)
    label = f"{indent}{name}: " if name else indent
    if isinstance(value, dict):
        inner = [line for key, entry in value.items() for line in _lines(entry, key, depth + 1)]
        return ([label.rstrip()] if name else []) + (inner or [f"{indent}  -"])
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        rows = [f"{indent}  " + ", ".join(f"{k} {v}" for k, v in entry.items()) for entry in value]
        return [label.rstrip(), *rows]
    if isinstance(value, list):
        return [label + (", ".join(str(entry) for entry in value) or "-")]
    if isinstance(value, bool):
        return [label + ("yes" if value else "no")]
    return [label + (f"{value:.4g}" if isinstance(value, float) else str(value))]
