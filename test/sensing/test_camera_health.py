"""A starving camera is named; a slow but regular set of cameras is not."""

from __future__ import annotations

import pytest

from latentvla_ros.contract import ContractError
from latentvla_ros.sensing.camera_health import CameraHealth, CameraHealthSettings


def fed(rates_hz: dict[str, float], until_s: float = 5.0) -> CameraHealth:
    health = CameraHealth(rates_hz, 0.0)
    for slot, rate in rates_hz.items():
        for index in range(1, round(until_s * rate) + 1):
            health.received(slot, 0.02, index / rate)
    return health


def test_rates_ages_and_counts() -> None:
    health = fed({"front": 10.0, "left": 10.0})
    health.refused("left", "corrupt")
    report = health.report(5.02)
    assert report["front"].rate_hz == pytest.approx(10.0, abs=0.4)
    assert report["front"].received == 50
    assert report["front"].silent_s == pytest.approx(0.02)
    assert report["front"].age_s == 0.02
    assert report["left"].refused == {"corrupt": 1}
    assert not report["front"].starving
    assert not report["left"].starving


def test_the_starving_camera_is_named() -> None:
    report = fed({"front": 10.0, "left": 3.0, "right": 10.0}).report(5.0)
    assert "best camera has" in report["left"].starving
    assert not report["front"].starving
    assert not report["right"].starving


def test_a_silent_camera_is_named_and_recovers() -> None:
    health = fed({"front": 10.0, "left": 10.0})
    for index in range(20):
        health.received("front", 0.02, 5.1 + index / 10)
    assert health.report(7.0)["left"].starving == "silent for 2.0 s"
    for index in range(30):
        health.received("left", 0.02, 7.0 + index / 10)
        health.received("front", 0.02, 7.05 + index / 10)
    assert not health.report(10.0)["left"].starving


def test_a_camera_that_never_came_is_named_after_a_while() -> None:
    health = CameraHealth(["front"], 100.0)
    assert not health.report(100.5)["front"].starving
    report = health.report(101.5)["front"]
    assert report.starving == "silent for 1.5 s"
    assert report.silent_s is None


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ContractError, match=r"camera_health\.min_rate_share"):
        CameraHealthSettings(min_rate_share=2.0)
