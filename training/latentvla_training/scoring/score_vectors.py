"""``latentvla-train score-vectors``: compare every column of vector files with NAVSIM's results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_training.scoring.aggregation import (
    FrameScores,
    epdms,
    frame_scores_v1,
    frame_scores_v2,
    pdms,
)
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.comfort import (
    comfort_bits_v1,
    comfort_bits_v2,
    extended_comfort,
)
from latentvla_training.scoring.pdm import PdmResult, score_epdms, score_human, score_pdms
from latentvla_training.scoring.reference_trajectory import reference_poses
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.two_stage import aggregate_two_stage
from latentvla_training.scoring.vectors import (
    VectorFileError,
    load_npz,
    load_two_stage,
    load_vectors,
)
from latentvla_training.scoring.vehicle import StateIndex

STATE_TOLERANCE = 1e-6
SCORE_TOLERANCE = 1e-6
SCENES_PER_CALL = 64
STATE, DISCRETE, SCORE = "state", "discrete", "score"


@dataclass
class ColumnReport:
    """Agreement of one column: values compared, mismatches, largest deviation."""

    kind: str
    matches: int = 0
    mismatches: int = 0
    max_abs: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "matches": self.matches,
            "mismatches": self.mismatches,
            "max_abs": _plain(self.max_abs),
        }


@dataclass
class VectorReport:
    """Agreement of all columns of all files."""

    cases: int = 0
    columns: dict[str, ColumnReport] = field(default_factory=dict)
    not_in_file: set[str] = field(default_factory=set)

    def compare(self, name: str, kind: str, ours: object, theirs: object) -> None:
        """Add values of one column; both are array-like of one shape.

        Raises:
            VectorFileError: on different shapes.
        """
        found, expected = _array(ours), _array(theirs)
        if found.shape != expected.shape:
            raise VectorFileError(f"column {name}.shape", expected.shape, str(found.shape))
        report = self.columns.setdefault(name, ColumnReport(kind))
        deviation = _deviation(found, expected)
        if kind == STATE:
            turn = deviation[..., StateIndex.HEADING]
            deviation[..., StateIndex.HEADING] = np.minimum(turn, np.abs(2.0 * np.pi - turn))
        tolerance = {STATE: STATE_TOLERANCE, DISCRETE: 0.0, SCORE: SCORE_TOLERANCE}[kind]
        wrong = int((deviation > tolerance).sum())
        report.mismatches += wrong
        report.matches += deviation.size - wrong
        report.max_abs = max(report.max_abs, float(deviation.max(initial=0.0)))

    def worst(self, kind: str) -> float:
        """Largest deviation among the columns of a kind."""
        return max((c.max_abs for c in self.columns.values() if c.kind == kind), default=0.0)

    def as_dict(self) -> dict[str, object]:
        """The JSON of issue 3; non-finite deviations become strings."""
        return {
            "cases": self.cases,
            "discrete_mismatches": sum(
                c.mismatches for c in self.columns.values() if c.kind == DISCRETE
            ),
            "max_abs_state": _plain(self.worst(STATE)),
            "max_abs_score": _plain(self.worst(SCORE)),
            "columns": {name: c.as_dict() for name, c in sorted(self.columns.items())},
            "not_in_file": sorted(self.not_in_file),
        }


def score_vectors(
    file: str | Path,
    comfort: str | Path | None = None,
    two_stage: str | Path | None = None,
    json_path: str | Path | None = None,
    report_line: Callable[[str], None] = print,
) -> VectorReport:
    """Score a vector file and compare every column with NAVSIM's result.

    Args:
        file: scene vectors (npz). comfort: comfort unit vectors (npz). two_stage: aggregation
            cases (JSON). json_path: where to write the report.
        report_line: takes each line of the printed table.

    Raises:
        VectorFileError: when a file cannot be read as vectors.
    """
    report = VectorReport()
    _compare_scenes(report, file)
    if comfort is not None:
        _compare_comfort(report, comfort)
    if two_stage is not None:
        _compare_two_stage(report, two_stage)
    summary = report.as_dict()
    report_line(f"{'column':44s} {'kind':9s} {'match':>9s} {'differ':>7s} {'max abs':>9s}")
    for name, column in sorted(report.columns.items()):
        report_line(
            f"{name:44s} {column.kind:9s} {column.matches:9d} {column.mismatches:7d} "
            f"{column.max_abs:9.2e}"
        )
    report_line(
        f"cases {report.cases}, discrete mismatches {summary['discrete_mismatches']}, "
        f"states within {report.worst(STATE):.2e}, scores within {report.worst(SCORE):.2e}"
    )
    if report.not_in_file:
        report_line("not in the file, not compared: " + ", ".join(sorted(report.not_in_file)))
    if json_path is not None:
        Path(json_path).parent.mkdir(parents=True, exist_ok=True)
        Path(json_path).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return report


def _compare_scenes(report: VectorReport, path: str | Path) -> None:
    vectors = load_vectors(path)
    count = len(vectors.scenes)
    report.cases += vectors.plans.shape[0] * vectors.plans.shape[1]
    for start in range(0, count, SCENES_PER_CALL):
        stop = min(start + SCENES_PER_CALL, count)
        scenes = vectors.batch(start, stop)
        expected = {key: value[start:stop] for key, value in vectors.results.items()}
        plans = torch.from_numpy(vectors.plans[start:stop])
        previous = torch.from_numpy(vectors.previous_plans[start:stop])
        for name, (kind, ours) in _scene_columns(scenes, plans, previous).items():
            key, _, column = name.partition(":")
            if key not in expected:
                report.not_in_file.add(key)
                continue
            theirs = expected[key]
            if column:
                theirs = theirs[..., _COLUMNS[key].index(column)]
            report.compare(name, kind, ours, theirs)


_V2 = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC", "product", "score")
_COLUMNS = {
    "v2_pair": _V2,
    "v2_filt": _V2,
    "v2_human": _V2,
    "v2_final": ("EC", "EPDMS", "EPDMS_without_EC"),
    "v2_final_nofilter": ("EC", "EPDMS", "EPDMS_without_EC"),
    "v2_ec_rms": ("acceleration", "jerk", "yaw_rate", "yaw_acceleration"),
    "v1_pair": ("NC", "DAC", "EP", "TTC", "C", "DDC", "PDMS"),
    "v2_batch_multi": ("NC", "DAC", "TLC", "DDC"),
    "v2_batch_weighted": ("EP", "TTC", "LK", "HC", "zero"),
    "v1_batch_multi": ("NC", "DAC"),
    "v1_batch_weighted": ("EP", "TTC", "C", "DDC"),
}
_FIELDS = {
    "NC": "collision",
    "DAC": "drivable",
    "DDC": "direction",
    "TLC": "light",
    "EP": "progress",
    "TTC": "time_to_collision",
    "LK": "lane",
    "HC": "comfort",
    "C": "comfort",
}
Columns = dict[str, tuple[str, object]]


def _scene_columns(scenes: SceneBatch, plans: Tensor, previous: Tensor) -> Columns:
    """Every column of the format, computed: name -> (kind, values)."""
    pair = score_epdms(scenes, plans, filter_by_human=False, previous_plans=previous)
    filtered = score_epdms(scenes, plans, filter_by_human=True, previous_plans=previous)
    batch = score_epdms(scenes, plans, normalization="batch", filter_by_human=False)
    pair_v1 = score_pdms(scenes, plans)
    batch_v1 = score_pdms(scenes, plans, normalization="batch")
    human = score_human(scenes)
    human_poses = reference_poses(scenes.ego, scenes.human[:, None], scenes.start_time_s)
    human_states = simulate(scenes.ego, human_poses)
    reference, candidates = pair.states[:, :1], pair.states[:, 1:]
    columns: Columns = {}
    columns["sim"] = (STATE, torch.cat([reference, human_states, candidates], dim=1))
    unfiltered_score = epdms(pair.frame)
    _add_frame(columns, "v2_pair", pair.frame, unfiltered_score)
    # NAVSIM does not recompute the stored score after the filter: it stays the unfiltered one.
    _add_frame(columns, "v2_filt", filtered.frame, unfiltered_score)
    _add_frame(columns, "v2_human", human, epdms(human), squeeze=True)
    for key, result in (("v2_final", filtered), ("v2_final_nofilter", pair)):
        columns[f"{key}:EC"] = (DISCRETE, result.extended_comfort)
        columns[f"{key}:EPDMS"] = (SCORE, result.score)
        columns[f"{key}:EPDMS_without_EC"] = (SCORE, epdms(result.frame))
    for i, name in enumerate(_COLUMNS["v2_ec_rms"]):
        columns[f"v2_ec_rms:{name}"] = (SCORE, pair.extended_comfort_rms[..., i])
    for name in ("NC", "DAC", "EP", "TTC", "C", "DDC"):
        kind = SCORE if name == "EP" else DISCRETE
        columns[f"v1_pair:{name}"] = (kind, getattr(pair_v1.frame, _FIELDS[name]))
    columns["v1_pair:PDMS"] = (SCORE, pair_v1.score)
    _add_batch(columns, "v2", batch)
    _add_batch(columns, "v1", batch_v1)
    columns["v2_batch_weighted:zero"] = (DISCRETE, torch.zeros_like(batch.sub.collision))
    areas = batch.sub.areas
    columns["v2_batch_areas"] = (
        DISCRETE,
        torch.stack([areas.multiple_lanes, areas.non_drivable, areas.oncoming], dim=-1),
    )
    return columns


def _add_frame(
    columns: Columns, key: str, frame: FrameScores, score: Tensor, squeeze: bool = False
) -> None:
    for name in _V2[:8]:
        kind = SCORE if name == "EP" else DISCRETE
        columns[f"{key}:{name}"] = (kind, getattr(frame, _FIELDS[name]))
    columns[f"{key}:product"] = (DISCRETE, frame.product)
    columns[f"{key}:score"] = (SCORE, score)
    if squeeze:
        for name in _V2:
            kind, value = columns[f"{key}:{name}"]
            columns[f"{key}:{name}"] = (kind, value[:, 0])  # type: ignore[index]


def _add_batch(columns: Columns, version: str, result: PdmResult) -> None:
    """Columns of one scorer call over [reference, candidates], reference included."""
    frame = (frame_scores_v1 if version == "v1" else frame_scores_v2)(result.sub, None)
    for group in ("multi", "weighted"):
        key = f"{version}_batch_{group}"
        for name in _COLUMNS[key]:
            if name in _FIELDS:
                kind = SCORE if name == "EP" else DISCRETE
                columns[f"{key}:{name}"] = (kind, getattr(frame, _FIELDS[name]))
    columns[f"{version}_batch_score"] = (SCORE, (pdms if version == "v1" else epdms)(frame))
    columns[f"{version}_batch_progress_raw"] = (SCORE, result.sub.progress)
    columns[f"{version}_batch_t_col"] = (DISCRETE, result.sub.collision_step)
    columns[f"{version}_batch_t_ttc"] = (DISCRETE, result.sub.ttc_step)
    columns[f"{version}_comfort_bits"] = (DISCRETE, result.sub.comfort_bits)


def _plain(value: float) -> float | str:
    """JSON has no infinity: say it in words."""
    return value if math.isfinite(value) else str(value)


def _array(values: object) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.cpu().numpy()
    return np.asarray(values, np.float64)


def _deviation(found: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute difference; equal infinities and NaN in both agree, one alone is infinitely off."""
    with np.errstate(invalid="ignore"):
        deviation = np.abs(found - expected)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    deviation = np.where(same, 0.0, deviation)
    return np.where(np.isnan(deviation), np.inf, deviation)


