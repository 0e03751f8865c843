"""``latentvla replay``: a recording through the real planner and gate, over DDS."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from latentvla_ros.cli.bag_file import BagFile
from latentvla_ros.cli.errors import CommandError, print_error, writing
from latentvla_ros.cli.ros_distro import ros_distro

if TYPE_CHECKING:
    from latentvla_ros.cli.driven_path import DrivenPath
    from latentvla_ros.cli.replay_inputs import ReplayInputs
    from latentvla_ros.contract import CameraModel, LatentActionNames
    from latentvla_ros.nodes.recording import Recording

_EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class ReplaySettings:
    """What ``latentvla replay`` was asked for.

    Attributes:
        bag: recording. rig: rig file, or None for the recording's own.
        bundle: name or folder. backend: of the planner node. threads: likewise, 0 for its default.
        rate: seconds of the recording per second.
        start_s, duration_s: part of the recording; a duration of None plays to its end.
        out: folder for everything written. video: whether to film.
        odometry_topic, command_topic: where the recording has several.
        domain_id: ROS domain; None for one that is unlikely to be in use.
    """

    bag: Path
    out: Path
    rig: str | None = None
    bundle: str = "nano"
    backend: str = "auto"
    threads: int = 0
    rate: float = 1.0
    start_s: float = 0.0
    duration_s: float | None = None
    video: bool = True
    odometry_topic: str | None = None
    command_topic: str | None = None
    domain_id: int | None = None

    def __post_init__(self) -> None:
        if not 0.05 <= self.rate <= 20.0:
            raise CommandError("bad-option", f"--rate {self.rate}", "give a rate from 0.05 to 20")
        if self.start_s < 0 or not np.isfinite(self.start_s):
            raise CommandError("bad-option", f"--start {self.start_s}", "give seconds of 0 or more")
        if self.duration_s is not None and not self.duration_s > 0:
            raise CommandError(
                "bad-option", f"--duration {self.duration_s}", "give seconds above 0"
            )
        if self.domain_id is not None and not 0 <= self.domain_id <= 232:
            raise CommandError("bad-option", f"--domain {self.domain_id}", "give 0 to 232")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latentvla replay``."""
    parser.add_argument("bag", metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument(
        "--rig", metavar="FILE", help="rig file; default: rig.yaml in the bag's folder"
    )
    parser.add_argument("--odometry-topic", metavar="TOPIC", help="where the bag has several")
    parser.add_argument("--command-topic", metavar="TOPIC", help="where the bag has several")
    add_playing_arguments(parser, Path("out/replay"))


def add_playing_arguments(parser: argparse.ArgumentParser, out: Path) -> None:
    """Add the options that ``replay`` and ``demo`` share."""
    parser.add_argument("--bundle", default="nano", help="name or folder (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="onnxruntime, torch or auto (default)")
    parser.add_argument(
        "--threads", type=int, default=0, help="of the backend; 0: all cores but one"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="skip the first S seconds"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="play S seconds")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--no-video", action="store_true", help="table, result.json and page only")
    parser.add_argument("--domain", type=int, metavar="ID", help="ROS domain; default: a free one")


def settings_from(args: argparse.Namespace, bag: Path) -> ReplaySettings:
    """Return the settings of parsed arguments; raises CommandError for values out of range."""
    return ReplaySettings(
        bag=bag,
        out=args.out,
        rig=getattr(args, "rig", None),
        bundle=args.bundle,
        backend=args.backend,
        threads=args.threads,
        rate=args.rate,
        start_s=args.start,
        duration_s=args.duration,
        video=not args.no_video,
        odometry_topic=getattr(args, "odometry_topic", None),
        command_topic=getattr(args, "command_topic", None),
        domain_id=args.domain,
    )


def run(args: argparse.Namespace) -> int:
    """Replay; returns 0, 2 when the input is at fault, 130 when interrupted."""
    return run_guarded(args, Path(args.bag))


def run_guarded(args: argparse.Namespace, bag: Path) -> int:
    """Replay ``bag`` as ``args`` say, with every foreseeable problem in one line."""
    command = "latentvla " + shlex.join(sys.argv[1:])
    try:
        with writing(args.out, "--out DIR"):
            replay(settings_from(args, bag), command)
    except CommandError as error:
        return print_error(error)
    except KeyboardInterrupt:
        print("\nlatentvla: interrupted; the nodes are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def replay(settings: ReplaySettings, command: str) -> dict[str, Any]:
    """Play, score, film and report; returns the contents of ``result.json``.

    Args:
        command: what the user typed, for the report page.

    Raises:
        CommandError: an input or the environment is at fault.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the nodes are stopped by then.
    """
    from latentvla_ros.cli.driven_path import driven_path
    from latentvla_ros.cli.replay_inputs import camera_models, choose_inputs, find_rig
    from latentvla_ros.cli.replay_streams import stamp_shift_ns
    from latentvla_ros.cli.replay_summary import (
        format_table,
        latent_action_rows,
        latent_actions,
        summarise,
        table_rows,
    )
    from latentvla_ros.cli.report import write_report
    from latentvla_ros.contract import ContractError
    from latentvla_ros.runtime.bundle import load_bundle

    try:
        bundle = load_bundle(settings.bundle)
    except ContractError as error:
        raise CommandError(
            "bad-bundle",
            str(error),
            "copy or export that bundle again, or give --bundle a shipped name or another folder",
        ) from None
    with BagFile(settings.bag) as bag:
        start_ns, end_ns = played_part(bag, settings)
        rig, rig_path = find_rig(bag, settings.rig)
        inputs = choose_inputs(
            bag, rig, rig_path, bundle.manifest, settings.odometry_topic, settings.command_topic
        )
        path = driven_path((bag.decode(m) for m in bag.messages([inputs.odometry])), rig)
        for slot in inputs.absent:
            print(f"camera {slot!r} is optional and absent", file=sys.stderr)
        _make_folder(settings.out)
        shift_ns = stamp_shift_ns(bag, inputs)
        recording = play(bag, inputs, settings, str(bundle.path), start_ns, end_ns, shift_ns)
        part = _part(path, start_ns + shift_ns, end_ns + shift_ns)
        result = summarise(recording, part, inputs.cameras[0].topic, settings.rate)
        names = bundle.manifest.latent_action_names
        said = latent_actions(recording.plans, names)
        result |= {
            "bag": str(settings.bag),
            "bundle_id": bundle.manifest.bundle_id,
            "ros_distro": ros_distro(),
            "start_s": settings.start_s,
            "duration_s": round((end_ns - start_ns) * 1e-9, 3),
            "command": command,
            **({"latent_actions": said} if said else {}),
        }
        said_rows = [
            (f"latent actions of the last plan, {time}", words)
            for time, words in latent_action_rows(result)
        ]
        print(format_table([*table_rows(result), *said_rows]), flush=True)
        save_plans(recording, settings.out / "plans.npz")
        video = None
        if settings.video:
            started = time.monotonic()
            models = camera_models(bag, list(inputs.cameras))
            video = _film(
                bag,
                inputs,
                models,
                recording,
                path,
                settings,
                start_ns,
                end_ns,
                result["bundle_id"],
                names,
            )
            result["video"] = video.name
            result["video_s"] = round(time.monotonic() - started, 2)
        _write_json(settings.out / "result.json", result)
        page = write_report(settings.out, result, recording, part, video, command)
    print(
        "\nwritten: "
        + ", ".join(
            str(file) for file in (video, page, settings.out / "result.json") if file is not None
        )
    )
    for name, code in recording.exit_codes.items():
        if code not in (0, None):
            print(
                f"warning: {name} ended with {code}; see {settings.out}/{name}.log", file=sys.stderr
            )
    if not recording.plans:
        raise CommandError("no-plans", _why_no_plans(result), f"see {settings.out}/planner.log")
    return result


def played_part(bag: BagFile, settings: ReplaySettings) -> tuple[int, int]:
    """Return the first and the end (exclusive) time of recording to play, ns."""
    start_ns = bag.start_ns + round(settings.start_s * 1e9)
    end_ns = bag.end_ns
    if settings.duration_s is not None:
        end_ns = min(end_ns, start_ns + round(settings.duration_s * 1e9))
    if start_ns >= bag.end_ns:
        raise CommandError(
            "nothing-to-play",
            f"--start {settings.start_s:g} is at or after the end of {bag.path}",
            f"give less than its {bag.duration_s:.1f} s",
        )
    return start_ns, end_ns


def play(
    bag: BagFile,
    inputs: ReplayInputs,
    settings: ReplaySettings,
    bundle: str,
    start_ns: int,
    end_ns: int,
    shift_ns: int,
) -> Recording:
    """Start planner and gate, play the bag to them, stop them; return what they said."""
    from latentvla_ros.cli.replay_session import NodeSettings, ReplaySession
    from latentvla_ros.cli.replay_streams import opened, streams_of, timed_messages

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="latentvla-") as folder:
        nodes = NodeSettings(
            bundle=bundle,
            rig=str(inputs.rig_path.resolve()),
            remaps=tuple(inputs.remaps()),
            parameters={
                "backend": settings.backend,
                "threads": str(settings.threads),
                "command_source": "topic" if inputs.command or not inputs.route else "route",
                # Status holds the stages of the newest plan alone: often enough to see nearly all.
                "diagnostics_period_s": "0.1",
                "command_timeout_s": str(_command_timeout_s(bag, inputs)),
            },
            simulated_time=True,
            log_folder=settings.out,
            ros_log_folder=Path(folder),
            domain_id=settings.domain_id,
        )
        print(
            f"replaying {settings.bag}: {(end_ns - start_ns) * 1e-9:.1f} s at {settings.rate:g}x, "
            f"{len(inputs.cameras)} cameras, bundle {Path(bundle).name}",
            flush=True,
        )
        with ReplaySession(nodes, streams_of(inputs)) as session:
            messages = opened(timed_messages(bag, inputs, start_ns, end_ns, shift_ns))
            session.get_ready(start_ns + shift_ns)
            bar = _Progress((end_ns - start_ns) * 1e-9)
            session.play(messages, start_ns + shift_ns, settings.rate, bar)
            bar.close()
            session.settle(settings.rate)
            return session.finish()


def save_plans(recording: Recording, path: Path) -> None:
    """Write the plans as arrays, one row a plan.

    ``knots`` (P, 8, 3) are in the ego frame of t0, ``points`` (P, 41, 3) in the odometry frame.
    """
    plans = recording.plans
    np.savez_compressed(
        path,
        stamps_ns=np.asarray([p.stamp_ns for p in plans], np.int64),
        sequence=np.asarray([p.sequence for p in plans], np.int64),
        pose=np.asarray([p.pose for p in plans]).reshape(-1, 3),
        knots=np.asarray([p.knots for p in plans]).reshape(-1, 8, 3),
        points=np.asarray([p.points for p in plans]).reshape(-1, 41, 3),
        speeds=np.asarray([p.speeds for p in plans]).reshape(-1, 41),
        latency_s=np.asarray([p.latency_s for p in plans]),
        latent_actions=np.asarray([p.latent_actions for p in plans], np.int64).reshape(-1, 12),
        latent_probabilities=np.asarray([p.latent_probabilities for p in plans]).reshape(-1, 12),
    )


def _film(
    bag: BagFile,
    inputs: ReplayInputs,
    models: Mapping[str, CameraModel],
    recording: Recording,
    path: DrivenPath,
    settings: ReplaySettings,
    start_ns: int,
    end_ns: int,
    bundle_id: str,
    names: LatentActionNames | None,
) -> Path:
    from latentvla_ros.cli.film import FilmSource, command_changes, film, frame_rate_hz
    from latentvla_ros.cli.video import write_video

    commands = command_changes(recording.statuses, bag, inputs)
    source = FilmSource(bag, inputs, models, recording.plans, commands, path, start_ns, end_ns)
    reference = [
        message.stamp_ns for message in bag.messages([inputs.cameras[0].topic], start_ns, end_ns)
    ]
    rate_hz = frame_rate_hz(np.asarray(reference, np.int64))
    return write_video(film(source, bundle_id, names), settings.out / "replay", rate_hz)


class _Progress:
    """A line that says how far the play is; silent where the output is not a terminal."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._shown = sys.stdout.isatty()

    def __call__(self, played_s: float, plans: int) -> None:
        if self._shown:
            words = f"  {played_s:6.1f} / {self._total_s:.1f} s   {plans} plans"
            print(f"\r{words}", end="", flush=True)

    def close(self) -> None:
        if self._shown:
            print("\r" + " " * 48 + "\r", end="", flush=True)


def _command_timeout_s(bag: BagFile, inputs: ReplayInputs) -> float:
    """Return the node's own limit, or 0 (none) where only changes were recorded."""
    topic = inputs.command or inputs.route
    if topic is None:
        return 2.0
    seldom = bag.topics[topic].count < bag.duration_s
    return 0.0 if seldom else 2.0


def _part(path: DrivenPath, start_ns: int, end_ns: int) -> DrivenPath:
    """Return the driven path from the start of the play to 4 s after its end."""
    keep = (path.stamps_ns >= start_ns) & (path.stamps_ns <= end_ns + 4_000_000_000)
    return replace(
        path, stamps_ns=path.stamps_ns[keep], poses=path.poses[keep], twists=path.twists[keep]
    )


def _why_no_plans(result: dict[str, Any]) -> str:
    drops = ", ".join(f"{cause} {count}" for cause, count in result["drops"].items() if count)
    cause = result["first_fault"] or result["health"]
    return f"{result['frames']} frames made no plan ({cause}{'; drops: ' + drops if drops else ''})"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            "bad-output-folder", f"{folder}: {error.strerror}", "give another --out DIR"
        ) from None


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into what Ctrl-C does, so that the nodes are stopped."""
    raise KeyboardInterrupt
