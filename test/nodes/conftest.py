"""A ROS 2 context per test, a bundle that keeps the speed, and a vehicle that publishes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "cli"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# One domain per test process, and nothing leaves this machine.
os.environ.setdefault("ROS_DOMAIN_ID", str(10 + os.getpid() % 90))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

if TYPE_CHECKING:
    from vehicle import Bench


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that keeps the speed, straight ahead."""
    from tiny_bundle import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bench(bundle: Path, tmp_path: Path) -> Iterator[Bench]:
    """Return a bench that starts the node under test beside a vehicle, all over DDS."""
    from vehicle import Bench

    with Bench(bundle, tmp_path) as started:
        yield started
