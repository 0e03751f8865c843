"""Recordings with real pixels and real motion, made from the material beside the project.

``make_drive_bag("parked", folder)``: three real cameras, calibrated, on a car that stands
still for three samples a second apart. Each sample's pictures are repeated at 10 Hz until the next:
nothing of the ego moves meanwhile. The odometry begins two seconds earlier, standing.

``make_drive_bag("motorway", folder)``: a forward camera at 25 Hz on a motorway, of unknown
calibration and without poses, beside the odometry (20 Hz) of another real car. Pictures and motion
do not belong together: it is a smoke test of either, not a drive.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from latentvla_training.data.bag_writer import DriveBagWriter
from latentvla_training.data.image_encoding import encode_jpeg
from numpy.typing import NDArray

from latentvla_ros.contract import CameraModel, Rig, RigCamera
from latentvla_ros.geometry import camera, se2, se3

DriveKind = Literal["parked", "motorway"]

#: Absent on most machines: tests skip then.
DRIVES = Path(__file__).resolve().parents[4] / "shared" / "drives"
START_NS = 1_700_000_000_000_000_000
_SLOTS = {"CAMERA_01": "front", "CAMERA_05": "left", "CAMERA_06": "right"}


def make_drive_bag(kind: DriveKind, path: Path) -> Path:
    """Make a rosbag2 folder (MCAP) with its ``rig.yaml``; returns ``path``.

    Raises:
        FileNotFoundError: the material is not there.
        FileExistsError: there is something at ``path`` already.
    """
    if not DRIVES.is_dir():
        raise FileNotFoundError(f"{DRIVES} does not exist")
    (_parked if kind == "parked" else _motorway)(path)
    return path


def _parked(path: Path) -> None:
    folder = DRIVES / "dgp" / "scene_01"
    scene = json.loads(next(folder.glob("scene_*.json")).read_text())
    calibration = json.loads(next((folder / "calibration").glob("*.json")).read_text())
    rig = _parked_rig(calibration)
    samples = []
    for datum in scene["data"]:
        if datum["id"]["name"] in _SLOTS:
            image = datum["datum"]["image"]
            samples.append((_seconds(datum["id"]["timestamp"]), datum["id"]["name"], image))
    begin_s = min(time_s for time_s, _, _ in samples)
    pose = _ego_pose(samples[0][2]["pose"], rig, _SLOTS[samples[0][1]])
    with DriveBagWriter(path, rig) as bag:
        for tick in range(250):  # 2 s before the first picture to 3 s after it
            bag.odometry(START_NS + (tick - 100) * 20_000_000, pose, np.zeros(3))
        for time_s, name, image in samples:
            data = (folder / image["filename"]).read_bytes()
            for repeat in range(10):
                stamp_ns = START_NS + round((time_s - begin_s) * 1e9) + repeat * 100_000_000
                bag.image(_SLOTS[name], stamp_ns, data)


def _parked_rig(calibration: dict[str, Any]) -> Rig:
    cameras = []
    for name, extrinsics, intrinsics in zip(
        calibration["names"], calibration["extrinsics"], calibration["intrinsics"], strict=True
    ):
        if name not in _SLOTS:
            continue
        matrix = np.eye(3)
        matrix[0, 0], matrix[1, 1] = intrinsics["fx"], intrinsics["fy"]
        matrix[0, 2], matrix[1, 2] = intrinsics["cx"], intrinsics["cy"]
        cameras.append(
            _camera(
                _SLOTS[name],
                _transform(extrinsics),
                CameraModel(1936, 1216, matrix, "", np.zeros(0)),
            )
        )
    return Rig("dgp scene_01", "base_link", "front", tuple(cameras))


def _camera(slot: str, ego_from_camera: NDArray[np.float64], model: CameraModel) -> RigCamera:
    return RigCamera(
        slot=slot,
        topic=f"/camera/{slot}/image/compressed",
        camera_info_topic=f"/camera/{slot}/camera_info",
        message_type="compressed",
        frame_id=f"camera_{slot}_optical_frame",
        ego_from_camera=ego_from_camera,
        model=model,
    )


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def _transform(pose: dict[str, Any]) -> NDArray[np.float64]:
    xyz = [pose["translation"][axis] for axis in "xyz"]
    return se3.from_quaternion(xyz, [pose["rotation"][f"q{axis}"] for axis in "xyzw"])


def _ego_pose(camera_pose: dict[str, Any], rig: Rig, slot: str) -> NDArray[np.float64]:
    mounted = rig.camera(slot)
    assert mounted is not None
    world_from_ego = _transform(camera_pose) @ se3.inverse(mounted.ego_from_camera)
    yaw = np.arctan2(world_from_ego[1, 0], world_from_ego[0, 0])
    return np.array([world_from_ego[0, 3], world_from_ego[1, 3], yaw])


def _motorway(path: Path) -> None:
    width, height, fov_deg = 960, 540, 60.0  # the field of view is a guess
    model = CameraModel(
        width, height, camera.pinhole_matrix(fov_deg, width, height), "", np.zeros(0)
    )
    rig = Rig(
        "motorway",
        "base_link",
        "front",
        (_camera("front", se3.camera_mount((1.8, 0.0, 1.4), 0.0), model),),
    )
    times, poses, twists = real_motion()
    video = cv2.VideoCapture(str(DRIVES / "lanelines" / "solidWhiteRight.mp4"))
    with DriveBagWriter(path, rig) as bag:
        for time_s, pose, twist in zip(times, poses, twists, strict=True):
            if time_s <= 10.0:
                bag.odometry(START_NS + round(time_s * 1e9), pose, twist)
        index = 0
        while True:
            more, frame = video.read()
            if not more:
                break
            bag.image("front", START_NS + index * 40_000_000, encode_jpeg(frame[..., ::-1]))
            index += 1
    video.release()


def real_motion() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return times (N,) s, poses (N, 3) and body twists (N, 3) of the comma2k19 car, on a plane."""
    with np.load(DRIVES / "comma2k19" / "segment40_poses.npz") as data:
        times = data["frame_times"] - data["frame_times"][0]
        positions, velocities = data["frame_positions"], data["frame_velocities"]
        quaternions = data["frame_orientations"]
    up = positions[0] / np.linalg.norm(positions[0])
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east)
    level = np.stack([east, np.cross(up, east)])
    local = (positions - positions[0]) @ level.T
    forward = np.stack(
        [se3.from_quaternion(np.zeros(3), [*q[1:], q[0]])[:3, 0] for q in quaternions]
    )
    yaw = np.unwrap(np.arctan2(forward @ level[1], forward @ level[0]))
    east_north = velocities @ level.T
    vx = east_north[:, 0] * np.cos(yaw) + east_north[:, 1] * np.sin(yaw)
    vy = east_north[:, 1] * np.cos(yaw) - east_north[:, 0] * np.sin(yaw)
    poses = np.stack([local[:, 0], local[:, 1], se2.wrap_angle(yaw)], axis=1)
    return times, poses, np.stack([vx, vy, np.gradient(yaw, times)], axis=1)
