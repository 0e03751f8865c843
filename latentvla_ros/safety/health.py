"""The planner's health: faults come and expire, the first cause of an episode stays visible.

Pure logic in steady time, so that it works while a simulated clock stands still. Two kinds of
input: *faults* are reported when they happen and count for ``hold_s`` after the last report;
*watches* are things that must happen regularly (a reference frame, odometry, a plan) and become a
fault by themselves when they do not. With all input good again the state returns by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from latentvla_ros.contract import ContractError


class HealthState(IntEnum):
    """Overall state, worse is larger."""

    UNCONFIGURED = 0
    OK = 1
    WARMING_UP = 2
    DEGRADED = 3
    ERROR = 4


@dataclass(frozen=True)
class HealthSettings:
    """``hold_s``: how long a fault counts after it was last reported."""

    hold_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.hold_s > 0:
            raise ContractError("health.hold_s", self.hold_s, "a positive time")


@dataclass(frozen=True)
class Cause:
    """A fault: its name, how bad, words for people, and the steady time it was first reported."""

    name: str
    severity: HealthState
    detail: str
    since_s: float


@dataclass(frozen=True)
class HealthStatus:
    """Health at one moment.

    Attributes:
        state: the worst of the active faults, else OK or UNCONFIGURED.
        active: the faults that count now, the worst first, then by age.
        first_cause: the fault that began the present episode of trouble or, while all is well, the
            last one; None when there never was any. Warming up is no trouble.
        episodes: how many episodes there were.
        counts: reports by fault name.
    """

    state: HealthState
    active: tuple[Cause, ...]
    first_cause: Cause | None
    episodes: int
    counts: dict[str, int]


@dataclass
class _Active:
    cause: Cause
    until_s: float


@dataclass
class _Watch:
    timeout_s: float
    severity: HealthState
    detail: str
    last_s: float


class HealthMonitor:
    """Keeps the faults; owned by the executor thread."""

    def __init__(self, settings: HealthSettings | None = None) -> None:
        self.settings = settings or HealthSettings()
        self._configured = False
        self._active: dict[str, _Active] = {}
        self._watches: dict[str, _Watch] = {}
        self._first_cause: Cause | None = None
        self._in_trouble = False
        self._episodes = 0
        self._counts: Counter[str] = Counter()

    def configure(self) -> None:
        """Begin to judge: on_configure succeeded. Earlier faults are forgotten."""
        self.reset()
        self._configured = True

    def unconfigure(self) -> None:
        """Back to UNCONFIGURED: on_cleanup. Watches are dropped."""
        self.reset()
        self._watches.clear()
        self._configured = False

    def reset(self) -> None:
        """Forget faults, counts and the first cause; watches stay."""
        self._active.clear()
        self._first_cause = None
        self._in_trouble = False
        self._episodes = 0
        self._counts.clear()

    def watch(
        self,
        name: str,
        timeout_s: float,
        now_s: float,
        severity: HealthState = HealthState.ERROR,
        detail: str = "",
    ) -> None:
        """Expect ``beat(name)`` at least every ``timeout_s``, counted from now.

        Raises:
            ContractError: ``timeout_s`` is not positive.
        """
        if not timeout_s > 0:
            raise ContractError(f"health.watch[{name}].timeout_s", timeout_s, "a positive time")
        self._watches[name] = _Watch(timeout_s, severity, detail, now_s)

    def unwatch(self, name: str) -> None:
        """Expect it no longer, as on deactivation; its fault ends."""
        self._watches.pop(name, None)
        self._active.pop(name, None)

    def beat(self, name: str, now_s: float) -> None:
        """Note that a watched thing happened; its fault ends at once."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.last_s = now_s
            self._active.pop(name, None)

    def fault(
        self,
        name: str,
        severity: HealthState,
        detail: str,
        now_s: float,
        hold_s: float | None = None,
    ) -> None:
        """Report that something is wrong; repeating it keeps it active.

        Args:
            name: the cause, e.g. ``corrupt_front``; watched names are reported by themselves.
            severity: WARMING_UP, DEGRADED or ERROR.
            detail: words for people; the latest counts.
            hold_s: how long it counts without a repeat, by default the setting.

        Raises:
            ValueError: another severity.
        """
        if severity not in (HealthState.WARMING_UP, HealthState.DEGRADED, HealthState.ERROR):
            raise ValueError(f"severity {severity!r} of {name!r}, expected a fault")
        self._expire(now_s)
        self._counts[name] += 1
        known = self._active.get(name)
        since_s = now_s if known is None else known.cause.since_s
        cause = Cause(name, severity, detail, since_s)
        self._active[name] = _Active(
            cause, now_s + (self.settings.hold_s if hold_s is None else hold_s)
        )
        if severity > HealthState.WARMING_UP and not self._in_trouble:
            self._in_trouble = True
            self._episodes += 1
            self._first_cause = cause

    def end(self, name: str) -> None:
        """End a fault before it expires: its cause is known to be gone."""
        self._active.pop(name, None)

    def status(self, now_s: float) -> HealthStatus:
        """Return the health now."""
        if self._configured:
            for name, watch in self._watches.items():
                silent_s = now_s - watch.last_s
                if silent_s > watch.timeout_s:
                    text = f"{watch.detail or name}: nothing for {silent_s:.1f} s"
                    self.fault(name, watch.severity, text, now_s)
        self._expire(now_s)
        active = sorted(
            (entry.cause for entry in self._active.values()),
            key=lambda cause: (-cause.severity, cause.since_s),
        )
        calm = HealthState.OK if self._configured else HealthState.UNCONFIGURED
        return HealthStatus(
            state=active[0].severity if active else calm,
            active=tuple(active),
            first_cause=self._first_cause,
            episodes=self._episodes,
            counts=dict(self._counts),
        )

    def _expire(self, now_s: float) -> None:
        for name in [name for name, entry in self._active.items() if entry.until_s < now_s]:
            del self._active[name]
        if not any(
            entry.cause.severity > HealthState.WARMING_UP for entry in self._active.values()
        ):
            self._in_trouble = False
