"""The synchroniser as a pure machine: what is promised about any interleaving of cameras."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentvla_ros.contract import ContractError
from latentvla_ros.sensing.camera_synchronizer import (
    CameraSynchronizer,
    FrameSet,
    SynchronizerSettings,
)

T0 = 10_000_000_000_000
MS = 1_000_000


def synchronizer(**settings: float) -> CameraSynchronizer[str]:
    return CameraSynchronizer(
        "front",
        ["front", "left"],
        ["rear"],
        SynchronizerSettings(**settings),  # type: ignore[arg-type]
    )


def add(sync: CameraSynchronizer[str], slot: str, stamp_ms: float, at_ms: float) -> str | None:
    """Add a frame of ``stamp_ms`` that arrives at ``at_ms``, both clocks running alike."""
    stamp_ns = T0 + round(stamp_ms * MS)
    return sync.add(slot, stamp_ns, f"{slot}@{stamp_ms:g}", T0 + round(at_ms * MS), at_ms * 1e-3)


def payloads(found: FrameSet[str] | None) -> dict[str, str]:
    assert found is not None
    return {slot: frame.payload for slot, frame in found.frames.items()}


def test_a_complete_set_is_taken_at_once() -> None:
    sync = synchronizer()
    for slot in ("rear", "left", "front"):
        add(sync, slot, 100, 101)
    found = sync.take(0.101)
    assert payloads(found) == {"front": "front@100", "left": "left@100", "rear": "rear@100"}
    assert found is not None
    assert found.stamp_ns == T0 + 100 * MS
    assert sync.take(0.102) is None
    assert not sync.drops


def test_it_waits_for_a_late_camera_and_no_longer_than_allowed() -> None:
    sync = synchronizer()
    add(sync, "left", 100, 105)
    add(sync, "front", 100, 105)
    assert sync.take(0.106) is None  # rear may still come
    assert sync.wake_after_s(0.106) == pytest.approx(0.029)
    found = sync.take(0.1351)
    assert payloads(found) == {"front": "front@100", "left": "left@100"}
    assert not sync.drops
    add(sync, "rear", 100, 140)
    assert sync.drops == {"late_rear": 1}


def test_without_a_required_camera_there_is_no_set() -> None:
    sync = synchronizer()
    add(sync, "rear", 100, 101)
    add(sync, "front", 100, 101)
    assert sync.take(0.102) is None
    assert not sync.drops
    assert sync.take(0.132) is None
    assert sync.drops == {"missing_left": 1}
    assert sync.pending == 0
    assert sync.wake_after_s(0.2) is None


def test_the_nearest_frame_within_tolerance_is_chosen() -> None:
    sync = synchronizer()
    for stamp in (30, 63, 97, 130):
        add(sync, "left", stamp, stamp + 1)
    add(sync, "rear", 160, 161)  # 60 ms away: out of tolerance, and later than t0
    add(sync, "front", 100, 161)
    assert payloads(sync.take(0.161)) == {"front": "front@100", "left": "left@97"}


def test_a_nearer_frame_that_can_still_come_is_waited_for() -> None:
    sync = synchronizer()
    add(sync, "rear", 100, 100)
    for stamp in (40, 70):
        add(sync, "left", stamp, stamp)
    add(sync, "front", 100, 100)
    assert sync.take(0.1) is None  # left is due at 100
    add(sync, "left", 101, 108)
    assert payloads(sync.take(0.108))["left"] == "left@101"


def test_a_camera_that_fires_earlier_is_not_waited_for_in_vain() -> None:
    """10 Hz, left 40 ms before front: its next frame will be 60 ms off, nothing better comes."""
    sync = synchronizer()
    for stamp in (-40, 60):
        add(sync, "left", stamp, stamp + 5)
    add(sync, "rear", 100, 104)
    add(sync, "front", 100, 104)
    assert payloads(sync.take(0.104))["left"] == "left@60"


def test_the_newest_set_wins_and_older_ones_are_counted() -> None:
    sync = synchronizer()
    for stamp in (0, 33, 66):
        for slot in ("left", "rear", "front"):
            add(sync, slot, stamp, stamp + 2)
    assert payloads(sync.take(0.07))["front"] == "front@66"
    assert sync.drops == {"superseded": 2}


def test_an_older_complete_set_serves_while_the_newest_is_incomplete() -> None:
    """A camera slower than the reference must not starve the planner for ever."""
    sync = synchronizer(sync_wait_s=0.03, sync_tolerance_s=0.012)
    taken = []
    for index in range(40):
        stamp = 16 * index
        add(sync, "front", stamp, stamp + 2)
        for slot in ("left", "rear"):
            if stamp >= 32:
                add(sync, slot, stamp - 32, stamp + 2)  # 34 ms of transport
        found = sync.take((stamp + 2) * 1e-3)
        if found is not None:
            taken.append(found.stamp_ns)
    assert len(taken) > 20
    assert taken == sorted(set(taken))


@pytest.mark.parametrize(
    ("stamp_ms", "cause"),
    [(-T0 / MS, "zero_stamp"), (600, "future_stamp"), (-1200, "old"), (90, "stamp_backwards")],
)
def test_bad_stamps_are_refused_by_cause_and_good_ones_go_on(stamp_ms: float, cause: str) -> None:
    sync = synchronizer()
    add(sync, "front", 90, 95)
    assert add(sync, "front", stamp_ms, 100) == cause
    assert sync.drops == {cause: 1}
    for slot in ("left", "rear", "front"):
        assert add(sync, slot, 190, 195) is None
    assert payloads(sync.take(0.195))["front"] == "front@190"


def test_a_reference_frame_from_before_the_last_set_is_refused() -> None:
    sync = synchronizer()
    for slot in ("left", "rear", "front"):
        add(sync, slot, 100, 101)
    assert sync.take(0.101) is not None
    assert add(sync, "front", 100, 102) == "stamp_backwards"


def test_a_clock_jump_clears_everything() -> None:
    sync = synchronizer()
    for slot in ("left", "rear", "front"):
        add(sync, slot, 5000, 5001)
    assert sync.take(5.001) is not None
    add(sync, "front", 5100, 5101)
    sync.clear()
    assert sync.take(9.0) is None
    for slot in ("left", "rear", "front"):  # time has gone back: accepted as if fresh
        assert add(sync, slot, 100, 101) is None
    assert sync.take(9.1) is not None


def test_an_unresolved_frame_pushed_out_of_the_ring_is_counted() -> None:
    sync = synchronizer(ring_size=4)
    for index in range(7):
        add(sync, "front", 10 * index, 10 * index)
    assert sync.drops == {"overflow": 3}
    assert sync.pending == 4


def test_a_slot_nobody_uses_is_an_error() -> None:
    with pytest.raises(KeyError):
        add(synchronizer(), "roof", 1, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("ring_size", 3), ("sync_tolerance_s", 0.0), ("sync_wait_s", -1.0)]
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ContractError, match=f"synchronizer.{name}"):
        SynchronizerSettings(**{name: value})  # type: ignore[arg-type]


events = st.lists(
    st.tuples(
        st.sampled_from(["front", "left", "rear", "take"]),
        st.floats(0, 30),  # steady time that passes before the event, ms
        st.floats(-80, 40),  # stamp relative to then, ms
    ),
    max_size=120,
)


@given(events)
def test_promises_hold_for_any_interleaving(
    sequence: list[tuple[str, float, float]],
) -> None:
    sync = synchronizer()
    settings = sync.settings
    now_ms, accepted, sets = 1000.0, Counter[str](), []
    for kind, wait_ms, offset_ms in sequence:
        now_ms += wait_ms
        if kind != "take":
            accepted[kind] += add(sync, kind, now_ms + offset_ms, now_ms) is None
            continue
        found = sync.take(now_ms * 1e-3)
        if found is None:
            continue
        sets.append(found)
        assert found.frames["front"].stamp_ns == found.stamp_ns
        assert "left" in found.frames
        for frame in found.frames.values():
            assert abs(frame.stamp_ns - found.stamp_ns) <= settings.sync_tolerance_s * 1e9 + 1
    # t0 only moves forward.
    stamps = [found.stamp_ns for found in sets]
    assert stamps == sorted(set(stamps))
    # Every accepted reference frame is a set, a counted drop, or still pending.
    lost = sync.drops["superseded"] + sync.drops["missing_left"] + sync.drops["overflow"]
    assert accepted["front"] == len(sets) + lost + sync.pending
    # Nothing stays pending past the wait.
    sync.take(now_ms * 1e-3 + settings.sync_wait_s)
    while sync.take(now_ms * 1e-3 + settings.sync_wait_s) is not None:
        pass
    assert sync.pending == 0


@given(
    st.integers(2, 12),
    st.lists(st.floats(-10, 10), min_size=2, max_size=2),
    st.randoms(use_true_random=False),
)
def test_cameras_in_step_give_every_frame_a_set(
    rounds: int, skews: list[float], random: Random
) -> None:
    """10 Hz, skewed by up to 10 ms, delivered within 19 ms in any order: nothing is dropped."""
    sync = synchronizer()
    sets = 0
    for index in range(rounds):
        base = 1000.0 + 100.0 * index
        arrivals = [("front", base), ("left", base + skews[0]), ("rear", base + skews[1])]
        timed = sorted((stamp + random.uniform(0.1, 19.0), slot, stamp) for slot, stamp in arrivals)
        for at_ms, slot, stamp in timed:
            add(sync, slot, stamp, at_ms)
            sets += sync.take(at_ms * 1e-3) is not None
        wake = sync.wake_after_s(timed[-1][0] * 1e-3)
        if wake is not None:
            sets += sync.take(timed[-1][0] * 1e-3 + wake + 1e-9) is not None
    assert sets == rounds
    assert not any(sync.drops[cause] for cause in ("superseded", "missing_left", "overflow"))
