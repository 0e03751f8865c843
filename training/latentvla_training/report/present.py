"""Present code, Scenes, recipes, bundle, codebooks: what results and runs are compared with.

Bundle and codebooks are those that ship, unless others are said to be the present ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import BundleError, load_bundle, sha256_of
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import load_split, part_of
from latentvla_training.latent_action.codes import scenes_identity
from latentvla_training.report import identity
from latentvla_training.report.places import Places, json_object

#: Splits that results are of.
SPLITS = ("val", "test", "longtail", "ood")


@dataclass(frozen=True)
class Present:
    """What results are compared with to tell whether they are stale; None is not compared.

    Attributes:
        code: hashes of the code that open-loop figures hang on (``identity.code_identity``).
        drive_code: those that closed-loop figures hang on.
        scenes: hash of the Scenes that are here, by split. train: hashes of the shards to learn
            from, by name, in order; a comparison reads a part of them.
        bundle_sha256: of the present bundle. released_sha256: of the manifest of the baselines
            that ship.
        bundle_host: identity of the host that the present bundle went on from, if any.
        contender_code: hashes of the code that contenders on one host hang on besides.
        distill_code: those that comparisons with a teacher hang on besides.
        driving_code: those that drives of contenders hang on besides.
        recipes: hashes of the settings of recipes by kind (``identity.shipped_recipes``) and name.
        codebooks: ids of the present codebooks, by the names of their recipes.
        scenes_ids: identity of the Scenes as codes and teachers name them, by split.
        commit: of this checkout; it is named beside code that has changed.
    """

    code: Mapping[str, Any] = field(default_factory=dict)
    drive_code: Mapping[str, Any] = field(default_factory=dict)
    scenes: Mapping[str, str | None] = field(default_factory=dict)
    train: Mapping[str, str] = field(default_factory=dict)
    bundle_sha256: str | None = None
    released_sha256: str | None = None
    bundle_host: str | None = None
    contender_code: Mapping[str, Any] = field(default_factory=dict)
    distill_code: Mapping[str, Any] = field(default_factory=dict)
    driving_code: Mapping[str, Any] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    codebooks: Mapping[str, str] = field(default_factory=dict)
    scenes_ids: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None

    def train_sha256(self, max_shards: int, odometry_share: float = 1.0) -> str | None:
        """Return the hash of the part of the training Scenes that a recipe reads, see ``part_of``.

        None where no training Scenes are here.
        """
        if not self.train:
            return None
        paths = part_of([Path(name) for name in self.train], max_shards, odometry_share)
        return identity.joined_hash({path.name: self.train[path.name] for path in paths})

    def other_codebook(self, codebook_id: str) -> list[str]:
        """Say that a codebook is not the present one of its recipe, if there is one."""
        present = self.codebooks.get(identity.recipe_of(codebook_id))
        if present in (None, codebook_id):
            return []
        return [f"codebook {codebook_id}, now {present}"]

    def other_recipe(self, kind: str, found: Mapping[str, str]) -> list[str]:
        """Say which recipes have other settings than those found; others than ship do not count."""
        shipped = self.recipes.get(kind, {})
        now = {name: shipped.get(name) for name in found}
        return [f"recipe {reason}" for reason in identity.different(found, now)]

    def with_made(self, bundle: Path | None = None, codebook: Path | None = None) -> Present:
        """Return it with another bundle and codebook (folders) as the present ones; None: as it is.

        Codebooks of other recipes stay those that ship.

        Raises:
            BundleError: the bundle is absent or damaged.
            ContractError: the folder holds no codebook.
        """
        found = self
        if bundle is not None:
            made = identity.bundle_identity(load_bundle(bundle))
            sha256, host = made["bundle_sha256"], made["start_from"]
            found = replace(found, bundle_sha256=sha256, bundle_host=host)
        if codebook is not None:
            own = json_object(codebook / "manifest.json").get("codebook_id")
            if not isinstance(own, str):
                raise ContractError("codebook", str(codebook), "a folder of codebook release")
            found = replace(found, codebooks={**found.codebooks, identity.recipe_of(own): own})
        return found


def here() -> Present:
    """Return what results are compared with in this checkout: Scenes as ``evaluate`` reads them."""
    scenes, scenes_ids, train = {}, {}, {}
    for split in SPLITS:
        try:
            reader = load_split(split)
        except (FileNotFoundError, ContractError):
            continue
        scenes[split] = str(identity.scenes_identity(reader.paths)["content_sha256"])
        scenes_ids[split] = scenes_identity(reader)
    with suppress(FileNotFoundError, ContractError):
        shards = load_split("train").paths
        train = {path.stem: shard_info(path).content_sha256 for path in shards}
    return replace(without_scenes(Places()), scenes=scenes, scenes_ids=scenes_ids, train=train)


def without_scenes(places: Places) -> Present:
    """Return all but the Scenes, which no summary of them tells for certain."""
    from latentvla_training.closed_loop.benchmark import identity as drive_identity

    drive = drive_identity("expert", "", "")
    released = places.released / "released.json"
    try:
        shipped = identity.bundle_identity(load_bundle(places.bundles / identity.SHIPPED))
    except BundleError:
        shipped = {}
    return Present(
        identity.code_identity(),
        {name: drive[name] for name in ("world", "scoring", "closed_loop")},
        bundle_sha256=shipped.get("bundle_sha256"),
        released_sha256=sha256_of(released) if released.is_file() else None,
        bundle_host=shipped.get("start_from"),
        contender_code=identity.contender_identity(),
        distill_code=identity.distill_identity(),
        driving_code=identity.driving_identity(),
        recipes=identity.shipped_recipes(),
        codebooks=identity.shipped_codebooks(places.released),
        commit=identity.commit(),
    )
