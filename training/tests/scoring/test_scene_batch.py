"""From the project's Scenes to padded batches; moving to local float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import agent, straight_plan, straight_road
from latentvla_training.data.scene import Scene, SceneLabels
from latentvla_training.scoring.pdm import score_epdms
from latentvla_training.scoring.scene_batch import SceneBatch

from latentvla_ros.contract import ContractError


def scene_of_road() -> Scene:
    """The straight road of the builders as a project Scene, driven at 10 m/s."""
    road = straight_road(agents=[agent(60.0, 0.0)], light_red=True)
    driven = np.zeros((41, 3), np.float32)
    driven[:, 0] = np.arange(41)
    empty = np.zeros((0,))
    labels = SceneLabels(
        future_2hz=straight_plan(10.0).astype(np.float32),
        future_10hz=driven,
        future_mask=np.ones(8, np.bool_),
        past_states=np.asarray(road.history),
        agent_type=road.agent_type.astype(np.uint8),
        agent_size=road.agent_size.astype(np.float32),
        agent_height=np.full(1, 1.5, np.float32),
        agent_state=road.agent_state,
        agent_valid=road.agent_valid,
        agent_braking=np.zeros(1, np.bool_),
        polygon_xy=np.concatenate(list(road.polygons)),
        polygon_offset=np.cumsum([0, *map(len, road.polygons)]),
        polygon_layer=road.polygon_layer.astype(np.uint8),
        polygon_on_route=road.polygon_on_route,
        light_polygon=road.light_polygon,
        light_red=road.light_red,
        centerline=np.pad(road.centerline, ((0, 0), (0, 1))),
        own_light=0,
        own_light_distance_m=30.0,
        own_light_switched=False,
        pdm_reference_10hz=road.reference,
    )
    return Scene(
        token="road/0",
        network="road",
        stamp_ns=1_700_000_000_000_000_000,
        ego_pose=road.ego[:3],
        view_jpegs=(),
        view_mask=empty.astype(np.bool_),
        intrinsics=empty.astype(np.float32),
        ego_from_camera=empty.astype(np.float32),
        ego_history=empty.astype(np.float32),
        ego_history_mask=empty.astype(np.bool_),
        ego_dynamics=empty.astype(np.float32),
        ego_dynamics_mask=empty.astype(np.bool_),
        command=empty.astype(np.float32),
        labels=labels,
    )


def test_a_scene_scores_as_its_arrays() -> None:
    plan = torch.from_numpy(straight_plan(10.0))[None, None]
    road = straight_road(agents=[agent(60.0, 0.0)], light_red=True, human=straight_plan(10.0))
    for filtered in (False, True):
        ours = score_epdms(
            SceneBatch.from_scenes([scene_of_road()]), plan, filter_by_human=filtered
        )
        direct = score_epdms(SceneBatch.from_arrays([road]), plan, filter_by_human=filtered)
        assert float(ours.score) == pytest.approx(float(direct.score), abs=1e-6)
        assert float(ours.frame.light) == float(filtered)  # the driver ran the red light as well


def test_a_scene_without_reference_is_named() -> None:
    scene = scene_of_road()
    missing = np.full((41, 3), np.nan)
    scene = replace(scene, labels=replace(scene.labels, pdm_reference_10hz=missing))
    with pytest.raises(ContractError, match="road/0"):
        SceneBatch.from_scenes([scene])


def test_an_unfinished_future_is_no_human() -> None:
    scene = scene_of_road()
    mask = np.ones(8, np.bool_)
    mask[-1] = False
    scene = replace(scene, labels=replace(scene.labels, future_mask=mask))
    assert not SceneBatch.from_scenes([scene]).human_mask.any()


def test_padding_changes_nothing() -> None:
    bare = straight_road()
    crowded = straight_road(agents=[agent(25.0, 0.0), agent(60.0, 4.0)], light_red=True)
    plans = torch.from_numpy(straight_plan(10.0)).expand(2, 1, 8, 3)
    both = score_epdms(SceneBatch.from_arrays([bare, crowded]), plans)
    for i, scene in enumerate((bare, crowded)):
        alone = score_epdms(SceneBatch.from_arrays([scene]), plans[:1])
        assert float(alone.score) == float(both.score[i])
        assert torch.equal(alone.states[0], both.states[i])


def test_a_scene_without_any_polygon_is_off_road_everywhere() -> None:
    road = straight_road()
    bare = replace(
        road,
        polygons=[],
        polygon_layer=np.zeros(0, np.int64),
        polygon_on_route=np.zeros(0, np.bool_),
    )
    result = score_epdms(
        SceneBatch.from_arrays([bare]), torch.from_numpy(straight_plan(10.0))[None, None]
    )
    assert float(result.frame.drivable) == 0.0


def test_float32_survives_utm_coordinates() -> None:
    road = straight_road(agents=[agent(25.0, 0.0)])
    offset = np.array([664_000.125, 4_036_000.25])

    def moved(values: np.ndarray) -> np.ndarray:
        out = values.copy()
        out[..., :2] += offset
        return out

    far = replace(
        road,
        ego=moved(road.ego),
        history=moved(np.asarray(road.history)),
        reference=moved(road.reference),
        agent_state=moved(road.agent_state),
        polygons=[moved(ring) for ring in road.polygons],
        centerline=moved(road.centerline),
    )
    plan = torch.from_numpy(straight_plan(8.0))[None, None]
    single = SceneBatch.from_arrays([far]).to("cpu", torch.float32)
    assert single.origin.tolist() == [offset.tolist()]
    assert float(single.localized().origin[0, 0]) == offset[0]
    near = score_epdms(SceneBatch.from_arrays([road]), plan)
    result = score_epdms(single, plan)
    assert float((near.states - result.states).abs().max()) < 1e-4
    assert float(result.score) == pytest.approx(float(near.score), abs=1e-5)
