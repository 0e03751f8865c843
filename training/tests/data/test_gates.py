"""The gates: good driving passes, bad driving is counted, named and drawn; the command says so."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data import gates, shards
from latentvla_training.data.expert_scores import with_scores
from latentvla_training.data.scene import Scene
from latentvla_training.data.world_adapter import episode_scenes
from latentvla_training.world import commands
from latentvla_training.world.episode import Episode
from latentvla_training.world.road_map import Layer, Polygon, RoadMap

from latentvla_ros.contract import ContractError


@pytest.fixture
def road_map(road_map: RoadMap) -> RoadMap:
    """The hand-made road on a carriageway without seams."""
    ring = np.array([[-60.0, -5.0], [420.0, -5.0], [420.0, 5.0], [-60.0, 5.0]])
    return dataclasses.replace(
        road_map, polygons=(*road_map.polygons, Polygon(Layer.ROADBLOCK, "block", ring))
    )


@pytest.fixture
def good(episode: Episode, road_map: RoadMap, renderer: object) -> list[Scene]:
    """Scenes of a straight drive at 8 m/s through a green light."""
    ego = np.zeros((episode.num_steps, 7))
    ego[:, 0], ego[:, 3] = 0.8 * np.arange(episode.num_steps), 8.0
    steady = dataclasses.replace(
        episode,
        ego=ego,
        agent_valid=np.zeros_like(episode.agent_valid),
        signal_state=np.full_like(episode.signal_state, 2),
    )
    return list(episode_scenes(steady, road_map, renderer=renderer))


def off_the_road(scenes: Sequence[Scene]) -> list[Scene]:
    """The same drive, swerving 8 m to the left."""
    changed = []
    for scene in scenes:
        future = scene.labels.future_2hz.copy()
        future[:, 1] += np.linspace(1.0, 8.0, 8)
        labels = dataclasses.replace(scene.labels, future_2hz=future, tags="fog,cut_in")
        changed.append(dataclasses.replace(scene, token=f"{scene.token}x", labels=labels))
    return list(with_scores(changed))


def test_the_expert_of_a_free_road_scores_well(good: list[Scene]) -> None:
    assert min(scene.labels.expert_pdms for scene in good) > 0.8
    assert min(scene.labels.expert_epdms for scene in good) > 0.8
    for scene in good:
        reference = scene.labels.pdm_reference_10hz
        assert np.isfinite(reference).all()
        np.testing.assert_allclose(reference[0, :2], scene.ego_pose[:2], atol=0.1)
        assert reference[-1, 0] > scene.ego_pose[0] + 32.0  # faster than the expert


def test_good_driving_passes(good: list[Scene], tmp_path: Path) -> None:
    shards.write_shard(tmp_path / "a.parquet", good)
    report = gates.check_gates("test", shards.ShardReader([tmp_path / "a.parquet"]))
    assert report.passed and report.failures == () and report.scenes == len(good)
    means = report.means["all"]
    assert means["NC"] == means["DAC"] == means["TLC"] == 1.0 and means["zero"] == 0.0
    stored = np.mean([scene.labels.expert_pdms for scene in good])
    assert means["PDMS"] == pytest.approx(stored, abs=1e-12)
    assert "passed" in gates.report_lines(report)[-1]


def test_failures_are_named_by_what_they_lose_and_by_tag(good: list[Scene], tmp_path: Path) -> None:
    bad = off_the_road(good[:2])
    assert [scene.labels.expert_pdms for scene in bad] == [0.0, 0.0]
    shards.write_shard(tmp_path / "a.parquet", [*good, *bad])
    report = gates.check_gates("test", shards.ShardReader([tmp_path / "a.parquet"]))
    assert report.missed == ("DAC",) and not report.passed
    assert [f.token for f in report.failures] == [scene.token for scene in bad]
    assert {f.lost for f in report.failures} == {("DAC",)}
    share = 2 / (len(good) + 2)
    assert report.means["all"]["DAC"] == pytest.approx(1.0 - share)
    assert report.means["all"]["zero"] == pytest.approx(share)
    assert report.means["cut_in"]["DAC"] == 0.0 and report.means["cut_in"]["scenes"] == 2
    assert report.means["clear"]["DAC"] == 1.0
    text = "\n".join(gates.report_lines(report, most_failures=1))
    assert bad[0].token in text and bad[1].token not in text and "and 1 more" in text


def test_recovery_starts_are_no_part_of_the_gates(good: list[Scene], tmp_path: Path) -> None:
    bad = [
        dataclasses.replace(
            scene, labels=dataclasses.replace(scene.labels, tags=f"{scene.labels.tags},recovery")
        )
        for scene in off_the_road(good[:1])
    ]
    shards.write_shard(tmp_path / "a.parquet", [*good, *bad])
    report = gates.check_gates("train", shards.ShardReader([tmp_path / "a.parquet"]))
    assert report.passed and report.means["recovery"]["scenes"] == 1
    assert len(report.failures) == 1  # shown all the same


def test_recordings_have_no_gates(good: list[Scene], tmp_path: Path) -> None:
    blind = [
        dataclasses.replace(s, labels=dataclasses.replace(s.labels, expert_pdms=float("nan")))
        for s in good[:2]
    ]
    shards.write_shard(tmp_path / "a.parquet", blind)
    with pytest.raises(ContractError, match="no scene with a reference"):
        gates.check_gates("test", shards.ShardReader([tmp_path / "a.parquet"]))


def test_the_command_ends_with_1_when_a_gate_is_missed(
    good: list[Scene],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path))
    path = shards.split_folder("test", tmp_path) / "a.parquet"
    shards.write_shard(path, good)
    assert commands.Gates("test", json=tmp_path / "deep" / "g.json")() == 0
    assert json.loads((tmp_path / "deep" / "g.json").read_text())["passed"]
    shards.write_shard(path, [*good, *off_the_road(good[:1])])
    assert commands.Gates("test", json=tmp_path / "g.json")() == 1
    found = json.loads((tmp_path / "g.json").read_text())
    assert found["missed"] == ["DAC"] and found["failures"][0]["lost"] == ["DAC"]
    assert "gate DAC >= 99.0 %" in capsys.readouterr().out
