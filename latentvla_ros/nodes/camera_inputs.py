"""The camera side of the planner node: subscriptions, calibration, and what is refused on arrival.

A callback appends the undecoded message to its camera's ring and returns; nothing is decoded here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from latentvla_ros.contract import BundleManifest, CameraModel, ContractError, Rig, RigCamera
from latentvla_ros.nodes import conversions, qos
from latentvla_ros.nodes.parameters import PlannerParameters
from latentvla_ros.nodes.remaps import camera_info_name, image_name
from latentvla_ros.nodes.topic_problems import why_silent
from latentvla_ros.sensing.camera_health import CameraHealth
from latentvla_ros.sensing.camera_synchronizer import CameraSynchronizer, SynchronizerSettings
from latentvla_ros.sensing.image_decoding import CompressedImage as CompressedPayload
from latentvla_ros.sensing.image_decoding import RawImage
from latentvla_ros.sensing.preprocessing import ViewPreprocessor
from latentvla_ros.sensing.rig_file import check_rig

Payload = CompressedPayload | RawImage

#: Called with (slot, cause, detail) for every image that was refused on arrival.
OnRefused = Callable[[str, str, str], None]

_EXPLANATIONS = {
    "zero_stamp": "the image's stamp is zero: let the driver stamp it with the time of exposure",
    "future_stamp": "the image is stamped ahead of the clock: synchronise the clocks (PTP, chrony)",
    "old": "the image is older than max_input_age_s when it arrives",
    "stamp_backwards": "the image is not newer than the one before it",
    "clock_silent": "use_sim_time is set and nothing has been heard on /clock",
    "no_camera_info": "neither the rig file nor a CameraInfo has given the camera's intrinsics",
}


class CameraInputs:
    """Images of the cameras that a bundle's views use; owned by the executor thread.

    Attributes:
        synchronizer: rings of undecoded frames.
        health: rates, ages and refusals per camera.
        preprocessors: by slot, for every camera whose intrinsics are known and accepted.
        rejected: by slot, why a camera's CameraInfo was not accepted.
        calibration: counts up with every change of ``preprocessors``.
        frames: images of the reference camera received while listening.
        listening: whether images are put into the rings.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        manifest: BundleManifest,
        parameters: PlannerParameters,
        on_frame: Callable[[str], None],
        on_refused: OnRefused,
    ) -> None:
        """Check the rig against the bundle; nothing is subscribed yet.

        Raises:
            ContractError: a required camera is missing, a camera is outside the envelope of the
                bundle, or its distortion is not supported; names the camera.
        """
        check_rig(rig, manifest)
        self._node, self._rig, self._manifest = node, rig, manifest
        self._on_frame, self._on_refused = on_frame, on_refused
        self.synchronizer: CameraSynchronizer[Payload] = CameraSynchronizer.for_rig(
            manifest,
            rig,
            SynchronizerSettings(
                sync_tolerance_s=parameters.sync_tolerance_s,
                sync_wait_s=parameters.sync_wait_s,
                max_age_s=parameters.max_input_age_s,
                future_tolerance_s=parameters.future_tolerance_s,
            ),
        )
        self.cameras: dict[str, RigCamera] = {
            camera.slot: camera for camera in rig.cameras if camera.slot in self.synchronizer.slots
        }
        self.health = CameraHealth(self.cameras, time.monotonic())
        self.preprocessors: dict[str, ViewPreprocessor] = {}
        self.rejected: dict[str, str] = {}
        self.calibration = 0
        self.frames = 0
        self.listening = False
        self._subscriptions: list[Subscription] = []
        self._info_subscriptions: dict[str, Subscription] = {}
        for camera in self.cameras.values():
            if camera.model is not None:
                self._accept(camera, camera.model)

    def subscribe(self) -> None:
        """Subscribe to every camera's images and, where the rig has no intrinsics, CameraInfo."""
        for camera in self.cameras.values():
            self._subscribe(camera)

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in (*self._subscriptions, *self._info_subscriptions.values()):
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._info_subscriptions.clear()

    def clear(self) -> None:
        """Forget all buffered frames."""
        self.synchronizer.clear()

    @property
    def uncalibrated(self) -> list[str]:
        """Required cameras whose intrinsics are not known yet, or were not accepted."""
        required = (self.synchronizer.reference, *self.synchronizer.required)
        return [slot for slot in required if slot not in self.preprocessors]

    def restart_health(self) -> None:
        """Measure rates from now on, as after activation."""
        self.health = CameraHealth(self.cameras, time.monotonic())

    def why_silent(self, slot: str) -> str:
        """Return why a camera's images cannot arrive, "" where the graph shows no reason."""
        camera = self.cameras[slot]
        kind = "CompressedImage" if camera.message_type == "compressed" else "Image"
        return why_silent(
            self._node,
            self._node.resolve_topic_name(image_name(camera)),
            f"sensor_msgs/msg/{kind}",
            qos.camera(camera.reliability),
        )

    def _subscribe(self, camera: RigCamera) -> None:
        kind = CompressedImage if camera.message_type == "compressed" else Image
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                image_name(camera),
                partial(self._on_image, camera),
                qos.camera(camera.reliability),
                event_callbacks=qos.no_events(),
            )
        )
        if camera.model is None:
            self._info_subscriptions[camera.slot] = self._node.create_subscription(
                CameraInfo,
                camera_info_name(camera),
                partial(self._on_camera_info, camera),
                qos.CAMERA_INFO,
                event_callbacks=qos.no_events(),
            )

    def _on_image(self, camera: RigCamera, message: Image | CompressedImage) -> None:
        steady_s = time.monotonic()
        now_ns = self._node.get_clock().now().nanoseconds
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if stamp_ns > 0:
            stamp_ns += round(camera.time_offset_s * 1e9)
        slot = camera.slot
        self.health.received(slot, (now_ns - stamp_ns) * 1e-9, steady_s)
        if not self.listening:
            return
        if slot == self.synchronizer.reference:
            self.frames += 1
        cause: str | None = None
        detail = ""
        if message.header.frame_id != camera.frame_id:
            cause = "wrong_frame_id"
            detail = f"frame_id is {message.header.frame_id!r}, the rig says {camera.frame_id!r}"
        elif now_ns == 0:
            cause = "clock_silent"
        elif slot in self.rejected:
            cause, detail = "camera_rejected", self.rejected[slot]
        elif slot not in self.preprocessors:
            cause = "no_camera_info"
        else:
            cause = self.synchronizer.add(
                slot, stamp_ns, conversions.image_payload(message), now_ns, steady_s
            )
        if cause is None:
            self._on_frame(slot)
            return
        self.health.refused(slot, cause)
        if not detail:
            detail = _EXPLANATIONS.get(cause, cause)
            if cause in ("old", "future_stamp"):
                detail += f" ({(now_ns - stamp_ns) * 1e-9:+.3f} s old)"
        self._on_refused(slot, cause, f"camera {slot!r} ({camera.topic}): {detail}")

    def _on_camera_info(self, camera: RigCamera, message: CameraInfo) -> None:
        """Take the intrinsics once: the subscription ends with the first that is accepted."""
        try:
            self._accept(camera, conversions.camera_model(message, camera.rectified))
        except ContractError as error:
            if camera.slot not in self.rejected:
                self._on_refused(camera.slot, "camera_rejected", str(error))
            self.rejected[camera.slot] = str(error)
            return
        self.rejected.pop(camera.slot, None)
        self._node.destroy_subscription(self._info_subscriptions.pop(camera.slot))

    def _accept(self, camera: RigCamera, model: CameraModel) -> None:
        """Prepare preprocessing; raises ContractError when the bundle cannot use the camera."""
        self.preprocessors[camera.slot] = ViewPreprocessor.for_slot(
            self._manifest.slot(camera.slot),
            model,
            camera.rectified,
            self._manifest.image_width,
            self._manifest.image_height,
        )
        self.calibration += 1
