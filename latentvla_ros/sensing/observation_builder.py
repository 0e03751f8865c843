"""Frames, ego motion and a command to the network's input: the same on the car and in training.

A current view is preprocessed from its camera's frame. A past view is the already preprocessed
frame of that camera nearest to its time; the builder remembers them. Every view is placed by
``compensated_extrinsics``: ego at t0 from camera at the frame's own stamp.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentvla_ros.contract import (
    BundleManifest,
    Command,
    ContractError,
    Observation,
    Rig,
)
from latentvla_ros.geometry import se3
from latentvla_ros.sensing.ego_motion_buffer import EgoMotionBuffer
from latentvla_ros.sensing.image_decoding import CompressedImage, Image, ImageError, RawImage
from latentvla_ros.sensing.preprocessing import ViewPreprocessor

#: A past view is masked when no frame lies this near to its time.
PAST_TOLERANCE_S = 0.1
#: Observations whose images stay valid while later ones are built.
BUFFERS = 3
_MAX_PAST_FRAMES = 64


@dataclass(frozen=True)
class CameraFrame:
    """One camera's image and the time of its exposure."""

    stamp_ns: int
    image: CompressedImage | RawImage | Image


def compensated_extrinsics(
    ego_motion: EgoMotionBuffer, t0_ns: int, camera_stamp_ns: int, ego_from_camera: ArrayLike
) -> NDArray[np.float32]:
    """Return ego at t0 from camera at its own stamp, (4, 4) float32.

    Args:
        ego_motion: odometry that covers both stamps.
        ego_from_camera: (4, 4) mounting of the camera.

    Raises:
        WarmingUp, OdometryStale: as ``EgoMotionBuffer.relative``.
    """
    mounting = np.asarray(ego_from_camera, np.float64)
    if camera_stamp_ns != t0_ns:
        ego_then = se3.from_se2(ego_motion.relative(t0_ns, camera_stamp_ns))
        mounting = ego_then @ mounting
    return mounting.astype(np.float32)


