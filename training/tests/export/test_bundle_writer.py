"""A bundle is written whole after its backends agree, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.export import bundle_writer
from latentvla_training.export.parity import Parity, compare
from latentvla_training.export.random_bundle import random_inputs, ring_slots, write_random_bundle

from latentvla_ros.contract import ContractError, Observation, Plan, View
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.runtime.backend import create_backend, zero_inputs
from latentvla_ros.runtime.bundle import BundleError, load_bundle
from latentvla_ros.runtime.planner import Planner

TINY = PlannerConfig(
    view_time_offsets_s=(0.0, 0.0, -0.5),
    image_width=64,
    image_height=32,
    image_channels=16,
    width=32,
    bev_cells=(8, 8),
    bev_blocks=1,
    context_tokens=3,
    context_layers=1,
    reasoner_layers=1,
    proposals=6,
    rounds=2,
)
SLOTS = ring_slots(2)
VIEWS = (View("front"), View("camera_1"), View("front", -0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    parity = write_random_bundle(path, SLOTS, VIEWS, 64, 32, TINY)
    assert parity.scenes == 2
    return path


def test_bundle_loads_and_plans(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert sorted(bundle.manifest.files) == ["model.onnx", "model.safetensors"]
    assert PlannerConfig.from_dict(bundle.manifest.model) == TINY
    inputs = next(random_inputs(TINY, SLOTS, VIEWS, 1))
    observation = Observation(**{name: value[0] for name, value in inputs.items()}, stamp_ns=5)
    plan = Planner(bundle, create_backend("auto", 1)).plan(observation)
    assert plan.poses.shape == (8, 3) and plan.stamp_ns == 5
    assert plan.candidates.shape == (6, 8, 3) and plan.latent_actions.shape == (12,)
    with pytest.raises(ContractError, match="images"):
        Planner(bundle, create_backend("onnxruntime", 1)).plan(
            replace(observation, images=observation.images[:, :16])
        )


def test_backends_agree_also_on_masks_and_batches(folder: Path) -> None:
    bundle = load_bundle(folder)
    backends = [create_backend(name, 1) for name in ("torch", "onnxruntime")]
    for backend in backends:
        backend.load(bundle)
        backend.warm_up()
    feeds = list(random_inputs(TINY, SLOTS, VIEWS, 2))
    feeds[1]["view_mask"][0, 1:] = False
    feeds[1]["ego_history_mask"][0, :3] = False
    compare(*backends, feeds).check()
    both = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    for name in Plan.OUTPUTS:
        first, second = (backend.infer(both)[name] for backend in backends)
        assert first.shape[0] == 2
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_the_other_host_and_a_reasoner_of_its_own_width_export_too(tmp_path: Path) -> None:
    config = replace(
        TINY, host="transfuser", reasoner_width=48, reasoner_heads=3, reasoner_hidden=40
    )
    write_random_bundle(tmp_path / "other", SLOTS, VIEWS, 64, 32, config).check()
    bundle = load_bundle(tmp_path / "other")
    assert PlannerConfig.from_dict(bundle.manifest.model) == config
    backends = [create_backend(name, 1) for name in ("torch", "onnxruntime")]
    for backend in backends:
        backend.load(bundle)
    feed = next(random_inputs(config, SLOTS, VIEWS, 1))
    feed["view_mask"][0, 1:] = False
    compare(*backends, [feed]).check()


def test_weights_in_the_graph_are_half_precision(folder: Path) -> None:
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    large = [entry for entry in graph.initializer if np.prod(entry.dims) >= 4096]
    assert large and all(entry.data_type == onnx.TensorProto.FLOAT16 for entry in large)
    assert not any(node.doc_string or node.metadata_props for node in graph.node)


def test_weights_are_stored_once(folder: Path) -> None:
    import onnx
    from safetensors.numpy import load_file

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    large = [entry for entry in graph.initializer if np.prod(entry.dims) >= 4096]
    shared = [entry for entry in large if entry.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for tensor in shared for entry in tensor.external_data[:1]} == {
        "model.safetensors"
    }
    total = sum(int(value.size) for value in load_file(folder / "model.safetensors").values())
    assert sum(int(np.prod(entry.dims)) for entry in shared) > 0.8 * total
    loaded = onnx.load(folder / "model.onnx").graph
    assert all(np.isfinite(onnx.numpy_helper.to_array(entry)).all() for entry in loaded.initializer)
    assert any(node.op_type == "Transpose" and node.name.endswith("_t") for node in loaded.node)


def test_a_graph_without_its_weights_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("manifest.json", "model.onnx"):
        (copy / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        load_bundle(copy)


def test_disagreement_replaces_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept"
    target.mkdir()
    for name in ("manifest.json", "model.onnx", "model.safetensors"):
        (target / name).write_bytes((folder / name).read_bytes())
    wrong = Parity(1, 0.5, 0.0, 0.0, 0, 0)
    monkeypatch.setattr(bundle_writer, "compare", lambda *_: wrong)
    with pytest.raises(ContractError, match=r"parity\.position_m"):
        write_random_bundle(target, SLOTS, VIEWS, 64, 32, TINY, seed=1)
    assert load_bundle(target).manifest.files == load_bundle(folder).manifest.files
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a bundle"):
        write_random_bundle(target, SLOTS, VIEWS, 64, 32, TINY)
    assert (target / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "parity",
    [
        Parity(1, 0.02, 0, 0, 0, 0),
        Parity(1, 0, 0.01, 0, 0, 0),
        Parity(1, 0, 0, 0.01, 0, 0),
        Parity(1, 0, 0, 0, 1, 0),
        Parity(1, float("nan"), 0, 0, 0, 0),
    ],
)
def test_parity_bounds(parity: Parity) -> None:
    with pytest.raises(ContractError, match="parity"):
        parity.check()


def test_graph_of_other_cameras_is_refused(folder: Path, tmp_path: Path) -> None:
    from latentvla_ros.runtime.bundle import write_manifest

    other = tmp_path / "other"
    other.mkdir()
    manifest = load_bundle(folder).manifest
    for name in manifest.files:
        (other / name).write_bytes((folder / name).read_bytes())
    write_manifest(replace(manifest, image_width=96), other)
    with pytest.raises(BundleError, match="input images"):
        create_backend("onnxruntime", 1).load(load_bundle(other))
    assert zero_inputs(load_bundle(other))["images"].shape == (1, 3, 32, 96, 3)
