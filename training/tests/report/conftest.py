"""Made-up results of evaluate and drive, with effects put in by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.planner.evaluation import (
    GROUP_FIGURES,
    GROUP_ROWS,
    ROWS,
    SCHEMA,
    derived_figures,
    write_result,
)
from latentvla_training.planner.scene_scores import (
    EPDMS_PARTS,
    EXTENDED_COMFORT,
    PDMS_PARTS,
    SCORES,
)
from latentvla_training.report.network_sums import sums_of
from latentvla_training.report.places import Places
from latentvla_training.report.present import Present

from latentvla_ros.model.config import PlannerConfig

from ..planner.conftest import TINY
from .distill_documents import distill_document

PRESENT = Present(
    code={"world": "w" * 16, "scoring": "s" * 16},
    drive_code={"world": "w" * 16, "scoring": "d" * 16, "closed_loop": "c" * 16},
    scenes={"test": "t" * 64, "longtail": "t" * 64, "ood": "t" * 64},
    bundle_sha256="b0" * 32,
    released_sha256="r" * 64,
)
#: Mean EPDMS and ADE of every row; "night" takes nano down to the level of blank images.
LEVELS = {
    "constant_velocity": (0.40, 2.7),
    "ego_status_mlp": (0.62, 0.95),
    "blank_images": (0.60, 0.93),
    "ours": (0.72, 0.72),
    "ours_wrong_images": (0.45, 1.9),
    "ours_hidden_state": (0.60, 1.4),
    "expert": (0.93, 0.0),
}


def open_loop_document(
    split: str, seed: int, networks: int = 8, scenes: int = 30
) -> dict[str, Any]:
    """Return a result of evaluate on made-up Scenes; the baselines share their noise with nano."""
    noise = np.random.default_rng(7)
    names = np.repeat([f"{split}-{index:04d}" for index in range(networks)], scenes)
    shared = noise.normal(0.0, 0.05, networks)[np.arange(len(names)) // scenes]
    night = np.arange(len(names)) % 3 == 0
    rows: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        score, ade = LEVELS[row]
        if row == "ours":
            score += 0.01 * (seed - 1)
        values = np.full(len(names), score)
        if row == "ours":
            values[night] = LEVELS["blank_images"][0]
        values = np.clip(values + shared + noise.normal(0.0, 0.01, len(names)), 0.0, 1.0)
        rows[row] = {name: values for name in SCORES}
        rows[row] |= {f"pdms_{part}": values for part in PDMS_PARTS}
        for score_name in SCORES[1:]:
            rows[row] |= {f"{score_name}_{part}": values for part in EPDMS_PARTS}
        rows[row][f"epdms_{EXTENDED_COMFORT}"] = values
        if row != "expert":
            rows[row] |= {"ade": np.full(len(names), ade) + shared, "fde": np.full(len(names), ade)}
    groups = {"decision": ~night, "tag: night": night, "tag: clear": ~night}
    groups["tag: cut_in"] = names == names[0]  # one network: too few for an interval
    sums = sums_of(names, rows, groups, GROUP_FIGURES, GROUP_ROWS)
    return {
        "schema": SCHEMA,
        "bundle": "nano-1",
        "split": split,
        "backend": "onnxruntime",
        "identity": {
            "bundle_id": "nano-1",
            "bundle_sha256": f"b{seed}" * 32,
            "recipe": "nano",
            "start_from": f"nano_s{seed}",
            "seed": seed,
            "baselines": {"ego_status": {"seed": seed}},
            "passes": 100,
            "world": "w" * 16,
            "scoring": "s" * 16,
            "commit": "0123456789abcdef",
            "data": {"scenes": len(names), "content_sha256": "t" * 64},
        },
        "scenes": len(names),
        "networks": networks,
        "decision_scenes": int((~night).sum()),
        **derived_figures(sums),
        "unscored": {"scenes": {"reference: NaN": 2}, "plans": {}},
        "sums": sums.to_json(),
    }


def closed_loop_document(split: str, driver: str, score: float, seed: int = 0) -> dict[str, Any]:
    """Return a result of drive: eight routes of four networks."""
    routes = [
        {
            "name": f"{split}-{index % 4:04d}-{index:02d}",
            "network": f"{split}-{index % 4:04d}",
            "driving_score": score + index,
            "success": index % 2 == 0,
            "completion": 90.0,
            "smoothness": None if index == 0 else 0.5,
            "mean_speed": 6.0,
            "infractions": {"red_light": int(index == 3), "collision_vehicle": 0},
        }
        for index in range(8)
    ]
    identity = {"world": "w" * 16, "scoring": "d" * 16, "closed_loop": "c" * 16, "commit": "0123"}
    if driver == "bundle":
        identity["bundle_sha256"] = f"b{seed}" * 32
    return {
        "driver": driver,
        "bundle": "nano" if driver == "bundle" else None,
        "split": split,
        "identity": identity,
        "summary": {"routes": 8},
        "routes": routes,
        "skipped": {},
    }


@pytest.fixture
def present() -> Present:
    return PRESENT


@pytest.fixture
def open_loop() -> Callable[..., dict[str, Any]]:
    return open_loop_document


@pytest.fixture
def closed_loop() -> Callable[..., dict[str, Any]]:
    return closed_loop_document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds on test, one on longtail, routes of nano and of blank images on test."""
    results = tmp_path / "results"
    results.mkdir()
    for split, seed in (("test", 0), ("test", 1), ("longtail", 0)):
        document = open_loop_document(split, seed)
        write_result(results / f"{split}_s{seed}.json", document)
    for driver, score in (("bundle", 60.0), ("blank_images", 50.0)):
        path = results / f"drive_{driver}.json"
        path.write_text(json.dumps(closed_loop_document("test", driver, score)))
    return results


@pytest.fixture
def now(present: Present) -> Present:
    return replace(
        present, bundle_sha256="b0" * 32, distill_code={"distill": "e" * 16}, commit="d00d" * 9,
        contender_code={"training": "7" * 16},
        recipes={"distill": {"nano": "aaaa", "nano_no_kl": "bbbb"}},
    )  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "distill_nano.json").write_text(json.dumps(distill_document()))
    return folder


@pytest.fixture
def no_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figure out where the text alone is looked at."""
    monkeypatch.setattr("latentvla_training.report.document.draw_distill_figure", lambda *_: False)


@pytest.fixture
def tiny() -> PlannerConfig:
    return TINY


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(**{entry.name: tmp_path / entry.name for entry in fields(Places)})
    for entry in fields(found):
        getattr(found, entry.name).mkdir()
    return found
