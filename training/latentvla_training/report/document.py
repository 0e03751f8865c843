"""Writes ``docs/results.md`` from a folder of result files, and the figure beside it.

The same files and the same checkout give the same text. What has no number in a file does not
appear, but for ``notes.md`` in the folder of results, which is included as it is, after a sentence
that names the stale comparisons it may quote.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.report import markdown as md
from latentvla_training.report.distill_figure import draw_distill_figure
from latentvla_training.report.distill_tables import distill_section, main_file
from latentvla_training.report.figure import draw_figure
from latentvla_training.report.machine_tables import (
    gates_section,
    light_section,
    runtime_section,
    scores_section,
)
from latentvla_training.report.oracle_tables import oracle_section
from latentvla_training.report.pooling import SplitResults, split_results
from latentvla_training.report.present import Present, here
from latentvla_training.report.result_files import Kind, Results, check_folder, read_results
from latentvla_training.report.split_tables import split_section
from latentvla_training.report.teacher_tables import teacher_section
from latentvla_training.report.verdict import summary, where_cameras_do_not_help

SPLITS = ("test", "longtail", "ood")
NOTES = "notes.md"
#: The figure of the comparison with a teacher, beside the report.
DISTILL_PICTURE = "latentvla.png"


def write_report(folder: Path, out: Path, present: Present | None = None) -> Results:
    """Write the report and its figures.

    Args:
        folder: of the result files and of ``notes.md``.
        out: Markdown file; a figure is beside it under the same stem, and ``DISTILL_PICTURE``.
        present: what staleness is told by; by default this checkout.

    Returns:
        the files that were read, and those that were refused with the reason.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: the report cannot be written.
    """
    check_folder(folder)
    present = here() if present is None else present
    results = read_results(folder, present)
    splits = [split_results(results, name, present.bundle_sha256) for name in SPLITS]
    picture = out.with_suffix(".png")
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_figure(splits, picture)
    distilled = out.with_name(DISTILL_PICTURE)
    compared = draw_distill_figure(main_file(results), distilled)
    text = document(
        results,
        splits,
        present,
        os.path.relpath(folder, out.parent),
        _notes(folder),
        picture.name if drawn else None,
        distilled.name if compared else None,
    )
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return results


def _notes(folder: Path) -> str:
    path = folder / NOTES
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise ContractError(str(path), str(error), "UTF-8 text") from error


def document(
    results: Results,
    splits: Sequence[SplitResults],
    present: Present,
    folder: str,
    notes: str = "",
    picture: str | None = None,
    distilled: str | None = None,
) -> str:
    """Return the whole report as Markdown.

    Args:
        folder: of the result files, as seen from the page. picture, distilled: its figures' names.
    """
    parts = [
        "# Results",
        f"Written by `latentvla-train report` from the files in `{folder}`; not edited by hand. "
        f"A row marked {md.DAGGER} is stale: it was made with something that has changed since, "
        "named in the last section.",
    ]
    lines = summary(splits)
    if lines:
        parts += [f"nano minus the rows without cameras, over all scenes:\n\n{lines}"]
    if picture is not None:
        parts.append(f"![Scores by row, and what images add by tag]({picture})")
    parts += [split_section(found) for found in splits]
    parts.append(where_cameras_do_not_help(splits))
    parts += [
        gates_section(results),
        light_section(results),
        oracle_section(results),
        teacher_section(results),
        distill_section(results, splits, distilled),
        runtime_section(results),
        scores_section(results),
    ]
    if notes:
        parts.append(_noted(notes, results))
    parts.append(_files(results, splits, present))
    return "\n\n".join(parts) + "\n"


def _noted(notes: str, results: Results) -> str:
    """Return the notes, which quote figures by hand: below their heading what of them is stale."""
    comparisons = [*results.of(Kind.ORACLE_CODES), *results.of(Kind.DISTILL)]
    stale = ", ".join(f"`{file.name}`" for file in comparisons if file.stale)
    if not stale:
        return notes
    said = (
        f"{md.DAGGER} Figures quoted in these notes from stale files ({stale}) are of the runs "
        "named there."
    )
    head, _, rest = notes.partition("\n") if notes.startswith("#") else ("", "", notes)
    return "\n\n".join(part for part in (head, said, rest.strip()) if part)


def _files(results: Results, splits: Sequence[SplitResults], present: Present) -> str:
    """Return what every file hangs on, what is stale and what was refused."""
    headers = [
        "file",
        "command",
        "bundle",
        "recipe",
        "seed",
        "passes",
        "MLP, blank",
        "world",
        "scoring",
        "commit",
    ]
    body = []
    for file in results.files:
        found = {"bundle_sha256": file.document.get("bundle_sha256"), **file.identity}
        name = found.get("bundle_id") or found.get("host") or ""
        bundle = f"{name} {_short(found.get('bundle_sha256'), '')}".strip()
        baselines = found.get("baselines") or {}
        recipe = str(found.get("recipe") or md.NONE)
        if found.get("start_from"):
            recipe += f" after {found['start_from']}"
        body.append(
            [
                f"`{file.name}`" + (f" {md.DAGGER}" if file.stale else ""),
                file.kind.value,
                bundle or md.NONE,
                recipe,
                *(_short(found.get(name)) for name in ("seed", "passes")),
                ", ".join(_short(entry.get("sha256")) for entry in baselines.values()) or md.NONE,
                *(_short(found.get(name)) for name in ("world", "scoring", "commit")),
            ]
        )
    parts = ["## What the figures hang on"]
    parts.append(md.table(headers, body) if body else "No result file was read.")
    stale = [
        f"- {md.DAGGER} `{file.name}`: {'; '.join(file.stale)}."
        for file in results.files
        if file.stale
    ]
    stale += [
        f"- {md.DAGGER} {found.split}, {kind.value}: none of the bundles measured ({hashes}) is "
        f"that of this page ({_short(present.bundle_sha256)})."
        for found in splits
        for kind, hashes in found.other_bundle.items()
    ]
    if stale:
        parts.append("Stale:\n\n" + "\n".join(stale))
    if results.refused:
        lines = [f"- `{name}`: {why}." for name, why in results.refused.items()]
        parts.append("Refused, and not in any table:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _short(value: Any, unknown: str = md.NONE) -> str:
    return unknown if value is None else str(value)[:10]
