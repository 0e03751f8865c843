"""What a replay hears back from the nodes: plain records, free of ROS, for tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RecordedPlan:
    """One trajectory as it was received over DDS.

    Attributes:
        stamp_ns: t0.
        sequence: the node's counter of published plans.
        pose: (3,) ego at t0 in the output (odometry) frame, m and rad.
        knots: (8, 3) every 0.5 s, ego frame of t0.
        candidates: (M, 8, 3), ego frame of t0.
        scores: (M,).
        points: (41, 3) every 0.1 s from t0, output frame.
        speeds: (41,) m/s.
        latent_actions: (12,) ids. latent_probabilities: (12,) of these ids.
        codebook_id: of the latent actions; empty: they carry no meaning.
        inputs_ns: stamps of what the plan was made from, by camera slot or ``odometry``.
        received_s: steady time at which the player received it.
        latency_s: newest input published to plan received, steady time; NaN where unknown.
        age_s: t0 to receipt on the ROS clock; NaN where unknown.
    """

    stamp_ns: int
    sequence: int
    pose: NDArray[np.float64]
    knots: NDArray[np.float64]
    candidates: NDArray[np.float64]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]
    speeds: NDArray[np.float64]
    latent_actions: NDArray[np.int64]
    latent_probabilities: NDArray[np.float64]
    codebook_id: str = ""
    inputs_ns: dict[str, int] = field(default_factory=dict)
    received_s: float = float("nan")
    latency_s: float = float("nan")
    age_s: float = float("nan")


@dataclass(frozen=True)
class GateOutput:
    """A trajectory that the gate passed or made: t0 (ns), kind as in latentvla_msgs/Trajectory."""

    stamp_ns: int
    kind: int
    received_s: float


@dataclass(frozen=True)
class CameraHealth:
    """One camera as the planner's status describes it."""

    topic: str
    received: int
    decoded: int
    faults: int
    rate_hz: float
    starving: bool


@dataclass(frozen=True)
class StatusSample:
    """One ``latentvla_msgs/PlannerStatus``; stages in seconds of steady time by name."""

    received_s: float
    lifecycle_state: str
    health: int
    cause: str
    detail: str
    first_cause: str
    bundle_id: str
    backend: str
    frames: int
    plans: int
    age_s: float
    drops: dict[str, int]
    cameras: dict[str, CameraHealth]
    odometry_jumps: int
    command: int
    stages_s: dict[str, float]


@dataclass(frozen=True)
class GateSample:
    """One ``latentvla_msgs/GateStatus``."""

    received_s: float
    mode: int
    cause: str
    first_cause: str
    passed: int
    rejected: int
    rejects: dict[str, int]


@dataclass(frozen=True)
class DiagnosticSample:
    """One ``diagnostic_msgs/DiagnosticStatus``: level 0 OK, 1 warning, 2 error, 3 stale."""

    received_s: float
    name: str
    level: int
    message: str
    values: dict[str, str]


@dataclass
class Recording:
    """Everything one replay recorded.

    Attributes:
        plans, gated, statuses, gate_statuses, diagnostics: in the order of receipt.
        published: messages played by topic. last_sent_s: steady time of the last of each topic.
        lateness_s: (messages,) how late each message was published against its schedule.
        played_from_s, played_until_s: steady times of the first and the last message played.
        wall_s: steady seconds that the playing took.
        exit_codes: of the nodes' processes, by name; None where one was not told to end yet.
    """

    plans: list[RecordedPlan] = field(default_factory=list)
    gated: list[GateOutput] = field(default_factory=list)
    statuses: list[StatusSample] = field(default_factory=list)
    gate_statuses: list[GateSample] = field(default_factory=list)
    diagnostics: list[DiagnosticSample] = field(default_factory=list)
    published: dict[str, int] = field(default_factory=dict)
    last_sent_s: dict[str, float] = field(default_factory=dict)
    lateness_s: list[float] = field(default_factory=list)
    played_from_s: float = float("-inf")
    played_until_s: float = float("inf")
    wall_s: float = 0.0
    exit_codes: dict[str, int | None] = field(default_factory=dict)
