"""Tables of what is not about driving: gates of the world, light probe, runtime, score checks."""

from __future__ import annotations

from collections.abc import Sequence

from latentvla_training.report import markdown as md
from latentvla_training.report.result_files import Kind, ResultFile, Results

#: Scenes that fail a gate and are named here; the file has all.
_MOST_FAILURES = 60
BACKEND_GOAL_MS, NODE_GOAL_MS = 40.0, 12.0


def _title(file: ResultFile) -> str:
    return f"`{file.name}`" + (f" {md.DAGGER}" if file.stale else "")


def gates_section(results: Results) -> str:
    """Return the expert against the gates of the world."""
    parts = ["## Gates of the world: the driven expert"]
    files = results.of(Kind.GATES)
    if not files:
        how = "`latentvla-train world gates --split test --json docs/results/gates_test.json`"
        return "\n\n".join([*parts, f"No result yet. {how}"])
    parts.append(
        md.code(
            *(
                f"latentvla-train world gates --split {file.split} --json docs/results/{file.name}"
                for file in files
            )
        )
    )
    for file in files:
        parts += _gates(file)
    return "\n\n".join(parts)


def _gates(file: ResultFile) -> list[str]:
    found = file.document
    means = found["means"]
    checks = [
        f"{name} {md.number(means['all'][name], 2, 100.0)} % (gate {md.number(least, 1, 100.0)} %, "
        f"{'missed' if name in found['missed'] else 'passed'})"
        for name, least in found["gates"].items()
    ]
    columns = [name for name in means["all"] if name != "scenes"]
    titles = ["scores 0" if name == "zero" else name for name in columns]
    body = [
        [tag, f"{values['scenes']:.0f}", *(md.number(values[name], 1, 100.0) for name in columns)]
        for tag, values in means.items()
    ]
    failures = found["failures"]
    named = [f"{entry['token']} ({'+'.join(entry['lost'])})" for entry in failures[:_MOST_FAILURES]]
    more = len(failures) - len(named)
    return [
        f"{_title(file)}, {found['scenes']} scenes of `{file.split}`, the driven path followed by "
        f"NAVSIM's tracker: {'; '.join(checks)}.",
        md.table(["%, by tag", "scenes", *titles], body),
        f"{len(failures)} scenes lose a gated sub-score"
        + (f": {', '.join(named)}" if named else "")
        + (f", and {more} more in the file." if more else "."),
    ]


def light_section(results: Results) -> str:
    """Return the linear probe of the own lane's light."""
    parts = ["## Can the trunk see the own lane's light?"]
    files = results.of(Kind.LIGHT_PROBE)
    if not files:
        how = "`latentvla-train probe-lights --bundle nano --json docs/results/lights.json`"
        return "\n\n".join([*parts, f"No result yet. {how}"])
    for file in files:
        found = file.document
        parts.append(md.code(f"latentvla-train probe-lights --json docs/results/{file.name}"))
        gate = "passed" if found.get("passed") else "missed"
        parts.append(
            f"{_title(file)}: {md.number(found['accuracy'], 1, 100.0)} % of {found.get('scenes')} "
            f"scenes at 40 m or less (gate 90 %, {gate}); "
            f"{found.get('outside_view', 0)} lights within range were outside the view; fitted on "
            f"{found.get('train_scenes')} scenes of training networks."
        )
        for entry in ("bins", "states"):
            rows = {name: values for name, values in found[entry].items() if values}
            body = [
                ["accuracy %", *(md.number(v.get("accuracy"), 1, 100.0) for v in rows.values())],
                ["scenes", *(str(values.get("scenes")) for values in rows.values())],
            ]
            parts.append(md.table(["", *rows], body))
    return "\n\n".join(parts)


def runtime_section(results: Results) -> str:
    """Return CPU time, rates and the six-camera test of ``latentvla bench``."""
    parts = ["## Runtime"]
    files = results.of(Kind.BENCH)
    if not files:
        how = "`latentvla bench --bundle nano --json docs/results/bench.json`"
        return "\n\n".join([*parts, f"No result yet. {how}"])
    parts.append(
        md.code(*(f"latentvla bench --bundle nano --json docs/results/{f.name}" for f in files))
    )
    parts.append(
        f"CPU time per plan: backend alone on one thread (goal {BACKEND_GOAL_MS:.0f} ms), whole "
        f"node process with DDS threads (goal: at most {NODE_GOAL_MS:.0f} ms more). "
        f"{_machines(files)}"
    )
    headers = ["", "backend", "node", "node minus backend", "goals"]
    parts.append(md.table(headers, [_cpu_row(file) for file in files]))
    parts.append(_rates(files))
    parts.append(_six_cameras(files))
    return "\n\n".join(part for part in parts if part)


