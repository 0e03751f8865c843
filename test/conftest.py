"""What a loaded machine must not fail: property tests by being slow, real time by being late."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("latentvla", deadline=None, max_examples=60)
settings.load_profile("latentvla")

#: Real time is for machines with no more than this waiting for each core.
BUSY_LOAD_PER_CORE = 1.5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try tests in real time again: a pause of the whole machine is nobody's defect."""
    for item in items:
        if item.get_closest_marker("real_time"):
            item.add_marker(pytest.mark.flaky(reruns=2))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests in real time where others have the cores."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if item.get_closest_marker("real_time") and load > BUSY_LOAD_PER_CORE * cores:
        pytest.skip(f"real time on a busy machine: load {load:.1f} on {cores} cores")
