"""Every kind of agent has a shape of its own; classes and depth agree with the image."""

from __future__ import annotations

import types

import numpy as np
import pytest
from latentvla_training.world import picture
from latentvla_training.world.cameras import Renderer
from latentvla_training.world.crossroads import crossroads_map
from latentvla_training.world.episode import AgentModel, Weather
from latentvla_training.world.rig import default_rig, six_camera_rig
from latentvla_training.world.semantics import CLASS_OF_MODEL, SEMANTIC_COLORS, SemanticClass
from latentvla_training.world.still_life import MODEL_SIZES, StillAgent, still_life

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2, se3

POSE = np.array([-24.0, -5.25, 0.0])


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(crossroads_map())


def arguments(episode, slot="front", width=256):
    camera = default_rig(width, width // 2).camera(slot)
    return (episode, 0, camera.model.matrix, width, width // 2, camera.ego_from_camera, POSE)


def project(points, width=256):
    camera = default_rig(width, width // 2).camera("front")
    camera_from_map = se3.inverse(se3.from_se2(POSE) @ camera.ego_from_camera)
    rays = se3.transform_points(camera_from_map, np.atleast_2d(points)) @ camera.model.matrix.T
    return rays[:, :2] / rays[:, 2:], rays[:, 2]


def box_corners(pose, size):
    length, width, height = size
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 1)])
    ground = np.array([[x * length / 2, y * width / 2] for x, y, _ in signs])
    return np.column_stack([se2.transform_points(np.array(pose), ground), signs[:, 2] * height])


@pytest.mark.parametrize("yaw", [0.0, 0.7, np.pi / 2, 2.6, np.pi])
@pytest.mark.parametrize("model", list(AgentModel))
def test_an_agent_fills_the_projection_of_its_box_and_nothing_else(renderer, model, yaw):
    pose = (POSE[0] + 18.0, POSE[1], yaw)
    episode = still_life((StillAgent(model, pose),))
    shown = renderer.render_semantic(*arguments(episode)) == CLASS_OF_MODEL[model]
    rows, columns = np.nonzero(shown)
    size = list(MODEL_SIZES[model])
    # People reach past the small boxes that traffic gives them: legs, arms, handlebars.
    margin_m = 0.35 if model in (AgentModel.PEDESTRIAN, AgentModel.BICYCLE) else 0.15
    grown = [size[0] + 2 * margin_m, size[1] + 2 * margin_m, size[2]]
    pixels, _ = project(box_corners(pose, grown))
    assert columns.min() >= pixels[:, 0].min() - 1 and columns.max() <= pixels[:, 0].max() + 1
    assert rows.min() >= pixels[:, 1].min() - 4 and rows.max() <= pixels[:, 1].max() + 1
    exact, _ = project(box_corners(pose, size))
    area = np.ptp(exact[:, 0]) * np.ptp(exact[:, 1])
    assert shown.sum() > (0.2 if model in (AgentModel.BICYCLE, AgentModel.MOTORCYCLE) else 0.3) * (
        area if model != AgentModel.CONE else 0.8 * area
    )


def test_models_look_different_at_working_size(renderer):
    """Seen from behind and from the side at 15 m in 256 x 128: silhouettes or colours differ."""
    views = {}
    for model in AgentModel:
        for yaw in (0.0, np.pi / 2):
            agent = StillAgent(model, (POSE[0] + 17.0, POSE[1], yaw), (150, 150, 150))
            views[model, yaw] = renderer.render(*arguments(still_life((agent,)))).astype(int)
    for yaw in (0.0, np.pi / 2):
        for first in AgentModel:
            for second in AgentModel:
                if first < second:
                    differ = np.abs(views[first, yaw] - views[second, yaw]).max(axis=2) > 25
                    assert differ.sum() > 15, (first, second)


def test_size_tells_hatchback_saloon_and_off_road_car(renderer):
    shapes = []
    for size in ((4.1, 1.75, 1.5), (4.7, 1.85, 1.46), (4.8, 1.95, 1.75)):
        agent = StillAgent(AgentModel.CAR, (POSE[0] + 12.0, POSE[1], np.pi / 2), size=size)
        shown = renderer.render_semantic(*arguments(still_life((agent,))))
        rows = np.nonzero((shown == SemanticClass.VEHICLE).any(axis=1))[0]
        # The roof's length as a share of the car's.
        widths = (shown == SemanticClass.VEHICLE).sum(axis=1)
        shapes.append((widths[rows[0] + 1] / widths.max(), len(rows)))
    (hatch, _), (saloon, low), (_, high) = shapes
    assert hatch > saloon + 0.05
    assert high > low


