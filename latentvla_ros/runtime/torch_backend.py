"""The reference backend: the network itself in torch, rebuilt from the manifest's settings."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from latentvla_ros.contract import ContractError, Observation, Plan
from latentvla_ros.runtime.backend import Arrays, zero_inputs
from latentvla_ros.runtime.bundle import WEIGHTS_FILE, Bundle, BundleError


class TorchBackend:
    """``Backend`` on torch, on the GPU where there is one.

    Thread ownership: torch has one OpenMP pool per process; ``load`` sets its size. A process that
    runs something else on torch must not use another size.
    """

    name = "torch"

    def __init__(self, threads: int = 1, device: str | None = None) -> None:
        self._threads = threads
        self._device = device
        self._network: Any = None
        self._bundle: Bundle | None = None

    def load(self, bundle: Bundle) -> None:
        """Build the network and load ``model.safetensors``; raises BundleError when they differ."""
        # libgomp reads this once, when torch is first imported: sleeping threads, not spinning.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch
        from safetensors.torch import load_file

        from latentvla_ros.model.config import PlannerConfig
        from latentvla_ros.model.planner import StudentPlanner

        torch.set_num_threads(self._threads)
        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            network = StudentPlanner(PlannerConfig.from_dict(bundle.manifest.model))
        except ContractError as error:
            raise BundleError(
                f"manifest.model.{error.field}", error.found, error.expected
            ) from error
        weights = load_file(bundle.file(WEIGHTS_FILE))
        state = network.state_dict()
        for name in sorted(set(weights) | set(state)):
            found = tuple(weights[name].shape) if name in weights else "no such tensor"
            expected = tuple(state[name].shape) if name in state else "no such tensor"
            if found != expected:
                raise BundleError(f"{WEIGHTS_FILE}[{name}]", found, str(expected))
        network.load_state_dict(
            {name: value.to(state[name].dtype) for name, value in weights.items()}
        )
        self._network = network.eval().to(device)
        self._bundle, self._device = bundle, device

    def warm_up(self) -> None:
        """Run once on zero inputs."""
        if self._bundle is None:
            raise RuntimeError("warm_up before load")
        self.infer(zero_inputs(self._bundle))

    def infer(self, inputs: Arrays) -> Arrays:
        """Run the network in float32 on any batch."""
        if self._network is None:
            raise RuntimeError("infer before load")
        import torch

        with torch.inference_mode():
            outputs = self._network(
                *(
                    torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device)
                    for name in Observation.INPUTS
                )
            )
        return {
            name: value.cpu().numpy() for name, value in zip(Plan.OUTPUTS, outputs, strict=True)
        }

    def close(self) -> None:
        """Free the network."""
        self._network = self._bundle = None
