"""What a replay showed, in numbers: the contents of ``result.json`` and the printed table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from latentvla_ros.cli.driven_path import DrivenPath
from latentvla_ros.cli.plan_metrics import percentiles_ms, plan_errors, rate_hz
from latentvla_ros.contract import LatentActionNames, latent_action_lines
from latentvla_ros.nodes.recording import RecordedPlan, Recording, StatusSample

#: ``latentvla_msgs/PlannerStatus.health`` in words.
HEALTH = ("waiting", "warming up", "ok", "degraded", "fault")
_STOP_KINDS = {1: "comfortable", 2: "emergency"}
#: A camera whose last frame comes so long before the end of the play ends early, recorded s.
_ENDS_EARLY_S = 1.0
_LEVELS = {1: "warning", 2: "error", 3: "stale"}


def summarise(
    recording: Recording,
    path: DrivenPath,
    reference_topic: str,
    rate: float,
) -> dict[str, Any]:
    """Return the figures of a replay.

    Args:
        path: the driven path.
        reference_topic: of the camera whose frames are plan moments.
        rate: of the replay; latencies are steady time at that rate.
    """
    plans = recording.plans
    ours, constant = plan_errors(plans, path)
    # Once nothing is played any more, the node rightly reports that its inputs have gone.
    during = [s for s in recording.statuses if s.received_s <= recording.played_until_s]
    status = during[-1] if during else None
    last = recording.statuses[-1] if recording.statuses else None
    gate = recording.gate_statuses[-1] if recording.gate_statuses else None
    stops = Counter(_STOP_KINDS[g.kind] for g in recording.gated if g.kind in _STOP_KINDS)
    notes = Counter(
        f"{_LEVELS[d.level]}: {d.name}: {d.message}"
        for d in recording.diagnostics
        if d.level in _LEVELS
        # The node's rates are those of the last seconds: give them one.
        and recording.played_from_s + 1.0 <= d.received_s <= recording.played_until_s
    )
    stages = stage_percentiles(recording.statuses)
    return {
        "rate": rate,
        "frames": recording.published.get(reference_topic, 0),
        "plans": len(plans),
        "plan_rate_hz": _rounded(rate_hz([plan.received_s for plan in plans])),
        "plan_rate_recorded_hz": _rounded(rate_hz([plan.stamp_ns * 1e-9 for plan in plans])),
        "drops": dict(last.drops) if last else {},
        "receipt_to_publish_ms": stages.get("receipt_to_publish"),
        "image_to_plan_ms": _rounded(percentiles_ms([plan.latency_s for plan in plans])),
        "age_ms": _rounded(percentiles_ms([plan.age_s / rate for plan in plans])),
        "stages_ms": stages,
        "staged_plans": len({s.plans for s in recording.statuses if s.stages_s}),
        "scored_frames": len(ours.stamps_ns),
        "ade_m": _rounded(ours.ade_m),
        "fde_m": _rounded(ours.fde_m),
        "constant_turn_rate": {
            "ade_m": _rounded(constant.ade_m),
            "fde_m": _rounded(constant.fde_m),
        },
        "driven_m": _rounded(path.length_m),
        "health": HEALTH[status.health] if status and status.health < len(HEALTH) else "unknown",
        "first_fault": status.first_cause if status else "",
        "bundle_id": status.bundle_id if status else "",
        "backend": status.backend if status else "",
        "odometry_jumps": status.odometry_jumps if status else 0,
        "cameras": {
            slot: {
                "published": recording.published.get(camera.topic, 0),
                "received": camera.received,
                "faults": camera.faults,
                "starving": _starving(slot, camera.topic, during, recording),
                "ends_early_s": _rounded(_ends_early_s(camera.topic, recording, rate)),
            }
            for slot, camera in (status.cameras if status else {}).items()
        },
        "gate": {
            "passed": gate.passed if gate else sum(g.kind == 0 for g in recording.gated),
            "rejected": dict(gate.rejects) if gate else {},
            "stops": dict(stops),
        },
        "diagnostics": dict(notes.most_common(12)),
        "player_lateness_ms": _rounded(percentiles_ms(recording.lateness_s)),
        "wall_s": _rounded(recording.wall_s),
        "exit_codes": dict(recording.exit_codes),
    }


def latent_actions(
    plans: Sequence[RecordedPlan], names: LatentActionNames | None
) -> dict[str, Any]:
    """Return the latent actions of the newest plan; empty where they carry no meaning.

    Args:
        names: as of the bundle's manifest; None: they stay ids.

    Returns:
        ``codebook_id``, ``time_s`` of the plan since the first one, its 12 ``ids`` and
        ``probabilities``; with names, ``by_name``: the words of each transition by its time.
    """
    if not plans or not plans[-1].codebook_id:
        return {}
    newest = plans[-1]
    ids, probabilities = newest.latent_actions.tolist(), newest.latent_probabilities.tolist()
    found = {
        "codebook_id": newest.codebook_id,
        "time_s": _rounded((newest.stamp_ns - plans[0].stamp_ns) * 1e-9),
        "ids": ids,
        "probabilities": [_rounded(value) for value in probabilities],
    }
    if names is not None:
        found["by_name"] = dict(latent_action_lines(names, ids, probabilities))
    return found


def _ends_early_s(topic: str, recording: Recording, rate: float) -> float:
    """Return by how much a topic's recording ends before the play does, 0 where it does not."""
    last_s = recording.last_sent_s.get(topic, recording.played_until_s)
    early_s = (recording.played_until_s - last_s) * rate
    return early_s if early_s > _ENDS_EARLY_S else 0.0