def test_a_walking_person_moves_the_legs(renderer):
    def legs(x):
        agent = StillAgent(AgentModel.PEDESTRIAN, (x, POSE[1] + 1.0, 0.0))
        episode = still_life((agent,))
        episode.agent_state[:, :, 3] = 1.3
        camera = default_rig(512, 256).camera("front")
        pose = np.array([x - 3.0, POSE[1] - 6.0, np.pi / 2])
        shown = renderer.render_semantic(
            episode, 0, camera.model.matrix, 512, 256, camera.ego_from_camera, pose
        )
        rows, columns = np.nonzero(shown == SemanticClass.PEDESTRIAN)
        return np.ptp(columns[rows > rows.max() - 12])

    spread = [legs(-24.0 + 0.1 * i) for i in range(16)]
    assert max(spread) > 1.8 * min(spread)


def test_depth_of_a_bus_a_road_and_the_sky(renderer):
    pose = (POSE[0] + 1.8 + 20.0 + 6.0, POSE[1], 0.0)
    depth = renderer.render_depth(*arguments(still_life((StillAgent(AgentModel.BUS, pose),))))
    assert depth.dtype == np.float32 and depth.shape == (128, 256)
    ((u, v),), _ = project([pose[0] - 6.0, POSE[1], 1.4])
    assert depth[round(v), round(u)] == pytest.approx(20.0, abs=1e-3)
    # A pixel that looks down meets the ground where its ray does.
    matrix = default_rig().camera("front").model.matrix
    for row in (90, 110, 127):
        assert depth[row, 30] == pytest.approx(1.6 * matrix[1, 1] / (row - matrix[1, 2]), rel=1e-5)
    assert np.isinf(depth[0, 128])
    assert (depth > 0.0).all()


def test_depth_projects_onto_a_turned_box(renderer):
    """Points of a barrier's pixels, lifted by their depth, lie on the barrier."""
    pose, size = (POSE[0] + 14.0, POSE[1] + 1.5, 0.4), (0.5, 2.0, 1.0)
    episode = still_life((StillAgent(AgentModel.BARRIER, pose),))
    depth = renderer.render_depth(*arguments(episode))
    shown = renderer.render_semantic(*arguments(episode)) == SemanticClass.BARRIER
    rows, columns = np.nonzero(shown)
    assert len(rows) > 100
    camera = default_rig().camera("front")
    pixels = np.stack([columns, rows, np.ones(len(rows))])
    points = (np.linalg.inv(camera.model.matrix) @ pixels * depth[shown]).T
    points = se3.transform_points(se3.from_se2(POSE) @ camera.ego_from_camera, points)
    local = se2.transform_points(se2.inverse(np.array(pose)), points[:, :2])
    outside = np.maximum(np.abs(local) - np.array(size[:2]) / 2, 0.0).max()
    assert outside < 1e-3
    on_face = np.abs(np.abs(local) - np.array(size[:2]) / 2).min(axis=1) < 1e-3
    assert (on_face | (np.abs(points[:, 2] - 1.0) < 1e-3)).all()


def test_classes_of_the_ground_and_of_what_stands_there(renderer):
    shown = renderer.render_semantic(*arguments(still_life()))
    road_map = renderer.road_map
    cases = [
        ((POSE[0] + 9.0, POSE[1], 0.0), SemanticClass.ROAD),
        (tuple(road_map.signals[1].lamp_centers[2]), SemanticClass.SIGNAL),
        ((POSE[0] + 40.0, POSE[1], 9.0), SemanticClass.SKY),
    ]
    for point, expected in cases:
        ((u, v),), _ = project(point)
        assert shown[round(v), round(u)] == expected, expected
    side = renderer.render_semantic(*arguments(still_life(), "right"))
    seen = set(np.unique(np.concatenate([shown, side])))
    assert seen >= {
        SemanticClass.SKY, SemanticClass.TERRAIN, SemanticClass.ROAD, SemanticClass.SIDEWALK,
        SemanticClass.MARKING, SemanticClass.BUILDING, SemanticClass.VEGETATION,
        SemanticClass.POLE, SemanticClass.SIGNAL,
    }  # fmt: skip
    assert len(SEMANTIC_COLORS) == len(SemanticClass)


