"""The planner as an ONNX graph: float32 inside, weights stored in half precision, once.

The network's weights are rounded to half precision first, so that ``model.safetensors``, the graph
and the torch network hold the same numbers. Each large weight of the graph is fp16 followed by a
Cast, and lies in ``model.safetensors``, where the graph points (ONNX external data); a linear map's
is transposed on the way. ONNX Runtime folds both when it loads, so nothing is slower.
"""

from __future__ import annotations

import contextlib
import io
import json
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


def export_onnx(planner: StudentPlanner, path: Path, weights: Path) -> None:
    """Write the planner (batch 1) as an ONNX file with named inputs and outputs.

    Args:
        path: of the graph. weights: safetensors file of the planner's state in half precision,
            beside it: what it holds is not written again.
    """
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
    share_weights(model, weights)
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path))  # by its path: with the weights beside it


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
    _put_first(graph, casts)
    del graph.value_info[:]


def share_weights(model: Any, weights: Path) -> None:
    """Let the fp16 initializers of an ONNX model point into a safetensors file that holds them.

    Args:
        model: in memory, to be saved in the folder of ``weights``.
        weights: tensors that an initializer equals, or of which it is the transpose, are read from
            there. All other initializers stay in the graph.
    """
    from onnx import TensorProto, helper, numpy_helper

    stored = _tensors_by_content(weights)
    graph = model.graph
    transposes = []
    for initializer in graph.initializer:
        if initializer.data_type != TensorProto.FLOAT16:
            continue
        values = numpy_helper.to_array(initializer)
        name, shape = initializer.name, values.shape
        place = stored.get((shape, values.tobytes()))
        if place is None and values.ndim == 2:
            shape = shape[::-1]
            place = stored.get((shape, np.ascontiguousarray(values.T).tobytes()))
            if place is not None:
                source = f"{name}_stored"
                transposes.append(
                    helper.make_node("Transpose", [source], [name], name=f"{name}_t", perm=[1, 0])
                )
                name = source
        if place is None:
            continue
        initializer.Clear()
        initializer.name, initializer.data_type = name, TensorProto.FLOAT16
        initializer.dims.extend(shape)
        initializer.data_location = TensorProto.EXTERNAL
        about = {"location": weights.name, "offset": place[0], "length": place[1]}
        for key, value in about.items():
            entry = initializer.external_data.add()
            entry.key, entry.value = key, str(value)
    _put_first(graph, transposes)


def _put_first(graph: Any, nodes: list[Any]) -> None:
    """Put nodes before those of a graph, which are in the order of computation."""
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _tensors_by_content(path: Path) -> dict[tuple[tuple[int, ...], bytes], tuple[int, int]]:
    """Return where every tensor of a safetensors file lies: offset and length in bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            found[tuple(entry["shape"]), content[first:last]] = (first, last - first)
    return found
