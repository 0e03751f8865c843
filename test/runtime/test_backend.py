"""Backends are chosen by name, refuse what they cannot do, and the default one needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.backend import create_backend, default_threads
from latentvla_ros.runtime.bundle import (
    BundleError,
    load_bundle,
    sha256_of,
    shipped_bundles,
    write_manifest,
)
from latentvla_ros.runtime.onnxruntime_backend import OnnxRuntimeBackend


def test_auto_is_the_default_backend() -> None:
    backend = create_backend("auto")
    assert isinstance(backend, OnnxRuntimeBackend)
    assert backend.name == "onnxruntime"
    assert default_threads() >= 1


@pytest.mark.parametrize(("name", "threads"), [("abacus", 1), ("onnxruntime", 0), ("", 1)])
def test_bad_choice_is_refused(name: str, threads: int) -> None:
    with pytest.raises(ContractError, match="backend"):
        create_backend(name, threads)


def test_use_before_load_says_so() -> None:
    backend = create_backend("onnxruntime", 1)
    for call in (backend.warm_up, lambda: backend.infer({})):
        with pytest.raises(RuntimeError, match="before load"):
            call()
    backend.close()


def test_file_that_is_no_graph_is_a_bundle_error(tmp_path: Path) -> None:
    from dataclasses import replace

    from latentvla_ros.contract import BundleManifest, CameraSlot, View

    (tmp_path / "model.onnx").write_bytes(b"no graph")
    slot = CameraSlot("front", True, 60, (50, 70), 0, 5, (-5, 5), (0, 4), (-1, 1), (1, 2))
    manifest = BundleManifest(
        "x", (slot,), (View("front"),), 64, 32, 4.0, 0.5, 4, "rear axle", None, {}
    )
    files = {"model.onnx": sha256_of(tmp_path / "model.onnx")}
    write_manifest(replace(manifest, files=files), tmp_path)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        create_backend("onnxruntime", 1).load(load_bundle(tmp_path))
    with pytest.raises(BundleError, match="safetensors"):
        load_bundle(tmp_path).file("model.safetensors")


@pytest.mark.skipif("nano" not in shipped_bundles(), reason="no bundle ships yet")
def test_shipped_bundle_plans_without_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from latentvla_ros.runtime.backend import create_backend, zero_inputs\n"
        "from latentvla_ros.runtime.bundle import load_bundle\n"
        "bundle = load_bundle('nano')\n"
        "backend = create_backend('onnxruntime', 1)\n"
        "backend.load(bundle)\n"
        "outputs = backend.infer(zero_inputs(bundle))\n"
        "assert all(np.isfinite(value).all() for value in outputs.values())\n"
        "assert not {'torch', 'timm', 'latentvla_ros.model', 'rclpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif("nano" not in shipped_bundles(), reason="no bundle ships yet")
def test_shipped_bundle_is_small_and_measured() -> None:
    bundle = load_bundle("nano")
    assert sum(entry.stat().st_size for entry in bundle.path.iterdir()) <= 25e6
    assert bundle.manifest.metrics["test"]["scenes"] >= 300
