"""``latentvla``: dispatches to one module per subcommand, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from latentvla_ros import __version__

#: Subcommand: (module with ``add_arguments(parser)`` and ``run(args) -> int``, one line of help).
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("latentvla_ros.cli.doctor", "check this machine, name what it lacks and the remedy"),
    "inspect": ("latentvla_ros.cli.inspect", "say what is in a bundle, bag or rig file; check it"),
    "replay": ("latentvla_ros.cli.replay", "play a bag through the planner and the gate over DDS"),
    "demo": ("latentvla_ros.cli.demo", "replay the shipped bag and draw what was planned"),
    "bench": ("latentvla_ros.cli.bench", "measure the CPU time of a plan"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    parser = argparse.ArgumentParser(prog="latentvla", description="LatentVLA for ROS 2")
    parser.add_argument("--version", action="version", version=f"latentvla {__version__}")
    names = "\n".join(f"  {name:10s}{line}" for name, (_, line) in COMMANDS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"commands:\n{names}"
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)

    module_name, line = COMMANDS[args.command]
    module = importlib.import_module(module_name)
    sub = argparse.ArgumentParser(prog=f"latentvla {args.command}", description=line)
    module.add_arguments(sub)
    return int(module.run(sub.parse_args(args.arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main())
