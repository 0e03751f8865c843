"""``latentvla-train world``: make the scenes of a split, film an episode, draw a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Make:
    """Make the scenes of a split that are not there yet; an interrupted call is simply repeated."""

    split: Split = "train"
    """Which networks."""
    workers: int = 1
    """Processes."""
    episodes: int | None = None
    """At most so many episodes; the split's own number by default."""
    rebuild: Literal["no", "other_code", "all"] = "no"
    """Which scenes to make again: none, those that other code made, or all."""

    def __call__(self) -> int:
        from latentvla_training.data.make import make_split

        summary = make_split(
            self.split, workers=self.workers, max_episodes=self.episodes, rebuild=self.rebuild
        )
        print(f"{summary.split}: {summary.scenes} scenes in {summary.shards} shards")
        for episode, reason in summary.failed.items():
            print(f"left out: {episode}: {reason}")
        return 1 if summary.failed else 0


@dataclass(frozen=True)
class Show:
    """Film an episode: the three cameras and the view from above (MP4)."""

    episode: tyro.conf.Positional[str]
    """E.g. test-0004-00: the first episode of the fifth test network."""
    out: Path | None = None
    """Where to write; out/world/EPISODE.mp4 by default."""

    def __call__(self) -> int:
        from latentvla_training.world.contact_sheet import show_episode

        path = self.out or Path("out/world") / f"{self.episode}.mp4"
        show_episode(self.episode, path)
        print(path)
        return 0


@dataclass(frozen=True)
class ContactSheet:
    """Draw one telling scene of several episodes on a sheet (PNG)."""

    split: Split = "test"
    """Which networks."""
    episodes: int = 12
    """One of as many networks."""
    out: Path | None = None
    """Where to write; out/world/SPLIT.png by default."""

    def __call__(self) -> int:
        from functools import lru_cache

        from latentvla_ros.contract import ContractError
        from latentvla_training.world.contact_sheet import contact_sheet, telling_scenes
        from latentvla_training.world.networks import build_road_map, split_networks
        from latentvla_training.world.simulation import simulate_episode

        networks = split_networks(self.split)
        if not 1 <= self.episodes <= len(networks):
            raise ContractError("--episodes", self.episodes, f"1 to {len(networks)}")
        road_map = lru_cache(maxsize=None)(build_road_map)
        episodes = (simulate_episode(f"{name}-00") for name in networks[: self.episodes])
        path = self.out or Path("out/world") / f"{self.split}.png"
        contact_sheet(telling_scenes(episodes, road_map), path, road_map_of=road_map)
        print(path)
        return 0


@dataclass(frozen=True)
class World:
    """The built-in driving world: scenes, films, contact sheets."""

    command: (
        Annotated[Make, tyro.conf.subcommand("make")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[ContactSheet, tyro.conf.subcommand("contact-sheet")]
    )

    def __call__(self) -> int:
        return self.command()
