"""The planner as an ONNX graph: float32 inside, weights stored in half precision.

The network's weights are rounded to half precision first, so that ``model.safetensors``, the graph
and the torch network hold the same numbers. In the file each large weight is fp16 followed by a
Cast; ONNX Runtime folds the Cast when it loads, so nothing is slower.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentvla_ros.contract import Observation, Plan
from latentvla_ros.model.planner import StudentPlanner

OPSET = 18

#: Weights of fewer elements stay float32.
_SMALL = 256


def round_to_half(planner: StudentPlanner) -> None:
    """Round every floating-point weight and running statistic to half precision, in place.

    Constants that no checkpoint holds (anchors, scales of inputs) stay as they are.
    """
    with torch.no_grad():
        for tensor in planner.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(torch.float16).to(tensor.dtype))


def example_inputs(planner: StudentPlanner) -> tuple[torch.Tensor, ...]:
    """Return inputs of batch 1, in the order of ``Observation.INPUTS``."""
    config = planner.config
    views = len(config.view_time_offsets_s)
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor(
        [
            [config.image_width, 0.0, (config.image_width - 1) / 2],
            [0.0, config.image_width, (config.image_height - 1) / 2],
            [0.0, 0.0, 1.0],
        ]
    )
    forward = torch.tensor(
        [[0.0, 0.0, 1.0, 1.8], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 1.6], [0.0, 0.0, 0.0, 1.0]]
    )
    return (
        torch.randint(
            0,
            256,
            (1, views, config.image_height, config.image_width, 3),
            generator=generator,
            dtype=torch.uint8,
        ),
        torch.ones(1, views, dtype=torch.bool),
        intrinsics.expand(1, views, 3, 3).contiguous(),
        forward.expand(1, views, 4, 4).contiguous(),
        torch.zeros(1, 4, 3),
        torch.ones(1, 4, dtype=torch.bool),
        torch.tensor([[5.0, 0.0, 0.01, 0.2, 0.0, 0.0]]),
        torch.ones(1, 6, dtype=torch.bool),
        torch.tensor([[0.0, 1.0, 0.0, 0.0]]),
    )


def export_onnx(planner: StudentPlanner, path: Path) -> None:
    """Write the planner (batch 1) as one self-contained ONNX file with named inputs and outputs."""
    import onnx

    planner = planner.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            planner,
            example_inputs(planner),
            input_names=list(Observation.INPUTS),
            output_names=list(Plan.OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            optimize=False,  # see _simplify
            verbose=False,
        )
    assert program is not None
    _simplify(program.model)
    model = program.model_proto
    store_weights_in_half(model)
    _strip_origins(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _simplify(model: Any) -> None:
    """Fold constants of an onnxscript IR model, in place.

    The exporter's own optimiser would also fold batch normalisation into weights, which then are
    not the network's any more and do not fit half precision; ONNX Runtime folds it when it loads.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    common.InlinePass()(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)


def _strip_origins(model: Any) -> None:
    """Remove the stack traces that the exporter leaves in every node (a quarter of the file)."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, graph, model):
        part.doc_string = ""
        del part.metadata_props[:]


def store_weights_in_half(model: Any) -> None:
    """Turn the large float32 initializers of an ONNX model into fp16 ones followed by a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for initializer in graph.initializer:
        if initializer.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initializer)
        half = values.astype(np.float16)
        # Constants that are no weights (anchors, pixel rays) keep what half precision would lose.
        if values.size < _SMALL or not np.array_equal(half.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT, name=f"{name}_cast"
            )
        )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    del graph.value_info[:]
