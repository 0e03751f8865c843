"""The text of ``docs/latent_actions.md``, from the figures of a report alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentvla_training.latent_action.dynamics import EGO, ENVIRONMENT
from latentvla_training.latent_action.evidence import (
    LEAST_PERPLEXITY,
    LEAST_POSITION_PERPLEXITY,
    UNEXPLAINED,
)
from latentvla_training.latent_action.naming import (
    LEAST_NETWORKS,
    LEAST_PAIRS,
    NAMED,
    STRONG,
    TOLD_APART,
)
from latentvla_training.latent_action.report_tables import (
    TITLES,
    agent_table,
    cell,
    cost_section,
    ego_table,
    gate_table,
    meaning_table,
    stage_table,
)
from latentvla_training.report import markdown as md

_NAMING = (
    "Names follow from the motion by a rule (ours, `latent_action/naming.py`), over pairs of one "
    "and two seconds together. A mean change is given in standard deviations of all pairs of that "
    f"length: {NAMED:g} is slow, speed up, left or right, {STRONG:g} is brake, accelerate, sharp "
    f"left or sharp right, if {TOLD_APART:g} standard errors by network tell it from the mean of "
    "all pairs. What stays nearer to no change than pairs in general do is hold; all else, and "
    f"what stands at fewer than {LEAST_PAIRS} pairs or on fewer than {LEAST_NETWORKS} networks, "
    "is unclear. The names stand in the codebook's manifest and in a student's bundle."
)


def document(result: dict[str, Any], picture: str) -> str:
    """Return the text of the report."""
    runs, pooled = result["runs"], result["pooled"]
    seeds = ", ".join(str(figures["seed"]) for figures in runs)
    names = " ".join(f"{figures['recipe']}-s{figures['seed']}" for figures in runs)
    counts = runs[0]["counts"]
    splits = " and ".join(result["splits"])
    sections = [
        "# Latent actions: what the codes mean, and what they do not",
        md.code(
            *(
                f"latentvla-train codebook train --recipe {figures['recipe']} --seed "
                f"{figures['seed']}{' --controls' if 'one_stage' in figures['stages'] else ''}"
                for figures in runs
            ),
            f"latentvla-train codebook report --runs {names}{_options(result)}",
        ),
        f"Recipe `{runs[0]['recipe']}`, seed {seeds}; mean ± standard deviation over seeds where "
        f"there are several. Judged on the networks of {splits}, which no stage and no probe "
        f"was fitted on: {counts['judged']['pairs']} frame pairs. No language, map or box label is "
        "read by any stage; labels of the world serve to judge. Codebooks: "
        + ", ".join(f"`{figures['codebook_id']}`" for figures in runs)
        + f"; commit {result['commit']}.",
        *_shipped_text(result.get("ships") or {}),
        "Odometry is used so: stage 1 is told the driven poses and the ego state. "
        + _share_text(runs[0])
        + _change_weight_text(runs[0])
        + _odometry_text(runs[0]),
        "## The codebook",
        stage_table(pooled["stages"]),
        "Gain: share of the squared error of copying the earlier frame that the decoder takes "
        "away, over all places and weighted by how much a place changes, as in training. Required: "
        f"perplexity at least {LEAST_PERPLEXITY:.0f} overall and {LEAST_POSITION_PERPLEXITY:.0f} "
        "at every position, among transitions of every length alone as well. Entries are revived "
        "in training only.",
        _one_second_text(result["meanings"]),
        "## What the codes say of the ego's motion",
        ego_table(pooled["ego_probe"]),
        "Share of (delta v, delta yaw) over each transition that a ridge regression reads off all "
        "codes of a Scene, after speed, yaw rate and command at t0, and any curve of the first two "
        "under each command, are regressed out of both (partial R2; fitted on "
        f"{counts['train']['ego_probe']} Scenes of training networks, judged on "
        f"{counts['judged']['ego_probe']} of others). What says no more than the speed at t0 has 0 "
        "here: the last row is a check of that.",
        _ahead_text(EGO, [figures["ahead"]["ego_probe"] for figures in runs]),
        *_ablation_section(result),
        "## What the codes say of others",
        agent_table(pooled["agent_probe"]),
        "The same for the displacement (ahead, to the left, how far at all) of the nearest road "
        "user in view within 40 m over the first second, the ego's own motion regressed out "
        f"(fitted on {counts['train']['agent_probe']} Scenes, judged on "
        f"{counts['judged']['agent_probe']}).",
        _ahead_text(ENVIRONMENT, [figures["ahead"]["agent_probe"] for figures in runs]),
        *_change_text(pooled["agent_probe"]),
        "## Swapping ego codes",
        _swap_text(pooled["swap"]),
        *cost_section(pooled.get("costs", {})),
        "## Gates",
        gate_table(result["gates"], runs),
        "## What each ego code means",
        f"Of seed {runs[0]['seed']}, over one second, on unseen networks. By position: share of "
        "pairs, mean delta v (m/s), delta yaw (degrees), metres driven; then its name.",
        meaning_table(result["meanings"]),
        _NAMING,
        f"![Front frames a second apart, a row for every code]({picture})",
        "Each row: a code's number and share, and pairs of front frames a second apart whose "
        "motion is typical of the position where it stands most often.",
        "## What they do not say",
        "\n".join(f"- {line}" for line in shortcomings(result)),
    ]
    return "\n\n".join(sections) + "\n"


def _shipped_text(ships: dict[str, Any]) -> list[str]:
    """Return whether what ships is of the recipe that is judged here."""
    if not ships:
        return []
    text = f"The codebook of this recipe that ships is `{ships['codebook_id']}`"
    if ships["other_settings"]:
        others = "; ".join(ships["other_settings"])
        text += f", made when the recipe was another ({others}): **this page is not about it**"
    return [f"{text}."]


def _options(result: dict[str, Any]) -> str:
    """Return the rest of the command that made the report, as far as it was given."""
    text = f" --train-shards {result['train_shards']} --splits {' '.join(result['splits'])}"
    if result["ablations"]:
        names = " ".join(f"{one['recipe']}-s{one['seed']}" for one in result["ablations"])
        text += f" --ablations {names}"
    return text


def _ahead_text(winner: str, runs: Sequence[dict[str, dict[str, float]]]) -> str:
    """Return how far the mean of a probe's winner is above other sources, seed by seed."""
    parts = []
    for other in runs[0]:
        found = "; ".join(
            f"{md.number(one[other]['value'], 3)} [{md.number(one[other]['low'], 3)}, "
            f"{md.number(one[other]['high'], 3)}]"
            for one in runs
        )
        parts.append(f"above {TITLES.get(other, other)} by {found}")
    return (
        f"Means of the {TITLES[winner]}, seed by seed, with paired 95 % intervals by network: "
        + ", ".join(parts)
        + "."
    )


