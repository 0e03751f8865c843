"""Weather changes what the cameras see as it should, and never hides what they must decide on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from latentvla_training.world.atmosphere import AIR_SIZE, draw_atmosphere
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.episode import AgentModel, Weather
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import SignalState
from latentvla_training.world.still_life import StillAgent, still_life

from latentvla_ros.geometry import se3

POSE = np.array([-24.0, -5.25, 0.0])
SEEDS = range(6)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(crossroads_map())


def look(renderer, episode, slot="front", pose=POSE, width=256):
    camera = default_rig(width, width // 2).camera(slot)
    image = renderer.render(
        episode, 0, camera.model.matrix, width, width // 2, camera.ego_from_camera, ego_pose=pose
    )
    return image.astype(int)


def pixel_of(point, pose=POSE):
    camera = default_rig().camera("front")
    camera_from_map = se3.inverse(se3.from_se2(pose) @ camera.ego_from_camera)
    u, v, w = camera.model.matrix @ se3.transform_points(camera_from_map, np.array([point]))[0]
    return round(u / w), round(v / w)


@pytest.mark.parametrize("weather", list(Weather))
def test_air_is_drawn_from_the_seed(weather):
    first, again, other = (draw_atmosphere(seed, weather).packed() for seed in (1, 1, 2))
    assert first.shape == (AIR_SIZE,)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_fog_is_60_to_200_m_thick():
    visibility = [draw_atmosphere(seed, Weather.FOG).visibility_m for seed in range(200)]
    assert 60.0 <= min(visibility) < 75.0
    assert 185.0 < max(visibility) <= 200.0


@pytest.mark.parametrize("weather", list(Weather))
@pytest.mark.parametrize("head", [0, 1])
def test_lamp_at_45_m_covers_three_pixels_in_any_weather(renderer, weather, head):
    signal = renderer.road_map.signals[head]
    pose = np.array([signal.lamp_centers[0, 0] - 1.8 - 45.0, POSE[1], 0.0])
    thick = sorted(range(40), key=lambda s: draw_atmosphere(s, weather).visibility_m)[:2]
    for seed in (*thick, *SEEDS):
        red, green = (
            look(renderer, still_life((), weather, state, seed), pose=pose)
            for state in (SignalState.RED, SignalState.GREEN)
        )
        for lamp in (0, 2):
            u, v = pixel_of(signal.lamp_centers[lamp], pose)
            window = np.s_[v - 3 : v + 4, u - 3 : u + 4]
            sign = 1 if lamp == 0 else -1
            lit = sign * (red - green)[window][..., 0 if lamp == 0 else 1] > 50
            assert lit.any(axis=1).sum() >= 3, (seed, lamp)
            assert lit.any(axis=0).sum() >= 3, (seed, lamp)


@pytest.mark.parametrize("weather", list(Weather))
@pytest.mark.parametrize("model", [AgentModel.PEDESTRIAN, AgentModel.BICYCLE, AgentModel.CONE])
def test_the_vulnerable_are_seen_at_25_m_in_any_weather(renderer, weather, model):
    agent = StillAgent(model, (POSE[0] + 26.8, POSE[1], 1.5), (90, 110, 150))
    for seed in SEEDS:
        with_, without = (
            look(renderer, still_life(agents, weather, seed=seed)) for agents in ((agent,), ())
        )
        seen = np.abs(with_ - without).max(axis=2) > 9
        height = seen.any(axis=1).sum()
        assert height >= (4 if model == AgentModel.CONE else 12), seed


def test_fog_hides_what_is_far(renderer):
    near, far = (
        StillAgent(AgentModel.BUS, (POSE[0] + x, POSE[1], 0.0), (20, 20, 20)) for x in (16.0, 110.0)
    )
    contrast = {}
    for weather in (Weather.CLEAR, Weather.FOG):
        for name, agent in (("near", near), ("far", far)):
            with_, without = (
                look(renderer, still_life(agents, weather)) for agents in ((agent,), ())
            )
            contrast[weather, name] = np.abs(with_ - without).max()
    assert contrast[Weather.FOG, "near"] > 0.4 * contrast[Weather.CLEAR, "near"]
    assert contrast[Weather.FOG, "far"] < 0.35 * contrast[Weather.CLEAR, "far"]


def test_fog_is_grey(renderer):
    def colorfulness(weather):
        image = look(renderer, still_life((), weather))
        return float(np.ptp(image, axis=2).mean())

    assert colorfulness(Weather.FOG) < 0.5 * colorfulness(Weather.CLEAR)


def test_headlights_light_the_road_ahead_at_night(renderer):
    night, clear = (look(renderer, still_life((), w)) for w in (Weather.NIGHT, Weather.CLEAR))
    assert night.mean() < 0.45 * clear.mean()
    (u, v), (far_u, far_v) = (pixel_of((POSE[0] + x, POSE[1], 0.0)) for x in (12.0, 60.0))
    assert night[v, u].mean() > 2.0 * night[far_v, far_u].mean()
    side = look(renderer, still_life((), Weather.NIGHT), "left")
    assert night[v, u].mean() > 1.5 * side[100, 128].mean()


def test_tail_lamps_burn_at_night_and_brake_lamps_brighter(renderer):
    def red(weather, braking):
        pose = (POSE[0] + 20.0, POSE[1], 0.0)
        agent = StillAgent(AgentModel.CAR, pose, (128, 128, 128), braking=braking)
        image = look(renderer, still_life((agent,), weather))
        u, v = pixel_of((POSE[0] + 17.7, POSE[1] + 0.7, 0.55))
        patch = image[v - 1 : v + 2, u - 1 : u + 2]
        return float((patch[..., 0] - patch[..., 1]).mean())

    assert red(Weather.NIGHT, False) > red(Weather.CLEAR, False)
    for weather in Weather:
        assert red(weather, True) > red(weather, False) + 50.0, weather


def test_oncoming_headlights_glow_at_night(renderer):
    agent = StillAgent(AgentModel.CAR, (POSE[0] + 40.0, POSE[1] + 5.0, np.pi))
    with_, without = (
        look(renderer, still_life(agents, Weather.NIGHT)) for agents in ((agent,), ())
    )
    assert (with_.min(axis=2) > 200).sum() >= 4
    rows, _ = np.nonzero((with_ - without).max(axis=2) > 12)
    road = rows > pixel_of((POSE[0] + 37.0, POSE[1], 0.0))[1] + 1
    assert road.sum() > 20  # the pool before the car


def test_rain_falls_differently_every_step_and_the_same_every_time(renderer):
    episode = still_life((), Weather.RAIN)
    longer = dataclasses.replace(
        episode,
        **{
            name: np.repeat(getattr(episode, name), 2, axis=0)
            for name in ("ego", "agent_state", "agent_valid", "agent_braking", "signal_state")
        },
    )
    camera = default_rig().camera("front")
    arguments = (camera.model.matrix, 256, 128, camera.ego_from_camera)
    first, second, again = (
        renderer.render(longer, step, *arguments, ego_pose=POSE) for step in (0, 1, 0)
    )
    assert np.array_equal(first, again)
    differ = np.abs(first.astype(int) - second).max(axis=2) > 6
    assert 0.005 < differ.mean() < 0.2
    dry = still_life((), Weather.CLEAR)
    u, v = pixel_of((POSE[0] + 9.0, POSE[1], 0.0))
    patch = np.s_[v - 4 : v + 5, u - 8 : u + 9]
    assert np.median(first[patch]) < 0.9 * np.median(look(renderer, dry)[patch])


@pytest.mark.parametrize("weather", list(Weather))
def test_weathers_differ_and_repeat(renderer, weather):
    image = look(renderer, still_life((), weather))
    assert np.array_equal(image, look(renderer, still_life((), weather)))
    for other in Weather:
        if other != weather:
            assert np.abs(image - look(renderer, still_life((), other))).mean() > 6.0
