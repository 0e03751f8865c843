"""What a bundle is shown while it drives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from latentvla_training.closed_loop.bundle_driver import BundleDriver

from latentvla_ros.contract import Observation


def observation() -> Observation:
    rng = np.random.default_rng(0)
    return Observation(
        images=rng.integers(0, 255, (4, 8, 8, 3), np.uint8),
        intrinsics=rng.uniform(1, 9, (4, 3, 3)).astype(np.float32),
        ego_from_camera=rng.uniform(1, 9, (4, 4, 4)).astype(np.float32),
        view_mask=np.ones(4, bool),
        ego_history=rng.uniform(1, 2, (4, 3)).astype(np.float32),
        ego_history_mask=np.ones(4, bool),
        ego_dynamics=rng.uniform(1, 2, 6).astype(np.float32),
        ego_dynamics_mask=np.ones(6, bool),
        command=np.array([0, 1, 0, 0], np.float32),
        stamp_ns=5,
    )


@pytest.mark.parametrize("hide", [False, True])
def test_the_past_is_hidden_only_when_asked_for(
    hide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = BundleDriver("nano", hide_state=hide)
    seen, given = [], observation()
    monkeypatch.setattr(driver, "_observer", SimpleNamespace(observe=lambda frame: given))
    monkeypatch.setattr(driver._planner, "plan", lambda shown: seen.append(shown))
    driver.plan(SimpleNamespace())  # type: ignore[arg-type]
    driver.close()
    (shown,) = seen
    kept: dict[str, Any] = {"ego_history": slice(-1, None), "ego_dynamics": slice(0, 3)}
    for name, part in kept.items():
        whole, mask = getattr(given, name), getattr(shown, f"{name}_mask")
        assert np.array_equal(getattr(shown, name)[part], whole[part]) and mask[part].all()
        assert mask.all() != hide
        assert np.array_equal(getattr(shown, name), whole) != hide
        assert (getattr(shown, name)[~mask] == 0.0).all() and whole.all(), "the frame's own stays"
    for name in ("images", "command", "intrinsics"):
        assert np.array_equal(getattr(shown, name), getattr(given, name))
