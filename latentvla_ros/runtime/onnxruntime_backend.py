"""The default backend: ONNX Runtime on the CPU, with pools that sleep instead of spinning."""

from __future__ import annotations

from typing import Any

import numpy as np

from latentvla_ros.contract import Observation, Plan
from latentvla_ros.runtime.backend import Arrays, check_interface, zero_inputs
from latentvla_ros.runtime.bundle import ONNX_FILE, Bundle, BundleError


class OnnxRuntimeBackend:
    """``Backend`` on ONNX Runtime.

    Thread ownership: the session owns ``threads - 1`` pool threads; the caller of ``infer`` is the
    remaining one. With ``threads=1`` everything runs on the caller's thread.
    """

    name = "onnxruntime"

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._session: Any = None
        self._bundle: Bundle | None = None

    def load(self, bundle: Bundle) -> None:
        """Create the session from ``model.onnx``; raises BundleError when it does not fit."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = bundle.file(ONNX_FILE)
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise BundleError(
                ONNX_FILE,
                f"{type(error).__name__}: {str(error).splitlines()[0]}",
                f"a graph that ONNX Runtime {onnxruntime.__version__} can load",
            ) from error
        check_interface(
            bundle, {entry.name: tuple(entry.shape[1:]) for entry in session.get_inputs()}
        )
        outputs = tuple(entry.name for entry in session.get_outputs())
        if outputs != Plan.OUTPUTS:
            raise BundleError("model.onnx outputs", outputs, str(Plan.OUTPUTS))
        self._session, self._bundle = session, bundle

    def warm_up(self) -> None:
        """Run once on zero inputs."""
        if self._bundle is None:
            raise RuntimeError("warm_up before load")
        self.infer(zero_inputs(self._bundle))

    def infer(self, inputs: Arrays) -> Arrays:
        """Run the network; a batch of more than one is run one by one (the graph's batch is 1)."""
        if self._session is None:
            raise RuntimeError("infer before load")
        batch = len(inputs["images"])
        if batch == 1:
            feed = {name: inputs[name] for name in Observation.INPUTS}
            return dict(zip(Plan.OUTPUTS, self._session.run(list(Plan.OUTPUTS), feed), strict=True))
        single = [
            self.infer({name: array[index : index + 1] for name, array in inputs.items()})
            for index in range(batch)
        ]
        return {name: np.concatenate([row[name] for row in single]) for name in Plan.OUTPUTS}

    def close(self) -> None:
        """Free the session."""
        self._session = self._bundle = None
