"""The tables of one split: scores, sub-scores, differences, closed loop, tags and groups."""

from __future__ import annotations

from collections import Counter

import numpy as np

from latentvla_training.planner.scene_groups import TAG
from latentvla_training.planner.scene_scores import (
    EPDMS_PARTS,
    EXTENDED_COMFORT,
    PDMS_PARTS,
)
from latentvla_training.report import markdown as md
from latentvla_training.report.network_sums import ALL
from latentvla_training.report.other_planners import other_planners
from latentvla_training.report.pooling import ROW_TITLES, SplitResults
from latentvla_training.report.result_files import Kind

SPLIT_TITLES = {
    "test": "Held-out networks (`test`)",
    "longtail": "Long-tail events (`longtail`)",
    "ood": "A kind of network and a weather never trained on (`ood`)",
    "val": "Validation networks (`val`)",
}
#: Rows without cameras that nano is compared with.
OPPONENTS = {"ego_status_mlp": "MLP", "blank_images": "blank images"}
_COMPARED = {"constant_velocity": "constant velocity", **OPPONENTS}
SCORE_TITLES = {"pdms": "PDMS", "epdms": "EPDMS", "epdms_unfiltered": "EPDMS without human filter"}
_SHOWN = ("constant_velocity", "ego_status_mlp", "blank_images", "ours", "expert")
_GROUP_ROWS = {
    "constant_velocity": "constant velocity",
    "ego_status_mlp": "MLP",
    "blank_images": "blank",
    "ours": "nano",
    "expert": "expert",
}
_DRIVE_OPTIONS = {
    "bundle": "--bundle B",
    "bundle_hidden_state": "--bundle B --driver bundle_hidden_state",
    "bundle_ros": "--ros --bundle B",
}
#: Goals for the ratio of ADE (issue 2), kept in view.
_RATIO_GOALS = {"constant_velocity": 0.33, "ego_status_mlp": 0.75, "blank_images": 0.85}


def split_section(found: SplitResults) -> str:
    """Return the section of a split, whatever part of it has been measured."""
    parts = [f"## {SPLIT_TITLES.get(found.split, found.split)}", _commands(found)]
    if found.sums is None and not found.routes:
        return "\n\n".join([parts[0], f"No result yet. {_how(found.split)}"])
    if found.sums is not None:
        parts.append(_about(found))
    parts.append(_main_table(found))
    if found.sums is not None:
        parts += [_sub_scores(found), _differences(found), other_planners(found), _ratios(found)]
    if found.routes:
        parts.append(_closed_loop(found))
    if found.sums is not None:
        parts += [_groups(found, "epdms"), _groups(found, "ade"), _unscored(found)]
    parts += [f"Not pooled: `{name}` ({why})." for name, why in found.left_out.items()]
    return "\n\n".join(part for part in parts if part)


def _how(split: str) -> str:
    return f"`latentvla-train evaluate --split {split} --json docs/results/{split}_s0.json`"


def _commands(found: SplitResults) -> str:
    lines = [
        f"latentvla-train evaluate --bundle B --baselines F --split {found.split} "
        f"--json docs/results/{file.name}"
        for file in found.files
    ]
    for files in found.route_files.values():
        for file in files:
            driver = str(file.document["driver"])
            who = _DRIVE_OPTIONS.get(driver, f"--driver {driver}")
            if file.identity.get("baselines") and "released_sha256" not in file.identity:
                who += " --baselines F"
            routes = len(file.document["routes"]) + len(file.document.get("skipped") or {})
            if seed := file.document.get("seed"):
                who += f" --seed {seed}"
            lines.append(
                f"latentvla-train drive {who} --split {found.split} "
                f"--routes {routes} --json docs/results/{file.name}"
            )
    return md.code(*lines) if lines else ""


def _about(found: SplitResults) -> str:
    assert found.sums is not None
    first = found.files[0].document
    seeds = ", ".join(str(file.identity.get("seed")) for file in found.files)
    several = len(found.files) > 1
    pairs = {str(file.identity.get("baselines")) for file in found.files}
    baselines = (
        "each against baselines of its own seed"
        if len(pairs) > 1
        else "against one set of baselines"
    )
    return (
        f"{first['scenes']} scenes of {len(found.sums.networks)} networks, "
        f"{found.sums.scenes('ade', 'decision')} of them decision scenes (constant velocity is "
        f"more than 2 m off on average). {len(found.files)} seed{'s' if several else ''} "
        f"({seeds}) of nano"
        f"{f', {baselines}: mean ± standard deviation over seeds' if several else ''}; "
        "in brackets the 95 % interval, bootstrapped by network. Scores in %, distances in m."
    )


