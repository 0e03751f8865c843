"""The nodes' private input names, and the remaps from a vehicle's topics to them; no ROS import.

Launch files and the replay tool both use this, so that a rig file means the same to each.
"""

from __future__ import annotations

from latentvla_ros.contract import Rig, RigCamera


def image_name(camera: RigCamera) -> str:
    """Return the private name of a camera's image topic: raw and compressed are two names."""
    suffix = "/compressed" if camera.message_type == "compressed" else ""
    return f"~/input/{camera.slot}/image{suffix}"


def camera_info_name(camera: RigCamera) -> str:
    """Return the private name of a camera's CameraInfo topic."""
    return f"~/input/{camera.slot}/camera_info"


def rig_remaps(rig: Rig) -> list[tuple[str, str]]:
    """Return (private name, vehicle's topic) for every image and CameraInfo that the rig reads."""
    remaps: list[tuple[str, str]] = []
    for camera in rig.cameras:
        remaps.append((image_name(camera), camera.topic))
        if camera.model is None and camera.camera_info_topic:
            remaps.append((camera_info_name(camera), camera.camera_info_topic))
    return remaps
