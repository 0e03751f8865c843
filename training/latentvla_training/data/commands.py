"""``latentvla-train bag`` and ``world``: recordings, and Scenes of any size from both.

What ``world make`` is asked is here, beside what makes Scenes: the world's own modules are hashed
with the Scenes that hang on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latentvla_ros.contract import ContractError
from latentvla_training.world import commands as world
from latentvla_training.world.rig import IMAGE_HEIGHT, IMAGE_WIDTH

#: Of pictures, as recipe nano reads them.
_DEFAULT_SIZE = f"{IMAGE_WIDTH}x{IMAGE_HEIGHT}"
#: Least and most pixels of a side.
_SIDES = (32, 4096)


def image_size(text: str) -> tuple[int, int]:
    """Return width and height, pixels, of "512x256".

    Raises:
        ContractError: it is not two numbers, or none that a picture has.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
    width, height = map(int, found.groups()) if found else (0, 0)
    least, most = _SIDES
    if not (least <= width <= most and least <= height <= most):
        expected = f"WIDTHxHEIGHT, e.g. 512x256; {least} to {most} pixels each"
        raise ContractError("--image-size", text, expected)
    return width, height


@dataclass(frozen=True)
class Export:
    """Record an episode of the world as rosbag2 (MCAP) with its rig file."""

    episode: tyro.conf.Positional[str]
    """E.g. test-0004-00."""
    path: tyro.conf.Positional[Path]
    """Folder to make."""
    width: int = 256
    """Of the pictures, pixels."""
    height: int = 128
    """Of the pictures, pixels."""
    start: float = 0.0
    """Seconds into the episode."""
    duration: float | None = None
    """Seconds; to the end by default."""
    jpeg_quality: int = 91
    """1 to 100."""

    def __call__(self) -> int:
        from latentvla_training.data.bag_export import export_bag
        from latentvla_training.world.simulation import simulate_episode

        summary = export_bag(
            simulate_episode(self.episode),
            self.path,
            width=self.width,
            height=self.height,
            start_s=self.start,
            duration_s=self.duration,
            jpeg_quality=self.jpeg_quality,
        )
        print(
            f"{summary.path}: {summary.images} images, {summary.duration_s:.1f} s, "
            f"{summary.size_bytes / 1e6:.1f} MB"
        )
        return 0


@dataclass(frozen=True)
class Import:
    """Turn a recording into a shard of scenes, through the sensing code of the car."""

    bag: tyro.conf.Positional[Path]
    """Rosbag2 folder, .mcap or .db3 file."""
    out: tyro.conf.Positional[Path]
    """The shard to write (.parquet)."""
    rig: Path | None = None
    """Rig file; rig.yaml in the bag's folder by default."""
    network: str | None = None
    """Log that the scenes belong to; the folder's name by default."""
    image_size: str = _DEFAULT_SIZE
    """Of the scenes' pictures, WIDTHxHEIGHT; recipes base need 512x256."""

    def __call__(self) -> int:
        from latentvla_training.data.bag_import import bag_scenes, footer_recipe
        from latentvla_training.data.shards import write_shard
        from latentvla_training.data.world_adapter import SceneSettings

        if self.out.suffix != ".parquet":
            raise ContractError("out", str(self.out), "a file that ends in .parquet")
        width, height = image_size(self.image_size)
        settings = SceneSettings(image_width=width, image_height=height)
        scenes = bag_scenes(self.bag, self.rig, settings, network=self.network)
        info = write_shard(self.out, scenes, footer_recipe(settings))
        print(f"{self.out}: {info.scenes} scenes")
        return 0


@dataclass(frozen=True)
class Bag:
    """Recordings: rosbag2 from the world, and scenes from rosbag2."""

    command: (
        Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Import, tyro.conf.subcommand("import")]
    )

    def __call__(self) -> int:
        return self.command()


@dataclass(frozen=True)
class Make(world.Make):
    """Make the scenes of a split that are not there yet; an interrupted call is simply repeated."""

    image_size: str = _DEFAULT_SIZE
    """Of the pictures, WIDTHxHEIGHT; recipes base need 512x256, below another LATENTVLA_DATA."""

    def __call__(self) -> int:
        from latentvla_training.data.make import make_split, split_settings

        summary = make_split(
            self.split,
            workers=self.workers,
            max_episodes=self.episodes,
            settings=split_settings(self.split, image_size(self.image_size)),
            rebuild=self.rebuild,
        )
        print("\n".join(summary.lines()))
        return 1 if summary.failed else 0


@dataclass(frozen=True)
class World(world.World):
    """The built-in driving world: scenes, gates on the expert, films, contact sheets."""

    command: (
        Annotated[Make, tyro.conf.subcommand("make")]
        | Annotated[world.Gates, tyro.conf.subcommand("gates")]
        | Annotated[world.Show, tyro.conf.subcommand("show")]
        | Annotated[world.ContactSheet, tyro.conf.subcommand("contact-sheet")]
    )
