"""Scores of rows of plans on hand-made Scenes whose scores can be told by looking at them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.scene import Scene
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.planner.plan_quality import PlanQuality
from latentvla_training.planner.scene_groups import tag_groups
from latentvla_training.planner.scene_scores import predecessors, score_rows
from numpy.typing import NDArray

from latentvla_ros.geometry import se2

TIMES = np.arange(1, 9) * 0.5


def scorable(scene: Scene, stamp_ns: int, reference_speed: float | None = None) -> Scene:
    """Return a Scene with a past and a reference that both drive straight on."""
    speed = float(scene.ego_dynamics[0])
    past = np.zeros((4, 11))
    back = np.array([-1.5, -1.0, -0.5, 0.0]) * speed
    past[:, :3] = se2.compose(scene.ego_pose, np.stack([back, 0 * back, 0 * back], axis=1))
    past[:, 3] = speed
    ahead = np.arange(41) * 0.1 * (speed if reference_speed is None else reference_speed)
    reference = se2.compose(scene.ego_pose, np.stack([ahead, 0 * ahead, 0 * ahead], axis=1))
    labels = replace(scene.labels, past_states=past, pdm_reference_10hz=reference)
    return replace(scene, labels=labels, stamp_ns=stamp_ns)


def straight(reader: ShardReader, speeds: Sequence[float]) -> NDArray[np.float32]:
    """Return plans (N, 8, 3) straight ahead at these speeds."""
    plans = np.zeros((len(reader), 8, 3), np.float32)
    plans[..., 0] = np.asarray(speeds)[:, None] * TIMES
    return plans


@pytest.fixture
def scored(reader: ShardReader, tmp_path: Path) -> ShardReader:
    """Scenes at 4, 5, 6, 7, 8, 4, 8 m/s behind a vehicle at 3 m/s, 18 m ahead of the bumper.

    The third and fourth have a predecessor; the reference of the fifth is absent.
    """
    moments = {0: 1.0, 1: 3.0, 2: 3.5, 3: 4.0, 4: 6.0, 5: 8.0, 10: 10.0}
    scenes = [scorable(reader[index], int(s * 1e9)) for index, s in moments.items()]
    bare = replace(scenes[4].labels, pdm_reference_10hz=np.full((41, 3), np.nan))
    scenes[4] = replace(scenes[4], labels=bare)
    write_shard(tmp_path / "scored.parquet", scenes)
    return ShardReader([tmp_path / "scored.parquet"])


def test_scores_of_plans_that_keep_speed_brake_crash_and_fail(scored: ShardReader) -> None:
    speeds = scored.columns["ego_dynamics"][:, 0]
    nowhere = np.full((7, 8, 3), np.nan, np.float32)
    rows = {
        "keeps": straight(scored, speeds),
        "crashes": straight(scored, np.full(7, 12.0)),
        "fails": nowhere,
    }
    result = score_rows(scored, rows, progress=False)
    assert dict(result.scenes_unscored) == {"pdm_reference_10hz: NaN": 1}
    assert result.plans_unscored["fails"] == {"the plan holds NaN or infinity": 6}
    assert not result.plans_unscored["keeps"]
    keeps = result.rows["keeps"]
    # At 7 m/s the bumpers are 2 m apart after 4 s and close by 4 m/s: within one second. NAVSIM 2.2
    # looks no further than 3.1 s, when they are 5.5 m apart.
    np.testing.assert_array_equal(keeps["pdms_ttc"], [1, 1, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(keeps["pdms_nc"], [1, 1, 1, 1, 0, 1, 0])
    np.testing.assert_allclose(keeps["pdms"], [1, 1, 1, 7 / 12, 0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(keeps["epdms_unfiltered"], [1, 1, 1, 1, 0, 1, 0], atol=1e-9)
    # What the driver of the last Scene hits as well is forgiven; no reference, no forgiving.
    np.testing.assert_allclose(keeps["epdms"], [1, 1, 1, 1, 0, 1, 1], atol=1e-9)
    np.testing.assert_array_equal(result.rows["crashes"]["pdms"], 0.0)
    np.testing.assert_array_equal(result.rows["fails"]["epdms"], 0.0)


def test_extended_comfort_compares_with_the_plan_of_half_a_second_before(
    scored: ShardReader,
) -> None:
    before = predecessors(scored.columns["token"], scored.columns["stamp_ns"])
    assert before.tolist() == [-1, -1, 1, 2, -1, -1, -1]
    speeds = scored.columns["ego_dynamics"][:, 0].astype(float)
    rows = {"keeps": straight(scored, speeds), "jerks": straight(scored, speeds)}
    braking = np.minimum(speeds[:, None] * TIMES - 2.0 * TIMES**2, speeds[:, None] ** 2 / 8.0)
    rows["jerks"][1, :, 0] = np.where(speeds[1] / 4.0 > TIMES, braking[1], speeds[1] ** 2 / 8.0)
    result = score_rows(scored, rows, progress=False)
    comfort = result.rows["jerks"]["epdms_ec"]
    assert np.isnan(comfort[[0, 1, 4, 5, 6]]).all()
    assert comfort[2] == 0.0 and comfort[3] == 1.0
    assert result.rows["keeps"]["epdms_ec"][2] == 1.0
    assert result.rows["jerks"]["epdms"][2] == pytest.approx(14 / 16)
    assert result.rows["keeps"]["epdms"][2] == pytest.approx(1.0)


def test_recovery_starts_have_no_predecessor_and_are_none() -> None:
    tokens = np.array(["a-00/00010", "a-00/00010r", "a-00/00015", "a-00/00015r", "a-01/00020"])
    stamps = np.array([1.0, 1.0, 1.5, 1.5, 2.0]) * 1e9
    assert predecessors(tokens, stamps.astype(np.int64)).tolist() == [-1, -1, 0, -1, -1]


def test_scenes_of_recordings_without_reference_have_no_scores(reader: ShardReader) -> None:
    plans = {"straight": straight(reader, np.full(12, 4.0))}
    result = score_rows(reader, plans, progress=False)
    assert result.rows == {}
    assert sum(result.scenes_unscored.values()) == 12


def test_tags_become_groups(reader: ShardReader) -> None:
    assert tag_groups(reader) == {}
    reader.columns["tags"] = np.array(["fog,cut_in", "clear", "", "fog", *["clear"] * 8])
    groups = tag_groups(reader)
    assert {name: int(chosen.sum()) for name, chosen in groups.items()} == {
        "tag: clear": 9,
        "tag: cut_in": 1,
        "tag: fog": 2,
    }


def test_quality_in_training_is_the_score(scored: ShardReader) -> None:
    speeds = scored.columns["ego_dynamics"][:, 0]
    rows = {f"{gain}": straight(scored, gain * speeds) for gain in (1.0, 0.4, 0.0)}
    expected = score_rows(scored, rows, progress=False).rows
    quality = PlanQuality(scored, progress=False)
    index = torch.tensor([4, 2, 0, 6])  # the first has no reference: it prefers nothing
    found = quality(index, torch.from_numpy(np.stack(list(rows.values()), axis=1))[index])
    assert found[0].tolist() == [1.0, 1.0, 1.0]
    for column, name in enumerate(rows):
        # Where a Scene has a predecessor, the table's score has extended comfort in it too.
        alone = [2, 3] if name != "1.0" else [1, 2, 3]
        np.testing.assert_allclose(
            found[alone, column], expected[name]["epdms_unfiltered"][index[alone]], atol=1e-4
        )
    assert found[3, 1] > found[3, 0]  # at 8 m/s behind 3 m/s; the slower plan is the better one
    assert copy.deepcopy(quality) is quality