class ObservationBuilder:
    """Builds observations for one bundle and one rig.

    Owned by the inference thread: image buffers are reused, so an observation's images stay valid
    until ``BUFFERS`` further ones have been built.

    Attributes:
        view_stamps_ns: (V,) stamps of the views last built, None where one was missing.
        drops: optional or past views masked, by cause: ``<cause>_<slot>`` for an unusable image,
            ``no_past_<slot>`` where none was near enough.
    """

    def __init__(
        self, manifest: BundleManifest, rig: Rig, preprocessors: Mapping[str, ViewPreprocessor]
    ) -> None:
        """Prepare buffers.

        Args:
            preprocessors: by slot, for every camera of the rig that a view uses.

        Raises:
            ContractError: a required slot has no camera or preprocessor, the reference camera fills
                no current view, or a preprocessor's size differs from the manifest's.
        """
        self.manifest, self.rig = manifest, rig
        self._preprocessors = dict(preprocessors)
        self._mounting = {camera.slot: camera.ego_from_camera for camera in rig.cameras}
        for slot in dict.fromkeys(view.slot for view in manifest.views):
            ready = slot in self._preprocessors and slot in self._mounting
            if manifest.slot(slot).required and not ready:
                raise ContractError(
                    f"rig.cameras[{slot}]", "no camera with intrinsics", "a required camera"
                )
        for slot, preprocessor in self._preprocessors.items():
            size = (preprocessor.width, preprocessor.height)
            if size != (manifest.image_width, manifest.image_height):
                raise ContractError(
                    f"camera[{slot}].view size",
                    size,
                    f"{manifest.image_width}x{manifest.image_height}",
                )
        current = [view.slot for view in manifest.views if view.time_offset_s == 0]
        if rig.reference_camera not in current:
            raise ContractError("rig.reference_camera", rig.reference_camera, f"one of {current}")
        shape = (len(manifest.views), manifest.image_height, manifest.image_width, 3)
        self._buffers = [np.zeros(shape, np.uint8) for _ in range(BUFFERS)]
        self._turn = 0
        self._past: dict[str, deque[tuple[int, Image]]] = {
            view.slot: deque(maxlen=_MAX_PAST_FRAMES)
            for view in manifest.views
            if view.time_offset_s < 0
        }
        self._reach_ns = round(
            (max((-view.time_offset_s for view in manifest.views), default=0) + PAST_TOLERANCE_S)
            * 1e9
        )
        self.view_stamps_ns: tuple[int | None, ...] = (None,) * len(manifest.views)
        self.drops: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget the past frames, as after a clock jump."""
        for frames in self._past.values():
            frames.clear()

    def build(
        self,
        frames: Mapping[str, CameraFrame],
        ego_motion: EgoMotionBuffer,
        t0_ns: int,
        command: Command,
    ) -> Observation:
        """Build the observation at t0.

        Args:
            frames: by slot, as the synchroniser chose them.
            ego_motion: odometry up to t0. command: what the route asks for.

        Raises:
            ImageError: a required camera's image is missing (``empty``) or cannot be used; the text
                names the camera.
            WarmingUp, OdometryStale: the odometry does not cover t0.
        """
        ego = ego_motion.at(t0_ns)
        images = self._buffers[self._turn]
        self._turn = (self._turn + 1) % BUFFERS
        views = self.manifest.views
        mask = np.zeros(len(views), bool)
        intrinsics = np.tile(np.eye(3, dtype=np.float32), (len(views), 1, 1))
        extrinsics = np.tile(np.eye(4, dtype=np.float32), (len(views), 1, 1))
        stamps: list[int | None] = [None] * len(views)
        # Past views first: their frames are older than what the current views are about to add.
        for index in sorted(range(len(views)), key=lambda index: views[index].time_offset_s):
            view = views[index]
            if view.time_offset_s < 0:
                stamp = self._copy_past(view.slot, t0_ns, view.time_offset_s, images[index])
            else:
                stamp = self._write_current(view.slot, frames, images[index])
            if stamp is None or view.slot not in self._mounting:
                images[index] = 0
                continue
            mask[index] = True
            stamps[index] = stamp
            intrinsics[index] = self._preprocessors[view.slot].intrinsics
            extrinsics[index] = compensated_extrinsics(
                ego_motion, t0_ns, stamp, self._mounting[view.slot]
            )
        self.view_stamps_ns = tuple(stamps)
        return Observation(
            images=images,
            view_mask=mask,
            intrinsics=intrinsics,
            ego_from_camera=extrinsics,
            ego_history=ego.history,
            ego_history_mask=ego.history_mask,
            ego_dynamics=ego.dynamics,
            ego_dynamics_mask=ego.dynamics_mask,
            command=command.one_hot(),
            stamp_ns=t0_ns,
        )

    def remember(self, slot: str, frame: CameraFrame) -> None:
        """Preprocess a frame for past views alone, without building an observation.

        Raises:
            ImageError: the image cannot be used.
        """
        if slot in self._past:
            view = np.empty((self.manifest.image_height, self.manifest.image_width, 3), np.uint8)
            self._preprocessors[slot].write(frame.image, view)
            self._keep(slot, frame.stamp_ns, view)

    def _write_current(
        self, slot: str, frames: Mapping[str, CameraFrame], out: Image
    ) -> int | None:
        """Preprocess the frame of ``slot`` into ``out``; return its stamp, None when masked."""
        required = self.manifest.slot(slot).required
        frame = frames.get(slot)
        if frame is None or slot not in self._preprocessors:
            if required:
                raise ImageError("empty", f"no frame of required camera {slot!r}")
            return None
        try:
            self._preprocessors[slot].write(frame.image, out)
        except ImageError as error:
            if required:
                raise ImageError(error.cause, f"camera {slot!r}: {error.detail}") from error
            self.drops[f"{error.cause}_{slot}"] += 1
            return None
        if slot in self._past:
            self._keep(slot, frame.stamp_ns, out.copy())
        return frame.stamp_ns

    def _keep(self, slot: str, stamp_ns: int, view: Image) -> None:
        past = self._past[slot]
        past.append((stamp_ns, view))
        while past[0][0] < stamp_ns - self._reach_ns:
            past.popleft()

    def _copy_past(self, slot: str, t0_ns: int, offset_s: float, out: Image) -> int | None:
        """Copy the remembered frame nearest to t0 + offset; return its stamp, None when masked."""
        wanted_ns = t0_ns + round(offset_s * 1e9)
        stamp_ns, view = min(
            self._past[slot], key=lambda entry: abs(entry[0] - wanted_ns), default=(None, None)
        )
        if stamp_ns is None or view is None or abs(stamp_ns - wanted_ns) > PAST_TOLERANCE_S * 1e9:
            self.drops[f"no_past_{slot}"] += 1
            return None
        np.copyto(out, view)
        return stamp_ns
