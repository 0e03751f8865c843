"""From sensor frames to the network's input, by the functions that the planner node runs.

Odometry goes into the car's ``EgoMotionBuffer``, pictures through ``ViewPreprocessor`` and
``ObservationBuilder``; nothing of it is written a second time here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import BundleManifest, ContractError, Observation, Rig
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer, WarmingUp
from latentvla_ros.sensing.image_decoding import CompressedImage
from latentvla_ros.sensing.observation_builder import CameraFrame, ObservationBuilder
from latentvla_ros.sensing.preprocessing import ViewPreprocessor
from latentvla_ros.sensing.rig_file import check_rig
from latentvla_training.world.drivers import SensorFrame


class Observer:
    """Builds the observation of every frame of one route.

    Args:
        manifest: views and sizes of the network's input.
        rig: cameras with intrinsics.
        blank: black pictures instead of those of the frames, which then need none.

    Raises:
        ContractError: rig and manifest do not fit.
    """

    def __init__(self, manifest: BundleManifest, rig: Rig, blank: bool = False) -> None:
        check_rig(rig, manifest)
        self.ego_motion = EgoMotionBuffer()
        self._black: dict[str, NDArray[np.uint8]] | None = {} if blank else None
        preprocessors = {}
        self._slots = tuple(dict.fromkeys(view.slot for view in manifest.views))
        for slot in self._slots:
            camera = rig.camera(slot)
            if camera is None:
                continue
            if camera.model is None:
                raise ContractError(f"rig.cameras[{slot}].model", None, "intrinsics")
            preprocessors[slot] = ViewPreprocessor.for_slot(
                manifest.slot(slot),
                camera.model,
                camera.rectified,
                manifest.image_width,
                manifest.image_height,
            )
            if self._black is not None:
                self._black[slot] = np.zeros((camera.model.height, camera.model.width, 3), np.uint8)
        self._builder = ObservationBuilder(manifest, rig, preprocessors)

    def observe(self, frame: SensorFrame) -> Observation | None:
        """Return the observation of a frame; None while the odometry's history is too short.

        Raises:
            ImageError: a required camera's picture is missing or damaged.
        """
        self.ego_motion.add(frame.stamp_ns, frame.pose, frame.twist)
        pictures = self._pictures(frame)
        try:
            return self._builder.build(pictures, self.ego_motion, frame.stamp_ns, frame.command)
        except WarmingUp:
            for slot, picture in pictures.items():
                self._builder.remember(slot, picture)
            return None

    def _pictures(self, frame: SensorFrame) -> dict[str, CameraFrame]:
        if self._black is not None:
            return {slot: CameraFrame(frame.stamp_ns, image) for slot, image in self._black.items()}
        return {
            slot: CameraFrame(frame.stamp_ns, CompressedImage(frame.jpegs[slot]))
            for slot in self._slots
            if slot in frame.jpegs
        }
