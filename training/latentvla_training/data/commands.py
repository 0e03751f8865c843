"""``latentvla-train bag``: an episode as a recording, and recordings as scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


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

    def __call__(self) -> int:
        from latentvla_ros.contract import ContractError
        from latentvla_training.data.bag_import import bag_scenes, footer_recipe
        from latentvla_training.data.shards import write_shard
        from latentvla_training.data.world_adapter import SceneSettings

        if self.out.suffix != ".parquet":
            raise ContractError("out", str(self.out), "a file that ends in .parquet")
        settings = SceneSettings()
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
