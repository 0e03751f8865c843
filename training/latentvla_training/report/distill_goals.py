"""The goals of a comparison with a teacher, with the numbers that say whether they are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latentvla_training.distill.evaluation import GOAL_FIGURE, GOAL_RETENTION
from latentvla_training.distill.settings import STUDENT, TEACHER
from latentvla_training.planner.contenders import HOST
from latentvla_training.report import markdown as md
from latentvla_training.report.contrasts import contrast
from latentvla_training.report.distill_files import sums_of_split
from latentvla_training.report.network_sums import Estimate
from latentvla_training.report.result_files import ResultFile

#: What the paper kept, and what would be better still.
_PAPER, _STRETCH = 0.57, 0.9
_RATIO = 80.0
_CLAIMED, _HELD = "longtail", "test"
#: With fewer seeds nothing is claimed (experiments.md section 6).
CLAIM_SEEDS = 3
_FEWER = {1: "one seed", 2: "two seeds"}
FULL, SCARCE_MAPS, SCARCE_ODOMETRY = "full", "scarce_maps", "scarce_odometry"
#: Regimes (experiments.md section 6) and what is known in them.
_REGIMES = {
    FULL: "labels and odometry of all drives",
    SCARCE_MAPS: "labels of few drives",
    SCARCE_ODOMETRY: "labels and odometry of few drives",
}
MET, MISSED, UNMEASURED = "met", "missed", "not measured"


def regime_of(found: Mapping[str, Any]) -> str:
    """Return the regime of a result of ``distill evaluate``."""
    regime = found["regime"]
    if regime.get("odometry_share", 1.0) < 1.0:
        return SCARCE_ODOMETRY
    return SCARCE_MAPS if regime.get("labelled_share", 1.0) < 1.0 else FULL


def goal_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a line a goal (issue 5): met, missed, not shown, not measured, or no claim."""
    goal = (
        "The teacher online adds to the host's PDMS, interval and all on longtail, not less on test"
    )
    return [_line(goal, *_online(found)), *_retained(found), *_beats_free(found), _ratio(found)]


def regime_lines(files: Sequence[ResultFile]) -> list[str]:
    """Return a line a regime: whether the teacher online is above the host, by fresh files alone.

    Args:
        files: all results of ``distill evaluate``; those of none of the splits that are asked about
            (a choice by validation networks) have no say.
    """
    lines = []
    for regime, what in _REGIMES.items():
        own = [
            file
            for file in files
            if regime_of(file.document) == regime
            and {_CLAIMED, _HELD}.intersection(file.document["splits"])
        ]
        fresh = [(file.name, *_online(file.document)) for file in own if not file.stale]
        stale = ", ".join(f"`{file.name}`" for file in own if file.stale)
        told = [f"`{name}` {verdict} ({numbers})" for name, verdict, numbers in fresh]
        told += [f"stale and not counted: {stale}"] if stale else []
        answer = _answer([verdict for _, verdict, _ in fresh], bool(own))
        lines.append(f"`{regime}` ({what}): **{answer}**" + "".join(f"; {text}" for text in told))
    return [f"{line}." for line in lines]


def _answer(verdicts: Sequence[str], measured: bool) -> str:
    """Return one answer of all fresh comparisons of a regime; those without a claim have none."""
    if not verdicts:
        return "no fresh result" if measured else "no result"
    claims = [verdict == MET for verdict in verdicts if verdict in (MET, MISSED)]
    if not claims:
        return "no claim"
    if all(claims):
        return "yes"
    return f"in {sum(claims)} of {len(claims)} comparisons" if any(claims) else "no"


def _line(goal: str, verdict: str, numbers: str) -> str:
    return f"{goal}: **{verdict}**" + (f" ({numbers})." if numbers else ".")


def _verdict(found: Mapping[str, Any], met: bool) -> str:
    """Return met or missed; of fewer than three seeds that nothing is claimed."""
    seeds = len(found["seeds"])
    if seeds < CLAIM_SEEDS:
        return f"{_FEWER.get(seeds, f'{seeds} seeds')}: no claim"
    return MET if met else MISSED


def _estimate(found: Mapping[str, Any], split: str, pair: str) -> Estimate | None:
    entry = found["splits"].get(split)
    values = None if entry is None else entry["differences"].get(pair, {}).get(GOAL_FIGURE)
    return None if values is None else Estimate(*values)


def _shown(name: str, gain: Estimate) -> str:
    return f"{name} {md.difference(gain, 1, 100.0).strip('*')}"


def _online(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return whether the teacher online is above the host, and the numbers."""
    gains = {split: _estimate(found, split, f"{TEACHER}-{HOST}") for split in (_CLAIMED, _HELD)}
    known = {split: gain for split, gain in gains.items() if gain is not None}
    numbers = "; ".join(_shown(split, gain) for split, gain in known.items())
    if len(known) < len(gains):
        return UNMEASURED, numbers
    met = known[_CLAIMED].above_zero and known[_HELD].value >= 0.0
    return _verdict(found, met), numbers


def _retained(found: Mapping[str, Any]) -> list[str]:
    goal = f"The student keeps at least {100 * GOAL_RETENTION:.0f} % of the teacher's gain"
    lines = []
    for split, entry in found["splits"].items():
        kept = entry["retention"].get(STUDENT, {}).get(GOAL_FIGURE)
        if kept is None:
            gain = _estimate(found, split, f"{TEACHER}-{HOST}")
            why = "" if gain is None else f"the teacher's gain, {_shown(split, gain)}, may be none"
            lines.append(_line(f"{goal}, {split}", UNMEASURED, why))
            continue
        verdict, beyond = _keeps(found, entry, GOAL_RETENTION)
        stretch, further = _keeps(found, entry, _STRETCH)
        numbers = (
            f"{100 * kept[0]:.0f} %; {beyond}; stretch of {100 * _STRETCH:.0f} %: {further}, "
            f"{stretch}; the paper kept {100 * _PAPER:.0f} %"
        )
        lines.append(_line(f"{goal}, {split}", verdict, numbers))
    return lines


def _keeps(found: Mapping[str, Any], entry: Mapping[str, Any], share: float) -> tuple[str, str]:
    """Return whether the student keeps a share of the teacher's gain, and the number that says so.

    That is the student's gain minus that share of the teacher's: met where its whole interval is
    at 0 or above.
    """
    weights = {STUDENT: 1.0, TEACHER: -share, HOST: share - 1.0}
    beyond = contrast(sums_of_split(entry), weights, GOAL_FIGURE)
    verdict = _verdict(found, beyond.low >= 0.0)
    if verdict == MISSED and beyond.value >= 0.0:
        verdict = f"point estimate above {100 * share:.0f} %, not shown"
    return verdict, _shown(f"the student's gain minus {share:g} of the teacher's is", beyond)


def _beats_free(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for split in found["splits"]:
        gain = _estimate(found, split, "student-free_queries")
        if gain is not None:
            goal = f"The student is above the host with 12 free queries, interval and all, {split}"
            lines.append(_line(goal, _verdict(found, gain.above_zero), _shown(split, gain)))
    return lines


def _ratio(found: Mapping[str, Any]) -> str:
    pinned, measured = found["costs"]["pinned"]["ratio"], found["costs"]["teacher_by_student"]
    goal = f"The teacher takes at least {_RATIO:.0f} times the operations of the system"
    numbers = (
        f"{pinned:.1f} counted at the pinned shapes; here {measured['flops']:.1f} counted and "
        f"{measured['cpu']:.1f} measured"
    )
    return _line(goal, MET if pinned >= _RATIO else MISSED, numbers)