def _share_text(figures: dict[str, Any]) -> str:
    """Return how many drives of a run had odometry, where not all had."""
    share = figures.get("odometry_share", 1.0)
    if share == 1.0:
        return ""
    return (
        f"Only {100 * share:g} % of the training drives had any: there stage 1 was trained, and a "
        "reader of its codes off pictures, which stands in for it everywhere. "
    )


def _change_weight_text(figures: dict[str, Any]) -> str:
    """Return what stage 1 of a run is shown of unexplained change, and asked of it."""
    weight = figures.get("unexplained_change_weight", 0.0)
    if not weight:
        return ""
    return (
        "Its encoder also reads where the picture changes in ways that the driven motion does not "
        f"explain, and a regulariser of weight {weight:g} reads that off the codes (ours). "
    )


def _odometry_text(figures: dict[str, Any]) -> str:
    """Return what stage 2 of a run is told of odometry, and what its regulariser asks for."""
    weight = figures["ego_motion_weight"]
    if figures.get("odometry"):
        told = (
            "The encoder of stage 2 reads the ego state (speed, yaw rate, acceleration) at either "
            "frame beside its picture, and no pose; the decoder reads none (ours)."
        )
        asked = "by how much the driven poses leave those of constant speed and yaw rate (ours)"
    else:
        told = "Stage 2 reads pictures alone."
        asked = "the ego motion (DynVLA)"
    if not weight:
        return f"{told} There is no ego-motion regulariser."
    return f"{told} A regulariser of weight {weight:g} reads off the codes {asked}."


