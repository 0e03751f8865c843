"""Students of other recipes, or of other codes, that a comparison scores beside its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentvla_ros.contract import ContractError
from latentvla_training.distill.settings import STUDENT, DistillRecipe, load_distill_recipe
from latentvla_training.latent_action.encoding import codes_folder
from latentvla_training.planner.contenders import CodedSplit


@dataclass(frozen=True)
class Variant:
    """A student that is scored beside.

    Attributes:
        recipe: of the same family.
        codes: folder of another codebook's codes, which it has learned without a teacher; "" for
            those of all.
    """

    recipe: DistillRecipe
    codes: str = ""

    def __post_init__(self) -> None:
        student = self.recipe.student
        if self.codes and (student.hears_teacher or not student.taught):
            wanted = "a recipe whose student learns of codes alone"
            raise ContractError(f"--variants {self.recipe.name}@{self.codes}", "another", wanted)

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Return the variant ``RECIPE``, or ``RECIPE@CODES``.

        Args:
            text: CODES is a folder, or a codebook's id, of which the recipe is enough where codes
                of one such codebook alone are there.

        Raises:
            ContractError: no such recipe, or its student does not learn of codes alone.
        """
        name, at, codes = text.rpartition("@")
        if not at or Path(text).is_file():
            name, codes = text, ""
        if codes and not Path(codes).is_dir():
            found = sorted(codes_folder(codes).parent.glob(f"{codes}-*"))
            codes = str(found[0] if len(found) == 1 else codes_folder(codes))
        return cls(load_distill_recipe(name), codes)

    def row(self, splits: Mapping[str, CodedSplit]) -> str:
        """Return the row of its student in a result; of other codes with that codebook's recipe."""
        codebook = next(iter(splits.values())).codes.codebook_id.rpartition("-")[0]
        return f"{STUDENT}:{self.recipe.name}{f'@{codebook}' if self.codes else ''}"


def check_family(recipe: DistillRecipe, variants: Sequence[Variant]) -> None:
    """Check that recipes differ in their students alone.

    Raises:
        ContractError: one is of another family, trains otherwise, or is there twice.
    """
    names = [recipe.name, *(variant.recipe.name + variant.codes for variant in variants)]
    if len(set(names)) != len(names):
        raise ContractError("--variants", names, "recipes that are all different")
    for variant in (entry.recipe for entry in variants):
        if variant.family != recipe.family:
            raise ContractError(f"base of {variant.name}", variant.base, recipe.family)
        if (variant.heads, variant.pooling) != (recipe.heads, recipe.pooling):
            raise ContractError(
                f"recipe {variant.name}", "other heads or pooling", f"those of {recipe.name}"
            )


@dataclass(frozen=True)
class Row:
    """A row of a comparison that is trained.

    Attributes:
        name: in the result. contender: which it is. recipe: its own.
        splits: with the codes of its own; None for those of all.
    """

    name: str
    contender: str
    recipe: DistillRecipe
    splits: Mapping[str, CodedSplit] | None = None
