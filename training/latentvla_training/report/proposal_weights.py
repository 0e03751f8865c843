"""How hard a contender's loss pulls on all proposals, by the recipe that its result names.

A result keeps a hash of its recipe's settings. Their values are those of the recipe that ships,
and it is said whether the hash is that recipe's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_training.distill.settings import TEACHER, load_distill_recipe
from latentvla_training.engine.recipe import load_record
from latentvla_training.planner.contenders import HOST, HeadSettings
from latentvla_training.planner.oracle_codes import ORACLE, OracleRecipe
from latentvla_training.report.identity import settings_hash
from latentvla_training.report.result_files import Kind, ResultFile


@dataclass(frozen=True)
class ProposalWeight:
    """``loss.all_proposals`` of the contenders of a result.

    Attributes:
        recipe: as ``oracle_codes/nano``. host: of who is told nothing. told: of the others.
        named: whether the result names the settings of the recipe as it is.
    """

    recipe: str
    host: float
    told: float
    named: bool


def proposal_weight(file: ResultFile) -> ProposalWeight | None:
    """Return the weights of a comparison on one host.

    None where they are not known: its recipe does not ship, or has other passes than the result.
    """
    try:
        if file.kind is Kind.ORACLE_CODES:
            kind, name, told = "oracle_codes", file.document["recipe"], ORACLE
            recipe: Any = load_record(OracleRecipe, name, kind)
            heads: HeadSettings = recipe.heads
        else:
            kind, name, told = "distill", file.document["distilled"], TEACHER
            recipe = load_distill_recipe(name)
            heads = recipe.heads
    except ContractError:
        return None
    if file.document["passes"] != heads.run.steps * heads.run.batch_size:
        return None
    host, own = (heads.of(contender).loss.all_proposals for contender in (HOST, told))
    named = (file.identity.get("recipes") or {}).get(name) == settings_hash(recipe)
    return ProposalWeight(f"{kind}/{name}", host, own, named)


def told_line(file: ResultFile) -> str:
    """Return in a sentence that contenders that are told something are trained otherwise."""
    found = proposal_weight(file)
    if found is None:
        return _unknown(file)
    if found.told == found.host:
        return ""
    return (
        "The loss pulls on all proposals of whoever is told something (free queries and codes of "
        f"other scenes too) with weight {found.told:g}, of the host with {found.host:g} "
        f"({_where(file, found)})."
    )


def oracle_line(oracle: ResultFile, file: ResultFile) -> str:
    """Return in a sentence that the true codes' row is trained otherwise than a comparison's."""
    there, here = proposal_weight(oracle), proposal_weight(file)
    if there is None or here is None:
        return _unknown(oracle if there is None else file)
    if there.told == here.told:
        return ""
    return (
        "What the row of the true codes has over the others is not the codes' alone: its loss "
        f"pulls on all proposals with weight {there.told:g} ({_where(oracle, there)}), that of the "
        f"contenders here with {here.told:g} ({_where(file, here)})."
    )


def _where(file: ResultFile, found: ProposalWeight) -> str:
    now = "" if found.named else f" as it is now; `{file.name}` does not name these settings"
    return f"recipe `{found.recipe}`{now}"


def _unknown(file: ResultFile) -> str:
    return (
        f"With what weight the loss of `{file.name}` pulls on all proposals is not known: its "
        "recipe has changed since, or does not ship."
    )