def _compare_comfort(report: VectorReport, path: str | Path) -> None:
    arrays = load_npz(path)
    missing = [key for key in ("states", "states_b") if key not in arrays]
    if missing:
        raise VectorFileError(str(path), f"no {', '.join(missing)}", "states and states_b")
    states, other = torch.from_numpy(arrays["states"]), torch.from_numpy(arrays["states_b"])
    report.cases += len(states)
    comfortable, rms = extended_comfort(states, other, interval_steps=0)
    for key, kind, ours in (
        ("v1_bits", DISCRETE, comfort_bits_v1(states)),
        ("v2_bits", DISCRETE, comfort_bits_v2(states)),
        ("ec", DISCRETE, comfortable),
        ("ec_rms", SCORE, rms),
    ):
        if key in arrays:
            report.compare(f"comfort_{key}", kind, ours, arrays[key])
        else:
            report.not_in_file.add(f"comfort_{key}")


def _compare_two_stage(report: VectorReport, path: str | Path) -> None:
    cases = load_two_stage(path)
    report.cases += len(cases)
    for case in cases:
        result = aggregate_two_stage(case.tokens, case.columns, case.extended_comfort, case.groups)
        report.compare("two_stage_weight", SCORE, result.weight, case.expected["weight"])
        report.compare("two_stage_score", SCORE, result.score, case.expected["score"])
        for stage in ("combined", "stage1", "stage2"):
            expected: dict[str, float] = case.expected[stage]  # type: ignore[assignment]
            ours: dict[str, float] = getattr(result, stage)
            for name, value in expected.items():
                if name not in ours:
                    raise VectorFileError(f"{path}: {stage}", name, f"one of: {', '.join(ours)}")
                report.compare(f"two_stage_{stage}:{name}", SCORE, ours[name], value)
