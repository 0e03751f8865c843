"""Order and augmentation depend on seed and position alone; what is hidden is hidden together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latentvla_training.data.scene import Scene
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.engine.recipe import DataSettings, Recipe
from latentvla_training.planner import plan_quality
from latentvla_training.planner.augmentation import AugmentationSettings, hide_ego_state
from latentvla_training.planner.dataset import (
    RunSampler,
    SceneDataset,
    collate,
    scenes_to_imitate,
    scenes_to_learn_from,
)
from latentvla_training.planner.light_probe import fit_linear
from latentvla_training.planner.training import TrainedPlanner
from latentvla_training.scoring.scene_batch import SceneArrays, scene_arrays

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig

from .conftest import make_scene


def test_sample_depends_on_its_position_only(reader: ShardReader, tiny: PlannerConfig) -> None:
    first = SceneDataset(reader, tiny, AugmentationSettings(), with_targets=True, seed=3)
    second = SceneDataset(reader, tiny, AugmentationSettings(), with_targets=True, seed=3)
    second[(0, 1)]  # other samples in between change nothing
    one, two = first[(7, 4)], second[(7, 4)]
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(one["ego_from_camera"], first[(8, 4)]["ego_from_camera"])


def test_without_augmentation_inputs_are_those_of_the_scene(
    reader: ShardReader, tiny: PlannerConfig
) -> None:
    item, scene = SceneDataset(reader, tiny)[3], reader[3]
    for name in ("view_mask", "intrinsics", "ego_from_camera", "ego_history", "command"):
        np.testing.assert_array_equal(item[name], getattr(scene, name))
    assert [round(view.mean()) for view in item["images"]] == [3, 43, 83, 123]
    np.testing.assert_array_equal(item["future"], scene.labels.future_2hz)


def test_augmentation_does_not_write_into_the_split(
    reader: ShardReader, tiny: PlannerConfig
) -> None:
    before = {name: column.copy() for name, column in reader.columns.items()}
    settings = AugmentationSettings(drop_ego_state=1.0, drop_optional_view=1.0, drop_command=1.0)
    item = SceneDataset(reader, tiny, settings)[(0, 2)]
    assert item["view_mask"].tolist() == [True, False, False, False]
    assert not item["images"][1:].any() and item["images"][0].any()
    assert item["ego_history_mask"].tolist() == [False, False, False, True]
    assert item["ego_dynamics_mask"].tolist() == [True, True, True, False, False, False]
    assert item["command"].tolist() == [0, 0, 0, 1]
    for name, column in before.items():
        np.testing.assert_array_equal(reader.columns[name], column)


def test_hidden_state_keeps_speed_and_yaw_rate() -> None:
    history, dynamics = np.ones((2, 4, 3), np.float32), np.ones((2, 6), np.float32)
    known, present = np.ones((2, 4), np.bool_), np.ones((2, 6), np.bool_)
    hide_ego_state(history, known, dynamics, present)
    assert dynamics.tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert not history[:, :3].any() and history[:, 3].all() and known[:, 3].all()


def test_sampler_resumes_and_visits_every_scene() -> None:
    whole = list(RunSampler(np.arange(10), 4, 5, seed=1))
    assert list(RunSampler(np.arange(10), 4, 5, start_step=2, seed=1)) == whole[2:]
    flat = [address for batch in whole for address in batch]
    assert [position for position, _ in flat] == list(range(20))
    assert sorted(scene for _, scene in flat[:10]) == list(range(10))
    assert sorted(scene for _, scene in flat[10:]) == list(range(10))
    assert [scene for _, scene in flat[:10]] != [scene for _, scene in flat[10:]]


def test_failed_examples_are_left_out(reader: ShardReader) -> None:
    assert scenes_to_imitate(reader).tolist() == list(range(len(reader)))  # nothing known of them
    scores = np.array([0.9, 0.0, np.nan, 0.4, 0.8])
    lights = np.array([0.8, 0.0, np.nan, 0.4, 0.0])
    known = np.array([[True, False]] * 3 + [[False, False]] + [[True, True]])
    columns = {"expert_pdms": scores, "expert_epdms": lights, "future_mask": known}
    columns["tags"] = np.array(["clear", "clear,recovery", "clear,recovery", "fog", "night"])
    has_odometry = np.array([True] * 5)
    scored = SimpleNamespace(columns=columns, has_odometry=has_odometry, assumed="")
    kept = scenes_to_learn_from(scored)  # type: ignore[arg-type]
    assert kept.tolist() == [0, 2, 3]
    pictures = SimpleNamespace(
        columns=columns, has_odometry=np.array([True, True, False, False, True])
    )
    assert scenes_to_learn_from(pictures).tolist() == [0, 3]  # type: ignore[arg-type]
    assert scenes_to_imitate(scored).tolist() == [0, 2]  # type: ignore[arg-type]
    shown = {scene for batch in RunSampler(kept, 2, 9) for _, scene in batch}
    assert shown == {0, 2, 3}


def test_labels_show_more_often_and_fail_nobody_who_has_none(reader: ShardReader) -> None:
    half = reader.part(labelled_share=0.5)
    assert half.labelled.tolist() == [False] * 6 + [True] * 6
    assert half.part() is half and reader.labelled.all()
    shown = np.bincount(scenes_to_imitate(half, labelled_repeats=3))
    assert shown.tolist() == [1] * 6 + [3] * 6
    assert scenes_to_imitate(reader, labelled_repeats=3).tolist() == list(range(12))
    with pytest.raises(ContractError, match="at least one of 1 shards"):
        half.part(1)  # what is hidden stays hidden
    assert half.has_odometry.all()
    lights = reader.columns["own_light"][6:]
    assert (lights >= 0).any() and (reader.columns["own_light"][:6] == lights).all()
    assert half.columns["own_light"].tolist() == [-1] * 6 + lights.tolist()
    assert np.isnan(half.columns["expert_pdms"][:6]).all()


def test_labels_that_are_hidden_cannot_be_read(
    reader: ShardReader, tiny: PlannerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = reader.part(labelled_share=0.5)
    for read in (lambda: half[2], lambda: half.heavy_label(2, "agent_state")):
        with pytest.raises(ContractError, match="labels of shard train-0000-00"):
            read()
    dataset = SceneDataset(half, tiny, with_targets=True)
    known, unknown = dataset[8], dataset[2]
    assert known["labelled"] and known["raster"].any() and known["leader"].any()
    assert not unknown["labelled"] and not unknown["raster"].any() and not unknown["leader"].any()
    np.testing.assert_array_equal(unknown["future"], reader[2].labels.future_2hz)  # odometry
    scored: list[str] = []

    def note(scene: Scene) -> SceneArrays:
        scored.append(scene.token)
        return scene_arrays(scene)

    monkeypatch.setattr(plan_quality, "scene_arrays", note)
    quality = plan_quality.PlanQuality(half, progress=False)
    assert scored == reader.columns["token"][6:].tolist()
    assert (quality(torch.tensor([2]), torch.zeros(1, 3, 8, 3)) == 1.0).all()


def test_nothing_is_learned_from_labels_that_are_hidden(
    reader: ShardReader, tiny: PlannerConfig
) -> None:
    torch.manual_seed(0)
    recipe = Recipe("tiny", model=tiny)
    module = TrainedPlanner(recipe).eval()
    half = SceneDataset(reader.part(labelled_share=0.5), tiny, with_targets=True)
    seen = SceneDataset(reader, tiny, with_targets=True)
    auxiliary = {"raster", "velocity", "light", "seen_light", "light_distance", "leader", "route"}

    def losses(rows: list[int], dataset: SceneDataset) -> dict[str, float]:
        with torch.no_grad():
            found = module(collate([dataset[row] for row in rows]))
        return {name: float(value) for name, value in found.items()}

    mixed, alone, whole = losses([2, 8], half), losses([8], half), losses([2, 8], seen)
    for name in auxiliary:
        assert mixed[name] == pytest.approx(alone[name], rel=1e-4), name
    assert any(mixed[name] != pytest.approx(whole[name], rel=1e-3) for name in auxiliary)
    assert mixed["plan"] == pytest.approx(whole["plan"])  # imitated all the same
    none = losses([1, 2], half)
    assert all(none[name] == 0.0 for name in (*auxiliary, "lamps"))


def test_collate_stacks(reader: ShardReader, tiny: PlannerConfig) -> None:
    dataset = SceneDataset(reader, tiny, blank=True)
    batch = collate([dataset[0], dataset[1]])
    assert batch["images"].shape == (2, 4, 32, 64, 3) and not batch["images"].any()
    assert batch["view_mask"].dtype == torch.bool


@pytest.mark.parametrize("change", [{"photometric": 1.5}, {"gain": -0.1}, {"drop_command": -1}])
def test_bad_augmentation_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ContractError, match=next(iter(change))):
        AugmentationSettings(**change)


_VIEWS = [
    {"slot": "front", "time_offset_s": 0.0},
    {"slot": "left", "time_offset_s": 0.0},
    {"slot": "rear", "time_offset_s": -0.5},
    {"slot": "front", "time_offset_s": -0.5},
]


def _with_views(folder: Path, turn: float = 0.0) -> ShardReader:
    """Return two shards that say their views; the first is driven another way by ``turn``."""
    for number in range(2):
        scenes = [make_scene(index, f"train-000{number}") for index in range(3)]
        if turn and not number:
            scenes = [_driven_otherwise(scene, turn) for scene in scenes]
        write_shard(folder / f"train-000{number}-00.parquet", scenes, {"views": _VIEWS})
    return ShardReader(sorted(folder.glob("*.parquet")))


def _driven_otherwise(scene: Scene, turn: float) -> Scene:
    labels = scene.labels
    moved = scene.ego_from_camera.copy()
    moved[2:, 0, 3] -= turn  # where past views stand tells how far it has come
    return replace(
        scene,
        ego_from_camera=moved,
        ego_pose=scene.ego_pose + turn,
        ego_history=scene.ego_history + np.float32(turn),
        ego_dynamics=scene.ego_dynamics + np.float32(turn),
        command=np.roll(scene.command, 1),
        labels=replace(
            labels,
            future_2hz=labels.future_2hz + np.float32(turn),
            future_10hz=labels.future_10hz + np.float32(turn),
            past_states=labels.past_states + turn,
        ),
    )


def test_odometry_that_is_hidden_decides_nothing(tmp_path: Path, tiny: PlannerConfig) -> None:
    one = _with_views(tmp_path / "one").part(odometry_share=0.5)
    two = _with_views(tmp_path / "two", turn=0.7).part(odometry_share=0.5)
    whole = _with_views(tmp_path / "one")
    assert one.has_odometry.tolist() == one.labelled.tolist() == [False] * 3 + [True] * 3
    for name, column in one.columns.items():  # not one small column tells how it was driven
        np.testing.assert_array_equal(column, two.columns[name], err_msg=name)
        np.testing.assert_array_equal(column[3:], whole.columns[name][3:], err_msg=name)
    for name in ("stamp_ns", "intrinsics"):
        np.testing.assert_array_equal(one.columns[name], whole.columns[name])
    poses = one.columns["ego_from_camera"][:3]
    np.testing.assert_array_equal(poses[:, 3], poses[:, 0])  # as if it had stood
    assert not one.columns["view_mask"][:3, 2].any()  # a camera that looks into the past alone
    assert one.columns["command"][0].tolist() == [0, 0, 0, 1]
    assert not one.columns["ego_dynamics_mask"][:3].any()
    with pytest.raises(ContractError, match="labels of shard train-0000-00"):
        one[1]
    assert scenes_to_learn_from(one).tolist() == list(range(6))
    assert scenes_to_imitate(one).tolist() == [3, 4, 5]
    assert [text.endswith("without odometry") for text in one.contents()] == [True, False]
    assert one.part(odometry_share=0.6).part() is one.part() is one  # nothing is shown again
    assert one.part(1).has_odometry.tolist() == one.has_odometry.tolist()  # what can be imitated
    module = TrainedPlanner(Recipe("tiny", model=tiny)).eval()
    batch = collate([SceneDataset(one, tiny, with_targets=True)[row] for row in (0, 4)])
    losses = module({name: value[:1] for name, value in batch.items()})
    assert not all(torch.isfinite(loss) for loss in losses.values())  # imitated by mistake: seen
    assert all(torch.isfinite(module.encode(batch).memory).flatten())


def test_an_example_may_look_like_a_drive_without_odometry(
    tmp_path: Path, tiny: PlannerConfig
) -> None:
    whole = _with_views(tmp_path / "one")
    hidden = whole.part(odometry_share=0.5)
    plain = AugmentationSettings(0.8, drop_ego_state=0.0, drop_command=0.0)
    shown = SceneDataset(whole, tiny, plain)
    mixed = SceneDataset(whole, tiny, plain, hide_odometry=0.5)
    without = SceneDataset(hidden, tiny, plain)
    alike = {"all": 0, "none": 0}
    for position in range(20):
        found, known, nothing = (part[(position, 1)] for part in (mixed, shown, without))
        hides = not found["ego_dynamics_mask"].any()
        alike["none" if hides else "all"] += 1
        wanted = nothing if hides else known
        for name in set(wanted) - {"future", "future_mask"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(found["future"], known["future"])  # imitated all the same
    assert min(alike.values()) >= 4
    item = SceneDataset(whole, tiny, hide_odometry=0.5)[1]
    assert item["ego_dynamics_mask"].any()  # only in training


def test_who_cannot_tell_past_views_cannot_hide_odometry(
    reader: ShardReader, tiny: PlannerConfig
) -> None:
    with pytest.raises(ContractError, match=r"train-0000-00: views.*slots and times"):
        reader.part(odometry_share=0.5)
    with pytest.raises(ContractError, match=r"run\.hide_odometry"):
        SceneDataset(reader, tiny, hide_odometry=0.5)


@pytest.mark.parametrize("name", ["labelled_share", "odometry_share"])
@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_bad_share_is_refused(name: str, share: float) -> None:
    with pytest.raises(ContractError, match=name):
        DataSettings(**{name: share})


def test_linear_probe_separates_what_is_separable() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(0, 3, (300,), generator=generator)
    features = torch.randn(300, 8, generator=generator) * 5.0 + 20.0
    features[torch.arange(300), states] += 40.0
    weight, bias = fit_linear(features, states)
    assert ((features @ weight.T + bias).argmax(dim=1) == states).float().mean() > 0.98
