"""The one error a broken contract raises: which field, what was found, what is allowed."""

from __future__ import annotations


class ContractError(ValueError):
    """A record, file or setting that does not keep the contract.

    Attributes:
        field: dotted name of the offending field, e.g. ``rig.cameras[front].topic``.
    """

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"{field}: found {found!r}, expected {expected}")
        self.field = field
        self.found = found
        self.expected = expected
