"""The goals of a comparison with a teacher, met or missed, with the numbers that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentvla_training.distill.evaluation import GOAL_FIGURE, GOAL_RETENTION
from latentvla_training.report import markdown as md
from latentvla_training.report.network_sums import Estimate

#: What the paper kept, and what would be better still.
_PAPER, _STRETCH = 0.57, 0.9
_RATIO = 80.0
_CLAIMED, _HELD = "longtail", "test"


def _estimate(found: Mapping[str, Any], split: str, pair: str) -> Estimate | None:
    entry = found["splits"].get(split)
    values = None if entry is None else entry["differences"].get(pair, {}).get(GOAL_FIGURE)
    return None if values is None else Estimate(*values)


def goal_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line a goal (issue 5): met, missed, or not measured where a split is absent."""
    return [_online(found), *_retained(found), *_beats_free(found), _ratio(found)]


def _line(goal: str, met: bool | None, numbers: str) -> str:
    word = "not measured" if met is None else "met" if met else "missed"
    return f"{goal}: **{word}**" + (f" ({numbers})." if numbers else ".")


def _shown(split: str, gain: Estimate) -> str:
    return f"{split} {md.difference(gain, 1, 100.0).strip('*')}"


def _online(found: Mapping[str, Any]) -> str:
    goal = (
        "The teacher online adds to the host's PDMS, interval and all on longtail, not less on test"
    )
    gains = {split: _estimate(found, split, "teacher-host") for split in (_CLAIMED, _HELD)}
    known = {split: gain for split, gain in gains.items() if gain is not None}
    numbers = "; ".join(_shown(split, gain) for split, gain in known.items())
    if len(known) < len(gains):
        return _line(goal, None, numbers)
    return _line(goal, known[_CLAIMED].above_zero and known[_HELD].value >= 0.0, numbers)


def _retained(found: Mapping[str, Any]) -> list[str]:
    goal = f"The student keeps at least {100 * GOAL_RETENTION:.0f} % of the teacher's gain"
    lines = []
    for split, entry in found["splits"].items():
        values = entry["retention"].get("student", {}).get(GOAL_FIGURE)
        if values is None:
            gain = _estimate(found, split, "teacher-host")
            why = "" if gain is None else f"the teacher's gain, {_shown(split, gain)}, may be none"
            lines.append(_line(f"{goal}, {split}", None, why))
            continue
        kept = Estimate(*values)
        stretch = "met" if kept.value >= _STRETCH else "missed"
        numbers = (
            f"{100 * kept.value:.0f} % [{100 * kept.low:.0f}, {100 * kept.high:.0f}]; stretch of "
            f"{100 * _STRETCH:.0f} % {stretch}; the paper kept {100 * _PAPER:.0f} %"
        )
        lines.append(_line(f"{goal}, {split}", kept.value >= GOAL_RETENTION, numbers))
    return lines


def _beats_free(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for split in found["splits"]:
        gain = _estimate(found, split, "student-free_queries")
        if gain is not None:
            goal = f"The student is above the host with 12 free queries, interval and all, {split}"
            lines.append(_line(goal, gain.above_zero, _shown(split, gain)))
    return lines


def _ratio(found: Mapping[str, Any]) -> str:
    pinned, measured = found["costs"]["pinned"]["ratio"], found["costs"]["teacher_by_student"]
    goal = f"The teacher takes at least {_RATIO:.0f} times the operations of the system"
    numbers = (
        f"{pinned:.1f} counted at the pinned shapes; here {measured['flops']:.1f} counted and "
        f"{measured['cpu']:.1f} measured"
    )
    return _line(goal, pinned >= _RATIO, numbers)
