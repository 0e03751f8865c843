"""Drives with an exported bundle: what the planner node plans, without ROS around it."""

from __future__ import annotations

from dataclasses import replace

from latentvla_ros.contract import Observation, Plan, Rig
from latentvla_ros.runtime.backend import create_backend
from latentvla_ros.runtime.bundle import load_bundle
from latentvla_ros.runtime.planner import Planner
from latentvla_training.closed_loop.observing import Observer
from latentvla_training.planner.augmentation import hide_ego_state
from latentvla_training.world.drivers import SensorFrame


class BundleDriver:
    """A ``Driver`` that plans with a bundle through the onboard runtime.

    Args:
        bundle: name or path. backend: see ``create_backend``.
        threads: of the backend; more than one may change a plan's last digit.
        hide_state: plan without past poses, acceleration and wheel angle: what is left when the
            planner cannot go on as it has been driven.

    Raises:
        BundleError: the bundle is absent or damaged.
        ContractError: there is no such backend.
    """

    uses_cameras = True

    def __init__(
        self,
        bundle: str,
        backend: str = "onnxruntime",
        threads: int = 1,
        hide_state: bool = False,
    ) -> None:
        self.name = "bundle_hidden_state" if hide_state else "bundle"
        self._hide_state = hide_state
        self.bundle = load_bundle(bundle)
        self._planner = Planner(self.bundle, create_backend(backend, threads))
        self._observer: Observer | None = None

    def start(self, rig: Rig) -> None:
        """Forget the route before; raises ContractError when the rig does not fit the bundle."""
        self._observer = Observer(self.bundle.manifest, rig)

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the plan of a frame, None while warming up."""
        assert self._observer is not None, "plan before start"
        observation = self._observer.observe(frame)
        if observation is None:
            return None
        return self._planner.plan(_without_state(observation) if self._hide_state else observation)

    def close(self) -> None:
        """Free the network."""
        self._planner.backend.close()


def _without_state(observation: Observation) -> Observation:
    hidden = {
        name: getattr(observation, name).copy()
        for name in ("ego_history", "ego_history_mask", "ego_dynamics", "ego_dynamics_mask")
    }
    hide_ego_state(
        hidden["ego_history"],
        hidden["ego_history_mask"],
        hidden["ego_dynamics"],
        hidden["ego_dynamics_mask"],
    )
    return replace(observation, **hidden)
