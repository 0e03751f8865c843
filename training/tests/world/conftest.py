"""One fresh data root for the tests of the world, so that none relies on what lies in ``data``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from latentvla_training.world import networks


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty data root for this session; networks are drawn into it on first use."""
    root = tmp_path_factory.mktemp("data")
    caches = (networks.build_road_map, networks.right_of_way, networks.read_net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTVLA_DATA", str(root))
        for cache in caches:
            cache.cache_clear()
        yield root
    for cache in caches:
        cache.cache_clear()
