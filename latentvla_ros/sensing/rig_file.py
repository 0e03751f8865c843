"""Rig files: a vehicle's cameras in YAML, read, written and held against a bundle's manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from latentvla_ros.contract import BundleManifest, CameraModel, ContractError, Rig, RigCamera
from latentvla_ros.geometry import camera as camera_geometry
from latentvla_ros.geometry import se3
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

_RIG_KEYS = {"name", "base_frame", "reference_camera", "odometry", "cameras"}
_ODOMETRY_KEYS = {"child_frame", "base_from_twist"}
_CAMERA_KEYS = {
    "topic",
    "camera_info_topic",
    "message_type",
    "frame_id",
    "mount",
    "ego_from_camera",
    "rectified",
    "reliability",
    "time_offset_s",
    "intrinsics",
}
_MOUNT_KEYS = {"xyz", "yaw_deg", "pitch_deg", "roll_deg"}
_INTRINSICS_KEYS = {"width", "height", "matrix", "distortion_model", "distortion"}

#: A camera rolled further than this is mounted wrongly or its frame is not optical.
MAX_ROLL_DEG = 10.0


def load_rig(path: str | Path) -> Rig:
    """Read a rig file.

    Raises:
        ContractError: the file is missing or no YAML, or a key is missing, unknown or out of range;
            names the key and the camera.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError("rig file", str(file), f"a readable YAML file ({error})") from error
    return parse_rig(text, str(file))


