"""A shard of hand-made Scenes: a straight road, a leader, a light, coloured pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from latentvla_training.data.scene import Scene, SceneLabels
from latentvla_training.data.shards import ShardReader, split_folder, write_shard
from latentvla_training.world.road_map import Layer, SignalState

from latentvla_ros.contract import Command
from latentvla_ros.geometry import se2, se3
from latentvla_ros.model.config import PlannerConfig

#: What the world writes into its shards, as far as training reads it.
SHARD_RECIPE = {
    "image_width": 64,
    "image_height": 32,
    "views": [
        {"slot": "front", "time_offset_s": 0.0},
        {"slot": "left", "time_offset_s": 0.0},
        {"slot": "right", "time_offset_s": 0.0},
        {"slot": "front", "time_offset_s": -0.5},
    ],
}

TINY = PlannerConfig(
    image_width=64,
    image_height=32,
    image_channels=16,
    width=32,
    bev_cells=(8, 8),
    bev_blocks=1,
    context_tokens=3,
    context_layers=1,
    reasoner_layers=1,
    proposals=6,
    rounds=2,
)

#: Speed of the vehicle ahead, and how far its centre is ahead of the ego's rear axle.
LEADER_SPEED, LEADER_AHEAD = 3.0, 24.0


def picture(value: int) -> bytes:
    """Return a JPEG of one grey."""
    done, data = cv2.imencode(".jpg", np.full((32, 64, 3), value, np.uint8))
    assert done
    return bytes(data.tobytes())


def make_scene(
    index: int, network: str = "train-0000", pose: tuple[float, ...] = (50, 20, 0.7)
) -> Scene:
    """Return Scene ``index``: 4 + index % 5 m/s straight along a road at ``pose``."""
    speed = 4.0 + index % 5
    ego = np.array(pose)
    times = np.arange(41) * 0.1
    future = np.stack([speed * times, np.zeros(41), np.zeros(41)], axis=1)
    road = np.array([[-30.0, -3.5], [130.0, -3.5], [130.0, 3.5], [-30.0, 3.5]])
    lane = np.array([[-30.0, -1.75], [130.0, -1.75], [130.0, 1.75], [-30.0, 1.75]])
    along = np.arange(-20.0, 121.0)
    line = np.stack([along, np.zeros(141), np.zeros(141)], axis=1)
    frames = np.arange(51) * 0.1
    leader = np.zeros((51, 5))
    leader[:, :3] = se2.compose(
        ego, np.stack([LEADER_AHEAD + LEADER_SPEED * frames, 0 * frames, 0 * frames], axis=1)
    )
    leader[:, 3:] = LEADER_SPEED * np.array([np.cos(ego[2]), np.sin(ego[2])])
    labels = SceneLabels(
        future_2hz=future[5::5].astype(np.float32),
        future_10hz=future.astype(np.float32),
        future_mask=np.ones(8, np.bool_),
        past_states=np.zeros((4, 11)),
        agent_type=np.zeros(1, np.uint8),
        agent_size=np.array([[4.0, 2.0]], np.float32),
        agent_height=np.array([1.5], np.float32),
        agent_state=leader[None],
        agent_valid=np.ones((1, 51), np.bool_),
        agent_braking=np.array([True]),
        polygon_xy=np.concatenate([se2.transform_points(ego, ring) for ring in (road, lane)]),
        polygon_offset=np.array([0, 4, 8]),
        polygon_layer=np.array([Layer.INTERSECTION, Layer.LANE], np.uint8),
        polygon_on_route=np.array([False, True]),
        light_polygon=np.zeros(0, np.int64),
        light_red=np.zeros((0, 41), np.bool_),
        centerline=se2.compose(ego, line),
        own_light=int(SignalState.RED) if index % 2 else -1,
        own_light_distance_m=30.0 if index % 2 else float("nan"),
        own_light_switched=False,
        pdm_reference_10hz=np.full((41, 3), np.nan),
    )
    history = np.stack(
        [speed * np.array([-1.5, -1.0, -0.5, 0.0]), np.zeros(4), np.zeros(4)], axis=1
    )
    mounts = [se3.camera_mount((1.8, 0.0, 1.6), np.radians(yaw)) for yaw in (0.0, 55.0, -55.0, 0.0)]
    mounts[3][0, 3] -= 0.5 * speed
    intrinsics = np.array([[55.0, 0.0, 31.5], [0.0, 55.0, 15.5], [0.0, 0.0, 1.0]])
    return Scene(
        token=f"{network}-00/{index}",
        network=network,
        stamp_ns=1_000_000_000 + index,
        ego_pose=ego,
        view_jpegs=tuple(picture(40 * view + index) for view in range(4)),
        view_mask=np.ones(4, np.bool_),
        intrinsics=np.tile(intrinsics, (4, 1, 1)).astype(np.float32),
        ego_from_camera=np.stack(mounts).astype(np.float32),
        ego_history=history.astype(np.float32),
        ego_history_mask=np.ones(4, np.bool_),
        ego_dynamics=np.array([speed, 0, 0, 0, 0, 0], np.float32),
        ego_dynamics_mask=np.array([1, 1, 1, 1, 1, 0], np.bool_),
        command=Command.STRAIGHT.one_hot(),
        labels=labels,
    )


@pytest.fixture
def tiny() -> PlannerConfig:
    return TINY


@pytest.fixture
def reader(tmp_path: Path) -> ShardReader:
    """12 Scenes of two networks."""
    for network in ("train-0000", "train-0001"):
        scenes = [make_scene(index, network) for index in range(6)]
        write_shard(tmp_path / f"{network}-00.parquet", scenes)
    return ShardReader(sorted(tmp_path.glob("*.parquet")))


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with two networks in each split, six Scenes each."""
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    for split in ("train", "val", "test"):
        for network in (f"{split}-0000", f"{split}-0001"):
            scenes = [make_scene(index, network) for index in range(6)]
            write_shard(split_folder(split) / f"{network}-00.parquet", scenes)
    return tmp_path
