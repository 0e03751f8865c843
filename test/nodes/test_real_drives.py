"""Recordings of real cars through the real nodes, over DDS, with the shipped bundle.

Nobody says whether the plans are good: the world it was trained in looks otherwise. They must come,
at the cameras' rate, pass the checks and the gate, and every frame without one must have its cause.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.real_time]

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "training/tests/data/real_drives.py"
#: What a frame may be lost to on a busy machine, or before 1.5 s of odometry.
HARMLESS = {"superseded", "overflow", "plan_too_old", "warming_up"}


@pytest.fixture(scope="module")
def real_drives() -> ModuleType:
    """Return the maker of the bags; skips without the training package or the recordings."""
    pytest.importorskip("latentvla_training")
    spec = importlib.util.spec_from_file_location("real_drives", MAKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.DRIVES.is_dir():
        pytest.skip(f"{module.DRIVES} is absent")
    return module


def replayed(bag: Path, out: Path) -> tuple[dict[str, Any], str]:
    """Replay a bag; return result.json and what was said on stderr."""
    command = [sys.executable, "-m", "latentvla_ros.cli.main", "replay", str(bag)]
    ended = subprocess.run(
        [*command, "--out", str(out), "--no-video", "--threads", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads((out / "result.json").read_text()), ended.stderr


def checked(result: dict[str, Any], out: Path) -> None:
    """Assert what holds for every replay that goes well."""
    # What a starved machine loses on its way (best effort) the node cannot count.
    received = result["cameras"]["front"]["received"]
    assert result["plans"] + sum(result["drops"].values()) == received
    assert 0.9 * result["frames"] <= received <= result["frames"]
    assert {cause for cause, count in result["drops"].items() if count} <= HARMLESS
    # The planner's first words may come before the gate has matched it.
    assert result["gate"]["passed"] >= result["plans"] - 3
    assert result["exit_codes"] == {"planner": 0, "gate": 0}
    with np.load(out / "plans.npz") as plans:
        assert len(plans["knots"]) == result["plans"]
        assert all(np.isfinite(plans[name]).all() for name in ("knots", "points", "speeds"))


def test_three_calibrated_cameras_of_a_parked_car(real_drives: ModuleType, tmp_path: Path) -> None:
    bag = real_drives.make_drive_bag("parked", tmp_path / "bag")
    result, said = replayed(bag, tmp_path / "out")
    checked(result, tmp_path / "out")
    assert "absent" not in said
    # Three samples of ten frames, and the history is there before the first picture.
    assert result["frames"] == 30 and result["plans"] >= 10
    assert all(result["cameras"][slot]["received"] >= 25 for slot in ("front", "left", "right"))


def test_one_forward_camera_on_a_motorway(real_drives: ModuleType, tmp_path: Path) -> None:
    bag = real_drives.make_drive_bag("motorway", tmp_path / "bag")
    result, said = replayed(bag, tmp_path / "out")
    checked(result, tmp_path / "out")
    # The side cameras of the bundle are optional: said at the start, and masked.
    assert "camera 'left' is optional and absent" in said
    assert "camera 'right' is optional and absent" in said
    # Pictures begin with the odometry: 1.5 s of 25 Hz are waited for.
    assert result["frames"] == 221
    assert 30 <= result["drops"]["warming_up"] <= 45
    lost = sum(result["drops"].get(cause, 0) for cause in HARMLESS - {"warming_up"})
    assert result["plans"] >= 170 - lost
    with np.load(tmp_path / "out/plans.npz") as plans:
        assert plans["speeds"][:, 0].min() > 10.0, "the car is on a motorway"