def _starving(
    slot: str, topic: str, statuses: Sequence[StatusSample], recording: Recording
) -> bool:
    """Return whether a camera starved while there was something of it to play.

    Afterwards the node rightly calls it silent; that says nothing about the transport.
    """
    until_s = recording.last_sent_s.get(topic, recording.played_until_s)
    known = [s.cameras[slot] for s in statuses if slot in s.cameras and s.received_s <= until_s]
    return bool(known) and known[-1].starving


def stage_percentiles(statuses: Sequence[StatusSample]) -> dict[str, Any]:
    """Return p50, p95, p99 and max in ms of each stage, over the plans that a status describes.

    A status describes the newest plan; one that is seen twice counts once.
    """
    by_plan = {sample.plans: sample.stages_s for sample in statuses if sample.stages_s}
    names = sorted({name for stages in by_plan.values() for name in stages})
    return {
        name: _rounded(percentiles_ms([s[name] for s in by_plan.values() if name in s]))
        for name in names
    }


def table_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the printed table: what is shown, and its value in words."""
    drops = ", ".join(f"{cause} {count}" for cause, count in result["drops"].items() if count)
    rows = [
        ("frames of the reference camera", str(result["frames"])),
        ("plans published", f"{result['plans']}"),
        ("plan rate", f"{_number(result['plan_rate_hz'], 1)} Hz"),
        ("frames dropped, by cause", drops or "none"),
        ("receipt to publish p50 / p95 / p99", _latency(result["receipt_to_publish_ms"])),
        ("the same from outside, DDS included", _latency(result["image_to_plan_ms"])),
        (
            "ADE / FDE over 4 s, plans",
            f"{_number(result['ade_m'])} / {_number(result['fde_m'])} m "
            f"({result['scored_frames']} frames)",
        ),
        (
            "ADE / FDE, constant velocity and turn rate",
            f"{_number(result['constant_turn_rate']['ade_m'])} / "
            f"{_number(result['constant_turn_rate']['fde_m'])} m (same frames)",
        ),
    ]
    stops = ", ".join(f"{count} {kind} stops" for kind, count in result["gate"]["stops"].items())
    rows.append(("gate", f"{result['gate']['passed']} passed" + (f", {stops}" if stops else "")))
    starving = [slot for slot, camera in result["cameras"].items() if camera["starving"]]
    if starving:
        rows.append(("starving cameras", ", ".join(starving)))
    early = [
        f"{slot} by {camera['ends_early_s']:.1f} s"
        for slot, camera in result["cameras"].items()
        if camera["ends_early_s"]
    ]
    if early:
        rows.append(("recording of a camera ends early", ", ".join(early)))
    if result["first_fault"]:
        rows.append(("first fault", result["first_fault"]))
    return rows


def latent_action_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the latent actions of the last plan: transition, words. None where they have none."""
    return list(result.get("latent_actions", {}).get("by_name", {}).items())


def format_table(rows: list[tuple[str, str]]) -> str:
    """Return rows as aligned plain text."""
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)


def _latency(values: dict[str, float] | None) -> str:
    if values is None:
        return "no plan"
    return f"{values['p50']:.1f} / {values['p95']:.1f} / {values['p99']:.1f} ms"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _rounded(value: Any) -> Any:
    """Round for JSON: three decimals, and None where there is no number."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (float, np.floating)):
        return round(float(value), 3) if math.isfinite(value) else None
    return value
