"""The contract of an inference backend, and the choice of one by name."""

from __future__ import annotations

import importlib.util
import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import Bundle

Arrays = dict[str, NDArray[np.generic]]

#: What ``auto`` tries, in order.
BACKENDS = ("onnxruntime", "torch")


class Backend(Protocol):
    """Runs a bundle's network.

    Thread ownership: ``load``, ``warm_up``, ``infer`` and ``close`` are called by one thread at a
    time (the node's worker); an instance holds no lock. ``infer`` blocks its caller, releases the
    GIL while it computes, and its pools never spin.
    """

    name: str

    def load(self, bundle: Bundle) -> None:
        """Load a verified bundle, replacing any earlier one; raises BundleError when it cannot."""

    def warm_up(self) -> None:
        """Run once on zero inputs, so that the first plan pays for no lazy initialisation."""

    def infer(self, inputs: Arrays) -> Arrays:
        """Return the arrays named ``Plan.OUTPUTS`` for those named ``Observation.INPUTS``.

        Every array has a leading batch dimension B; shapes and types otherwise as in those records.
        """

    def close(self) -> None:
        """Free the network; ``load`` may follow."""


def default_threads() -> int:
    """Return the number of compute threads to use: all cores but one, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) - 1)


def create_backend(name: str = "auto", threads: int | None = None) -> Backend:
    """Create a backend by name.

    Args:
        name: one of ``BACKENDS``, or ``auto`` for the first of them that is installed.
        threads: compute threads; ``None`` for ``default_threads()``.

    Raises:
        ContractError: the name is unknown, its library is missing, or ``threads`` is not positive.
    """
    count = default_threads() if threads is None else threads
    if count < 1:
        raise ContractError("backend.threads", threads, "at least 1")
    if name == "auto":
        installed = [entry for entry in BACKENDS if importlib.util.find_spec(entry)]
        if not installed:
            raise ContractError("backend", "auto", f"one of {BACKENDS} to be installed")
        name = installed[0]
    if name not in BACKENDS:
        raise ContractError("backend", name, f"auto or one of {BACKENDS}")
    if importlib.util.find_spec(name) is None:
        raise ContractError("backend", name, f"the Python package {name!r} to be installed")
    if name == "torch":
        from latentvla_ros.runtime.torch_backend import TorchBackend

        return TorchBackend(count)
    from latentvla_ros.runtime.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(count)


def zero_inputs(bundle: Bundle) -> Arrays:
    """Return all-zero network inputs of batch 1 for a bundle, with every view present."""
    manifest = bundle.manifest
    views, height, width = len(manifest.views), manifest.image_height, manifest.image_width
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float32)
    ego_from_camera = np.eye(4, dtype=np.float32)
    return {
        "images": np.zeros((1, views, height, width, 3), np.uint8),
        "view_mask": np.ones((1, views), np.bool_),
        "intrinsics": np.broadcast_to(intrinsics, (1, views, 3, 3)).copy(),
        "ego_from_camera": np.broadcast_to(ego_from_camera, (1, views, 4, 4)).copy(),
        "ego_history": np.zeros((1, 4, 3), np.float32),
        "ego_history_mask": np.ones((1, 4), np.bool_),
        "ego_dynamics": np.zeros((1, 6), np.float32),
        "ego_dynamics_mask": np.ones((1, 6), np.bool_),
        "command": np.array([[0, 0, 0, 1]], np.float32),
    }


def check_interface(bundle: Bundle, found: dict[str, tuple[int, ...]]) -> None:
    """Compare a graph's input shapes (without the batch dimension) with what the manifest says.

    Raises:
        BundleError: an input is missing, superfluous or of another shape.
    """
    from latentvla_ros.runtime.bundle import BundleError

    expected = {name: array.shape[1:] for name, array in zero_inputs(bundle).items()}
    if found != expected:
        for name in sorted(set(found) | set(expected)):
            if found.get(name) != expected.get(name):
                raise BundleError(
                    f"model.onnx input {name}",
                    found.get(name, "no such input"),
                    str(expected.get(name, "no such input")),
                )