def _mark(stale: bool) -> str:
    return f" {md.DAGGER}" if stale else ""


def _main_table(found: SplitResults) -> str:
    headers = ["", *SCORE_TITLES.values(), "ADE", "FDE", "driving score", "success %"]
    body = []
    names = [*_SHOWN, "ours_wrong_images", "ours_hidden_state"]
    names += [name for name in found.routes if name not in names]
    for row in names:
        cells = [
            md.figure(found.mean(row, score), 1, 100.0, found.spread(row, score))
            for score in SCORE_TITLES
        ]
        cells += [
            md.figure(found.mean(row, name), 3, 1.0, found.spread(row, name))
            for name in ("ade", "fde")
        ]
        cells += [_driven(found, row, "driving_score", 1.0), _driven(found, row, "success", 100.0)]
        if any(cell != md.NONE for cell in cells):
            title = ROW_TITLES.get(row, row)
            other = row.startswith("ours") and Kind.OPEN_LOOP in found.other_bundle
            stale = (found.stale or other) and cells[3 if row != "expert" else 0] != md.NONE
            body.append([title + _mark(stale), *cells])
    for row in _SHOWN:
        if found.sums is not None and ROW_TITLES[row] not in {c[0].split(" †")[0] for c in body}:
            body.append([ROW_TITLES[row], *[md.NONE] * 7])
    return md.table(headers, body)


def _driven(found: SplitResults, row: str, figure: str, factor: float) -> str:
    text = md.figure(found.driven(row, figure), 1, factor, found.driven_spread(row, figure))
    stale = any(file.stale for file in found.route_files.get(row, []))
    return text if text == md.NONE else text + _mark(stale)


def _sub_scores(found: SplitResults) -> str:
    assert found.sums is not None
    if "pdms" not in found.sums.figures():
        return ""
    v1 = {f"pdms_{part}": part.upper() for part in PDMS_PARTS}
    v2 = {f"epdms_{part}": part.upper() for part in (*EPDMS_PARTS, EXTENDED_COMFORT)}
    raw = {f"epdms_unfiltered_{part}": part.upper() for part in EPDMS_PARTS}
    texts = []
    for title, parts in (
        ("Sub-scores of EPDMS (human filter applied), %:", v2),
        ("Sub-scores of EPDMS without the filter, %:", raw),
        ("Sub-scores of PDMS, %:", v1),
    ):
        body = [
            [_GROUP_ROWS[row], *(md.number(found.mean(row, p).value, 1, 100.0) for p in parts)]
            for row in _SHOWN
        ]
        texts += [title, md.table(["", *parts.values()], body)]
    return "\n\n".join(texts)


def _differences(found: SplitResults) -> str:
    body = []
    for other, title in _COMPARED.items():
        cells = [md.difference(found.difference(other, s), 2, 100.0) for s in SCORE_TITLES]
        cells.append(md.difference(found.difference(other, "ade"), 3))
        cells.append(md.difference(found.driven_difference(other, "driving_score"), 1))
        cells.append(md.difference(found.driven_difference(other, "success"), 1, 100.0))
        body.append([f"nano minus {title}", *cells])
    headers = ["", *SCORE_TITLES.values(), "ADE", "driving score", "success %"]
    text = "Paired differences on the same scenes (routes); bold where the interval leaves 0 out:"
    return f"{text}\n\n{md.table(headers, body)}"


def _ratios(found: SplitResults) -> str:
    assert found.sums is not None
    body = []
    for other, title in _COMPARED.items():
        ratios = [found.sums.ratio("ours", other, "ade", group) for group in (ALL, "decision")]
        goal = _RATIO_GOALS[other]
        met = "met" if ratios[0].value <= goal else "missed"
        shown = f"{goal:.2f}, {met}" if found.split == "test" else md.NONE
        body.append([title, *(md.figure(ratio, 3) for ratio in ratios), shown])
    headers = ["ratio of ADE, nano to ...", "all scenes", "decision scenes", "goal"]
    return md.table(headers, body)


