"""The command: the same bytes however many workers, what it counts, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training import cli
from latentvla_training.closed_loop import benchmark
from latentvla_training.closed_loop.benchmark import (
    drive_routes,
    route_names,
    summary_of,
    write_result,
)
from latentvla_training.closed_loop.registry import BASELINE_DRIVERS, DRIVERS, make_driver
from latentvla_training.planner.released import (
    EGO_STATUS,
    MANIFEST,
    released_folder,
    save_ego_status,
)
from latentvla_training.scoring.bench2drive import RouteResult, summarise
from latentvla_training.world.session import NoStartError
from latentvla_training.world.sumo_network import NetworkBuildError

from latentvla_ros.contract import ContractError

from .conftest import SHORT, Witnessed

ROUTES = ["test-0000-00", "test-0000-01"]
BRIEF = replace(SHORT, timeout_s=0.8)


def document(driver: str, bundle: str, workers: int, path: Path) -> bytes:
    result = drive_routes(ROUTES, driver, bundle, workers=workers, settings=BRIEF, progress=False)
    write_result(path, result, {"driver": driver})
    return path.read_bytes()


def test_the_same_bytes_whatever_the_workers(data_root: Path, tmp_path: Path) -> None:
    one = document("bundle", "nano", 1, tmp_path / "one.json")
    assert document("bundle", "nano", 2, tmp_path / "two.json") == one
    routes = json.loads(one)["routes"]
    assert [route["name"] for route in routes] == ROUTES
    assert all(route["plans"] > 0 for route in routes)
    assert all(route["seconds"] > 0.0 for route in routes)


@pytest.mark.parametrize("driver", ["ego_status_mlp", "blank_images"])
def test_the_released_baselines_drive(data_root: Path, driver: str) -> None:
    result = drive_routes(ROUTES[:1], driver, settings=SHORT, progress=False)
    (row,) = result.rows
    assert row["plans"] > 10 and row["plans_refused"] == {} and row["driven_m"] > 0.5


@pytest.mark.parametrize("failure", [NetworkBuildError, NoStartError])
def test_a_network_that_cannot_be_built_is_skipped_named_and_counted(
    witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def drive(name: str, *_: Any, **__: Any) -> Any:
        if name == ROUTES[1]:
            raise failure("no\nseed worked")
        return witnessed.route

    monkeypatch.setattr(benchmark, "drive_route", drive)
    result = drive_routes(ROUTES, "constant_velocity", progress=False)
    assert result.skipped == {ROUTES[1]: "no seed worked"}
    assert len(result.rows) == 1
    assert (result.summary["routes"], result.summary["skipped"]) == (1, 1)


def test_another_failure_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def drive(*_: Any, **__: Any) -> Any:
        raise ValueError("a defect")

    monkeypatch.setattr(benchmark, "drive_route", drive)
    with pytest.raises(ValueError, match="a defect"):
        drive_routes(ROUTES, "constant_velocity", progress=False)


def test_one_of_every_network_before_the_second() -> None:
    names = route_names("val", 8)
    networks = [name.rsplit("-", 1)[0] for name in names]
    first = len(set(networks))
    assert networks[:first] == sorted(set(networks)) and names[0].endswith("-00")
    assert not set(route_names("val", 8, seed=1)) & set(names)
    for count, seed in ((0, 0), (10**6, 0), (1, 10), (1, -1)):
        with pytest.raises(ContractError):
            route_names("val", count, seed)


def row(network: str, score: float, **more: Any) -> dict[str, Any]:
    kinds = [kind for kind in benchmark.KINDS if kind not in benchmark.ABSENT]
    return {
        "name": f"{network}-00",
        "network": network,
        "driving_score": score,
        "success": score == 100.0,
        "completion": 100.0,
        "penalty": score / 100.0,
        "smoothness": 1.0,
        "efficiency": None,
        "mean_speed": 5.0,
        "driven_m": 250.0,
        "seconds": 50.0,
        "event_before_takeover": network == "b",
        "collisions_not_at_fault": 0,
        "hit_while_standing": 0,
        "infractions": {kind: 0 for kind in kinds} | more,
    }


def test_the_summary_is_bench2drive_s_with_intervals_by_network() -> None:
    rows = [
        row("a", 100.0),
        row("a", 100.0),
        row("b", 60.0, collision_vehicle=1),
        row("c", 50.0, collision_pedestrian=1),
    ]
    summary = summary_of(rows, {})
    records = [
        RouteResult("1", "Completed", 100.0),
        RouteResult("2", "Completed", 100.0),
        RouteResult("3", "Completed", 100.0, {"collision_vehicle": 1}),
        RouteResult("4", "Completed", 100.0, {"collision_pedestrian": 1}),
    ]
    expected = summarise(records, 4)
    assert summary["driving_score"]["value"] == pytest.approx(expected.driving_score)
    assert summary["success_rate"]["value"] == pytest.approx(expected.success_rate)
    low, high = summary["driving_score"]["ci"]
    assert low == pytest.approx(50.0) and high == pytest.approx(100.0)
    assert summary["efficiency"] == {"value": None, "ci": None}
    assert summary["infractions"]["collision_vehicle"] == 1
    assert summary["event_before_takeover"] == 1
    assert summary["infractions_per_km"]["collision_vehicle"] == pytest.approx(1.0)
    assert summary_of([], {"x": "y"}) == {"routes": 0, "skipped": 1}


def test_every_driver_has_a_name_and_is_loaded_by_it() -> None:
    for name in DRIVERS:
        driver = make_driver(name)
        assert driver.name == name
        driver.close()
    with pytest.raises(ContractError, match="--driver"):
        make_driver("nobody")


@pytest.mark.parametrize("driver", list(BASELINE_DRIVERS))
def test_a_seed_s_own_baselines_drive_and_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: str
) -> None:
    which = BASELINE_DRIVERS[driver]
    shipped = benchmark.identity(driver, "", "")
    assert list(shipped["baselines"]) == [which] and "released_sha256" in shipped
    folder = tmp_path / "seed1"
    shutil.copytree(released_folder(), folder)
    net = make_driver("ego_status_mlp")._net  # type: ignore[attr-defined]
    shape = json.loads((folder / MANIFEST).read_text())[EGO_STATUS]["shape"]
    for weights in net.parameters():
        weights.data.zero_()
    save_ego_status(net, shape, {"seed": 1, "steps": 5}, folder)
    own = benchmark.identity(driver, "", "", folder)
    assert "released_sha256" not in own
    other = own["baselines"][which]["sha256"] != shipped["baselines"][which]["sha256"]
    assert other == (driver == "ego_status_mlp")
    monkeypatch.setattr(benchmark, "map_unordered", lambda _, tasks, workers: iter(seen(tasks)))
    loaded: list[Any] = []

    def seen(tasks: list[benchmark.DriveTask]) -> list[Any]:
        loaded.extend(make_driver(t.driver, baselines=t.baselines) for t in tasks)
        return [(task, NoStartError("enough seen")) for task in tasks]

    drive_routes(ROUTES[:1], driver, progress=False, baselines=folder)
    if driver == "ego_status_mlp":
        assert all(not weights.any() for weights in loaded[0]._net.parameters())
    arguments = ("--routes", "1", "--driver", driver, "--baselines")
    said = outcome(monkeypatch, *arguments, str(tmp_path / "none"))
    assert isinstance(said, str) and "no baselines in" in said


def outcome(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["latentvla-train", "drive", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--routes", "0"), "--routes"),
        (("--routes", "1", "--bundle", "none"), "bundle"),
        (("--routes", "1", "--driver", "expert", "--seed", "11"), "--seed"),
        (("--routes", "1", "--driver", "expert", "--baselines", "file"), "--baselines"),
        (("--routes", "1", "--driver", "expert", "--workers", "0"), "--workers"),
        (("--routes", "1", "--driver", "expert", "--json", "file/x.json"), "file"),
        (("--routes", "1", "--driver", "expert", "--video", "file/x"), "file"),
    ],
)
def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code = outcome(monkeypatch, *arguments)
    assert isinstance(code, str) and "\n" not in code and said in code


def test_the_command_writes_what_a_report_needs(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "drive.json"
    arguments = ("--driver", "expert", "--split", "test", "--routes", "1", "--workers", "1")
    assert outcome(monkeypatch, *arguments, "--json", str(path)) == 0
    found = json.loads(path.read_text())
    assert {
        "driver",
        "bundle",
        "split",
        "seed",
        "settings",
        "identity",
        "summary",
        "routes",
    } <= set(found)
    assert {"world", "scoring", "closed_loop", "commit"} <= set(found["identity"])
    ours = benchmark.identity("bundle", "nano", "onnxruntime")
    assert {"bundle_id", "bundle_sha256", "seed"} <= set(ours)
    assert "released_sha256" in benchmark.identity("blank_images", "", "")
    (route,) = found["routes"]
    assert route["name"] == "test-0000-00" and np.isfinite(route["driving_score"])
    assert list(path.parent.iterdir()) == [path]
