"""Open-loop rows of planners beside the one that ships: its host, another budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentvla_training.report import markdown as md
from latentvla_training.report.pooling import SplitResults

_SCORES = {"pdms": "PDMS", "epdms": "EPDMS"}
_OPPONENTS = {"ego_status_mlp": "MLP", "blank_images": "blank images"}


def other_planners(found: SplitResults) -> str:
    """Return a table of the other planners on a split's Scenes; "" where there is none."""
    if not found.others:
        return ""
    headers = ["planner", "trained on blank images", *_SCORES.values(), "ADE"]
    headers += [f"{score} minus {who}" for who in _OPPONENTS.values() for score in _SCORES.values()]
    body = []
    for other in found.others:
        cells = [
            md.figure(other.mean("ours", score), 1, 100.0, other.spread("ours", score))
            for score in _SCORES
        ]
        cells.append(md.figure(other.mean("ours", "ade"), 3, 1.0, other.spread("ours", "ade")))
        cells += [
            md.difference(other.difference(row, score), 2, 100.0)
            for row in _OPPONENTS
            for score in _SCORES
        ]
        body.append([_title(other), _twin(other), *cells])
    text = (
        "Other planners on the same scenes, each against the baselines of its own result files "
        "(mean ± standard deviation over seeds, in brackets the interval by network):"
    )
    return f"{text}\n\n{md.table(headers, body)}"


def _title(found: SplitResults) -> str:
    identity = found.files[0].identity
    seeds = ", ".join(str(file.identity.get("seed")) for file in found.files)
    return f"`{identity.get('bundle_id')}` ({_budget(identity)}; seeds {seeds})"


def _twin(found: SplitResults) -> str:
    """Return the budget of the planner on blank images that the files compare with."""
    baselines = [file.identity["baselines"].get("blank") for file in found.files]
    return "; ".join(sorted({_budget(one) for one in baselines if one})) or md.NONE


def _budget(identity: Mapping[str, Any]) -> str:
    start = identity.get("start_from")
    after = f" after `{start}`" if start else ""
    return f"`{identity.get('recipe')}`, {identity.get('passes')} passes{after}"
