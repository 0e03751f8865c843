"""Read scoring vectors: scenes, plans and NAVSIM's own results for them.

Format: the README beside the vectors (``public.npz``, ``comfort_unit.npz``, ``two_stage.json``).
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.scene_batch import SceneArrays, SceneBatch
from latentvla_training.scoring.two_stage import Group

START_TIME_S = 10.0

INPUT_KEYS = (
    "ego",
    "history",
    "cand",
    "human",
    "prev_cand",
    "ref",
    "centerline",
    "scene_centerline_offset",
    "scene_poly_offset",
    "poly_vertex_offset",
    "poly_xy",
    "poly_type",
    "poly_on_route",
    "scene_tl_offset",
    "tl_poly",
    "tl_red",
    "scene_agent_offset",
    "ag_type",
    "ag_size",
    "ag_valid",
    "ag_state",
)


class VectorFileError(ContractError):
    """A vector file cannot be read; the message names it, what was found and expected."""


@dataclass(frozen=True)
class ScoringVectors:
    """Scenes of a vector file.

    Attributes:
        scenes: N scenes in numpy. plans, previous_plans: (N, K, 8, 3).
        results: every other array of the file, by its key.
    """

    scenes: tuple[SceneArrays, ...]
    plans: NDArray[np.float64]
    previous_plans: NDArray[np.float64]
    results: dict[str, NDArray[Any]]

    def batch(self, start: int = 0, stop: int | None = None) -> SceneBatch:
        """Pad scenes start ... stop to a float64 batch."""
        return SceneBatch.from_arrays(self.scenes[start:stop])


def load_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an npz file.

    Raises:
        VectorFileError: when the file is missing, truncated or holds pickles.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise VectorFileError(str(path), str(error), "an npz file of plain arrays") from error


def load_vectors(path: str | Path) -> ScoringVectors:
    """Read a scene vector file.

    Raises:
        VectorFileError: naming the file and the missing or misshapen arrays.
    """
    arrays = load_npz(path)
    missing = [key for key in INPUT_KEYS if key not in arrays]
    if missing:
        raise VectorFileError(str(path), f"no {', '.join(missing)}", "all input arrays")
    count = len(arrays["ego"])
    for key, shape in {
        "ego": (count, 11),
        "history": (count, 4, 11),
        "ref": (count, 41, 3),
        "human": (count, 8, 3),
        "cand": (count, arrays["cand"].shape[1] if arrays["cand"].ndim > 1 else -1, 8, 3),
        "prev_cand": arrays["cand"].shape,
    }.items():
        if arrays[key].shape != shape:
            raise VectorFileError(f"{path}: {key}.shape", arrays[key].shape, str(shape))
    try:
        scenes = tuple(_scene(arrays, i) for i in range(count))
    except IndexError as error:
        raise VectorFileError(f"{path}: offsets", str(error), "to fit the arrays") from error
    results = {key: value for key, value in arrays.items() if key not in INPUT_KEYS}
    plans, previous = (np.asarray(arrays[key], np.float64) for key in ("cand", "prev_cand"))
    return ScoringVectors(scenes, plans, previous, results)


def _scene(arrays: dict[str, NDArray[Any]], index: int) -> SceneArrays:
    def span(key: str) -> slice:
        offsets = arrays[key]
        return slice(int(offsets[index]), int(offsets[index + 1]))

    polygons, agents, lights = (
        span("scene_poly_offset"),
        span("scene_agent_offset"),
        span("scene_tl_offset"),
    )
    vertex = arrays["poly_vertex_offset"]
    return SceneArrays(
        ego=arrays["ego"][index],
        history=arrays["history"][index],
        start_time_s=START_TIME_S,
        reference=arrays["ref"][index],
        human=arrays["human"][index],
        agent_type=arrays["ag_type"][agents],
        agent_size=arrays["ag_size"][agents],
        agent_state=arrays["ag_state"][agents],
        agent_valid=arrays["ag_valid"][agents].astype(np.bool_),
        polygons=[
            arrays["poly_xy"][int(vertex[p]) : int(vertex[p + 1])]
            for p in range(polygons.start, polygons.stop)
        ],
        polygon_layer=arrays["poly_type"][polygons],
        polygon_on_route=arrays["poly_on_route"][polygons].astype(np.bool_),
        light_polygon=arrays["tl_poly"][lights],
        light_red=arrays["tl_red"][lights].astype(np.bool_),
        centerline=arrays["centerline"][span("scene_centerline_offset"), :2],
    )


@dataclass(frozen=True)
class TwoStageCase:
    """One aggregation case: frames, groups, and NAVSIM's result in ``expected``."""

    tokens: tuple[str, ...]
    columns: dict[str, NDArray[np.float64]]
    extended_comfort: NDArray[np.float64]
    groups: tuple[Group, ...]
    expected: dict[str, object]


def load_two_stage(path: str | Path) -> list[TwoStageCase]:
    """Read two-stage aggregation cases.

    Raises:
        VectorFileError: when the file is not the expected JSON.
    """
    try:
        cases = json.loads(Path(path).read_text(encoding="utf-8"))
        return [_two_stage_case(case) for case in cases]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VectorFileError(str(path), repr(error), "two-stage cases in JSON") from error


def _two_stage_case(case: dict[str, object]) -> TwoStageCase:
    inputs = dict(case["inputs"])  # type: ignore[call-overload]
    tokens = tuple(inputs.pop("token"))
    return TwoStageCase(
        tokens=tokens,
        columns={name: np.asarray(column, np.float64) for name, column in inputs.items()},
        extended_comfort=np.asarray(case["two_frame_extended_comfort"], np.float64),
        groups=tuple(
            Group(now, previous, tuple((a, b) for a, b in pairs))
            for now, previous, pairs in case["mapping"]  # type: ignore[attr-defined]
        ),
        expected={key: case[key] for key in ("weight", "score", "combined", "stage1", "stage2")},
    )
