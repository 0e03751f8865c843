"""The built-in world as a live ROS 2 peer: any stack that publishes trajectories drives in it.

    python -m latentvla_training.ros.world_node test-0004-00

publishes /clock, the cameras (CompressedImage and CameraInfo, config/rig/world.yaml), odometry and
the driving command; SUMO's traffic reacts to the ego, which follows latentvla_msgs/Trajectory from
``--trajectory-topic``. Start the stack with use_sim_time. The expert drives the first two seconds.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from latentvla_ros.contract import ContractError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    found = argparse.ArgumentParser(
        prog="python -m latentvla_training.ros.world_node",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("episode", help="NETWORK-NN, e.g. test-0004-00: network, route and traffic")
    found.add_argument(
        "--lock-step",
        action="store_true",
        help="time stands still until the trajectory of a frame has come; otherwise real time",
    )
    found.add_argument("--rate", type=float, default=1.0, help="times real time (default 1)")
    found.add_argument(
        "--trajectory-topic",
        default="/gate/output/trajectory",
        metavar="TOPIC",
        help="latentvla_msgs/Trajectory to follow (default: %(default)s)",
    )
    found.add_argument(
        "--patience", type=float, default=2.0, metavar="S",
        help="in lock-step: wait so long for a trajectory (default 2)",
    )  # fmt: skip
    found.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="for the stack at the start"
    )
    found.add_argument("--timeout", type=float, default=120.0, metavar="S", help="of the route")
    found.add_argument("--domain", type=int, metavar="ID", help="ROS domain")
    found.add_argument("--video", type=Path, metavar="FILE", help="film of the drive (MP4)")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Play one route; returns 0, 2 when an argument or the stack is at fault, 130 on Ctrl-C."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _play(args)
    except (ContractError, OSError) as error:
        print("world_node: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("world_node: interrupted", file=sys.stderr)
        return 130


def _play(args: argparse.Namespace) -> int:
    import numpy as np

    from latentvla_training.ros.requirements import require_ros

    require_ros()
    from latentvla_training.closed_loop.benchmark import row_of
    from latentvla_training.closed_loop.routes import RouteSettings, drive_route
    from latentvla_training.ros.live_driver import LiveDriver, LiveSettings
    from latentvla_training.world.rig import default_rig
    from latentvla_training.world.session import episode_seed

    episode_seed(args.episode)  # a name that is none is said before anybody waits for a stack
    driver = LiveDriver(
        LiveSettings(
            trajectory_topic=args.trajectory_topic,
            lock_step=args.lock_step,
            rate=args.rate,
            patience_s=args.patience,
            match_s=args.wait,
            domain_id=args.domain,
        ),
        say=lambda words: print(words, flush=True),
    )
    try:
        driven = drive_route(
            args.episode,
            driver,
            default_rig(),
            RouteSettings(timeout_s=args.timeout),
            keep_plans=args.video is not None,
        )
    finally:
        driver.close()
    row = row_of(driven)
    events = ", ".join(f"{kind} {count}" for kind, count in row["infractions"].items() if count)
    print(
        f"{row['name']}: {row['status']}, {row['completion']:.0f} % of {row['route_m']:.0f} m in "
        f"{row['seconds']:.1f} s, driving score {row['driving_score']:.1f}; "
        f"infractions: {events or 'none'}"
    )
    print(
        f"{driver.answered} of {driver.frames} frames had a new trajectory"
        + (f", {1e3 * float(np.median(driver.latency_s)):.0f} ms old" if driver.latency_s else "")
        + (f"; the world was {driver.slow_s:.1f} s late" if driver.slow_s > 0.5 else "")
    )
    if args.video is not None:
        from latentvla_training.closed_loop.film import film_route

        film_route(driven, args.video)
        print(args.video)
    if args.json is not None:
        row |= {"frames": driver.frames, "answered": driver.answered}
        args.json.write_text(json.dumps(row, indent=1) + "\n")
    return 0


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
