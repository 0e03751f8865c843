"""Contenders at the wheel: what they plan from live frames, who may drive, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from latentvla_training.closed_loop import routes
from latentvla_training.closed_loop.bundle_driver import BundleDriver
from latentvla_training.data.shards import load_split
from latentvla_training.distill import driving, online_teacher
from latentvla_training.distill.driving import (
    ContenderDriver,
    Finished,
    LiveTeacher,
    drive_finished,
    load_finished,
)
from latentvla_training.distill.evaluation import train_all
from latentvla_training.distill.export import export_student
from latentvla_training.distill.pooling import TEACHER_ACTION, TEACHER_VISUAL, TeacherStates
from latentvla_training.distill.settings import (
    CONTENDERS,
    STUDENT,
    TEACHER,
    DistillRecipe,
    load_distill_recipe,
)
from latentvla_training.distill.student import StudentOnFeatures, make_source
from latentvla_training.latent_action.codes import load_codes, save_codes
from latentvla_training.planner.contenders import FREE, HOST, fresh_planner
from latentvla_training.planner.dataset import EGO_INPUTS
from latentvla_training.planner.head_training import FreeQueries, NoStates, PlannerOnFeatures
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.losses import LossSettings
from latentvla_training.report.identity import (
    contender_identity,
    distill_identity,
    driving_identity,
)
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, read_result
from latentvla_training.teacher.cache import CachedTeacher, cache_folder, cache_identity
from latentvla_training.world import networks
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.rig import default_rig

from latentvla_ros.contract import Command, ContractError, Observation, Plan

from .conftest import CODEBOOK, TINY, Place, make_host
from .test_commands import run  # noqa: F401

ROUTE = "test-0000-00"
SHORT = routes.RouteSettings(free_flow_s=4.0, timeout_s=0.5)


@pytest.fixture(scope="module")
def runs(made: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All contenders of a seed, trained for two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LATENTVLA_DATA", str(made.root / "data"))
        recipe, host = load_distill_recipe("smoke"), make_host(TINY)
        train_all(host, recipe, str(made.codes), str(made.teacher), folder, progress=False)
    return folder


@pytest.fixture
def world(place: Place) -> Iterator[None]:
    networks.build_road_map.cache_clear()
    networks.read_net.cache_clear()
    yield
    networks.build_road_map.cache_clear()
    networks.read_net.cache_clear()


def loaded(
    place: Place, host: Host, recipe: DistillRecipe, runs: Path, *names: str
) -> list[Finished]:
    codes, teacher = str(place.codes), str(place.teacher)
    return load_finished(names, host, recipe, codes, teacher, runs, 0)


def frames(count: int, noise: int = 0, changed_from: int = 0) -> list[SensorFrame]:
    """Return frames at 10 Hz and 5 m/s; from one on, of other pictures and motion by ``noise``."""
    found = []
    for step in range(count):
        other = noise if step >= changed_from else 0
        rng = np.random.default_rng((other, step))
        pictures = {}
        for slot in ("front", "left", "right"):
            image = cv2.resize(rng.integers(0, 255, (4, 8, 3), np.uint8), (64, 32))
            pictures[slot] = cv2.imencode(".jpg", image)[1].tobytes()
        pose = np.array([0.5 * step, 0.3 * other * (step - changed_from), 0.0])
        twist = np.array([5.0 + other, 0.0, 0.0])
        stamp = 10**9 + 10**8 * step
        found.append(SensorFrame(stamp, pictures, pose, twist, Command.STRAIGHT))
    return found


def plans(driver: Any, shown: list[SensorFrame]) -> list[Plan]:
    driver.start(default_rig(64, 32))
    return [plan for plan in map(driver.plan, shown) if plan is not None]


def test_before_they_learn_all_drive_as_the_host_does(
    place: Place, world: None, host: Host, recipe: DistillRecipe, runs: Path
) -> None:
    (trained,) = loaded(place, host, recipe, runs, TEACHER)
    loss, width = LossSettings(auxiliary=0.0), host.planner.config.width
    planners = [fresh_planner(host, 0) for _ in range(4)]
    source = make_source(planners[3], recipe.student, recipe.pooling)
    online = TeacherStates(place.run.teacher.width, width, recipe.pooling)
    modules = {
        HOST: PlannerOnFeatures(planners[0], NoStates(), loss),
        FREE: PlannerOnFeatures(planners[1], FreeQueries(width), loss),
        TEACHER: PlannerOnFeatures(planners[2], online, loss),
        STUDENT: StudentOnFeatures(planners[3], source, loss),
    }
    fresh = {
        name: replace(trained, contender=name, module=module, teacher=heard)
        for name, module in modules.items()
        for heard in (trained.teacher if name == TEACHER else "",)
    }
    shown = frames(18)
    said = {name: plans(ContenderDriver(found), shown) for name, found in fresh.items()}
    for name in CONTENDERS:
        assert len(said[name]) > 2
        for one, other in zip(said[name], said[HOST], strict=True):
            np.testing.assert_array_equal(one.candidates, other.candidates)
            np.testing.assert_array_equal(one.scores, other.scores)
    for one, other in zip(plans(ContenderDriver(trained), shown), said[HOST], strict=True):
        assert not np.array_equal(one.candidates, other.candidates)  # it has learned
    rows = [
        drive_finished(fresh[name], [ROUTE], settings=SHORT, progress=False).rows
        for name in (HOST, TEACHER)
    ]
    assert rows[0] == rows[1] and rows[0][0]["plans"] > 3


@pytest.mark.slow
def test_two_processes_drive_as_one_does(
    place: Place, world: None, host: Host, recipe: DistillRecipe, runs: Path
) -> None:
    (trained,) = loaded(place, host, recipe, runs, TEACHER)
    one, two = (
        drive_finished(trained, [ROUTE, "test-0000-01"], workers, SHORT, progress=False)
        for workers in (1, 2)
    )
    assert one == two and len(one.rows) == 2


def test_the_live_teacher_says_what_its_cache_holds(
    place: Place, host: Host, recipe: DistillRecipe, runs: Path
) -> None:
    (finished,) = loaded(place, host, recipe, runs, TEACHER)
    teacher = LiveTeacher(place.run, finished.manifest, torch.device("cpu"))
    reader = load_split("test")
    identity = cache_identity(place.run, reader)
    cached = CachedTeacher(cache_folder(identity["teacher"], "test"), reader, identity)
    for index in range(len(reader)):
        seen = {name: reader.columns[name][index] for name in Observation.INPUTS[1:]}
        said = teacher.states(Observation(images=reader.views(index, 64, 32), **seen))
        for name, kept in ((TEACHER_VISUAL, cached.visual), (TEACHER_ACTION, cached.action)):
            np.testing.assert_allclose(said[name][0].numpy(), kept[index], atol=4e-3)


def test_the_teacher_is_told_no_later_frame_and_no_code(
    place: Place,
    host: Host,
    recipe: DistillRecipe,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (finished,) = loaded(place, host, recipe, runs, TEACHER)
    told: list[set[str]] = []

    def answer(teacher: Any, batch: dict[str, Any], *more: Any) -> Any:
        assert not more
        told.append(set(batch))
        return real(teacher, batch)

    real = online_teacher.answer
    monkeypatch.setattr(online_teacher, "answer", answer)
    driver = ContenderDriver(finished)
    for name in ("load_codes", "load_split", "load_teacher"):
        monkeypatch.setattr(driving, name, None)  # nothing is read any more
    first = plans(driver, frames(20))
    second = plans(driver, frames(20, noise=3, changed_from=18))
    assert len(first) == len(second) > 4
    for one, other in zip(first[:-2], second[:-2], strict=True):
        np.testing.assert_array_equal(one.candidates, other.candidates)
        np.testing.assert_array_equal(one.scores, other.scores)
    for one, other in zip(first[-2:], second[-2:], strict=True):
        assert not np.array_equal(one.candidates, other.candidates)
    assert told and all(
        names == {*EGO_INPUTS, "pixel_values", "pixel_values_videos"} for names in told
    )


def test_a_student_plans_as_its_bundle_does(
    place: Place, host: Host, recipe: DistillRecipe, runs: Path, tmp_path: Path
) -> None:
    export_student(runs / "seed0", "tiny", 1, tmp_path / "bundle")
    (finished,) = loaded(place, host, recipe, runs, STUDENT)
    assert finished.teacher == ""
    shown = frames(20)
    ours = plans(ContenderDriver(finished), shown)
    theirs = plans(BundleDriver(str(tmp_path / "bundle")), shown)
    assert len(ours) == len(theirs) > 4
    for one, other in zip(ours, theirs, strict=True):
        assert one.stamp_ns == other.stamp_ns
        np.testing.assert_allclose(one.candidates, other.candidates, atol=1e-3)


def test_runs_of_another_host_or_codebook_do_not_drive(
    place: Place, host: Host, recipe: DistillRecipe, runs: Path, tmp_path: Path
) -> None:
    other = replace(host, identity="other-2-fedcba9876543210")
    for name in CONTENDERS:
        with pytest.raises(ContractError) as caught:
            loaded(place, other, recipe, runs, name)
        assert other.identity in str(caught.value) and host.identity in str(caught.value)
    named = replace(host, codebook="named-0")
    with pytest.raises(ContractError, match=f"named-0.*{CODEBOOK}"):
        loaded(place, named, recipe, runs, HOST)
    codes = load_codes(place.codes / "train.safetensors")
    save_codes(tmp_path / "train.safetensors", replace(codes, codebook_id="other-0"))
    with pytest.raises(ContractError, match=f"{CODEBOOK}.*other-0"):
        load_finished([TEACHER], host, recipe, str(tmp_path), str(place.teacher), runs, 0)
    with pytest.raises(FileNotFoundError, match="finish it with distill train"):
        loaded(place, host, recipe, tmp_path / "none", HOST)


def test_another_teacher_or_its_other_views_are_refused(
    place: Place, host: Host, recipe: DistillRecipe, runs: Path
) -> None:
    (finished,) = loaded(place, host, recipe, runs, TEACHER)
    changed = replace(finished, identity={**finished.identity, "teacher": "smoke-0123"})
    with pytest.raises(ContractError, match=f"{place.teacher_id}.*smoke-0123"):
        ContenderDriver(changed)
    wide = replace(finished, manifest=replace(finished.manifest, image_width=128))
    with pytest.raises(ContractError, match=r"128x32.*64x32"):
        ContenderDriver(wide)


def test_the_command_writes_what_a_report_needs(
    place: Place,
    world: None,
    run: Callable[[str], object],  # noqa: F811
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "RouteSettings", lambda: SHORT)
    out = tmp_path / "out"
    known = f"--recipe smoke --codes {place.codes} --teacher {place.teacher} --run {runs}"
    ask = f"drive {known} --routes 1 --workers 1 --contenders"
    said = run(f"{ask} host teacher --json {out}/all.json")
    assert isinstance(said, str) and "{contender}" in said and not out.exists()
    (tmp_path / "file").touch()
    said = run(f"{ask} host --json {tmp_path}/file/x.json")
    assert isinstance(said, str) and "\n" not in said
    assert run(f"{ask} host teacher --json {out}/{{contender}}_s{{seed}}.json") == 0
    assert sorted(path.name for path in out.iterdir()) == ["host_s0.json", "teacher_s0.json"]
    document = json.loads((out / "teacher_s0.json").read_text())
    assert (document["driver"], document["contender"]) == (TEACHER, TEACHER)
    identity = document["identity"]
    assert (identity["seed"], identity["recipe"]) == (0, "smoke")
    assert identity["host"] == "tiny-1-0123456789abcdef" and identity["codebook"] == CODEBOOK
    assert identity["teacher"] == place.teacher_id
    assert {"world", "scoring", "closed_loop", "driving", "weights"} <= set(identity)
    (route,) = document["routes"]
    assert route["name"] == ROUTE and document["summary"]["routes"] == 1
    present = Present(
        contender_code=contender_identity(),
        distill_code=distill_identity(),
        driving_code=driving_identity(),
    )
    found = read_result(out / "host_s0.json", present)
    assert found.kind is Kind.DISTILL_DRIVE and found.stale == ()
