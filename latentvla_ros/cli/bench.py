"""``latentvla bench``: processor time per plan, plan rates, and what the transport delivers."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentvla_ros.cli.errors import CommandError, print_error, writing
from latentvla_ros.data import data_path

if TYPE_CHECKING:
    from latentvla_ros.cli.bench_cameras import CameraCounts
    from latentvla_ros.cli.bench_node import NodeTimes

_SWEEP = (1, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``latentvla bench``."""
    parser.add_argument("--bundle", default="nano", help="name or folder (default: %(default)s)")
    parser.add_argument("--backend", default="onnxruntime", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of the backend (default: 1)")
    parser.add_argument("--bag", type=Path, help="recording to play; default: the shipped one")
    parser.add_argument("--rig", metavar="FILE", help="rig file; default: rig.yaml of the bag")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each play (default: 20)")
    parser.add_argument("--plans", type=int, default=100, help="backend calls (default: 100)")
    parser.add_argument(
        "--rate-sweep", action="store_true", help="the plan rate at 10 Hz and 30 Hz input too"
    )
    parser.add_argument(
        "--six-cameras", metavar="BUNDLE", help="count 1600x900 pictures with this bundle's cameras"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns 0, or 2 when an input is at fault."""
    from latentvla_ros.contract import ContractError
    from latentvla_ros.runtime.bundle import BundleError

    try:
        result = bench(args)
        if args.json is not None:
            with writing(args.json, "--json FILE"):
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except CommandError as error:
        return print_error(error)
    except BundleError as error:
        return print_error(
            CommandError("bad-bundle", str(error), "copy or export it again, or give another")
        )
    except ContractError as error:
        return print_error(CommandError("bad-input", str(error), f"correct {error.field}"))
    return 0


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Run what ``args`` ask for, print it and return it for JSON."""
    from latentvla_ros.cli.bag_file import BagFile
    from latentvla_ros.cli.bench_backend import bench_backend
    from latentvla_ros.cli.bench_node import bench_node
    from latentvla_ros.cli.replay_inputs import choose_inputs, find_rig
    from latentvla_ros.runtime.bundle import load_bundle

    if args.threads < 1 or args.plans < 1 or not args.seconds >= 3.0:
        raise CommandError(
            "bad-option",
            f"--threads {args.threads} --plans {args.plans} --seconds {args.seconds:g}",
            "give threads and plans of 1 or more, and 3 seconds or more",
        )
    bundle = load_bundle(args.bundle)
    with BagFile(args.bag or data_path("demo_bag")) as bag:
        rig, rig_path = find_rig(bag, args.rig)
        inputs = choose_inputs(bag, rig, rig_path, bundle.manifest)
        alone = bench_backend(bag, inputs, bundle, args.backend, args.threads, args.plans)
        print(
            f"backend {alone.backend}, {alone.threads} thread(s), {alone.plans} plans: "
            f"{alone.cpu_mean_ms:.1f} ms CPU a plan (median {alone.cpu_median_ms:.1f})",
            flush=True,
        )
        rows = []
        for repeat in _SWEEP if args.rate_sweep else (1,):
            row = bench_node(
                bag, inputs, str(bundle.path), args.backend, args.threads, args.seconds, repeat
            )
            rows.append(row)
            _print_node(row)
    node = rows[0]
    result: dict[str, Any] = {
        "backend_cpu_ms": alone.cpu_mean_ms,
        "node_cpu_ms": node.cpu_ms,
        "node_minus_backend_ms": None if node.cpu_ms is None else node.cpu_ms - alone.cpu_mean_ms,
        "stages": {name: (values or {}).get("p50") for name, values in node.stages_ms.items()},
        "unit": "ms; CPU is user + system time of all threads a published plan, DDS's and the idle "
        "cost included; stages are medians of steady time",
        "bundle_id": bundle.manifest.bundle_id,
        "bundle_sha256": bundle.content_sha256,
        "bag": Path(args.bag or data_path("demo_bag")).name,
        "backend": asdict(alone),
        "rates": [row.document() for row in rows],
        "machine": {"cores": os.cpu_count(), "load_average": list(os.getloadavg())},
    }
    if node.cpu_ms is not None:
        print(f"node minus backend: {node.cpu_ms - alone.cpu_mean_ms:.1f} ms CPU a plan")
    if args.six_cameras:
        result["cameras"] = [row.document() for row in _six_cameras(args)]
    return result


def _six_cameras(args: argparse.Namespace) -> Sequence[CameraCounts]:
    from latentvla_ros.cli.bench_cameras import bench_cameras
    from latentvla_ros.runtime.bundle import load_bundle

    bundle = load_bundle(args.six_cameras)
    rows = bench_cameras(str(bundle.path), bundle.manifest, args.backend, min(args.seconds, 8.0))
    for row in rows:
        counts = " / ".join(f"{slot} {row.received[slot]}" for slot in row.received)
        print(f"{row.arrangement}: received of {max(row.sent.values())}: {counts}")
        if row.starving:
            print(f"  called starving by the planner: {', '.join(row.starving)}")
    return rows


def _print_node(row: NodeTimes) -> None:
    age = row.age_ms
    print(
        f"node at {row.input_rate_hz:.0f} Hz: {row.frames} frames, {row.plans} plans, "
        f"{row.plan_rate_hz:.1f} plans/s, "
        f"{'no plan' if row.cpu_ms is None else f'{row.cpu_ms:.1f} ms CPU a plan'}"
    )
    if age is not None:
        bound = f", bound {row.age_bound_ms:.0f}" if row.age_bound_ms is not None else ""
        print(
            f"  age p50 / p99 / max {age['p50']:.1f} / {age['p99']:.1f} / {age['max']:.1f} ms"
            f"{bound}"
        )
    drops = ", ".join(f"{cause} {count}" for cause, count in row.drops.items() if count)
    print(f"  drops: {drops or 'none'}", flush=True)