def _machines(files: Sequence[ResultFile]) -> str:
    machines = {str((file.document.get("machine") or {}).get("cores", "unknown")) for file in files}
    return f"Cores of the machine: {', '.join(sorted(machines))}."


def _cpu_row(file: ResultFile) -> list[str]:
    found = file.document
    backend, more = found["backend_cpu_ms"], found.get("node_minus_backend_ms")
    missed = [] if backend <= BACKEND_GOAL_MS else ["backend"]
    if more is not None and more > NODE_GOAL_MS:
        missed.append("node")
    bag = f", {found['bag']}" if "bag" in found else ""
    return [
        _title(file) + bag,
        f"{md.number(backend)} ms",
        f"{md.number(found['node_cpu_ms'])} ms",
        f"{md.number(more)} ms",
        f"missed: {', '.join(missed)}" if missed else "met",
    ]


def _rates(files: Sequence[ResultFile]) -> str:
    body = []
    for file in files:
        for row in file.document["rates"]:
            age = row.get("age_ms") or {}
            drops = ", ".join(
                f"{count} {reason.replace('_', ' ')}"
                for reason, count in (row.get("drops") or {}).items()
            )
            body.append(
                [
                    f"{_title(file)}, cameras at {row['input_rate_hz']:.0f} Hz",
                    md.number(row.get("plan_rate_hz")),
                    " / ".join(md.number(age.get(name), 0) for name in ("p50", "p99", "max")),
                    md.number(row.get("age_bound_ms"), 0),
                    drops or "none",
                ]
            )
    headers = ["", "plans/s", "age p50 / p99 / max, ms", "bound, ms", "frames dropped"]
    return md.table(headers, body) if body else ""


def _six_cameras(files: Sequence[ResultFile]) -> str:
    body = []
    for file in files:
        for row in file.document.get("cameras") or []:
            sent, received = row["sent"], row["received"]
            body.append(
                [
                    f"{_title(file)}: {row['arrangement']}",
                    " ".join(str(received[name]) for name in received),
                    str(max(sent.values())),
                    ", ".join(row["starving"]) or "none",
                ]
            )
    if not body:
        return ""
    headers = ["publisher of six cameras", "received", "sent each", "named as starving"]
    return "A six-slot bundle of random weights, all cameras at once:\n\n" + md.table(headers, body)


def scores_section(results: Results) -> str:
    """Return the comparison with NAVSIM's own scorer, and the speed."""
    parts = ["## Scores against NAVSIM's own"]
    for file in results.of(Kind.SCORE_VECTORS):
        found = file.document
        parts.append(
            f"{_title(file)} (`latentvla-train score-vectors`): {found['cases']} cases, "
            f"{found['discrete_mismatches']} discrete mismatches, states within "
            f"{found.get('max_abs_state', float('nan')):.1g}, scores within "
            f"{found.get('max_abs_score', float('nan')):.1g}."
        )
    for file in results.of(Kind.BENCH_SCORING):
        found = file.document
        text = (
            f"{_title(file)} (`latentvla-train bench-scoring`): 256 plans on one scene in "
            f"{md.number(found['v1_ms_256'])} ms (v1) and {md.number(found['v2_ms_256'])} ms (v2) "
            "of CPU on one core"
        )
        if "v1_speedup" in found:
            text += (
                f", {md.number(found['v1_speedup'], 0)} and "
                f"{md.number(found['v2_speedup'], 0)} times faster than NAVSIM"
            )
        batch = found.get("batch_64x64_ms")
        parts.append(f"{text}; 64 scenes x 64 plans in {md.number(batch, 0)} ms.")
    if len(parts) == 1:
        parts.append("No result yet. `latentvla-train score-vectors FILE.npz --json F`")
    return "\n\n".join(parts)
