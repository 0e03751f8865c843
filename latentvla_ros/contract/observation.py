"""What the planner network sees at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract.errors import ContractError


@dataclass(frozen=True)
class Observation:
    """Input of a backend at t0, the stamp of the reference camera's frame.

    V views in the order of ``BundleManifest.views``; ego frame = rear axle on the ground at t0.

    Attributes:
        images: (V, H, W, 3) uint8 RGB; a missing optional view is zero.
        view_mask: (V,) bool, False where a view is missing.
        intrinsics: (V, 3, 3) float32 pinhole matrix after rectification, crop and resize; pixels,
            with the centre of the top-left pixel at (0, 0).
        ego_from_camera: (V, 4, 4) float32, ego at **t0** from camera (optical axes: x right,
            y down, z forward) at **its own stamp**.
        ego_history: (4, 3) float32 x, y, yaw at t0-1.5 s ... t0 in the ego frame of t0.
        ego_history_mask: (4,) bool.
        ego_dynamics: (6,) float32 vx, vy, yaw rate, ax, ay, wheel angle; unknown is 0.
        ego_dynamics_mask: (6,) bool.
        command: (4,) float32 one-hot left, straight, right, unknown.
        stamp_ns: t0 in nanoseconds (not a network input).
    """

    images: NDArray[np.uint8]
    view_mask: NDArray[np.bool_]
    intrinsics: NDArray[np.float32]
    ego_from_camera: NDArray[np.float32]
    ego_history: NDArray[np.float32]
    ego_history_mask: NDArray[np.bool_]
    ego_dynamics: NDArray[np.float32]
    ego_dynamics_mask: NDArray[np.bool_]
    command: NDArray[np.float32]
    stamp_ns: int = 0

    #: Names of the network inputs, in the order of every backend and of ``model.onnx``.
    INPUTS = (
        "images",
        "view_mask",
        "intrinsics",
        "ego_from_camera",
        "ego_history",
        "ego_history_mask",
        "ego_dynamics",
        "ego_dynamics_mask",
        "command",
    )

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ContractError("observation.images", self.images.shape, "shape (V, H, W, 3)")
        views = self.images.shape[0]
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "images": (self.images.shape, np.uint8),
            "view_mask": ((views,), np.bool_),
            "intrinsics": ((views, 3, 3), np.float32),
            "ego_from_camera": ((views, 4, 4), np.float32),
            "ego_history": ((4, 3), np.float32),
            "ego_history_mask": ((4,), np.bool_),
            "ego_dynamics": ((6,), np.float32),
            "ego_dynamics_mask": ((6,), np.bool_),
            "command": ((4,), np.float32),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ContractError(
                    f"observation.{name}",
                    f"{array.shape} {array.dtype}",
                    f"{shape} {np.dtype(dtype)}",
                )

    def inputs(self) -> dict[str, NDArray[np.generic]]:
        """Return the network inputs by name, each with a leading batch dimension of 1."""
        return {name: getattr(self, name)[None] for name in self.INPUTS}
