"""What one call of ``world make`` did to a split, as it is kept beside the shards and printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SplitSummary:
    """What ``make_split`` did.

    Attributes:
        split: name. shards, scenes: complete now.
        made, kept: shards made by this call and found complete.
        failed: why by episode, for the episodes that went wrong.
        without_event: long-tail episodes in which no event came about.
        recovery_left_out: recovery starts from which the expert itself scores 0.
        seconds: of wall time. hashes: content hash by shard.
        files: sha256 of the file by shard, by which readers tell that it is whole.
        other_code: shards kept although other code made them. recipe: of the shards.
        code: hash of the code that wrote this.
    """

    split: str
    shards: int
    scenes: int
    made: int
    kept: int
    failed: dict[str, str]
    seconds: float
    hashes: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    other_code: int = 0
    without_event: tuple[str, ...] = ()
    recovery_left_out: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    code: str = ""

    def lines(self) -> list[str]:
        """Return it in lines for people."""
        found = [f"{self.split}: {self.scenes} scenes in {self.shards} shards"]
        if self.recovery_left_out:
            found.append(
                f"left out: {self.recovery_left_out} recovery starts the expert cannot save"
            )
        if self.without_event:
            found.append(f"left out: {len(self.without_event)} episodes without a long-tail event")
        if self.failed:
            found.append(f"left out: {len(self.failed)} episodes that failed")
        return found + [f"  {episode}: {reason}" for episode, reason in self.failed.items()]
