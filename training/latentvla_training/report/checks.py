"""Checks on entries of foreign JSON: what a table reads is there and of its type, or is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentvla_ros.contract import ContractError

NUMBER = (int, float)


def has(document: Any, where: str, wanted: Mapping[str, Any]) -> None:
    """Check that a mapping has entries of these types.

    Raises:
        ContractError: it has not; names the first that is absent or wrong.
    """
    if not isinstance(document, dict):
        raise ContractError(where.rstrip(".") or "file", document, "a JSON object")
    for name, kind in wanted.items():
        found = document.get(name)
        if not isinstance(found, kind) or (kind is NUMBER and isinstance(found, bool)):
            names = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(entry.__name__ for entry in names)
            raise ContractError(f"{where}{name}", found, f"a value of type {expected}")


def each(document: dict[str, Any], name: str, wanted: Mapping[str, Any]) -> None:
    """Check every mapping of a list."""
    for number, row in enumerate(document[name]):
        has(row, f"{name}[{number}].", wanted)


def estimates(found: Any, where: str) -> None:
    """Check figures by row and name: a value and the ends of its interval.

    Raises:
        ContractError: one is not; names it.
    """
    has(found, where, {})
    for row, figures in found.items():
        has(figures, f"{where}{row}.", {})
        for name, values in figures.items():
            three = isinstance(values, list) and len(values) == 3
            if not three or any(type(value) not in NUMBER for value in values):
                place = f"{where}{row}.{name}"
                raise ContractError(place, values, "a value and the ends of its interval")


def poses(found: Any, where: str) -> None:
    """Check a list of (x, y, yaw).

    Raises:
        ContractError: it is something else.
    """
    good = isinstance(found, list) and all(
        isinstance(pose, list) and len(pose) == 3 and all(type(value) in NUMBER for value in pose)
        for pose in found
    )
    if not good:
        raise ContractError(where, found, "a list of x, y, yaw")
