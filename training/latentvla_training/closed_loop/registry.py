"""Drivers by name: the rows of the closed-loop table."""

from __future__ import annotations

from pathlib import Path

from latentvla_ros.contract import ContractError
from latentvla_training.world.drivers import Driver

#: Names as in the open-loop table; ``bundle`` is ours there, ``bundle_ros`` the same through the
#: planner node and the gate, ``bundle_hidden_state`` the same without its past.
DRIVERS = (
    "bundle",
    "bundle_hidden_state",
    "bundle_ros",
    "constant_velocity",
    "ego_status_mlp",
    "blank_images",
    "expert",
    "expert_plan",
)
#: Those that drive with a bundle.
BUNDLE_DRIVERS = ("bundle", "bundle_hidden_state", "bundle_ros")
#: Those that drive with one of a pair of baselines, and what it is called in the pair's identity.
BASELINE_DRIVERS = {"ego_status_mlp": "ego_status", "blank_images": "blank"}


def make_driver(
    name: str,
    bundle: str = "nano",
    backend: str = "onnxruntime",
    baselines: Path | None = None,
) -> Driver:
    """Load a driver.

    Args:
        name: one of ``DRIVERS``. bundle, backend: for ``BUNDLE_DRIVERS``.
        baselines: folder for ``BASELINE_DRIVERS``; by default those that ship.

    Raises:
        ContractError: unknown name, or what it loads is absent or damaged.
        FileNotFoundError: there are no baselines in the folder.
    """
    from latentvla_training.closed_loop import baseline_drivers, expert_drivers
    from latentvla_training.planner.released import load_baselines

    if name in ("bundle", "bundle_hidden_state"):
        from latentvla_training.closed_loop.bundle_driver import BundleDriver

        return BundleDriver(bundle, backend, hide_state=name != "bundle")
    if name == "bundle_ros":
        from latentvla_training.ros.ros_driver import RosDriver, RosDriverSettings

        return RosDriver(bundle, RosDriverSettings(backend=backend))
    if name == "constant_velocity":
        return baseline_drivers.ConstantVelocityDriver()
    if name == "ego_status_mlp":
        return baseline_drivers.EgoStatusDriver(load_baselines(baselines).ego_status)
    if name == "blank_images":
        return baseline_drivers.BlankDriver(load_baselines(baselines).blank)
    if name == "expert":
        return expert_drivers.ExpertDriver()
    if name == "expert_plan":
        return expert_drivers.ExpertPlanDriver()
    raise ContractError("--driver", name, f"one of {', '.join(DRIVERS)}")
