"""The one image preprocessing: published image to network view, on the car and in training alike.

Three steps, in this order, on uint8:

1. *Pre-shrink* by k in {1, 2, 4, 8}, the largest that leaves at least the view's resolution: a JPEG
   is decoded at that reduced scale, any other image is averaged over k x k blocks. Both are
   low-pass filters over the same pixel blocks, so a lamp of a few pixels does not alias away.
2. *Crop* (rectified image) or *rectify* (distorted image).
   A rectified image loses what exceeds the view's aspect and, where the camera is wider than the
   trained field of view by more than 2 %, what exceeds that. The window is centred on the principal
   point as far as the image reaches, then pushed inside it. Its corners lie on multiples of k.
   A distorted image becomes the pinhole view along its optical axis with square pixels, of the
   trained field of view or the widest one that it fills.
3. *Resample* once with bilinear interpolation, straight into the caller's buffer.

An image that already has the view's size and field of view passes through untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import CameraModel, CameraSlot, ContractError
from latentvla_ros.geometry import camera
from latentvla_ros.sensing import image_decoding
from latentvla_ros.sensing.image_decoding import CompressedImage, Image, ImageError, RawImage

#: A camera wider than the trained field of view by less than this share is not cropped for it.
FOV_SLACK = 0.02
#: Widest pinhole view asked of a distorted camera when no field of view was trained.
MAX_PINHOLE_FOV_DEG = 140.0


@dataclass(frozen=True)
class _Window:
    """Crop of a rectified image, published pixels."""

    x0: int
    y0: int
    width: int
    height: int


class ViewPreprocessor:
    """Turns the published images of one camera into (height, width, 3) uint8 RGB views.

    Owned by one thread at a time: it keeps scratch buffers.

    Attributes:
        intrinsics: (3, 3) float32 pinhole matrix of the view.
        horizontal_fov_deg: of the view.
        reduction: k of step 1.
        identity: whether images pass through untouched.
    """

    def __init__(
        self,
        model: CameraModel,
        rectified: bool,
        width: int,
        height: int,
        *,
        horizontal_fov_deg: float | None = None,
        fov_range_deg: tuple[float, float] | None = None,
        name: str = "camera",
    ) -> None:
        """Prepare the maps for one camera.

        Args:
            model: intrinsics as published (K and D of a raw image, P of a rectified one).
            rectified: whether the published image is already rectified.
            width, height: pixels of the view.
            horizontal_fov_deg: field of view the model was trained in; wider images are cropped to
                it.
            fov_range_deg: fields of view the model accepts after the crop.
            name: camera slot, for messages.

        Raises:
            ContractError: unusable intrinsics, unsupported distortion, or a field of view outside
                ``fov_range_deg``; names the camera.
        """
        # One process-wide place: a pool on every core would take turns with the backend's threads
        # and the executor, for images that one thread resamples in a millisecond or two.
        cv2.setNumThreads(1)
        camera.check_camera_model(model, rectified, name)
        if width <= 0 or height <= 0:
            raise ContractError(f"camera[{name}].view size", (width, height), "positive pixels")
        if horizontal_fov_deg is not None and not 0 < horizontal_fov_deg < 170:
            raise ContractError(
                f"camera[{name}].horizontal_fov_deg", horizontal_fov_deg, "between 0 and 170"
            )
        self.name = name
        self.width, self.height = width, height
        self._model = model
        self._window: _Window | None = None
        self._maps: tuple[NDArray[np.int16], NDArray[np.uint16]] | None = None
        undistorted = (
            rectified or len(model.distortion) == 0 or not np.any(np.asarray(model.distortion))
        ) and (rectified or model.distortion_model != "equidistant")
        if undistorted:
            self._window, self.reduction = _crop_window(model, width, height, horizontal_fov_deg)
            window = self._window
            matrix = camera.resize_intrinsics(
                camera.crop_intrinsics(model.matrix, window.x0, window.y0),
                width / window.width,
                height / window.height,
            )
        else:
            matrix, _ = camera.widest_pinhole(
                model, width, height, horizontal_fov_deg or MAX_PINHOLE_FOV_DEG
            )
            shrink = min(model.matrix[0, 0] / matrix[0, 0], model.matrix[1, 1] / matrix[1, 1])
            self.reduction = _reduction(float(shrink))
            self._maps = camera.rectification_maps(
                model, 1.0 / self.reduction, matrix, width, height
            )
        self.intrinsics: NDArray[np.float32] = matrix.astype(np.float32)
        self.horizontal_fov_deg = camera.horizontal_fov_deg(matrix, width)
        if fov_range_deg is not None:
            low, high = fov_range_deg
            if not low - 1e-3 <= self.horizontal_fov_deg <= high + 1e-3:
                raise ContractError(
                    f"camera[{name}].horizontal_fov_deg",
                    round(self.horizontal_fov_deg, 2),
                    f"{low:g} ... {high:g} degrees after rectification and crop",
                )
        self.identity = self._window == _Window(0, 0, width, height)
        self._scratch = np.empty((height, width, 3), np.uint8)

    @classmethod
    def for_slot(
        cls, slot: CameraSlot, model: CameraModel, rectified: bool, width: int, height: int
    ) -> ViewPreprocessor:
        """Prepare the maps for a camera that fills ``slot``; raises as the constructor does."""
        return cls(
            model,
            rectified,
            width,
            height,
            horizontal_fov_deg=slot.horizontal_fov_deg,
            fov_range_deg=slot.fov_range_deg,
            name=slot.name,
        )

    def __call__(self, image_rgb: Image, out: Image) -> None:
        """Write the view of one published image.

        Args:
            image_rgb: (H, W, 3) uint8 RGB as published.
            out: (height, width, 3) uint8, C-contiguous; written in place.

        Raises:
            ImageError: ``wrong_size`` when the image is not of the calibrated size.
        """
        self._check_out(out)
        self._check_size(image_rgb.shape[1], image_rgb.shape[0])
        if self.identity:
            np.copyto(out, image_rgb)
            return
        k = self.reduction
        if k > 1:
            height, width = image_rgb.shape[0] // k, image_rgb.shape[1] // k
            image_rgb = cv2.resize(  # type: ignore[assignment]
                image_rgb[: height * k, : width * k], (width, height), interpolation=cv2.INTER_AREA
            )
        self._resample(image_rgb, out)

    def from_jpeg(self, data: Any, out: Image) -> None:
        """Write the view of one JPEG, decoded at the reduced scale of step 1.

        Raises:
            ImageError: as ``decode_compressed``; ``wrong_size`` before anything is decoded.
        """
        self._check_out(out)
        self._check_size(*image_decoding.jpeg_size(data))
        bgr = image_decoding.decode_bgr(data, "jpeg", self.reduction)
        if not self.identity:
            self._resample(bgr, self._scratch)
            bgr = self._scratch
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=out)

    def write(self, image: CompressedImage | RawImage | Image, out: Image) -> None:
        """Write the view of any payload: a compressed or raw message, or an RGB array.

        Raises:
            ImageError: as ``from_jpeg``, ``decode_raw`` and ``__call__``.
        """
        if isinstance(image, CompressedImage) and len(image.data) > 1 and _is_jpeg(image.data):
            self.from_jpeg(image.data, out)
        else:
            self(image_decoding.decode(image), out)

    def _resample(self, image: Image, out: Image) -> None:
        """Step 2 and 3 on an image that is pre-shrunk already; channel order does not matter."""
        if self._maps is not None:
            # The view never leaves the image by more than the outermost half pixel.
            cv2.remap(
                image,
                self._maps[0],
                self._maps[1],
                cv2.INTER_LINEAR,
                dst=out,
                borderMode=cv2.BORDER_REPLICATE,
            )
            return
        assert self._window is not None
        window, k = self._window, self.reduction
        crop = image[
            window.y0 // k : (window.y0 + window.height) // k,
            window.x0 // k : (window.x0 + window.width) // k,
        ]
        if crop.shape == out.shape:
            np.copyto(out, crop)
        else:
            cv2.resize(crop, (self.width, self.height), dst=out, interpolation=cv2.INTER_LINEAR)

    def _check_size(self, width: int, height: int) -> None:
        if (width, height) != (self._model.width, self._model.height):
            raise ImageError(
                "wrong_size",
                f"{width}x{height} from camera {self.name!r}, calibrated for "
                f"{self._model.width}x{self._model.height}",
            )

    def _check_out(self, out: Image) -> None:
        expected = (self.height, self.width, 3)
        if out.shape != expected or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(
                f"out: {out.shape} {out.dtype}, expected contiguous {expected} uint8 RGB"
            )


def _is_jpeg(data: Any) -> bool:
    return bytes(memoryview(data)[:2]) == b"\xff\xd8"


def _reduction(shrink: float) -> int:
    """Return the largest k in {1, 2, 4, 8} that does not exceed ``shrink``."""
    return next(k for k in (8, 4, 2, 1) if k <= shrink + 1e-9 or k == 1)


def _crop_window(
    model: CameraModel, width: int, height: int, horizontal_fov_deg: float | None
) -> tuple[_Window, int]:
    """Return the crop of step 2 for a rectified image and the k of step 1."""
    focal, cx, cy = model.matrix[0, 0], model.matrix[0, 2], model.matrix[1, 2]
    aspect = width / height
    wide = min(float(model.width), model.height * aspect)
    if horizontal_fov_deg is not None:
        trained = 2.0 * focal * np.tan(np.deg2rad(horizontal_fov_deg) / 2.0)
        if trained < wide * (1.0 - FOV_SLACK):
            wide = trained
    k = _reduction(min(wide / width, wide / aspect / height))
    crop_width = max(k, round(wide / k) * k)
    crop_height = max(k, round(wide / aspect / k) * k)
    crop_width = min(crop_width, model.width // k * k)
    crop_height = min(crop_height, model.height // k * k)
    x0 = _place(cx, crop_width, model.width, k)
    y0 = _place(cy, crop_height, model.height, k)
    return _Window(x0, y0, crop_width, crop_height), k


def _place(centre: float, size: int, limit: int, k: int) -> int:
    """Return the start, a multiple of k, of a window about ``centre`` inside ``limit`` pixels."""
    start = round((centre - (size - 1) / 2.0) / k) * k
    return int(min(max(start, 0), (limit - size) // k * k))