def parse_rig(text: str, source: str = "rig") -> Rig:
    """Read a rig from YAML text; ``source`` is named in errors. Raises as ``load_rig``."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ContractError("rig file", source, f"valid YAML ({error})") from error
    root = _mapping(document, "rig", _RIG_KEYS, {"base_frame", "reference_camera", "cameras"})
    cameras = root["cameras"]
    if not isinstance(cameras, dict) or not cameras:
        raise ContractError("rig.cameras", cameras, "a mapping of slot names to cameras")
    odometry = _mapping(root.get("odometry") or {}, "rig.odometry", _ODOMETRY_KEYS, set())
    offset = _numbers(odometry.get("base_from_twist", [0, 0, 0]), "rig.odometry.base_from_twist", 3)
    return Rig(
        name=_text(root.get("name", Path(source).stem), "rig.name"),
        base_frame=_text(root["base_frame"], "rig.base_frame"),
        reference_camera=_text(root["reference_camera"], "rig.reference_camera"),
        cameras=tuple(_camera(_text(slot, "rig.cameras"), spec) for slot, spec in cameras.items()),
        odometry_child_frame=(
            _text(odometry["child_frame"], "rig.odometry.child_frame")
            if "child_frame" in odometry
            else ""
        ),
        base_from_twist=(offset[0], offset[1], offset[2]),
    )


def save_rig(rig: Rig, path: str | Path) -> None:
    """Write a rig file that ``load_rig`` reads back equal."""
    document: dict[str, Any] = {
        "name": rig.name,
        "base_frame": rig.base_frame,
        "reference_camera": rig.reference_camera,
        "odometry": {
            "child_frame": rig.odometry_child_frame,
            "base_from_twist": [float(value) for value in rig.base_from_twist],
        },
        "cameras": {camera.slot: _camera_document(camera) for camera in rig.cameras},
    }
    Path(path).write_text(
        yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100),
        encoding="utf-8",
    )


def check_rig(
    rig: Rig, manifest: BundleManifest, camera_models: Mapping[str, CameraModel] | None = None
) -> None:
    """Check that a rig's cameras are those the model was trained with, within their envelope.

    Args:
        camera_models: intrinsics by slot, from CameraInfo; those of the rig file come first. Slots
            without either are checked for their mounting only.

    Raises:
        ContractError: names the camera and the bound that it breaks.
    """
    slots = {slot.name for slot in manifest.slots}
    if rig.reference_camera not in slots:
        raise ContractError("rig.reference_camera", rig.reference_camera, f"one of {sorted(slots)}")
    for slot in manifest.slots:
        mounted = rig.camera(slot.name)
        if mounted is None:
            if slot.required:
                raise ContractError(
                    f"rig.cameras[{slot.name}]",
                    [camera.slot for camera in rig.cameras],
                    f"camera {slot.name!r}, which bundle {manifest.bundle_id} requires",
                )
            continue
        yaw, pitch, roll = mounting_angles_deg(mounted.ego_from_camera)
        x, y, z = (float(value) for value in mounted.ego_from_camera[:3, 3])
        yaw_error = (yaw - slot.yaw_deg + 180.0) % 360.0 - 180.0
        tolerance = slot.yaw_tolerance_deg
        bounds = (
            (
                "yaw_deg",
                slot.yaw_deg + yaw_error,
                slot.yaw_deg - tolerance,
                slot.yaw_deg + tolerance,
            ),
            ("pitch_deg", pitch, *slot.pitch_range_deg),
            ("roll_deg", roll, -MAX_ROLL_DEG, MAX_ROLL_DEG),
            ("x_m", x, *slot.x_range_m),
            ("y_m", y, *slot.y_range_m),
            ("z_m", z, *slot.z_range_m),
        )
        for name, value, low, high in bounds:
            if not low - 1e-6 <= value <= high + 1e-6:
                raise ContractError(
                    f"rig.cameras[{slot.name}].{name}",
                    round(value, 3),
                    f"{low:g} ... {high:g}, as bundle {manifest.bundle_id} was trained",
                )
        model = mounted.model or (camera_models or {}).get(slot.name)
        if model is not None:
            ViewPreprocessor.for_slot(
                slot, model, mounted.rectified, manifest.image_width, manifest.image_height
            )


def mounting_angles_deg(ego_from_camera: np.ndarray) -> tuple[float, float, float]:
    """Return yaw (left +), pitch (down +) and roll (right side down +) of a camera, degrees."""
    rotation = np.asarray(ego_from_camera, np.float64)[:3, :3] @ se3.BODY_FROM_OPTICAL.T
    yaw = math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -rotation[2, 0]))))
    roll = math.degrees(math.atan2(rotation[2, 1], rotation[2, 2]))
    return yaw, pitch, roll


def _camera(slot: str, spec: Any) -> RigCamera:
    field = f"rig.cameras[{slot}]"
    values = _mapping(spec, field, _CAMERA_KEYS, {"topic", "message_type", "frame_id"})
    if ("mount" in values) == ("ego_from_camera" in values):
        raise ContractError(field, sorted(values), "either 'mount' or 'ego_from_camera'")
    if values["message_type"] not in ("raw", "compressed"):
        raise ContractError(f"{field}.message_type", values["message_type"], "raw or compressed")
    reliability = values.get("reliability", "best_effort")
    if reliability not in ("best_effort", "reliable"):
        raise ContractError(f"{field}.reliability", reliability, "best_effort or reliable")
    rectified = values.get("rectified", True)
    if not isinstance(rectified, bool):
        raise ContractError(f"{field}.rectified", rectified, "true or false")
    offset_s = _number(values.get("time_offset_s", 0.0), f"{field}.time_offset_s")
    if abs(offset_s) > 1.0:
        raise ContractError(f"{field}.time_offset_s", offset_s, "seconds within -1 ... 1")
    info_topic = values.get("camera_info_topic")
    intrinsics = values.get("intrinsics")
    if info_topic is None and intrinsics is None:
        raise ContractError(field, sorted(values), "'camera_info_topic' or 'intrinsics'")
    return RigCamera(
        slot=slot,
        topic=_text(values["topic"], f"{field}.topic"),
        camera_info_topic=(
            None if info_topic is None else _text(info_topic, f"{field}.camera_info_topic")
        ),
        message_type=values["message_type"],
        frame_id=_text(values["frame_id"], f"{field}.frame_id"),
        ego_from_camera=_mounting(values, field),
        rectified=rectified,
        reliability=reliability,
        time_offset_s=offset_s,
        model=None if intrinsics is None else _intrinsics(intrinsics, rectified, slot),
    )


def _mounting(values: dict[str, Any], field: str) -> np.ndarray:
    if "mount" in values:
        mount = _mapping(values["mount"], f"{field}.mount", _MOUNT_KEYS, {"xyz"})
        angles = [
            math.radians(_number(mount.get(name, 0.0), f"{field}.mount.{name}"))
            for name in ("yaw_deg", "pitch_deg", "roll_deg")
        ]
        return se3.camera_mount(_numbers(mount["xyz"], f"{field}.mount.xyz", 3), *angles)
    rows = values["ego_from_camera"]
    if not isinstance(rows, list) or len(rows) != 4:
        raise ContractError(f"{field}.ego_from_camera", rows, "4 rows of 4 numbers")
    transform = np.array([_numbers(row, f"{field}.ego_from_camera", 4) for row in rows])
    rotation = transform[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3
        rigid = orthonormal and np.linalg.det(rotation) > 0
    if not rigid or not np.array_equal(transform[3], [0.0, 0.0, 0.0, 1.0]):
        raise ContractError(
            f"{field}.ego_from_camera", rows, "a rigid transform (rotation, 0 0 0 1)"
        )
    return transform


def _intrinsics(spec: Any, rectified: bool, slot: str) -> CameraModel:
    field = f"rig.cameras[{slot}].intrinsics"
    values = _mapping(spec, field, _INTRINSICS_KEYS, {"width", "height", "matrix"})
    for name in ("width", "height"):
        if type(values[name]) is not int or values[name] <= 0:
            raise ContractError(f"{field}.{name}", values[name], "positive whole pixels")
    fx, fy, cx, cy = _numbers(values["matrix"], f"{field}.matrix (fx, fy, cx, cy)", 4)
    distortion_model = values.get("distortion_model", "")
    if not isinstance(distortion_model, str):
        raise ContractError(f"{field}.distortion_model", distortion_model, "a name")
    model = CameraModel(
        width=values["width"],
        height=values["height"],
        matrix=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        distortion_model=distortion_model,
        distortion=np.array(_numbers(values.get("distortion", []), f"{field}.distortion", None)),
    )
    camera_geometry.check_camera_model(model, rectified, slot)
    return model


def _camera_document(camera: RigCamera) -> dict[str, Any]:
    document: dict[str, Any] = {"topic": camera.topic}
    if camera.camera_info_topic is not None:
        document["camera_info_topic"] = camera.camera_info_topic
    document |= {
        "message_type": camera.message_type,
        "frame_id": camera.frame_id,
        "rectified": camera.rectified,
        "reliability": camera.reliability,
        "time_offset_s": float(camera.time_offset_s),
    }
    yaw, pitch, roll = (
        round(angle, 9) + 0.0 for angle in mounting_angles_deg(camera.ego_from_camera)
    )
    xyz = [float(value) for value in camera.ego_from_camera[:3, 3]]
    rebuilt = se3.camera_mount(xyz, *np.deg2rad([yaw, pitch, roll]))
    if np.abs(rebuilt - camera.ego_from_camera).max() < 1e-9:
        document["mount"] = {"xyz": xyz, "yaw_deg": yaw, "pitch_deg": pitch, "roll_deg": roll}
    else:
        document["ego_from_camera"] = np.asarray(camera.ego_from_camera, np.float64).tolist()
    if camera.model is not None:
        matrix = camera.model.matrix
        document["intrinsics"] = {
            "width": int(camera.model.width),
            "height": int(camera.model.height),
            "matrix": [
                float(matrix[0, 0]),
                float(matrix[1, 1]),
                float(matrix[0, 2]),
                float(matrix[1, 2]),
            ],
            "distortion_model": camera.model.distortion_model,
            "distortion": np.asarray(camera.model.distortion, np.float64).tolist(),
        }
    return document


def _mapping(value: Any, field: str, allowed: set[str], required: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(field, value, f"a mapping with {sorted(required) or sorted(allowed)}")
    unknown = [key for key in value if key not in allowed]
    if unknown:
        raise ContractError(f"{field}.{unknown[0]}", "an unknown key", f"one of {sorted(allowed)}")
    missing = sorted(required - set(value))
    if missing:
        raise ContractError(f"{field}.{missing[0]}", "nothing", "a value for this key")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ContractError(field, value, "a non-empty text")
    return value


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e12:
        raise ContractError(field, value, "a finite number")
    if not math.isfinite(value):
        raise ContractError(field, value, "a finite number")
    return float(value)


def _numbers(value: Any, field: str, count: int | None) -> list[float]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise ContractError(
            field, value, "a list of numbers" if count is None else f"{count} numbers"
        )
    return [_number(item, field) for item in value]
