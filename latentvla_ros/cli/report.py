"""The report page of a replay: one HTML file that needs nothing else, made to be looked at."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from latentvla_ros.cli.charts import Series, line_chart
from latentvla_ros.cli.driven_path import DrivenPath
from latentvla_ros.cli.plan_metrics import plan_errors
from latentvla_ros.cli.replay_summary import latent_action_rows, table_rows
from latentvla_ros.data import data_path
from latentvla_ros.nodes.recording import RecordedPlan, Recording

_PLAN, _DRIVEN, _CONSTANT, _MUTED = "#0fb89a", "#3b82f6", "#e5673f", "#9aa3b5"
#: A film beyond this is linked, not embedded: browsers choke on longer data addresses.
_MAX_EMBEDDED_BYTES = 40_000_000


def write_report(
    folder: Path,
    result: dict[str, Any],
    recording: Recording,
    path: DrivenPath,
    video: Path | None,
    command: str,
) -> Path:
    """Write ``folder/report.html`` and return it.

    Args:
        result: as ``replay_summary.summarise``, with ``bag`` and ``bundle_id``.
        video: the film, embedded where it is small enough; None where there is none.
        command: what made this replay, shown for repeating it.
    """
    target = folder / "report.html"
    target.write_text(
        Template(data_path("report.html").read_text(encoding="utf-8")).substitute(
            title=escape(f"Replay of {Path(str(result['bag'])).name}"),
            subtitle=escape(_subtitle(result)),
            cards=_cards(result),
            film=_film(video),
            map=_map(recording.plans, path),
            errors=_errors(recording.plans, path),
            latency=_latency(recording.plans),
            speed=_speed(recording.plans, path),
            table=_table([*table_rows(result), *_details(result)]),
            latent=_latent_actions(result),
            notes=_notes(result),
            command=escape(command),
            rate=f"{result['rate']:g}",
        ),
        encoding="utf-8",
    )
    return target


def _subtitle(result: dict[str, Any]) -> str:
    return (
        f"Planner {result['bundle_id'] or '-'} on {result['backend'] or '-'} over "
        f"{result['driven_m'] or 0:.0f} m of recorded driving; "
        f"ROS 2 {result.get('ros_distro') or '-'}"
    )


def _cards(result: dict[str, Any]) -> str:
    latency = result["image_to_plan_ms"] or {"p50": None, "p99": None}
    baseline = result["constant_turn_rate"]["ade_m"]
    gain = ""
    if baseline and result["ade_m"] is not None:
        gain = f"ADE over 4 s, {result['ade_m'] / baseline:.2f} x constant turn rate"
    entries = [
        (str(result["plans"]), f"plans from {result['frames']} frames"),
        (_show(result["plan_rate_hz"], "Hz"), "plan rate"),
        (
            _show(latency["p50"], "ms", 0),
            f"image to plan, p50; p99 {_show(latency['p99'], 'ms', 0)}",
        ),
        (_show(result["ade_m"], "m", 2), gain or "ADE over 4 s"),
        (_show(result["fde_m"], "m", 2), "FDE at 4 s"),
    ]
    return "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in entries
    )


def _film(video: Path | None) -> str:
    if video is None:
        return ""
    name = escape(video.name)
    if video.stat().st_size > _MAX_EMBEDDED_BYTES:
        source = name
    else:
        kind = "video/mp4" if video.suffix == ".mp4" else "image/gif"
        source = f"data:{kind};base64," + base64.b64encode(video.read_bytes()).decode("ascii")
    if video.suffix == ".mp4":
        inside = f'<video controls autoplay muted loop playsinline src="{source}"></video>'
    else:
        inside = f'<img alt="film of the replay" src="{source}">'
    return f'<section class="film">{inside}<p class="note">Also in {name}.</p></section>'


def _map(plans: Sequence[RecordedPlan], path: DrivenPath) -> str:
    series: list[Series] = []
    last_ns = 0
    for plan in plans:
        if plan.stamp_ns - last_ns >= 490_000_000:
            last_ns = plan.stamp_ns
            series.append(Series("", plan.points[:, 0], plan.points[:, 1], _PLAN, "line", 0.9))
    series.append(Series("driven", path.poses[:, 0], path.poses[:, 1], _DRIVEN, "line", 2.4))
    if plans:
        series.append(Series("plans", [], [], _PLAN))
    return line_chart(series, "x, m", "y, m", height=380, equal_axes=True)


def _errors(plans: Sequence[RecordedPlan], path: DrivenPath) -> str:
    ours, constant = plan_errors(plans, path)
    time_s = _since_start(ours.stamps_ns, path)
    return line_chart(
        [
            Series("constant velocity and turn rate", time_s, constant.per_frame_ade_m, _CONSTANT),
            Series("plan", time_s, ours.per_frame_ade_m, _PLAN, "line", 2.2),
        ],
        "time, s",
        "ADE, m",
        height=380,
    )


def _latency(plans: Sequence[RecordedPlan]) -> str:
    stamps = np.asarray([plan.stamp_ns for plan in plans], np.int64)
    values = np.asarray([plan.latency_s for plan in plans]) * 1e3
    time_s = (stamps - stamps[0]) * 1e-9 if len(stamps) else np.zeros(0)
    series = [Series("one plan", time_s, values, _PLAN, "dots", 2.2)]
    finite = values[np.isfinite(values)]
    if len(finite):
        median = float(np.median(finite))
        series.append(
            Series(
                f"median {median:.0f} ms", time_s[[0, -1]], [median, median], _MUTED, "dashed", 1.4
            )
        )
    return line_chart(series, "time, s", "ms")


def _speed(plans: Sequence[RecordedPlan], path: DrivenPath) -> str:
    series: list[Series] = []
    last_ns = 0
    for plan in plans:
        if plan.stamp_ns - last_ns >= 990_000_000:
            last_ns = plan.stamp_ns
            start = _since_start(np.asarray([plan.stamp_ns]), path)[0]
            time_s = start + 0.1 * np.arange(len(plan.speeds))
            series.append(Series("", time_s, plan.speeds * 3.6, _PLAN, "line", 0.9))
    speed = np.hypot(path.twists[:, 0], path.twists[:, 1]) * 3.6
    series.append(Series("driven", _since_start(path.stamps_ns, path), speed, _DRIVEN, "line", 2.2))
    if plans:
        series.append(Series("planned", [], [], _PLAN))
    return line_chart(series, "time, s", "km/h")


def _since_start(stamps_ns: Any, path: DrivenPath) -> Any:
    start = path.stamps_ns[0] if len(path.stamps_ns) else 0
    return (np.asarray(stamps_ns, np.int64) - start) * 1e-9


def _details(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (f"stage {name}, p50 / p99", f"{value['p50']:.1f} / {value['p99']:.1f} ms")
        for name, value in result["stages_ms"].items()
        if value
    ]
    for slot, camera in result["cameras"].items():
        rows.append(
            (f"camera {slot}", f"{camera['received']} of {camera['published']} frames received")
        )
    if result["player_lateness_ms"]:
        rows.append(
            ("player behind schedule, p99", f"{result['player_lateness_ms']['p99']:.2f} ms")
        )
    return rows


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)


def _latent_actions(result: dict[str, Any]) -> str:
    """Return a section where the bundle names its latent actions, else nothing."""
    rows = latent_action_rows(result)
    if not rows:
        return ""
    said = result["latent_actions"]
    return (
        "<section><h2>Latent actions of the last plan</h2>"
        f"<table>{_table(rows)}</table>"
        '<p class="note">What the planner expects of its own motion in each stretch after '
        f"{said['time_s']:.1f} s: four codes of {escape(said['codebook_id'])}, by the motion they "
        "were measured to go with, each with its probability. The film shows those of every plan."
        "</p></section>"
    )


def _notes(result: dict[str, Any]) -> str:
    notes = result["diagnostics"]
    if not notes:
        return ""
    rows = _table([(name, f"{count} times") for name, count in notes.items()])
    return f"<section><h2>Diagnostics that were not OK</h2><table>{rows}</table></section>"


def _show(value: float | None, unit: str, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f} {unit}"