def _closed_loop(found: SplitResults) -> str:
    headers = [
        "closed loop", "routes", "networks", "driving score", "success %", "completion %",
        "smooth %", "m/s", "infractions by kind",
    ]  # fmt: skip
    body = []
    for row in [name for name in ROW_TITLES if name in found.routes]:
        routes = found.routes[row]
        kinds: Counter[str] = Counter()
        for route in routes.values():
            kinds.update(route["infractions"])
        happened = [
            f"{md.number(count, 0 if count == round(count) else 1)} {kind.replace('_', ' ')}"
            for kind, count in kinds.most_common()
            if count
        ]
        body.append(
            [
                ROW_TITLES[row],
                str(len(routes)),
                str(len({route["network"] for route in routes.values()})),
                _driven(found, row, "driving_score", 1.0),
                _driven(found, row, "success", 100.0),
                md.figure(found.driven(row, "completion"), 1),
                md.number(found.driven(row, "smoothness").value, 0, 100.0),
                md.number(found.driven(row, "mean_speed").value, 1),
                ", ".join(happened) or "none",
            ]
        )
    skipped = {
        name: why
        for files in found.route_files.values()
        for file in files
        for name, why in (file.document.get("skipped") or {}).items()
    }
    texts = [md.table(headers, body), *_how_it_was_driven(found)]
    return "\n\n".join([*texts, *(f"Skipped: {name}: {why}." for name, why in skipped.items())])


def _how_it_was_driven(found: SplitResults) -> list[str]:
    """Return what a reader of the closed-loop table must know."""
    texts = [
        "Routes that could not be driven by anyone, for want of a network, of a start or, in "
        "`longtail`, of an event, are skipped and left out of these means; Bench2Drive counts a "
        "missing route as 0."
    ]
    if "expert" in found.routes:
        text = (
            f"The row *{ROW_TITLES['expert']}* moves by its own bicycle model: it makes no plan "
            "and no tracker follows it."
        )
        if "expert_plan" in found.routes:
            text += (
                " What the same knowledge reaches by plans, on the vehicle that all other rows "
                f"drive, is *{ROW_TITLES['expert_plan']}*."
            )
        texts.append(text)
    early = {
        row: round(sum(route.get("event_before_takeover", 0.0) for route in routes.values()))
        for row, routes in found.routes.items()
    }
    if any(early.values()):
        counts = ", ".join(
            f"{ROW_TITLES.get(row, row)} {count} of {len(found.routes[row])}"
            for row, count in early.items()
        )
        texts.append(
            "Routes whose event began before the driver took over from the expert, which drives "
            f"the first two seconds: {counts}."
        )
    return texts


def group_names(found: SplitResults) -> list[str]:
    """Return the groups of a split that have scenes, tags first."""
    if found.sums is None:
        return []
    names = [name for name in found.sums.groups if name != ALL]
    return sorted(names, key=lambda name: (not name.startswith(TAG), names.index(name)))


def _groups(found: SplitResults, figure: str) -> str:
    assert found.sums is not None
    if figure not in found.sums.figures():
        return ""
    digits, factor = (3, 1.0) if figure == "ade" else (1, 100.0)
    rows = [row for row in _GROUP_ROWS if row in found.sums.groups[ALL][figure].rows]
    body = []
    for group in group_names(found):
        if not found.sums.scenes(figure, group):
            continue
        means = [found.mean(row, figure, group).value for row in rows]
        shown = [md.number(value, digits, factor) for value in means]
        gains = [
            md.difference(found.difference(other, figure, group), digits, factor)
            for other in OPPONENTS
        ]
        body.append([group, str(found.sums.scenes(figure, group)), *shown, *gains])
    title = "ADE, m" if figure == "ade" else SCORE_TITLES[figure]
    headers = [f"{title}, by tag and group", "scenes", *(_GROUP_ROWS[row] for row in rows)]
    headers += [f"nano minus {name}" for name in OPPONENTS.values()]
    return md.table(headers, body) if body else ""


def _unscored(found: SplitResults) -> str:
    lines = []
    scenes = [Counter(file.document["unscored"].get("scenes") or {}) for file in found.files]
    for reason, count in scenes[0].items():
        lines.append(f"{count} scenes could not be scored and count as 0: {reason}.")
    for file in found.files:
        for row, reasons in (file.document["unscored"].get("plans") or {}).items():
            for reason, count in reasons.items():
                lines.append(f"`{file.name}`: {count} plans of {row} count as 0: {reason}.")
    return " ".join(lines)


def too_few(found: SplitResults, figure: str, group: str) -> bool:
    """Return whether a group lies in too few networks for an interval (fewer than three)."""
    assert found.sums is not None
    sums = found.sums.groups[group].get(figure)
    return sums is None or int(np.count_nonzero(sums.count)) < 3
