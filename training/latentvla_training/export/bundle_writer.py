"""Write a bundle: weights, graph, manifest, checked as a whole before it replaces the old one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from latentvla_ros.contract import (
    KNOT_INTERVAL_S,
    NUM_KNOTS,
    BundleManifest,
    CameraSlot,
    ContractError,
    View,
)
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import (
    MANIFEST_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    load_bundle,
    sha256_of,
    write_manifest,
)
from latentvla_ros.runtime.onnxruntime_backend import OnnxRuntimeBackend
from latentvla_ros.runtime.torch_backend import TorchBackend
from latentvla_training.export.onnx_graph import export_onnx, round_to_half
from latentvla_training.export.parity import Parity, compare

BASE_FRAME_DEFINITION = "rear-axle centre on the ground, x forward, y left, z up (REP-103)"


def make_manifest(
    bundle_id: str,
    config: PlannerConfig,
    slots: tuple[CameraSlot, ...],
    views: tuple[View, ...],
    metrics: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
) -> BundleManifest:
    """Return a manifest without files for a network; raises ContractError when views do not fit."""
    offsets = tuple(view.time_offset_s for view in views)
    if offsets != config.view_time_offsets_s:
        raise ContractError("views", offsets, f"time offsets {config.view_time_offsets_s}")
    return BundleManifest(
        bundle_id=bundle_id,
        slots=slots,
        views=views,
        image_width=config.image_width,
        image_height=config.image_height,
        horizon_s=NUM_KNOTS * KNOT_INTERVAL_S,
        knot_interval_s=KNOT_INTERVAL_S,
        num_candidates=config.proposals,
        base_frame_definition=BASE_FRAME_DEFINITION,
        codebook_id=None,
        model=config.to_dict(),
        metrics=metrics or {},
        provenance=provenance or {},
    )


def write_bundle(
    planner: StudentPlanner,
    manifest: BundleManifest,
    folder: Path,
    parity_inputs: Iterable[dict[str, NDArray[Any]]],
) -> Parity:
    """Export ``planner`` into ``folder``, replacing a bundle there only when everything is right.

    Args:
        planner: its weights are rounded to half precision in place.
        manifest: without ``files``; the parity figures are added to its provenance.
        folder: of the bundle.
        parity_inputs: network inputs of batch 1 on which torch and ONNX Runtime must agree.

    Raises:
        ContractError: the backends disagree; nothing has been replaced.
    """
    from safetensors.torch import save

    round_to_half(planner)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        state = {
            name: (value.to(torch.float16) if value.is_floating_point() else value).contiguous()
            for name, value in planner.state_dict().items()
        }
        (staging / WEIGHTS_FILE).write_bytes(save(state))  # save_file hides a full disk
        export_onnx(planner, staging / ONNX_FILE, staging / WEIGHTS_FILE)
        files = {name: sha256_of(staging / name) for name in (ONNX_FILE, WEIGHTS_FILE)}
        write_manifest(replace(manifest, files=files), staging)
        backends = TorchBackend(torch.get_num_threads(), "cpu"), OnnxRuntimeBackend(1)
        for backend in backends:
            backend.load(load_bundle(staging))
        parity = compare(*backends, parity_inputs)
        parity.check()
        provenance = {**manifest.provenance, "parity_torch_onnxruntime": asdict(parity)}
        write_manifest(replace(manifest, files=files, provenance=provenance), staging)
        staging.chmod(0o755)
        for file in staging.iterdir():
            file.chmod(0o644)
        _replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return parity


def _replace_folder(staging: Path, folder: Path) -> None:
    """Put ``staging`` in the place of ``folder``; the old one goes when the new one stands."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file():
            raise FileExistsError(f"{folder} is not a bundle: move it away first")
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