def test_centre_line_is_a_marking_and_the_lane_beside_it_is_not(renderer):
    camera = default_rig(512, 256).camera("front")
    pose = np.array([-60.0, -1.75, 0.0])
    shown = renderer.render_semantic(
        still_life(), 0, camera.model.matrix, 512, 256, camera.ego_from_camera, pose
    )
    camera_from_map = se3.inverse(se3.from_se2(pose) @ camera.ego_from_camera)
    for y, expected in ((0.0, SemanticClass.MARKING), (-1.2, SemanticClass.ROAD)):
        point = se3.transform_points(camera_from_map, np.array([[-50.0, y, 0.0]]))[0]
        u, v, w = camera.model.matrix @ point
        assert shown[round(v / w), round(u / w)] == expected


def test_image_and_classes_show_the_same_silhouette(renderer):
    """What an agent changes in the picture above the horizon is what its class covers."""
    agent = StillAgent(AgentModel.TRUCK, (POSE[0] + 20.0, POSE[1] + 1.0, 0.3), (250, 30, 200))
    with_, without = still_life((agent,)), still_life()
    changed = (renderer.render(*arguments(with_)) != renderer.render(*arguments(without))).any(
        axis=2
    )
    covered = renderer.render_semantic(*arguments(with_)) == SemanticClass.VEHICLE
    above = np.s_[:62]
    # Only edges, where a pixel is partly covered, may differ.
    assert (changed[above] & covered[above]).sum() >= 0.98 * covered[above].sum()
    assert changed[above].sum() < 1.15 * covered[above].sum()
    depth = renderer.render_depth(*arguments(with_))
    empty = renderer.render_depth(*arguments(without))
    assert ((depth != empty) == covered).all()


def test_weather_does_not_change_depth_and_classes(renderer):
    agents = (StillAgent(AgentModel.VAN, (POSE[0] + 20.0, POSE[1], 0.3)),)
    first = renderer.render_semantic(*arguments(still_life(agents)))
    for weather in Weather:
        assert np.array_equal(
            first, renderer.render_semantic(*arguments(still_life(agents, weather)))
        )


def test_rear_camera_sees_who_follows(renderer):
    rig = six_camera_rig()
    follower = still_life((StillAgent(AgentModel.CAR, (POSE[0] - 12.0, POSE[1], 0.0)),))
    seen = {}
    for camera in rig.cameras:
        shown = renderer.render_semantic(
            follower, 0, camera.model.matrix, 256, 128, camera.ego_from_camera, POSE
        )
        seen[camera.slot] = int((shown == SemanticClass.VEHICLE).sum())
    assert seen["rear"] > 300
    assert sum(seen.values()) == seen["rear"]


def test_agents_without_a_model_are_named(renderer):
    episode = still_life((StillAgent(AgentModel.CAR, (0.0, 0.0, 0.0)),))
    broken = {**vars(episode), "agent_model": np.zeros(0, np.uint8)}
    with pytest.raises(ContractError, match=r"episode\.agent_model"):
        renderer.render(*arguments(type(episode)(**broken)))


def test_kernels_are_compiled_anew_when_any_source_changes(tmp_path):
    paths = [tmp_path / name for name in ("first.py", "second.py")]
    modules = []
    for path in paths:
        path.write_text("x = 1\n")
        module = types.ModuleType(path.stem)
        module.__file__ = str(path)
        modules.append(module)
    before = picture.source_digest(*modules)
    assert before == picture.source_digest(*modules)
    paths[1].write_text("x = 2\n")
    assert picture.source_digest(*modules) != before
    # The digest is closed over, so numba's cache has it in its key.
    for kernel in (picture.draw_picture, picture.draw_ranges):
        cells = [cell.cell_contents for cell in kernel.py_func.__closure__]
        assert any(isinstance(value, int) and value != 0 for value in cells)
