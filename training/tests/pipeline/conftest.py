"""Scenes, a host, codes and a teacher's real cache of them, as comparisons have them."""

from ..distill.conftest import host, made, place, recipe, tiny

__all__ = ["host", "made", "place", "recipe", "tiny"]
