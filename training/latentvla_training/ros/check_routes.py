"""``latentvla-train drive --ros --check``: node and direct call plan side by side on routes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from latentvla_training.closed_loop.bundle_driver import BundleDriver
from latentvla_training.closed_loop.routes import RouteSettings, drive_route
from latentvla_training.ros.plan_check import TOLERANCE_M, CheckedDriver, PlanDifference
from latentvla_training.ros.ros_driver import RosDriver, RosDriverSettings
from latentvla_training.world.rig import default_rig
from latentvla_training.world.session import NoStartError
from latentvla_training.world.sumo_network import NetworkBuildError


def check_routes(
    routes: Sequence[str],
    bundle: str = "nano",
    backend: str = "onnxruntime",
    settings: RouteSettings | None = None,
    json_path: Path | None = None,
) -> int:
    """Drive routes as the direct call says, and ask the nodes about the same observations.

    Those whose network cannot be built, or that have no start, are left out, and named.

    Returns:
        0 where every plan is the same within 1 cm, otherwise 1.

    Raises:
        BundleError: the bundle is absent or damaged.
        NodeProblem: a node ended, refused or did not answer.
    """
    nodes = RosDriver(bundle, RosDriverSettings(backend=backend))
    driver = CheckedDriver(BundleDriver(bundle, backend), nodes)
    whole, rows = PlanDifference(), []
    skipped: dict[str, str] = {}
    try:
        for route in routes:
            driver.difference = PlanDifference()
            try:
                driven = drive_route(route, driver, default_rig(), settings)
            except (NetworkBuildError, NoStartError) as error:
                skipped[route] = " ".join(str(error).split())
                print(f"{route}: left out: {skipped[route]}")
                continue
            print(f"{route} ({driven.weather}, {driven.seconds:.1f} s): {driver.difference}")
            rows.append({"route": route, **asdict(driver.difference)})
            whole.include(driver.difference)
    finally:
        driver.close()
    print(f"{len(rows)} of {len(routes)} routes: {whole}")
    if json_path is not None:
        document = {
            "bundle": nodes.bundle.manifest.bundle_id,
            "tolerance_m": TOLERANCE_M,
            "passed": whole.passed,
            **asdict(whole),
            "refused_by_the_nodes": dict(sorted(nodes.refused.items())),
            "masked_cameras": dict(sorted(nodes.masked.items())),
            "routes": rows,
            "skipped": skipped,
        }
        part = json_path.with_name(f".{json_path.name}.part")
        part.write_text(json.dumps(document, indent=1) + "\n")
        part.replace(json_path)
    return 0 if whole.passed else 1
