"""Many routes, in processes: the rows of ``latentvla-train drive``, their summary, as JSON.

The same command gives the same bytes whatever the number of workers: routes are independent, the
backend runs on one thread, and nothing that a clock says is written.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import load_bundle, sha256_of
from latentvla_training.closed_loop.registry import (
    BASELINE_DRIVERS,
    BUNDLE_DRIVERS,
    DRIVERS,
    make_driver,
)
from latentvla_training.closed_loop.routes import DrivenRoute, RouteSettings, drive_route
from latentvla_training.data.parallel import map_unordered
from latentvla_training.planner.open_loop import interval, network_draws
from latentvla_training.scoring.bench2drive import PENALTIES, UNPENALISED
from latentvla_training.world.drivers import Driver
from latentvla_training.world.networks import split_networks
from latentvla_training.world.rig import default_rig
from latentvla_training.world.session import NoStartError
from latentvla_training.world.sumo_network import NetworkBuildError

KINDS = (*PENALTIES, "off_road", *UNPENALISED)
#: Kinds that cannot occur in this world are left out of what is counted.
ABSENT = ("stop_sign", "scenario_timeout", "yield_to_emergency_vehicle")
#: Modules that change what is shown, not what is found.
_PRESENTATION = frozenset({"commands", "film", "report"})
#: Episodes of a network that one seed's routes may take.
ROUTES_PER_SEED = 10


@dataclass(frozen=True)
class DriveTask:
    """One route to drive, as it goes to a process."""

    route: str
    driver: str
    bundle: str
    backend: str
    settings: RouteSettings
    video: str = ""
    baselines: Path | None = None


@dataclass
class DriveResult:
    """What ``drive_routes`` found.

    Attributes:
        rows: one per route, by name. skipped: why by route, for those that could not be driven.
        summary: figures with their intervals by network.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def route_names(split: str, count: int, seed: int = 0) -> list[str]:
    """Return ``count`` episodes of a split, one of every network before the second of any.

    Seed k takes the episodes from ``10 k`` on.

    Raises:
        ContractError: unknown split, or more routes or a seed than there are.
    """
    networks = split_networks(split)
    most = len(networks) * ROUTES_PER_SEED
    if not 1 <= count <= most:
        raise ContractError("--routes", count, f"1 to {most} for {split}")
    if not 0 <= seed < 10:
        raise ContractError("--seed", seed, "0 to 9")
    episodes = (
        f"{network}-{seed * ROUTES_PER_SEED + turn:02d}"
        for turn in range(ROUTES_PER_SEED)
        for network in networks
    )
    return [name for name, _ in zip(episodes, range(count), strict=False)]


def drive_routes(
    routes: Sequence[str],
    driver: str,
    bundle: str = "nano",
    backend: str = "onnxruntime",
    workers: int = 1,
    settings: RouteSettings | None = None,
    video: Path | None = None,
    progress: bool = True,
    baselines: Path | None = None,
) -> DriveResult:
    """Drive routes in processes.

    Args:
        driver: one of ``DRIVERS``. bundle, backend: for the driver that needs them.
        video: folder for one MP4 a route; None for none.
        baselines: folder for the drivers of a baseline; by default those that ship.

    Raises:
        ContractError: the driver or the bundle is at fault.
        OSError: the disk is full, or ``video`` cannot be written.
    """
    from tqdm import tqdm

    if driver not in DRIVERS:
        raise ContractError("--driver", driver, f"one of {', '.join(DRIVERS)}")
    if driver in BUNDLE_DRIVERS:
        load_bundle(bundle)  # what is wrong with it is said before processes start
    if video is not None:
        video.mkdir(parents=True, exist_ok=True)
    tasks = [
        DriveTask(
            route,
            driver,
            bundle,
            backend,
            settings or RouteSettings(),
            str(video / f"{route}.mp4") if video else "",
            baselines,
        )
        for route in routes
    ]
    result = DriveResult()
    rows: dict[str, dict[str, Any]] = {}
    bar = tqdm(total=len(tasks), desc=driver, unit="route", disable=not progress)
    with bar:
        for task, row in map_unordered(drive_task, tasks, workers):
            bar.update()
            if isinstance(row, (NetworkBuildError, NoStartError)):
                result.skipped[task.route] = " ".join(str(row).split())
            elif isinstance(row, Exception):
                raise row
            else:
                rows[task.route] = row
                scores = [entry["driving_score"] for entry in rows.values()]
                bar.set_postfix(score=f"{np.mean(scores):.1f}", skipped=len(result.skipped))
    result.rows = [rows[route] for route in routes if route in rows]
    result.skipped = dict(sorted(result.skipped.items()))
    result.summary = summary_of(result.rows, result.skipped)
    return result


@lru_cache(maxsize=1)
def _driver(name: str, bundle: str, backend: str, baselines: Path | None) -> Driver:
    """Loaded once for the routes of a process."""
    return make_driver(name, bundle, backend, baselines)


