"""A bundle without training: it keeps the speed, straight ahead, with a few slower candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from latentvla_ros.contract import BundleManifest, CameraSlot, Observation, Plan, View
from latentvla_ros.runtime.bundle import ONNX_FILE, sha256_of, write_manifest

WIDTH, HEIGHT, CANDIDATES = 256, 128, 4


def slots() -> tuple[CameraSlot, ...]:
    """Return front, left and right as ``drive_bag.rig`` mounts them; only front is required."""
    return tuple(
        CameraSlot(
            name=name,
            required=name == "front",
            horizontal_fov_deg=fov,
            fov_range_deg=(fov - 10, fov + 10),
            yaw_deg=yaw,
            yaw_tolerance_deg=5.0,
            pitch_range_deg=(-3.0, 3.0),
            x_range_m=(1.0, 2.5),
            y_range_m=(-1.0, 1.0),
            z_range_m=(1.0, 2.0),
        )
        for name, fov, yaw in (("front", 60.0, 0.0), ("left", 90.0, 55.0), ("right", 90.0, -55.0))
    )


#: Names of latent actions as a bundle with a codebook has them, different in every place.
NAMES = tuple(tuple(f"p{place} c{code}" for code in range(16)) for place in range(4))


def write_bundle(folder: Path, codebook_id: str | None = None) -> Path:
    """Write the bundle and return its folder.

    Args:
        codebook_id: with one, its latent actions have ``NAMES``; all say code 0 with 1/16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = (*(View(slot.name) for slot in slots()), View("front", -0.5))
    shapes = {
        "images": (TensorProto.UINT8, (1, len(views), HEIGHT, WIDTH, 3)),
        "view_mask": (TensorProto.BOOL, (1, len(views))),
        "intrinsics": (TensorProto.FLOAT, (1, len(views), 3, 3)),
        "ego_from_camera": (TensorProto.FLOAT, (1, len(views), 4, 4)),
        "ego_history": (TensorProto.FLOAT, (1, 4, 3)),
        "ego_history_mask": (TensorProto.BOOL, (1, 4)),
        "ego_dynamics": (TensorProto.FLOAT, (1, 6)),
        "ego_dynamics_mask": (TensorProto.BOOL, (1, 6)),
        "command": (TensorProto.FLOAT, (1, 4)),
    }
    metres_per_speed = np.zeros((1, CANDIDATES, 8, 3), np.float32)
    times = 0.5 * np.arange(1, 9)
    for index in range(CANDIDATES):
        metres_per_speed[0, index, :, 0] = times * (1.0 - 0.05 * index)
    scores = np.linspace(1.0, 0.0, CANDIDATES, dtype=np.float32)[None]
    nodes = [
        helper.make_node("Gather", ["ego_dynamics", "first"], ["speed"], axis=1),
        helper.make_node("Reshape", ["speed", "ones"], ["speed4"]),
        helper.make_node("Mul", ["per_speed", "speed4"], ["candidates"]),
        helper.make_node("Identity", ["fixed_scores"], ["scores"]),
        helper.make_node("Identity", ["fixed_logits"], ["latent_logits"]),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "ones": np.array([1, 1, 1, 1], np.int64),
        "per_speed": metres_per_speed,
        "fixed_scores": scores,
        "fixed_logits": np.zeros((1, 12, 16), np.float32),
    }
    results = {"candidates": (1, CANDIDATES, 8, 3), "scores": (1, CANDIDATES)}
    results["latent_logits"] = (1, 12, 16)
    graph = helper.make_graph(
        nodes,
        "constant speed",
        [helper.make_tensor_value_info(name, *shapes[name]) for name in Observation.INPUTS],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, results[name])
            for name in Plan.OUTPUTS
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / ONNX_FILE))
    manifest = BundleManifest(
        bundle_id="tiny-1",
        slots=slots(),
        views=views,
        image_width=WIDTH,
        image_height=HEIGHT,
        horizon_s=4.0,
        knot_interval_s=0.5,
        num_candidates=CANDIDATES,
        base_frame_definition="rear axle centre on the ground",
        codebook_id=codebook_id,
        latent_action_names=None if codebook_id is None else NAMES,
        model={},
        files={ONNX_FILE: sha256_of(folder / ONNX_FILE)},
    )
    write_manifest(manifest, folder)
    return folder
