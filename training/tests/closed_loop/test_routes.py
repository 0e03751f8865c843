"""A route in the closed loop: what the driver sees, what its answers lead to, how it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.closed_loop.baseline_drivers import ConstantVelocityDriver, single_plan
from latentvla_training.closed_loop.benchmark import row_of
from latentvla_training.closed_loop.expert_drivers import ExpertDriver, ExpertPlanDriver
from latentvla_training.closed_loop.film import FILM_SIZE, film_frame, film_route, film_steps
from latentvla_training.closed_loop.infractions import (
    STOPPED_EGO,
    Infraction,
    InfractionMonitor,
)
from latentvla_training.closed_loop.observing import Observer
from latentvla_training.closed_loop.progress import RouteProgress, goal_of
from latentvla_training.closed_loop.routes import RouteSettings, drive_route
from latentvla_training.data.episode_signals import (
    EpisodeCameras,
    episode_odometry,
    step_stamp_ns,
)
from latentvla_training.data.world_adapter import OdometryPlayer, SceneSettings, scene_manifest
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.expert import EgoState
from latentvla_training.world.networks import build_road_map
from latentvla_training.world.rig import default_rig
from latentvla_training.world.route import Route

from latentvla_ros.contract import ContractError, Plan

from .conftest import ROUTE, SHORT, Witnessed

RIG = default_rig()


class Answers(ConstantVelocityDriver):
    """Says what it is told to say from the third second on."""

    def __init__(self, answer: Plan | None) -> None:
        self.answer = answer

    def plan(self, frame: SensorFrame) -> Plan | None:  # type: ignore[override]
        return self.answer if frame.stamp_ns >= step_stamp_ns(20) else None


def straight_route(length_m: float = 400.0, speed: float = 10.0) -> Route:
    s = np.arange(0.0, length_m + 0.5)
    zeros = np.zeros_like(s)
    flat = np.full_like(s, speed)
    xy = np.stack([s, zeros], axis=1)
    return Route(
        lane_ids=("a_0",),
        edge_ids=("a",),
        lane_ends=s[-1:],
        xy=xy,
        s=s,
        yaw=zeros,
        curvature=zeros,
        speed_limit=flat,
        target_speed=flat,
        crossings=(),
        left_room=zeros,
        right_room=zeros,
    )


def test_the_route_ends_where_free_driving_comes_in_time() -> None:
    assert goal_of(straight_route(), 50.0, 20.0) == pytest.approx(250.0)
    assert goal_of(straight_route(200.0), 50.0, 20.0) == pytest.approx(160.0)


def test_progress_never_goes_back_and_tells_the_distance() -> None:
    progress = RouteProgress(straight_route(), EgoState(20.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    for x, y, s in ((25.3, 1.0, 25.3), (23.0, 0.0, 25.3), (40.0, -4.0, 40.0)):
        progress.update(EgoState(x, y, 0.0, 0.0, 0.0, 0.0))
        assert progress.s == pytest.approx(s)
        assert progress.distance_m == pytest.approx(np.hypot(y, x - round(x)), abs=0.05)


@pytest.mark.parametrize("name", ["timeout_s", "free_flow_s", "deviation_m"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(ContractError, match=f"route.{name}"):
        RouteSettings(**{name: float("nan")})


def test_the_driver_sees_what_the_scenes_of_the_drive_would_hold(witnessed: Witnessed) -> None:
    route, frames = witnessed.route, witnessed.frames
    assert len(frames) >= 35
    episode = route.episode
    cameras = EpisodeCameras(Renderer(build_road_map(route.network)), episode, RIG)
    for step in (0, 12, len(frames) - 1):
        frame = frames[step]
        assert frame.stamp_ns == step_stamp_ns(step)
        assert dict(frame.jpegs) == {slot: cameras.jpeg(slot, step) for slot in frame.jpegs}
        assert set(frame.jpegs) == {camera.slot for camera in RIG.cameras}
        np.testing.assert_allclose(frame.pose, episode.ego[step, :3])
        assert frame.command == episode.command[step]


def test_the_observation_is_that_of_the_scenes(witnessed: Witnessed) -> None:
    episode, frames = witnessed.route.episode, witnessed.frames
    observer = Observer(scene_manifest(SceneSettings()), RIG)
    player = OdometryPlayer(episode_odometry(episode))
    for step, frame in enumerate(frames):
        observation = observer.observe(frame)
        assert (observation is None) == (step < 15)
        expected = player.play_until(frame.stamp_ns)
    assert observation is not None and observation.view_mask.all()
    motion = expected.at(frame.stamp_ns)
    np.testing.assert_allclose(observation.ego_history, motion.history, atol=2e-3)
    np.testing.assert_allclose(observation.ego_dynamics, motion.dynamics, atol=2e-2)
    assert np.abs(observation.images.astype(int)[0] - observation.images[3]).max() > 0


def test_time_runs_out(witnessed: Witnessed) -> None:
    route = witnessed.route
    assert route.result.status == "Failed - time-out"
    assert route.result.infractions == {
        **{k: v for k, v in route.result.infractions.items() if k != "route_timeout"},
        "route_timeout": 1,
    }
    assert not route.result.success
    assert route.seconds == pytest.approx(SHORT.timeout_s + 0.1)
    assert 0.0 < route.result.completion_percent < 100.0
    assert route.plans_made == len(witnessed.frames) - 20


def test_the_expert_arrives(data_root: Path) -> None:
    settings = RouteSettings(free_flow_s=3.0)
    for driver in (ExpertDriver(), ExpertPlanDriver()):
        route = drive_route(ROUTE, driver, RIG, settings)
        assert route.result.status == "Completed"
        assert route.result.completion_percent == 100.0
        assert route.driven_m == pytest.approx(route.route_m, abs=3.0)
        assert (route.plans_made > 0) == isinstance(driver, ExpertPlanDriver)


def test_a_plan_that_is_not_finite_ends_the_route(data_root: Path) -> None:
    poses = np.full((8, 3), np.nan)
    route = drive_route(ROUTE, Answers(single_plan(poses, 0)), RIG, SHORT)
    assert route.result.status == "Failed - plan not finite"
    assert not route.result.success and route.seconds == 0.0


def test_no_plans_and_refused_plans_mean_braking(data_root: Path) -> None:
    settings = RouteSettings(free_flow_s=20.0, timeout_s=5.0)
    leap = single_plan(np.tile([500.0, 0.0, 0.0], (8, 1)), 0)
    for answer, refused in ((None, False), (leap, True)):
        route = drive_route(ROUTE, Answers(answer), RIG, settings)
        assert abs(route.episode.ego[-1, 3]) < 0.3
        assert route.steps_braking == 51
        assert ("start_speed" in route.plans_refused) == refused
        assert route.result.status == "Failed - time-out"


def test_standing_too_long_is_blocked(data_root: Path) -> None:
    settings = RouteSettings(free_flow_s=20.0, timeout_s=30.0, blocked_s=1.0, blocked_mps=0.3)
    route = drive_route(ROUTE, Answers(None), RIG, settings)
    assert route.result.status == "Failed - blocked"
    assert route.result.infractions["vehicle_blocked"] == 1


def test_leaving_the_route_ends_it(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RouteSettings(free_flow_s=20.0, deviation_m=0.5)
    route = drive_route(ROUTE, ConstantVelocityDriver(), RIG, settings)
    assert route.result.status == "Failed - left the route"
    assert route.result.completion_percent < 100.0


def test_the_film_shows_the_drive_to_its_last_step(witnessed: Witnessed, tmp_path: Path) -> None:
    import av

    path = tmp_path / "route.mp4"
    episode = witnessed.route.episode
    names = ("ego", "agent_state", "agent_valid", "agent_braking", "signal_state", "command")
    start = replace(episode, **{name: getattr(episode, name)[:6] for name in names})
    film_route(replace(witnessed.route, episode=start), path)
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == len(film_steps(6)) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_plan_and_infractions_are_on_the_picture(witnessed: Witnessed) -> None:
    route = witnessed.route
    step = route.followed[-1].step
    frame = film_frame(route, step)
    assert frame.shape == (FILM_SIZE[1], FILM_SIZE[0], 3)
    kept, route.followed = route.followed, []
    try:
        assert np.any(film_frame(route, step) != frame)
    finally:
        route.followed = kept


def test_what_runs_into_a_standing_ego_is_noted_and_not_counted(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(monitor: InfractionMonitor, step: int, *_: object) -> None:
        if step == 22:
            monitor.events.append(
                Infraction("collision_pedestrian", step, "pedestrian p1", STOPPED_EGO, False)
            )

    monkeypatch.setattr(InfractionMonitor, "watch", watch)
    route = drive_route(ROUTE, Answers(None), RIG, replace(SHORT, timeout_s=0.5))
    assert set(route.result.infractions) == {"route_timeout"} and route.result.penalty == 1.0
    row = row_of(route)
    assert row["hit_while_standing"] == 1 and row["infractions"]["collision_pedestrian"] == 0
    assert [event["counts"] for event in row["log"]] == [False, True]


def test_no_traffic_engine_is_left_running_after_a_failure(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(ConstantVelocityDriver):
        def plan(self, frame: SensorFrame) -> Plan:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        drive_route(ROUTE, Breaks(), RIG, SHORT)
    assert drive_route(ROUTE, Answers(None), RIG, SHORT).seconds > 0.0
