"""``latentvla-train world``: make a split, hold the expert to the gates, film an episode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Split = Literal["train", "val", "test", "longtail", "ood"]


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
        if summary.recovery_left_out:
            print(f"left out: {summary.recovery_left_out} recovery starts the expert cannot save")
        if summary.without_event:
            print(f"left out: {len(summary.without_event)} episodes without a long-tail event")
        if summary.failed:
            print(f"left out: {len(summary.failed)} episodes that failed")
        for episode, reason in summary.failed.items():
            print(f"  {episode}: {reason}")
        return 1 if summary.failed else 0


@dataclass(frozen=True)
class Gates:
    """Hold the expert's scores on a split against the gates of the world; show what fails them."""

    split: Split = "test"
    """Which scenes; made beforehand with world make."""
    json: Path | None = None
    """Where to write all figures and every scene that fails."""
    out: Path | None = None
    """Folder for pictures from above of up to 12 of the scenes that fail."""

    def __call__(self) -> int:
        import json

        from latentvla_training.data.gates import check_gates, draw_failures, report_lines
        from latentvla_training.data.shards import load_split
        from latentvla_training.report.identity import code_identity, commit, scenes_identity

        reader = load_split(self.split)
        report = check_gates(self.split, reader)
        print("\n".join(report_lines(report)))
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            about = {**code_identity(), "data": scenes_identity(reader.paths), "commit": commit()}
            document = {**report.as_dict(), "identity": about}
            self.json.write_text(json.dumps(document, indent=1))
        if self.out is not None:
            for path in draw_failures(reader, report.failures, self.out):
                print(path)
        return 0 if report.passed else 1


@dataclass(frozen=True)
class Show:
    """Film an episode: the three cameras and the view from above (MP4), and draw it whole (PNG)."""

    episode: tyro.conf.Positional[str]
    """E.g. test-0004-00: the first episode of the fifth test network."""
    out: Path | None = None
    """Where to write; out/world/EPISODE.mp4 by default. The picture lies beside it."""

    def __call__(self) -> int:
        import cv2

        from latentvla_training.world.contact_sheet import show_episode
        from latentvla_training.world.drive_map import draw_drive
        from latentvla_training.world.networks import build_road_map
        from latentvla_training.world.simulation import simulate_episode

        path = self.out or Path("out/world") / f"{self.episode}.mp4"
        episode = simulate_episode(self.episode)
        show_episode(self.episode, path, episode)
        picture = path.with_suffix(".png")
        image = draw_drive(build_road_map(episode.network), episode)
        if not cv2.imwrite(str(picture), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{picture} could not be written")
        print(f"{path}\n{picture}")
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
    """The built-in driving world: scenes, gates on the expert, films, contact sheets."""

    command: (
        Annotated[Make, tyro.conf.subcommand("make")]
        | Annotated[Gates, tyro.conf.subcommand("gates")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[ContactSheet, tyro.conf.subcommand("contact-sheet")]
    )

    def __call__(self) -> int:
        return self.command()
