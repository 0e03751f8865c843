"""Which frames belong together: camera messages in, one set of frames per planning moment out.

Pure logic: both clocks are arguments. Payloads stay undecoded, so a frame that is never used costs
nothing. For every frame of the reference camera the nearest frame of each other camera is wanted
within ``sync_tolerance_s``. A slot is *settled* once no nearer frame can come (one at or after t0
has arrived, or the camera's own period says that the next would be farther); the set waits for
unsettled slots at most ``sync_wait_s`` after the reference frame arrived. The newest resolved set
wins.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from latentvla_ros.contract import BundleManifest, ContractError, Rig

Payload = TypeVar("Payload")

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class SynchronizerSettings:
    """Bounds of the synchroniser.

    Attributes:
        sync_tolerance_s: largest stamp difference to t0 within a set.
        sync_wait_s: longest wait, steady time, for the other cameras after the reference frame.
        ring_size: frames kept per camera.
        max_age_s: a frame older than this when it arrives, ROS time, is refused.
        future_tolerance_s: a stamp ahead of ROS time by more than this is refused.
    """

    sync_tolerance_s: float = 0.05
    sync_wait_s: float = 0.03
    ring_size: int = 6
    max_age_s: float = 1.0
    future_tolerance_s: float = 0.05

    def __post_init__(self) -> None:
        for name in ("sync_tolerance_s", "max_age_s"):
            if not getattr(self, name) > 0:
                raise ContractError(f"synchronizer.{name}", getattr(self, name), "a positive time")
        for name in ("sync_wait_s", "future_tolerance_s"):
            if not getattr(self, name) >= 0:
                raise ContractError(f"synchronizer.{name}", getattr(self, name), "a time >= 0")
        if self.ring_size < 4:
            raise ContractError("synchronizer.ring_size", self.ring_size, "at least 4 frames")


@dataclass(frozen=True)
class Frame(Generic[Payload]):
    """One camera message: exposure time, payload, and the steady time it arrived at."""

    stamp_ns: int
    payload: Payload
    received_s: float


@dataclass(frozen=True)
class FrameSet(Generic[Payload]):
    """The frames of one planning moment.

    Attributes:
        stamp_ns: t0, the stamp of the reference frame.
        frames: by slot; an optional camera without a frame near t0 is absent.
        received_s: steady time at which the reference frame arrived.
    """

    stamp_ns: int
    frames: Mapping[str, Frame[Payload]]
    received_s: float


class CameraSynchronizer(Generic[Payload]):
    """Rings of undecoded frames per camera slot.

    Owned by the executor thread: its callbacks call ``add``, and ``take`` is called from there too,
    after an ``add``, when the timer of ``wake_after_s`` fires, or when the inference worker is
    free.

    Attributes:
        drops: reference frames that gave no set and frames refused, by cause: ``superseded`` (a
            newer set was taken first), ``missing_<slot>``, ``overflow`` (pushed out of the ring
            unresolved), ``late_<slot>`` (arrived after its set had gone without it),
            ``zero_stamp``, ``future_stamp``, ``old``, ``stamp_backwards``.
    """

    def __init__(
        self,
        reference: str,
        required: Iterable[str],
        optional: Iterable[str] = (),
        settings: SynchronizerSettings | None = None,
    ) -> None:
        """Prepare rings for the slots; the reference camera is required whether listed or not."""
        self.settings = settings or SynchronizerSettings()
        self.reference = reference
        self.required = tuple(slot for slot in dict.fromkeys(required) if slot != reference)
        self.optional = tuple(
            slot for slot in dict.fromkeys(optional) if slot not in (reference, *self.required)
        )
        self.drops: Counter[str] = Counter()
        self._tolerance_ns = round(self.settings.sync_tolerance_s * NANOSECONDS)
        self._rings: dict[str, deque[Frame[Payload]]] = {}
        self._period_ns: dict[str, int] = {}
        self._went_without: dict[str, deque[int]] = {}
        self._last_t0_ns = 0
        self.clear()

    @classmethod
    def for_rig(
        cls,
        manifest: BundleManifest,
        rig: Rig,
        settings: SynchronizerSettings | None = None,
    ) -> CameraSynchronizer[Payload]:
        """Prepare the rings for the cameras that a bundle's views use and a rig has."""
        used = dict.fromkeys(view.slot for view in manifest.views)
        mounted = [slot for slot in used if rig.camera(slot) is not None]
        return cls(
            rig.reference_camera,
            [slot for slot in used if manifest.slot(slot).required],
            [slot for slot in mounted if not manifest.slot(slot).required],
            settings,
        )

    @property
    def slots(self) -> tuple[str, ...]:
        """All slots, the reference camera first."""
        return (self.reference, *self.required, *self.optional)

    def clear(self) -> None:
        """Forget all frames, as after a clock jump; counters stay."""
        self._rings = {slot: deque() for slot in self.slots}
        self._period_ns = {}
        self._went_without = {slot: deque(maxlen=8) for slot in self.slots}
        self._last_t0_ns = 0

    def add(
        self, slot: str, stamp_ns: int, payload: Payload, now_ns: int, steady_s: float
    ) -> str | None:
        """Take in one message.

        Args:
            slot: its camera; KeyError for one that no view uses.
            stamp_ns: exposure time (message stamp plus the rig's ``time_offset_s``).
            payload: the undecoded image.
            now_ns: ROS time. steady_s: steady time.

        Returns:
            None when accepted, else the cause of refusal, already counted in ``drops``.
        """
        ring = self._rings[slot]
        newest_ns = ring[-1].stamp_ns if ring else 0
        if slot == self.reference:
            newest_ns = max(newest_ns, self._last_t0_ns)
        cause = None
        if stamp_ns <= 0:
            cause = "zero_stamp"
        elif stamp_ns > now_ns + self.settings.future_tolerance_s * NANOSECONDS:
            cause = "future_stamp"
        elif stamp_ns < now_ns - self.settings.max_age_s * NANOSECONDS:
            cause = "old"
        elif stamp_ns <= newest_ns:
            cause = "stamp_backwards"
        if cause is not None:
            self.drops[cause] += 1
            return cause
        if ring:
            step_ns = stamp_ns - ring[-1].stamp_ns
            known = self._period_ns.get(slot, step_ns)
            # A lost frame doubles a step; the shortest recent one is the camera's period.
            self._period_ns[slot] = step_ns if step_ns < known else known + (step_ns - known) // 8
        waiting = self._went_without[slot]
        if any(abs(stamp_ns - t0_ns) <= self._tolerance_ns for t0_ns in waiting):
            waiting.clear()
            self.drops[f"late_{slot}"] += 1
        ring.append(Frame(stamp_ns, payload, steady_s))
        if len(ring) > self.settings.ring_size:
            gone = ring.popleft()
            if slot == self.reference and gone.stamp_ns > self._last_t0_ns:
                self.drops["overflow"] += 1
        return None

    def take(self, steady_s: float) -> FrameSet[Payload] | None:
        """Return the newest set that is resolved now, or None.

        Reference frames older than the returned one are dropped as ``superseded``. When there is no
        set, those whose wait is over are dropped as ``missing_<slot>``, the first such slot.
        """
        ring = self._rings[self.reference]
        for index in range(len(ring) - 1, -1, -1):
            reference = ring[index]
            frames = self._frames_near(reference)
            if any(slot not in frames for slot in self.required):
                continue
            if self._waited(reference, steady_s) or all(
                self._settled(slot, reference.stamp_ns, frames.get(slot))
                for slot in (*self.required, *self.optional)
            ):
                self._consume(reference.stamp_ns, frames)
                self.drops.update({"superseded": index} if index else {})
                return FrameSet(reference.stamp_ns, frames, reference.received_s)
        while ring and self._waited(ring[0], steady_s):
            frames = self._frames_near(ring[0])
            absent = next(slot for slot in self.required if slot not in frames)
            self._consume(ring[0].stamp_ns, frames)
            self.drops[f"missing_{absent}"] += 1
        return None

    def wake_after_s(self, steady_s: float) -> float | None:
        """Return after how long ``take`` may give a set without a new frame; None when never."""
        ring = self._rings[self.reference]
        if not ring:
            return None
        ends = [frame.received_s + self.settings.sync_wait_s for frame in ring]
        return max(min(ends) - steady_s, 0.0)

    @property
    def pending(self) -> int:
        """Reference frames that are not resolved yet."""
        return len(self._rings[self.reference])

    @property
    def newest(self) -> Frame[Payload] | None:
        """The newest reference frame that is not resolved yet."""
        ring = self._rings[self.reference]
        return ring[-1] if ring else None

    def _waited(self, reference: Frame[Payload], steady_s: float) -> bool:
        return steady_s - reference.received_s >= self.settings.sync_wait_s

    def _frames_near(self, reference: Frame[Payload]) -> dict[str, Frame[Payload]]:
        """Return the nearest frame within tolerance of every camera that has one, by slot."""
        frames = {self.reference: reference}
        for slot in (*self.required, *self.optional):
            nearest = min(
                self._rings[slot],
                key=lambda frame: abs(frame.stamp_ns - reference.stamp_ns),
                default=None,
            )
            if (
                nearest is not None
                and abs(nearest.stamp_ns - reference.stamp_ns) <= self._tolerance_ns
            ):
                frames[slot] = nearest
        return frames

    def _settled(self, slot: str, t0_ns: int, nearest: Frame[Payload] | None) -> bool:
        """Whether no frame that can still arrive would be nearer to t0 (frames arrive in order)."""
        ring = self._rings[slot]
        if not ring:
            return False
        newest_ns = ring[-1].stamp_ns
        if newest_ns >= t0_ns:
            return True
        if nearest is None or slot not in self._period_ns:
            return False
        following_ns = newest_ns + self._period_ns[slot]
        # A tenth of the period for jitter: a frame expected just as near is not worth waiting for.
        margin_ns = self._period_ns[slot] // 10
        return following_ns - t0_ns > t0_ns - nearest.stamp_ns - margin_ns

    def _consume(self, t0_ns: int, frames: Mapping[str, Frame[Payload]]) -> None:
        """Take the reference frame of t0 and the older ones out of the ring."""
        ring = self._rings[self.reference]
        while ring and ring[0].stamp_ns <= t0_ns:
            ring.popleft()
        self._last_t0_ns = t0_ns
        for slot in (*self.required, *self.optional):
            if slot not in frames:
                self._went_without[slot].append(t0_ns)
