"""The bundle that ships: torch and ONNX Runtime plan alike on 50 Scenes of the shipped drive."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from latentvla_training.data.bag_import import bag_scenes
from latentvla_training.data.image_encoding import decode_views
from latentvla_training.data.world_adapter import SceneSettings
from latentvla_training.export.parity import compare
from numpy.typing import NDArray

from latentvla_ros.contract import Observation
from latentvla_ros.data import data_path
from latentvla_ros.runtime.backend import create_backend
from latentvla_ros.runtime.bundle import load_bundle, shipped_bundles

SCENES = 50


def _inputs() -> Iterator[dict[str, NDArray[Any]]]:
    settings = SceneSettings(stride_s=0.2)
    for scene in islice(bag_scenes(data_path("demo_bag"), settings=settings), SCENES):
        images = decode_views(scene.view_jpegs, settings.image_width, settings.image_height)
        rest = {name: getattr(scene, name)[None] for name in Observation.INPUTS if name != "images"}
        yield {"images": images[None], **rest}


@pytest.mark.skipif("nano" not in shipped_bundles(), reason="no bundle ships yet")
@pytest.mark.slow
def test_torch_and_onnxruntime_agree() -> None:
    bundle = load_bundle("nano")
    backends = [create_backend(name, 1) for name in ("torch", "onnxruntime")]
    for backend in backends:
        backend.load(bundle)
    parity = compare(*backends, _inputs())
    assert parity.scenes == SCENES, dataclasses.asdict(parity)
    parity.check()


@pytest.mark.skipif("nano" not in shipped_bundles(), reason="no bundle ships yet")
def test_candidates_are_drivable() -> None:
    backend = create_backend("onnxruntime", 1)
    backend.load(load_bundle("nano"))
    feed = next(_inputs())
    candidates = backend.infer(feed)["candidates"][0]
    assert np.isfinite(candidates).all()
    assert np.abs(candidates[..., 2]).max() <= np.pi
    steps = np.diff(np.concatenate([np.zeros_like(candidates[:, :1]), candidates], axis=1), axis=1)
    length = np.hypot(steps[..., 0], steps[..., 1])
    assert (np.abs(steps[..., 2]) <= 0.3 * length + 1e-3).all()  # MAX_CURVATURE