def drive_task(task: DriveTask) -> dict[str, Any]:
    """Drive one route, film it where asked for, and return its row."""
    driver = _driver(task.driver, task.bundle, task.backend, task.baselines)
    driven = drive_route(
        task.route, driver, default_rig(), task.settings, keep_plans=bool(task.video)
    )
    if task.video:
        from latentvla_training.closed_loop.film import film_route

        film_route(driven, Path(task.video))
    return row_of(driven)


def row_of(driven: DrivenRoute) -> dict[str, Any]:
    """Return a route as it goes into the JSON."""
    result = driven.result
    counted = Counter(event.kind for event in driven.infractions if event.counts)
    not_at_fault = sum(event.counts and not event.at_fault for event in driven.infractions)
    return {
        "name": driven.name,
        "network": driven.network,
        "weather": driven.weather,
        "events": driven.events,
        "events_met": driven.events_met,
        "event_before_takeover": driven.event_before_takeover,
        "status": result.status,
        "completion": result.completion_percent,
        "infractions": {kind: counted[kind] for kind in KINDS if kind not in ABSENT},
        "collisions_not_at_fault": not_at_fault,
        "hit_while_standing": sum(not event.counts for event in driven.infractions),
        "outside_percent": sum(result.off_lane_percents),
        "penalty": result.penalty,
        "driving_score": result.driving_score,
        "success": result.success,
        "seconds": round(driven.seconds, 1),
        "route_m": driven.route_m,
        "driven_m": driven.driven_m,
        "mean_speed": driven.mean_speed,
        "efficiency": result.efficiency,
        "smoothness": None if math.isnan(driven.smoothness) else driven.smoothness,
        "plans": driven.plans_made,
        "plans_refused": driven.plans_refused,
        "seconds_without_plan": round(driven.steps_braking * 0.1, 1),
        "log": [event.to_json() for event in driven.infractions],
    }


def summary_of(rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures over routes, with 95 % intervals by a bootstrap over networks.

    Routes that could not be driven, for want of a network, a start or an event, are counted and
    left out of the means; Bench2Drive counts a missing route as 0.
    """
    if not rows:
        return {"routes": 0, "skipped": len(skipped)}
    weights = network_draws(np.array([row["network"] for row in rows]))

    def figure(values: Sequence[float | None]) -> dict[str, Any]:
        array = np.array([math.nan if value is None else value for value in values], np.float64)
        known = array[np.isfinite(array)]
        if not len(known):
            return {"value": None, "ci": None}
        low, high = interval(array, weights)
        return {"value": float(known.mean()), "ci": [low, high]}

    kilometres = sum(row["driven_m"] for row in rows) / 1000.0
    totals = {
        kind: sum(row["infractions"][kind] for row in rows) for kind in rows[0]["infractions"]
    }
    return {
        "routes": len(rows),
        "networks": len({row["network"] for row in rows}),
        "skipped": len(skipped),
        "driving_score": figure([row["driving_score"] for row in rows]),
        "success_rate": figure([float(row["success"]) for row in rows]),
        "completion": figure([row["completion"] for row in rows]),
        "penalty": figure([row["penalty"] for row in rows]),
        "smoothness": figure([row["smoothness"] for row in rows]),
        "efficiency": figure([row["efficiency"] for row in rows]),
        "mean_speed": figure([row["mean_speed"] for row in rows]),
        "infractions": totals,
        "infractions_per_km": {
            kind: number / kilometres if kilometres > 0.0 else None
            for kind, number in totals.items()
        },
        "event_before_takeover": sum(row["event_before_takeover"] for row in rows),
        "collisions_not_at_fault": sum(row["collisions_not_at_fault"] for row in rows),
        "hit_while_standing": sum(row["hit_while_standing"] for row in rows),
        "driven_km": kilometres,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
    }


def identity(
    driver: str, bundle: str, backend: str, baselines: Path | None = None
) -> dict[str, Any]:
    """Return what the figures hang on: networks, code of world, scores and loop, commit."""
    import latentvla_training.closed_loop
    import latentvla_training.scoring
    from latentvla_training.data.make import code_hash
    from latentvla_training.planner.released import MANIFEST, load_baselines, released_folder
    from latentvla_training.report.identity import bundle_identity, commit, package_hash

    about: dict[str, Any] = {
        "world": code_hash(),
        "scoring": package_hash(latentvla_training.scoring),
        "closed_loop": package_hash(latentvla_training.closed_loop, _PRESENTATION),
        "commit": commit(),
    }
    if driver in BUNDLE_DRIVERS:
        about |= bundle_identity(load_bundle(bundle))
        about["backend"] = backend
    elif driver in BASELINE_DRIVERS:
        which = BASELINE_DRIVERS[driver]
        about["baselines"] = {which: load_baselines(baselines).identity()[which]}
        if baselines is None:
            about["released_sha256"] = sha256_of(released_folder() / MANIFEST)
    return about


def write_result(path: Path, result: DriveResult, about: Mapping[str, Any]) -> None:
    """Write everything as JSON, in one rename."""
    document = {
        **about,
        "summary": result.summary,
        "routes": result.rows,
        "skipped": result.skipped,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    part.replace(path)


def settings_document(settings: RouteSettings) -> dict[str, float]:
    """Return the settings of the routes as they go into the JSON."""
    return asdict(settings)
