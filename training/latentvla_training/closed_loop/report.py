"""The closed loop's results for people."""

from __future__ import annotations

from typing import Any

from latentvla_training.closed_loop.benchmark import DriveResult

_SHORT = {
    "collision_pedestrian": "pedestrian",
    "collision_vehicle": "vehicle",
    "collision_static": "static",
    "red_light": "red light",
    "off_road": "off road",
    "route_deviation": "left route",
    "vehicle_blocked": "blocked",
    "route_timeout": "time-out",
}


def print_table(result: DriveResult, title: str) -> None:
    """Print every route and the summary."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.width = max(console.width, 132)  # also where the output is a file
    table = Table(title=title)
    for name in ("route", "weather", "events"):
        table.add_column(name)
    for name in ("score", "completion %", "s", "m/s"):
        table.add_column(name, justify="right")
    table.add_column("what happened")
    for row in result.rows:
        table.add_row(
            row["name"],
            row["weather"],
            ", ".join(row["events"]),
            f"{row['driving_score']:.1f}",
            f"{row['completion']:.0f}",
            f"{row['seconds']:.1f}",
            f"{row['mean_speed']:.1f}",
            ", ".join(
                f"{number} {_SHORT[kind]}" for kind, number in row["infractions"].items() if number
            ),
        )
    console.print(table)
    for route, why in result.skipped.items():
        console.print(f"skipped: {route}: {why}")
    summary = result.summary
    if not result.rows:
        console.print("no route could be driven")
        return
    console.print(
        f"{summary['routes']} routes of {summary['networks']} networks: "
        f"driving score {_figure(summary['driving_score'], 1)}, "
        f"success {_figure(summary['success_rate'], 2)}, "
        f"completion {_figure(summary['completion'], 1)} %, "
        f"smooth {_figure(summary['smoothness'], 2)}, "
        f"{_figure(summary['mean_speed'], 1)} m/s (95 % intervals by network)"
    )
    if early := summary["event_before_takeover"]:
        console.print(f"on {early} of them the long-tail event began before the take-over")


def _figure(value: dict[str, Any], digits: int) -> str:
    if value["value"] is None:
        return "-"
    low, high = value["ci"]
    return f"{value['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
