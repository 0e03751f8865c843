"""Trained planners to start from: of a bundle, or of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import WEIGHTS_FILE, Bundle, load_bundle
from latentvla_training.planner.release import load_run


@dataclass(frozen=True)
class Host:
    """A trained planner and which one it is: ``<name>-<first 16 hex of the hash of its weights>``.

    The weights are in float32, from whatever precision they were kept in.

    Attributes:
        codebook: that its latent actions are of; None while they have no meaning.
        bundle_sha256: of the bundle that it comes from; None of a run.
    """

    planner: StudentPlanner
    identity: str
    codebook: str | None = None
    bundle_sha256: str | None = None


def bundle_planner(bundle: Bundle) -> StudentPlanner:
    """Return the planner of a verified bundle, with its weights, for inference."""
    from safetensors.torch import load_file

    planner = StudentPlanner(PlannerConfig.from_dict(bundle.manifest.model))
    weights = load_file(bundle.file(WEIGHTS_FILE))
    state = planner.state_dict()
    planner.load_state_dict({name: value.to(state[name].dtype) for name, value in weights.items()})
    return planner.eval()


def bundle_host(name_or_path: str) -> Host:
    """Load the planner of a bundle.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    bundle = load_bundle(name_or_path)
    manifest = bundle.manifest
    return replace(
        _host(manifest.bundle_id, bundle_planner(bundle)),
        codebook=manifest.codebook_id,
        bundle_sha256=bundle.content_sha256,
    )


def run_host(folder: Path) -> Host:
    """Load the averaged planner of a run.

    Raises:
        FileNotFoundError: the folder holds no run with a checkpoint.
        ContractError: it is no planner's run.
    """
    _, planner, step = load_run(folder)
    return _host(f"{folder.name}-step{step}", planner)


def _host(name: str, planner: StudentPlanner) -> Host:
    digest = hashlib.sha256()
    for key, value in sorted(planner.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return Host(planner, f"{name}-{digest.hexdigest()[:16]}")
