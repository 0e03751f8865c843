"""What the cameras draw lies where it is, looks like what it is, and is the same every time."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.crossroads import crossroads_episode, crossroads_map
from latentvla_training.world.episode import AgentModel, Episode, Weather
from latentvla_training.world.rig import default_rig
from latentvla_training.world.road_map import MarkingKind, SignalState

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se3

#: On the right lane of the western arm; the stop line is at x = -22.6, the lamps at x = 21.
POSE = np.array([-24.0, -5.25, 0.0])


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(crossroads_map())


def one_step(
    seed: int = 3,
    agents: tuple[dict, ...] = (),
    signals: int = 0,
    weather: Weather = Weather.CLEAR,
) -> Episode:
    """Return an episode of one step with these agents and all signals in one state."""
    template = crossroads_episode(seed, num_steps=1)
    count = len(agents)
    state = np.zeros((1, count, 5))
    for index, agent in enumerate(agents):
        state[0, index, :3] = agent["pose"]
    models = [AgentModel(agent.get("model", AgentModel.CAR)) for agent in agents]
    return dataclasses.replace(
        template,
        agent_type=np.array([model.agent_type for model in models], np.uint8),
        agent_model=np.array(models, np.uint8),
        agent_size=np.array([agent["size"] for agent in agents], float).reshape(-1, 3),
        agent_color=np.array([agent["color"] for agent in agents], np.uint8).reshape(-1, 3),
        agent_state=state,
        agent_valid=np.ones((1, count), bool),
        agent_braking=np.array([[agent.get("braking", False) for agent in agents]], bool),
        signal_state=np.full_like(template.signal_state, signals),
        weather=weather,
    )


TRUCK = {"model": AgentModel.TRUCK, "size": (8.0, 2.5, 3.4), "color": (240, 60, 200)}
BUS = {**TRUCK, "model": AgentModel.BUS}
CAR = {"size": (4.6, 1.8, 1.5), "color": (240, 60, 200)}


def render(renderer, episode, slot="front", pose=POSE, width=256):
    camera = default_rig(width, width // 2).camera(slot)
    return renderer.render(
        episode, 0, camera.model.matrix, width, width // 2, camera.ego_from_camera, ego_pose=pose
    )


def project(points, slot="front", pose=POSE, width=256):
    """Return pixels (N, 2) and depth (N,) of map points (N, 3)."""
    camera = default_rig(width, width // 2).camera(slot)
    camera_from_map = se3.inverse(se3.from_se2(pose) @ camera.ego_from_camera)
    rays = se3.transform_points(camera_from_map, np.atleast_2d(points)) @ camera.model.matrix.T
    return rays[:, :2] / rays[:, 2:], rays[:, 2]


def changed(first, second):
    """Return the rows and columns of pixels that differ."""
    return np.nonzero((first != second).any(axis=2))


@pytest.mark.parametrize(("ahead", "side", "yaw"), [(15.0, 2.0, 0.0), (30.0, -4.0, 0.0)])
def test_vehicle_spans_its_projected_corners(renderer, ahead, side, yaw):
    x, y = POSE[0] + ahead, POSE[1] + side
    bus = {**BUS, "pose": (x, y, yaw)}
    rows, columns = changed(render(renderer, one_step()), render(renderer, one_step(3, (bus,))))
    corners = [[x + e * 4.0, y + s * 1.25, 2.6] for e in (-1, 1) for s in (-1, 1)]
    pixels, _ = project(corners)
    # Above the horizon nothing but the bus itself can change, and its edges are upright.
    row = round(float(pixels[0, 1]))
    assert columns[rows == row].min() == pytest.approx(pixels[:, 0].min(), abs=1.0)
    assert columns[rows == row].max() == pytest.approx(pixels[:, 0].max(), abs=1.0)
    ((_, top),), _ = project([x - 4.0, y, 3.4])
    assert rows.min() == pytest.approx(top, abs=1.0)


@pytest.mark.parametrize("state", list(SignalState))
@pytest.mark.parametrize("distance", [12.0, 30.0, 50.0])
@pytest.mark.parametrize("head", [0, 1])
def test_lamp_centre_shows_the_lit_colour(renderer, state, distance, head):
    signal = renderer.road_map.signals[head]
    pose = np.array([signal.lamp_centers[0, 0] - 1.8 - distance, POSE[1], 0.0])
    image = render(renderer, one_step(signals=int(state)), pose=pose, width=512)
    pixels, depth = project(signal.lamp_centers, pose=pose, width=512)
    assert depth == pytest.approx(distance, abs=1e-6)
    for lamp, (u, v) in enumerate(pixels):
        if not 0 <= v < 255.5:
            continue  # at 12 m the upper lamps lie above the image
        red, green, blue = (int(c) for c in image[round(v), round(u)])
        if lamp != state:
            assert max(red, green, blue) < 110
        elif state == SignalState.RED:
            assert red > 200 > 2 * green
        elif state == SignalState.YELLOW:
            assert min(red, green) > 150 > 2 * blue
        else:
            assert green > 200 > 2 * red


def test_lamp_at_45_m_covers_three_pixels(renderer):
    signal = renderer.road_map.signals[1]
    pose = np.array([signal.lamp_centers[0, 0] - 1.8 - 45.0, POSE[1], 0.0])
    red = render(renderer, one_step(signals=0), pose=pose).astype(int)
    green = render(renderer, one_step(signals=2), pose=pose).astype(int)
    (u, v), *_ = project(signal.lamp_centers, pose=pose)[0]
    window = np.s_[round(v) - 3 : round(v) + 4, round(u) - 3 : round(u) + 4]
    lit = (red - green)[window][..., 0] > 60
    assert lit.any(axis=1).sum() >= 3
    assert lit.any(axis=0).sum() >= 3


def test_light_state_changes_the_housings_and_nothing_else(renderer):
    first, second = render(renderer, one_step(signals=0)), render(renderer, one_step(signals=2))
    rows, columns = changed(first, second)
    assert len(rows) > 20
    near_lamp = np.zeros(len(rows), bool)
    for signal in renderer.road_map.signals:
        pixels, depth = project(signal.lamp_centers)
        if (depth > 1.0).all():
            reach = 0.9 * 221.7 / depth.min() + 1.0
            low, high = pixels.min(axis=0) - reach, pixels.max(axis=0) + reach
            near_lamp |= (
                (columns > low[0]) & (columns < high[0]) & (rows > low[1]) & (rows < high[1])
            )
    assert near_lamp.all()


def test_signals_are_dark_from_behind(renderer):
    # From the east, looking west, the heads for traffic from the west show their backs.
    pose = np.array([50.0, 5.25, np.pi])
    shown = [i for i, s in enumerate(renderer.road_map.signals) if s.approach_lane[0] == "w"]
    episodes = [one_step(signals=2), one_step(signals=2)]
    episodes[1].signal_state[:, shown] = 0
    assert np.array_equal(*(render(renderer, episode, pose=pose) for episode in episodes))


def test_near_vehicle_hides_the_far_one(renderer):
    near = {**TRUCK, "pose": (POSE[0] + 15.0, POSE[1], 0.0)}
    far = {**CAR, "color": (20, 240, 20), "pose": (POSE[0] + 30.0, POSE[1], 0.0)}
    alone = render(renderer, one_step(3, (near,)))
    assert np.array_equal(alone, render(renderer, one_step(3, (far, near))))
    assert not np.array_equal(alone, render(renderer, one_step(3, (far,))))


@pytest.mark.parametrize("vehicle", [CAR, TRUCK])
def test_brake_lights_change_the_rear_and_nothing_else(renderer, vehicle):
    x = POSE[0] + 25.0
    lit = {**vehicle, "pose": (x, POSE[1], 0.0), "braking": True}
    off = {**vehicle, "pose": (x, POSE[1], 0.0)}
    on_image, off_image = (render(renderer, one_step(3, (v,))) for v in (lit, off))
    rows, columns = changed(on_image, off_image)
    assert len(rows) >= 12
    brighter = on_image[rows, columns, 0].astype(int) - off_image[rows, columns, 0]
    assert brighter.mean() > 60
    length, width, height = vehicle["size"]
    rear = [[x - 0.5 * length, POSE[1] + s * width / 2, z] for s in (-1, 1) for z in (0.0, height)]
    pixels, _ = project(rear)
    assert (columns >= pixels[:, 0].min() - 1).all() and (columns <= pixels[:, 0].max() + 1).all()
    assert (rows >= pixels[:, 1].min() - 1).all() and (rows <= pixels[:, 1].max() + 1).all()


def test_oncoming_vehicle_shows_no_brake_light_but_head_lights(renderer):
    pose = (POSE[0] + 25.0, POSE[1] + 5.0, np.pi)
    lit, off = ({**CAR, "pose": pose, "braking": braking} for braking in (True, False))
    image = render(renderer, one_step(3, (lit,)))
    assert np.array_equal(image, render(renderer, one_step(3, (off,))))
    away = render(renderer, one_step(3, ({**off, "pose": (*pose[:2], 0.0)},)))
    rows, columns = changed(image, away)
    assert (image[rows, columns].min(axis=1) > 200).sum() >= 4


def test_left_is_left(renderer):
    empty = one_step()
    for side, seen, hidden in ((8.0, "left", "right"), (-8.0, "right", "left")):
        vehicle = {**TRUCK, "pose": (POSE[0] + 6.0, POSE[1] + side, 0.0)}
        episode = one_step(3, (vehicle,))
        assert len(changed(render(renderer, episode, seen), render(renderer, empty, seen))[0]) > 500
        assert np.array_equal(render(renderer, episode, hidden), render(renderer, empty, hidden))
        far = one_step(3, ({**TRUCK, "pose": (POSE[0] + 30.0, POSE[1] + side, 0.0)},))
        _, columns = changed(render(renderer, far), render(renderer, empty))
        assert (np.median(columns) < 128) == (side > 0)


@pytest.mark.parametrize(("slot", "sign"), [("left", 1.0), ("right", -1.0)])
def test_side_camera_agrees_with_the_front_one_at_the_seam(renderer, slot, sign):
    bearing = sign * np.radians(22.0)
    x, y = POSE[:2] + 20.0 * np.array([np.cos(bearing), np.sin(bearing)])
    episode = one_step(3, ({**TRUCK, "pose": (x + 4.0, y, 0.0)},))
    point = [x, y + 0.4, 2.4]
    colors = []
    for name in ("front", slot):
        (pixel,), _ = project(point, name)
        assert 0 <= pixel[0] <= 255
        colors.append(render(renderer, episode, name)[round(pixel[1]), round(pixel[0])].astype(int))
    assert np.abs(colors[0] - colors[1]).max() <= 6
    assert colors[0][0] > colors[0][1] + 20  # the truck's own colour


def test_markings_lie_where_they_are_painted(renderer):
    centre = next(
        m for m in renderer.road_map.markings if m.kind == MarkingKind.CENTRE and m.points[0, 0] < 0
    )
    pose = np.array([-60.0, -1.75, 0.0])
    image = render(renderer, one_step(), pose=pose, width=512).astype(int)
    for ahead in (9.0, 14.0):
        x = pose[0] + 1.8 + ahead
        assert centre.points[:, 0].min() < x < centre.points[:, 0].max()
        (on, beside), _ = project([[x, 0.0, 0.0], [x, -1.0, 0.0]], pose=pose, width=512)
        yellow, asphalt = (image[round(p[1]), round(p[0])] for p in (on, beside))
        assert yellow[0] - yellow[2] > 45
        assert abs(asphalt[0] - asphalt[2]) < 25


def test_pedestrian_and_cyclist_are_drawn(renderer):
    sizes = {AgentModel.PEDESTRIAN: (0.5, 0.5, 1.75), AgentModel.BICYCLE: (1.8, 0.5, 1.75)}
    for kind, size in sizes.items():
        person = {"model": kind, "size": size, "color": (250, 30, 30), "pose": (-14.0, -5.0, 1.5)}
        image = render(renderer, one_step(3, (person,))).astype(int)
        (chest,), _ = project([-14.0, -5.0, 1.2])
        pixel = image[round(chest[1]), round(chest[0])]
        assert pixel[0] > 1.6 * pixel[1]


def test_larger_image_shows_the_same(renderer):
    episode = crossroads_episode(2, num_steps=1)
    small, large = (render(renderer, episode, width=w).astype(float) for w in (256, 512))
    halved = large.reshape(128, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 3.0


def test_same_bytes_in_a_fresh_process(renderer):
    code = (
        "import hashlib\n"
        "from latentvla_training.world.cameras import Renderer\n"
        "from latentvla_training.world.crossroads import crossroads_episode, crossroads_map\n"
        "from latentvla_training.world.rig import default_rig\n"
        "r, e = Renderer(crossroads_map()), crossroads_episode(5, num_steps=30)\n"
        "c = default_rig().camera('left')\n"
        "i = r.render(e, 20, c.model.matrix, 256, 128, c.ego_from_camera)\n"
        "print(hashlib.sha256(i.tobytes()).hexdigest())\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    camera = default_rig().camera("left")
    image = renderer.render(
        crossroads_episode(5, num_steps=30),
        20,
        camera.model.matrix,
        256,
        128,
        camera.ego_from_camera,
    )
    assert hashlib.sha256(image.tobytes()).hexdigest() == fresh


def test_light_and_tint_vary_with_the_seed(renderer):
    images = [render(renderer, one_step(seed)).astype(int) for seed in (1, 2, 3)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(images[first] - images[second]).mean() > 4.0
    assert np.array_equal(images[0], render(renderer, one_step(1)))


def test_driven_pose_is_the_default(renderer):
    camera = default_rig().camera("front")
    episode = one_step()
    arguments = (episode, 0, camera.model.matrix, 256, 128, camera.ego_from_camera)
    driven = renderer.render(*arguments, ego_pose=episode.ego[0, :3])
    assert np.array_equal(renderer.render(*arguments), driven)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"intrinsics": np.eye(4)}, "intrinsics"),
        ({"intrinsics": np.diag([200.0, -200.0, 1.0])}, "intrinsics"),
        ({"intrinsics": np.full((3, 3), np.nan)}, "intrinsics"),
        ({"ego_from_camera": np.eye(3)}, "ego_from_camera"),
        ({"ego_from_camera": np.eye(4)}, "ego_from_camera"),
        ({"ego_pose": np.zeros(2)}, "ego_pose"),
        ({"width": 0}, "image size"),
        ({"step": 1}, "step"),
        ({"episode": dataclasses.replace(one_step(), network="elsewhere")}, "episode.network"),
    ],
)
def test_unusable_arguments_are_named(renderer, change, field):
    camera = default_rig().camera("front")
    arguments = {
        "episode": one_step(),
        "step": 0,
        "intrinsics": camera.model.matrix,
        "width": 256,
        "height": 128,
        "ego_from_camera": camera.ego_from_camera,
        **change,
    }
    with pytest.raises(ContractError, match=field):
        renderer.render(**arguments)
