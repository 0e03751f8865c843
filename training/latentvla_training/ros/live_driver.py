"""Lets whoever publishes trajectories on ROS 2 drive: in lock-step, or in real time.

In lock-step time stands still until the trajectory of a frame has come. In real time /clock runs on
at its pace: at each frame the newest trajectory is followed from where it has got to by then, with
whatever latency it came.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from latentvla_msgs.msg import Trajectory
from latentvla_ros.contract import ContractError, Plan, Rig
from latentvla_ros.nodes.conversions import stamp_to_ns
from latentvla_training.ros import sensor_messages
from latentvla_training.ros.world_peer import CLOCK_STEP_NS, ODOMETRY_FRAME, WorldPeer
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.episode import STEP_S

#: Before the first trajectory a frame waits no longer than this.
_WARM_UP_PATIENCE_S = 0.3


@dataclass(frozen=True)
class LiveSettings:
    """How the world waits for a stack.

    Attributes:
        trajectory_topic: where its trajectories are expected.
        lock_step: time stands still until the trajectory is there.
        rate: in real time, seconds of the world per second.
        patience_s: in lock-step, steady time that a frame waits for its trajectory.
        match_s: steady time that the world waits for a stack at its start.
        domain_id: ROS domain; None for that of the environment.
    """

    trajectory_topic: str = "/gate/output/trajectory"
    lock_step: bool = False
    rate: float = 1.0
    patience_s: float = 2.0
    match_s: float = 60.0
    domain_id: int | None = None

    def __post_init__(self) -> None:
        if not 0.05 <= self.rate <= 20.0:
            raise ContractError("--rate", self.rate, "0.05 to 20")
        for name in ("patience_s", "match_s"):
            if not getattr(self, name) > 0:
                raise ContractError(f"--{name[:-2]}", getattr(self, name), "seconds above 0")
        if self.domain_id is not None and not 0 <= self.domain_id <= 232:
            raise ContractError("--domain", self.domain_id, "0 to 232")


class StackAbsent(TimeoutError):
    """Nobody drives: topics have no counterpart."""


class LiveDriver:
    """A ``Driver`` on the other side of ROS 2; the stack is started by whoever owns it.

    Attributes:
        frames: published. answered: in lock-step those whose trajectory came in time, in real time
            those at which a new trajectory was there. latency_s: of the trajectories used.
        slow_s: steady time by which the world itself was late in real time.
    """

    name = "live"
    uses_cameras = True

    def __init__(
        self, settings: LiveSettings | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.settings = settings or LiveSettings()
        self.frames = self.answered = 0
        self.slow_s = 0.0
        self.latency_s: list[float] = []
        self._used: Trajectory | None = None
        self._say = say
        self._world: WorldPeer | None = None
        self._pace: _Pace | None = None

    def start(self, rig: Rig) -> None:
        """Appear on ROS 2 and wait for a stack.

        Raises:
            StackAbsent: its topics have no counterpart in ``match_s``.
        """
        self.close()
        settings = self.settings
        self._world = WorldPeer(rig, settings.trajectory_topic, domain_id=settings.domain_id)
        self._world.__enter__()
        try:
            missing = self._world.unmatched()
            if missing:
                self._say(f"waiting for {', '.join(missing)}")
            missing = self._world.wait_until_matched(settings.match_s, lambda: None)
            if missing:
                raise StackAbsent(
                    f"nothing on the other side of {', '.join(missing)} in {settings.match_s:g} s"
                )
        except BaseException:
            self.close()
            raise
        self.frames = self.answered = 0
        self.slow_s = 0.0
        self.latency_s, self._used = [], None

    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the trajectory to follow from this frame on; None where there is no new one."""
        if self._world is None:
            raise RuntimeError("plan before start")
        self.frames += 1
        plan = self._answer(frame) if self.settings.lock_step else self._follow(frame)
        self.answered += plan is not None
        return plan

    def _answer(self, frame: SensorFrame) -> Plan | None:
        """Publish a frame and wait for its trajectory."""
        world = self._world
        assert world is not None
        world.advance_clock(frame.stamp_ns)
        world.publish(frame)
        patience_s = self.settings.patience_s
        if world.newest is None:  # it is warming up, and answers nothing
            patience_s = min(patience_s, _WARM_UP_PATIENCE_S)
        if not world.wait_for(lambda: world.trajectory(frame.stamp_ns) is not None, patience_s):
            return None
        message = world.trajectory(frame.stamp_ns)
        assert message is not None
        return sensor_messages.plan_from_message(message)

    def _follow(self, frame: SensorFrame) -> Plan | None:
        """Publish a frame when it is due; return what is left of the newest trajectory."""
        world = self._world
        assert world is not None
        if self._pace is None:
            self._pace = _Pace(world, frame.stamp_ns, self.settings.rate)
        self._pace.reach(frame.stamp_ns)
        self.slow_s = self._pace.slow_s
        message = world.newest
        world.publish(frame)
        if message is None or message is self._used:
            return None
        self._used = message
        if frame.stamp_ns > stamp_to_ns(message.valid_until):
            return None
        self.latency_s.append((frame.stamp_ns - stamp_to_ns(message.header.stamp)) * 1e-9)
        return sensor_messages.plan_from_now(message, frame, ODOMETRY_FRAME)

    def close(self) -> None:
        """Leave ROS 2."""
        if self._pace is not None:
            self._pace.close()
            self._pace = None
        if self._world is not None:
            self._world.__exit__(None, None, None)
            self._world = None


class _Pace:
    """Runs /clock at a steady pace up to the next frame, in a thread of its own.

    Where the world is late (SUMO and the cameras take their time), its clock waits for it rather
    than leap.
    """

    def __init__(self, world: WorldPeer, stamp_ns: int, rate: float) -> None:
        self._world, self._rate = world, rate
        self._frame_ns, self._due_s = stamp_ns, time.monotonic()
        self._lock = threading.Lock()
        self.slow_s = 0.0
        self._ended = threading.Event()
        world.publish_clock(stamp_ns)
        self._thread = threading.Thread(target=self._run, name="world-clock", daemon=True)
        self._thread.start()

    def reach(self, stamp_ns: int) -> None:
        """Wait until a frame is due, and let the clock show its time."""
        due_s = self._due_s + (stamp_ns - self._frame_ns) * 1e-9 / self._rate
        late_s = max(time.monotonic() - due_s, 0.0)
        self.slow_s += late_s
        time.sleep(max(due_s - time.monotonic(), 0.0))
        with self._lock:
            self._due_s, self._frame_ns = due_s + late_s, stamp_ns
            self._show(stamp_ns)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        period_s = CLOCK_STEP_NS * 1e-9 / self._rate
        while not self._ended.wait(period_s):
            with self._lock:
                passed_s = min((time.monotonic() - self._due_s) * self._rate, STEP_S)
                self._show(self._frame_ns + round(passed_s * 1e9))

    def _show(self, stamp_ns: int) -> None:
        if stamp_ns > self._world.clock_ns:
            self._world.publish_clock(stamp_ns)
