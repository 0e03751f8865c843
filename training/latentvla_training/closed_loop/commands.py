"""``latentvla-train drive``; nothing heavy is imported before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DriverName = Literal[
    "bundle",
    "bundle_hidden_state",
    "constant_velocity",
    "ego_status_mlp",
    "blank_images",
    "expert",
    "expert_plan",
]


@dataclass(frozen=True)
class Drive:
    """Drive routes in the closed loop: reactive traffic, plans at 10 Hz, Bench2Drive's score."""

    bundle: str = "nano"
    """Name or path."""
    driver: DriverName = "bundle"
    """Who drives: the bundle (whole, or without its past), or another row of the table."""
    split: Literal["train", "val", "test", "longtail", "ood"] = "test"
    """Which networks."""
    routes: int = 20
    """How many, one of every network before the second of any."""
    json: Path | None = None
    """Write the result here."""
    video: Path | None = None
    """Write one film a route into this folder."""
    workers: int | None = None
    """Processes; one per core by default."""
    seed: int = 0
    """Which routes, 0 to 9; no two seeds share one."""
    baselines: Path | None = None
    """Folder that release-baselines wrote, for the drivers ego_status_mlp and blank_images; those
    that ship by default."""
    backend: Literal["onnxruntime", "torch"] = "onnxruntime"
    """Of the onboard runtime."""
    ros: bool = False
    """The bundle drives through the planner node and the gate over DDS, in lock-step on /clock."""
    check: bool = False
    """With --ros: drive by the direct call and print how far the nodes' plans are from it."""

    def __call__(self) -> int:
        import os

        from latentvla_ros.contract import ContractError
        from latentvla_training.closed_loop import benchmark
        from latentvla_training.closed_loop.registry import BASELINE_DRIVERS
        from latentvla_training.closed_loop.report import print_table
        from latentvla_training.closed_loop.routes import RouteSettings
        from latentvla_training.data.whole_file import check_writable

        if (self.ros and self.driver != "bundle") or (self.check and not self.ros):
            raise ContractError("--ros", self.driver, "--driver bundle; --check goes with --ros")
        if self.baselines is not None and self.driver not in BASELINE_DRIVERS:
            expected = f"--driver {' or '.join(BASELINE_DRIVERS)}"
            raise ContractError("--baselines", self.driver, expected)
        if self.ros:
            from latentvla_training.ros.requirements import require_ros

            require_ros()
        driver = "bundle_ros" if self.ros else self.driver
        workers = os.cpu_count() or 1 if self.workers is None else self.workers
        if workers < 1:
            raise ContractError("--workers", workers, "at least 1")
        names = benchmark.route_names(self.split, self.routes, self.seed)
        settings = RouteSettings()
        about = {
            "driver": driver,
            "bundle": self.bundle if self.driver.startswith("bundle") else None,
            "split": self.split,
            "seed": self.seed,
            "settings": benchmark.settings_document(settings),
            "identity": benchmark.identity(driver, self.bundle, self.backend, self.baselines),
        }
        if self.json is not None:  # a place that cannot be written is found out before driving
            check_writable(self.json)
        if self.check:
            from latentvla_training.ros.check_routes import check_routes

            return check_routes(names, self.bundle, self.backend, settings, self.json)
        result = benchmark.drive_routes(
            names,
            driver,
            self.bundle,
            self.backend,
            workers,
            settings,
            self.video,
            baselines=self.baselines,
        )
        print_table(result, f"{driver} on {self.split}")
        if self.json is not None:
            benchmark.write_result(self.json, result, about)
        return 0 if result.rows else 1
