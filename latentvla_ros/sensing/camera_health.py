"""Rate and age of every camera, so that a diagnostic can name the one that starves.

On a transport that drops, all cameras are asked for alike and only some arrive: a camera is
starving when it delivers less than half of what the best one does, or nothing for a second.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from latentvla_ros.contract import ContractError


@dataclass(frozen=True)
class CameraHealthSettings:
    """When a camera counts as starving.

    Attributes:
        window_s: time over which rates are measured.
        silent_after_s: nothing for so long is starving whatever the rate.
        min_rate_share: share of the best camera's rate below which a camera starves.
        min_rate_hz: rate below which every camera starves.
    """

    window_s: float = 3.0
    silent_after_s: float = 1.0
    min_rate_share: float = 0.5
    min_rate_hz: float = 2.0

    def __post_init__(self) -> None:
        for name in ("window_s", "silent_after_s"):
            if not getattr(self, name) > 0:
                raise ContractError(f"camera_health.{name}", getattr(self, name), "a positive time")
        if not 0 <= self.min_rate_share <= 1:
            raise ContractError("camera_health.min_rate_share", self.min_rate_share, "0 ... 1")
        if not self.min_rate_hz >= 0:
            raise ContractError("camera_health.min_rate_hz", self.min_rate_hz, "a rate >= 0")


@dataclass(frozen=True)
class CameraReport:
    """State of one camera.

    Attributes:
        received: messages since the start. rate_hz: over the window.
        silent_s: steady time since the last message, None when there was none.
        age_s: ROS time from stamp to receipt of the newest message, None when there was none.
        refused: messages that could not be used, by cause.
        starving: why the camera counts as starving, or "".
    """

    received: int
    rate_hz: float
    silent_s: float | None
    age_s: float | None
    refused: dict[str, int]
    starving: str


class CameraHealth:
    """Counts the messages of every camera; owned by the executor thread."""

    def __init__(
        self, slots: Iterable[str], steady_s: float, settings: CameraHealthSettings | None = None
    ) -> None:
        """Start counting at steady time ``steady_s``."""
        self.settings = settings or CameraHealthSettings()
        self._started_s = steady_s
        self._arrivals: dict[str, deque[float]] = {slot: deque(maxlen=1024) for slot in slots}
        self._received: Counter[str] = Counter()
        self._age_s: dict[str, float] = {}
        self._refused: dict[str, Counter[str]] = {slot: Counter() for slot in self._arrivals}

    def received(self, slot: str, age_s: float, steady_s: float) -> None:
        """Note a message: its age (ROS time, stamp to receipt) and the steady time of receipt."""
        self._arrivals[slot].append(steady_s)
        self._received[slot] += 1
        self._age_s[slot] = age_s

    def refused(self, slot: str, cause: str) -> None:
        """Note that a message of this camera could not be used."""
        self._refused[slot][cause] += 1

    def report(self, steady_s: float) -> dict[str, CameraReport]:
        """Return the state of every camera at steady time ``steady_s``."""
        limits = self.settings
        span_s = min(limits.window_s, max(steady_s - self._started_s, 1e-3))
        rates = {}
        for slot, arrivals in self._arrivals.items():
            recent = sum(1 for arrival in arrivals if steady_s - arrival < span_s)
            rates[slot] = recent / span_s
        best = max(rates.values(), default=0.0)
        reports = {}
        for slot, arrivals in self._arrivals.items():
            silent_s = steady_s - arrivals[-1] if arrivals else None
            waited_s = steady_s - self._started_s if silent_s is None else silent_s
            starving = ""
            if waited_s > limits.silent_after_s:
                starving = f"silent for {waited_s:.1f} s"
            elif span_s >= limits.silent_after_s and (
                rates[slot] < max(limits.min_rate_share * best, limits.min_rate_hz)
            ):
                starving = f"{rates[slot]:.1f} Hz, the best camera has {best:.1f} Hz"
            reports[slot] = CameraReport(
                received=self._received[slot],
                rate_hz=rates[slot],
                silent_s=silent_s,
                age_s=self._age_s.get(slot),
                refused=dict(self._refused[slot]),
                starving=starving,
            )
        return reports
