"""Bundles of random weights for any cameras: to test nodes and to measure time before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import CameraSlot, ContractError, View
from latentvla_ros.geometry import se3
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_training.export.bundle_writer import make_manifest, write_bundle
from latentvla_training.export.parity import Parity


def ring_slots(cameras: int) -> tuple[CameraSlot, ...]:
    """Return slots ``front``, ``camera_1`` ... evenly around the vehicle, 70 degrees wide each.

    Raises:
        ContractError: fewer than one camera.
    """
    if cameras < 1:
        raise ContractError("cameras", cameras, "at least 1")
    slots = []
    for index in range(cameras):
        yaw = (index * 360.0 / cameras + 180.0) % 360.0 - 180.0
        slots.append(
            CameraSlot(
                name="front" if index == 0 else f"camera_{index}",
                required=index == 0,
                horizontal_fov_deg=70.0,
                fov_range_deg=(30.0, 130.0),
                yaw_deg=yaw,
                yaw_tolerance_deg=180.0,
                pitch_range_deg=(-20.0, 20.0),
                x_range_m=(-3.0, 5.0),
                y_range_m=(-2.0, 2.0),
                z_range_m=(0.5, 4.0),
            )
        )
    return tuple(slots)


def random_inputs(
    config: PlannerConfig, slots: tuple[CameraSlot, ...], views: tuple[View, ...], count: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield network inputs of batch 1: noise seen by the cameras of a manifest."""
    rng = np.random.default_rng(0)
    by_name = {slot.name: slot for slot in slots}
    shape = (1, len(views), config.image_height, config.image_width, 3)
    for _ in range(count):
        intrinsics, mounts = [], []
        for view in views:
            slot = by_name[view.slot]
            focal = 0.5 * config.image_width / np.tan(np.radians(slot.horizontal_fov_deg) / 2)
            centre = (config.image_width - 1) / 2, (config.image_height - 1) / 2
            intrinsics.append([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
            mounts.append(se3.camera_mount((1.5, 0.0, 1.6), np.radians(slot.yaw_deg)))
        speed = rng.uniform(0.0, 12.0)
        history = np.zeros((1, 4, 3), np.float32)
        history[0, :, 0] = speed * np.array([-1.5, -1.0, -0.5, 0.0])
        yield {
            "images": rng.integers(0, 256, shape, dtype=np.uint8),
            "view_mask": np.ones((1, len(views)), np.bool_),
            "intrinsics": np.asarray([intrinsics], np.float32),
            "ego_from_camera": np.asarray([mounts], np.float32),
            "ego_history": history,
            "ego_history_mask": np.ones((1, 4), np.bool_),
            "ego_dynamics": np.array(
                [[speed, 0, rng.normal(0, 0.1), rng.normal(), 0, 0]], np.float32
            ),
            "ego_dynamics_mask": np.array([[1, 1, 1, 1, 1, 0]], np.bool_),
            "command": np.eye(4, dtype=np.float32)[rng.integers(0, 4, 1)],
        }


def write_random_bundle(
    folder: Path,
    slots: tuple[CameraSlot, ...],
    views: tuple[View, ...],
    image_width: int = 256,
    image_height: int = 128,
    config: PlannerConfig | None = None,
    seed: int = 0,
) -> Parity:
    """Write a bundle of random weights for any camera slots, views and input size.

    Args:
        config: a network whose views and image size are replaced; the nano network by default.

    Raises:
        ContractError: views and slots do not fit, or the size is not a multiple of 32.
    """
    config = replace(
        config or PlannerConfig(),
        view_time_offsets_s=tuple(view.time_offset_s for view in views),
        image_width=image_width,
        image_height=image_height,
    )
    torch.manual_seed(seed)
    planner = StudentPlanner(config).eval()
    manifest = make_manifest(
        f"random-{len(slots)}x{image_width}x{image_height}",
        config,
        slots,
        views,
        provenance={"weights": f"random, seed {seed}; its plans mean nothing"},
    )
    inputs = random_inputs(config, slots, views, 2)
    return write_bundle(planner, manifest, folder, inputs)
