"""Paired differences seed by seed: what intervals over networks, seeds averaged, do not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentvla_training.report import markdown as md
from latentvla_training.report.contender_tables import Columns, headers
from latentvla_training.report.contrasts import contrasts_by_seed, figure_and_group
from latentvla_training.report.distill_files import seed_sums

#: What the reader of a comparison on one host must know of its intervals.
ONE_TRUNK = (
    "Intervals are over networks, with seeds averaged. All seeds of a file go on from one trunk, "
    "that of its host, so what they differ by (tables *seed by seed*: the difference of each, and "
    "their standard deviation) is a lower bound; a trunk for every seed is what our own rules ask "
    "for (experiments.md, section 6), and here we deviate from them."
)


def seed_table(
    entry: Mapping[str, Any],
    seeds: Sequence[int],
    columns: Columns,
    title: Callable[[str, str], str],
    mark: str = "",
) -> str:
    """Return the table of a split's differences by seed; nothing of one seed, or without sums.

    Args:
        entry: of the split. columns: figures of ``entry["differences"]``.
        title: what a difference is called, by its two rows. mark: see ``markdown.table``.
    """
    if len(seeds) < 2 or "sums" not in entry:
        return ""
    parts = seed_sums(entry)
    rows = []
    for key in entry["differences"]:
        first, _, second = key.partition("-")
        weights = {first: 1.0, second: -1.0}
        cells = []
        for name, (_, factor, digits) in columns.items():
            found = contrasts_by_seed(parts, weights, *figure_and_group(name))
            cells.append(md.by_seed(*found, digits, factor))
        rows.append([title(first, second), *cells])
    names = ", ".join(str(seed) for seed in seeds)
    first = f"seed by seed ({names}; ± standard deviation)"
    return md.table([first, *headers(columns)[1:]], rows, mark)