def _ablation_section(result: dict[str, Any]) -> list[str]:
    """Return a heading, a table and a note; nothing where no ablation was given."""
    if not result.get("ablations"):
        return []
    own = result["runs"][0]
    first = {**own["stages"][EGO], "recipe": own["recipe"], "ego_probe": own["ego_probe"][EGO]}
    rows = []
    for figures in (first, *result["ablations"]):
        probe = figures["ego_probe"]
        rows.append(
            [
                f"`{figures['recipe']}`",
                md.number(figures["perplexity"], 1),
                md.number(min(figures["position_perplexity"]), 1),
                md.number(figures["gain_over_copy"], 3),
                *(md.number(value, 3) for value in (*probe["delta_v"], *probe["delta_yaw"])),
            ]
        )
    places = len(rows[0]) - 4
    names = [f"{kind} {i + 1}" for kind in ("dv", "dyaw") for i in range(places // 2)]
    return [
        "## Ablations",
        md.table(["", "perplexity", "least position", "gain over copy", *names], rows),
        f"The ego codes of one run each, seed {own['seed']}; what differs from `{own['recipe']}` "
        "stands at the head of each recipe in `recipes/codebook/`.",
    ]


def _one_second_text(meanings: Sequence[dict[str, Any]]) -> str:
    """Return how the ego codes are used over transitions of one second alone."""
    places = range(len(meanings[0]["at"]))
    by_place = [
        entropy_perplexity([entry["at"][place]["share"] for entry in meanings]) for place in places
    ]
    overall = entropy_perplexity([entry["share"] for entry in meanings])
    unused = [str(entry["code"]) for entry in meanings if entry["share"] < 0.001]
    text = (
        f"Among transitions of one second alone the ego codes have perplexity {overall:.1f} "
        f"({' / '.join(f'{value:.1f}' for value in by_place)} by position)"
    )
    if unused:
        text += f"; codes {', '.join(unused)} stand for longer ones only: the vocabulary is not "
        text += "shared between lengths as it was meant to be"
    return text + "."


def entropy_perplexity(shares: Sequence[float]) -> float:
    """Return the exponential of the entropy of shares, which need not sum to one."""
    values = np.array([share for share in shares if share > 0])
    values = values / values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def _change_text(probe: dict[str, Any]) -> list[str]:
    if UNEXPLAINED not in probe:
        return []
    return [
        "The last row is no code, but what stage 1 is shown and asked for beside the features "
        "(ours): where the later frame differs from the earlier one as it was, and from a flat "
        "ground seen from the later pose. Four codes of 16 cannot say all of it."
    ]


def _swap_text(swap: dict[str, Any]) -> str:
    reader = swap["reader_r2"]
    return (
        "The decoder predicts the later frame's features with the ego codes of another Scene; a "
        "small net, fitted on true frame pairs of training networks, reads the motion off earlier "
        f"frame and prediction (on true pairs of unseen networks it has R2 {cell(reader['x'])} "
        f"ahead and {cell(reader['yaw'])} in yaw). The change that it reads correlates with the "
        f"true difference of the two Scenes' motions by {cell(swap['correlation_x'])} ahead and "
        f"{cell(swap['correlation_yaw'])} in yaw; of swaps between motions more than 2 m apart "
        f"{cell(swap['right_way_x'])} move the right way."
    )


def shortcomings(result: dict[str, Any]) -> list[str]:
    """Return, by the figures alone, what the codes leave unsaid."""
    pooled, lines = result["pooled"], []
    ego = pooled["ego_probe"][EGO]
    lines.append(
        "Of the change of speed that could not be known at t0, the ego codes leave "
        + ", ".join(f"{100 * (1 - share['mean']):.0f} %" for share in ego["delta_v"])
        + " unsaid in the three transitions; of the change of yaw "
        + ", ".join(f"{100 * (1 - share['mean']):.0f} %" for share in ego["delta_yaw"])
        + "."
    )
    agents = pooled["agent_probe"][ENVIRONMENT]
    ahead, left, far = (100 * (1 - agents[name]["mean"]) for name in ("x", "y", "distance"))
    lines.append(
        f"Of how the nearest road user moves, the environment codes leave {ahead:.0f} % ahead, "
        f"{left:.0f} % to the left and {far:.0f} % of how far unsaid: that something moves is said "
        "rather than where to."
    )
    meanings = result["meanings"]
    used = [entry for entry in meanings if entry["share"] >= 0.005]
    lines.append(
        f"A code is no manoeuvre by itself: {len(used)} of {len(meanings)} codes stand at 0.5 % of "
        "places or more, and most mean something else at every position (table above)."
    )
    wide = np.mean([entry["all"].get("spread_driven", np.nan) for entry in used])
    lines.append(
        f"One code alone leaves the metres driven in a second uncertain by {wide:.1f} m (standard "
        "deviation, mean over codes); only the four together say a motion."
    )
    lines.append("Why the ego moves so, what others intend and which rules hold: no code says it.")
    return lines
