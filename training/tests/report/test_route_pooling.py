"""Which drives make up a row: of one recipe and the same routes' settings, fresh, nobody twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.report import identity, present
from latentvla_training.report.pooling import SplitResults, split_results
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import read_results
from latentvla_training.report.split_tables import split_section

from ..planner.conftest import SHARD_RECIPE, make_scene

Document = Callable[..., dict[str, Any]]
BUDGET = {"recipe": "nano", "start_from": "pre_s{}", "passes": 100, "trained_on": "t" * 64}
SETTINGS = {"free_flow_s": 25.0}


@pytest.fixture
def write(tmp_path: Path, closed_loop: Document) -> Callable[..., None]:
    def write(
        name: str, driver: str, score: float, seed: int = 0,
        settings: dict[str, float] = SETTINGS, **identity: Any,
    ) -> None:  # fmt: skip
        document = closed_loop("test", driver, score, seed) | {"settings": settings}
        if driver == "bundle":
            budget = {key: str(v).format(seed) for key, v in BUDGET.items()}
            document["identity"] |= budget | {"seed": seed}
        document["identity"] |= identity
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    return write


def pooled(folder: Path, present: Present) -> SplitResults:
    return split_results(read_results(folder, present), "test", present.bundle_sha256)


def names(found: SplitResults, row: str) -> list[str]:
    return [file.name for file in found.route_files.get(row, [])]


def test_seeds_are_pooled_and_every_other_file_is_named(
    tmp_path: Path, present: Present, write: Callable[..., None]
) -> None:
    write("s0", "bundle", 60.0)
    write("s1", "bundle", 70.0, seed=1)
    write("copy", "bundle", 60.0)
    write("before", "bundle", 10.0, bundle_sha256="0ld", world="0ther")
    write("same_seed", "bundle", 10.0, bundle_sha256="0ld")
    write("short", "bundle", 10.0, seed=2, passes="7")
    write("other_data", "bundle", 10.0, seed=3, trained_on="u" * 64)
    write("brief", "bundle", 10.0, settings={"free_flow_s": 4.0})
    found = pooled(tmp_path, present)
    assert names(found, "ours") in (["s0.json", "s1.json"], ["copy.json", "s1.json"])
    assert found.driven("ours", "driving_score").value == pytest.approx(65.0 + 3.5)
    assert found.driven_spread("ours", "driving_score") == pytest.approx(50.0**0.5)
    assert "the same driver on the same routes" in found.left_out.get(
        "copy.json", found.left_out.get("s0.json", "")
    )
    assert "stale: world 0ther" in found.left_out["before.json"]
    assert "same or an unknown seed" in found.left_out["same_seed.json"]
    assert "nor of the same recipe" in found.left_out["short.json"]
    assert "nor of the same recipe" in found.left_out["other_data.json"]
    assert "pooled are [('free_flow_s', 25.0)]" in found.left_out["brief.json"]
    text = split_section(found)
    assert all(f"Not pooled: `{name}` (" in text for name in found.left_out)


def test_another_bundle_alone_is_no_row_of_nano(
    tmp_path: Path, present: Present, write: Callable[..., None]
) -> None:
    write("before", "bundle", 90.0, bundle_sha256="0ld", passes="7")
    found = pooled(tmp_path, present)
    assert names(found, "ours") == [] and "ours" not in found.routes
    assert "bundle 0ld is not b0b0b0b0b0, which ships" in found.left_out["before.json"]
    write("now", "bundle", 60.0, world="0ther")  # stale, and still the one that ships
    assert names(pooled(tmp_path, present), "ours") == ["now.json"]


def test_rows_are_compared_on_the_same_settings_alone(
    tmp_path: Path, present: Present, write: Callable[..., None]
) -> None:
    write("nano", "bundle", 60.0)
    write("blank", "blank_images", 50.0, settings={"free_flow_s": 4.0})
    found = pooled(tmp_path, present)
    assert names(found, "blank_images") == []
    assert found.left_out["blank.json"] == "other settings of the routes than nano's"


def test_baselines_are_stale_by_the_released_ones_and_pooled_by_seed(
    tmp_path: Path, present: Present, write: Callable[..., None]
) -> None:
    released = {"released_sha256": "r" * 64, "baselines": {"blank": {"sha256": "x0", "seed": 0}}}
    write("blank_old", "blank_images", 20.0, released_sha256="q" * 64)
    write("mlp_old", "ego_status_mlp", 20.0, released_sha256="q" * 64)
    write("blank_s0", "blank_images", 50.0, **released)
    write("blank_s1", "blank_images", 60.0, baselines={"blank": {"sha256": "x1", "seed": 1}})
    found = pooled(tmp_path, present)
    assert names(found, "blank_images") == ["blank_s0.json", "blank_s1.json"]
    assert "stale: released_sha256" in found.left_out["blank_old.json"]
    assert found.route_files["ego_status_mlp"][0].stale  # there is no other, so it is marked
    text = split_section(found)
    line = next(
        one for one in text.splitlines() if one.startswith("| ego status") and "| 8 |" in one
    )
    assert line.split("|")[4].strip().endswith("†")
    commands = [line for line in text.splitlines() if line.startswith("latentvla-train drive")]
    assert [("--baselines F" in line) for line in commands] == [False, True, False]


def test_what_a_reader_of_the_table_must_know_is_beside_it(
    tmp_path: Path, present: Present, closed_loop: Document
) -> None:
    document = closed_loop("test", "expert", 90.0) | {"skipped": {"test-0009-00": "no start"}}
    for route in document["routes"][:3]:
        route["event_before_takeover"] = True
    (tmp_path / "expert.json").write_text(json.dumps(document))
    text = split_section(pooled(tmp_path, present))
    assert "Bench2Drive counts a missing route as 0" in text
    assert "Skipped: test-0009-00: no start." in text and "--routes 9" in text
    assert "moves by its own bicycle model" in text
    assert "expert's plans" not in text  # nobody drove by them
    assert "took over from the expert" in text and "world's state) 3 of 8." in text


def test_the_row_of_the_experts_plans_is_spoken_of_where_it_is(
    tmp_path: Path, present: Present, closed_loop: Document
) -> None:
    for driver in ("expert", "expert_plan"):
        document = closed_loop("test", driver, 80.0)
        (tmp_path / f"{driver}.json").write_text(json.dumps(document))
    text = split_section(pooled(tmp_path, present))
    assert "| expert's plans, driven by the tracker |" in text
    assert "drive, is *expert's plans, driven by the tracker*." in text


def test_the_scenes_that_are_here_are_those_that_evaluate_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path))
    paths = []
    for name in ("kept", "left_out"):
        paths.append(split_folder("test") / f"test-0000-{name}.parquet")
        write_shard(paths[-1], [make_scene(0)], SHARD_RECIPE)
    whole = present.here()
    assert whole.scenes["test"] == identity.scenes_identity(paths)["content_sha256"]
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    kept = present.here()
    assert kept.scenes["test"] == identity.scenes_identity(paths[:1])["content_sha256"]
    assert kept.scenes_ids["test"] not in (None, whole.scenes_ids["test"])
    assert "val" not in kept.scenes
