"""Contenders in the closed loop: who of a comparison was driven, pooled over seeds, by split."""

from __future__ import annotations

from collections.abc import Iterable

from latentvla_training.distill.settings import CONTENDERS, STUDENT, TEACHER
from latentvla_training.distill.tables import title
from latentvla_training.planner.contenders import HOST
from latentvla_training.report import markdown as md
from latentvla_training.report.pooling import SplitResults, route_estimate
from latentvla_training.report.result_files import Kind, ResultFile, Results
from latentvla_training.report.route_pooling import mean_routes, pool_routes

#: Those whose weights hang on the teacher; the same host or free queries serve several teachers.
_HEAR = (TEACHER, STUDENT)
_HEADERS = (
    "closed loop", "routes", "networks", "driving score", "success %", "completion %",
    "driving score minus host", "success % minus host",
)  # fmt: skip


def drive_tables(comparison: ResultFile, split: str, results: Results) -> list[str]:
    """Return the closed loop of a comparison on a split: commands, table, and what is left out.

    Nothing where none of its contenders was driven there. Pooled are drives of its host, recipe,
    codebook and teacher, every seed once, fresh ones where there are any.
    """
    driven = results.of(Kind.DISTILL_DRIVE, split)
    pooled, left_out = pool_routes([f for f in driven if not _other(f, comparison)], None)
    if not pooled:
        return []
    files = [file for chosen in pooled.values() for file in chosen]
    routes = {row: mean_routes(chosen) for row, chosen in pooled.items()}
    found = SplitResults(split, routes=routes, route_files=pooled)
    rows = [_cells(found, row) for row in CONTENDERS if row in routes]
    rows += [_cells(found, row) for row in routes if row not in CONTENDERS]
    seeds = {
        row: ", ".join(str(file.identity.get("seed")) for file in chosen)
        for row, chosen in pooled.items()
    }
    of = next(iter(seeds.values()))
    if len(set(seeds.values())) > 1:
        of = "; ".join(f"{title(row)} {numbers}" for row, numbers in seeds.items())
    return [
        f"Driven in the closed loop (Bench2Drive's score), seeds of the runs: {of}. In brackets "
        "the 95 % interval, bootstrapped by network; differences are paired on the same routes.",
        md.code(*(_command(file) for file in files)),
        md.table(_HEADERS, rows),
        *(f"Skipped: {name}: {why}." for name, why in _skipped(files).items()),
        *(f"Not pooled: `{name}` ({why})." for name, why in left_out.items()),
    ]


def drives_of_nothing(results: Results) -> list[str]:
    """Return a line for every drive that stands in no table, with the reason."""
    comparisons = results.of(Kind.DISTILL)
    lines = []
    for file in results.of(Kind.DISTILL_DRIVE):
        reasons = [
            f"`{other.name}`: {_other(file, other) or f'no {file.split}'}"
            for other in comparisons
            if _other(file, other) or file.split not in other.document["splits"]
        ]
        if len(reasons) == len(comparisons):
            why = f" ({'; '.join(reasons)})" if reasons else ""
            lines.append(f"Of no comparison here: `{file.name}`{why}.")
    return lines


def _other(file: ResultFile, comparison: ResultFile) -> str:
    """Return in words what a drive is of that a comparison is not, "" where it belongs to it."""
    found, wanted = file.identity, comparison.document
    pairs = {
        "host": (found["host"], comparison.identity["host"]),
        "codebook": (found["codebook"], wanted["codebook"]),
        "recipe": (found["recipe"], wanted["distilled"]),
    }
    if file.document["contender"] in _HEAR:
        pairs["teacher"] = (found["teacher"], wanted["teacher"])
    return ", ".join(f"{name} {a}, not {b}" for name, (a, b) in pairs.items() if a != b)


def _cells(found: SplitResults, row: str) -> list[str]:
    routes, host = found.routes[row], found.routes.get(HOST, {})
    stale = any(file.stale for file in found.route_files[row])
    cells = [
        md.figure(found.driven(row, name), 1, factor, found.driven_spread(row, name))
        for name, factor in (("driving_score", 1.0), ("success", 100.0), ("completion", 1.0))
    ]
    gains = [
        md.NONE if row == HOST else md.difference(route_estimate([routes, host], name), 1, factor)
        for name, factor in (("driving_score", 1.0), ("success", 100.0))
    ]
    networks = {route["network"] for route in routes.values()}
    name = title(row) + (f" {md.DAGGER}" if stale else "")
    return [name, str(len(routes)), str(len(networks)), *cells, *gains]


def _skipped(files: Iterable[ResultFile]) -> dict[str, str]:
    """Return why routes were not driven, by name."""
    return {
        name: why for file in files for name, why in (file.document.get("skipped") or {}).items()
    }


def _command(file: ResultFile) -> str:
    found, identity = file.document, file.identity
    asked = {name: given for name, given in found["asked"].items() if given}
    host = "".join(f" --{name.replace('_', '-')} {given}" for name, given in asked.items())
    teacher = found["teacher_run"] or '""'
    count = len(found["routes"]) + len(found.get("skipped") or {})
    return (
        f"latentvla-train distill drive --recipe {identity['recipe']}{host} --teacher {teacher} "
        f"--codes data/codes/{identity['codebook']} --contenders {found['contender']} "
        f"--seeds {identity.get('seed')} --split {found['split']} --routes {count} "
        f"--json docs/results/{file.name}"
    )
