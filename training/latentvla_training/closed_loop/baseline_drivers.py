"""The table's rows that need no cameras, as drivers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import Observation, Plan, Rig
from latentvla_ros.geometry.trajectory import constant_turn_rate
from latentvla_training.closed_loop.observing import Observer
from latentvla_training.data.world_adapter import SceneSettings, scene_manifest
from latentvla_training.planner.baselines import EGO_INPUTS, EgoStatusNet
from latentvla_training.planner.released import BlankPlanner
from latentvla_training.world.drivers import SensorFrame


def single_plan(poses: NDArray[np.floating], stamp_ns: int) -> Plan:
    """Return a plan that is one trajectory (8, 3) without alternatives."""
    candidates = np.asarray(poses, np.float32).reshape(1, 8, 3)
    return Plan.from_outputs(
        candidates, np.zeros(1, np.float32), np.zeros((12, 16), np.float32), stamp_ns
    )


class ConstantVelocityDriver:
    """Goes on with the present speed and turn rate."""

    name = "constant_velocity"
    uses_cameras = False

    def start(self, rig: Rig) -> None:
        """Nothing to forget."""

    def plan(self, frame: SensorFrame) -> Plan:
        """Return the arc that the present twist leads along."""
        poses = constant_turn_rate(float(frame.twist[0]), float(frame.twist[2]))
        return single_plan(poses, frame.stamp_ns)

    def close(self) -> None:
        """Nothing to free."""


class _BlindDriver:
    """Plans from an observation whose pictures are black."""

    name = ""
    uses_cameras = False

    def __init__(self) -> None:
        self._manifest = scene_manifest(SceneSettings())
        self._observer: Observer | None = None

    def start(self, rig: Rig) -> None:
        """Forget the route before."""
        self._observer = Observer(self._manifest, rig, blank=True)

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the plan of a frame, None while warming up."""
        assert self._observer is not None, "plan before start"
        observation = self._observer.observe(frame)
        if observation is None:
            return None
        return single_plan(self._poses(observation), frame.stamp_ns)

    def close(self) -> None:
        """Nothing to free."""

    def _poses(self, observation: Observation) -> NDArray[np.float32]:
        raise NotImplementedError


class EgoStatusDriver(_BlindDriver):
    """The ego-status-and-command net."""

    name = "ego_status_mlp"

    def __init__(self, net: EgoStatusNet) -> None:
        super().__init__()
        self._net = net.eval()

    def _poses(self, observation: Observation) -> NDArray[np.float32]:
        inputs = observation.inputs()
        with torch.inference_mode():
            plans = self._net(*(torch.from_numpy(inputs[name]) for name in EGO_INPUTS))
        return np.asarray(plans[0].numpy(), np.float32)


class BlankDriver(_BlindDriver):
    """The planner that was trained on blank images."""

    name = "blank_images"

    def __init__(self, planner: BlankPlanner) -> None:
        super().__init__()
        self._planner = planner

    def _poses(self, observation: Observation) -> NDArray[np.float32]:
        inputs = {
            name: torch.from_numpy(array)
            for name, array in observation.inputs().items()
            if name != "images"
        }
        return np.asarray(self._planner.plan(inputs)[0].numpy(), np.float32)
