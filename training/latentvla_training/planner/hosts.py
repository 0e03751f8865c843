"""Trained planners to start from: of a bundle, or of a run.

A bundle that ships may be a student. Comparisons go on from the planner that it went on from
itself, whose weights come with the package in ``released/host``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from latentvla_ros.contract import ContractError, View
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import WEIGHTS_FILE, Bundle, load_bundle
from latentvla_training.data.shard_footer import shard_info
from latentvla_training.data.shards import ShardReader
from latentvla_training.engine.recipe import SHARES, DataSettings
from latentvla_training.planner.release import load_run
from latentvla_training.planner.released import released_folder


@dataclass(frozen=True)
class Host:
    """A trained planner and which one it is: ``<name>-<first 16 hex of the hash of its weights>``.

    The weights are in float32, from whatever precision they were kept in.

    Attributes:
        codebook: that its latent actions are of; None while they have no meaning.
        data: what it was told; all where nothing says otherwise.
        bundle_sha256: of the bundle that it comes from; None of a run.
        views: cameras and times that it looks at, in order; empty where only the order of the
            Scenes says so, as for a run.
    """

    planner: StudentPlanner
    identity: str
    codebook: str | None = None
    bundle_sha256: str | None = None
    data: DataSettings = field(default_factory=DataSettings)
    views: tuple[View, ...] = ()

    def check_views(self, reader: ShardReader) -> None:
        """Refuse Scenes of other cameras than those of the host's rig.

        Raises:
            ContractError: with both.
        """
        recorded = shard_info(reader.paths[0]).recipe.get("views")
        if recorded is None or not self.views:
            return
        found = tuple(View(**view) for view in recorded)
        if found != self.views:
            name = f"views of {reader.paths[0].name}"
            raise ContractError(
                name, _words(found), f"{_words(self.views)}, the rig of the host {self.identity}"
            )


def _words(views: tuple[View, ...]) -> str:
    return ", ".join(f"{view.slot}@{view.time_offset_s:g}" for view in views)


def bundle_planner(bundle: Bundle) -> StudentPlanner:
    """Return the planner of a verified bundle, with its weights, for inference."""
    from safetensors.torch import load_file

    planner = StudentPlanner(PlannerConfig.from_dict(bundle.manifest.model))
    weights = load_file(bundle.file(WEIGHTS_FILE))
    state = planner.state_dict()
    planner.load_state_dict({name: value.to(state[name].dtype) for name, value in weights.items()})
    return planner.eval()


def released_hosts() -> dict[str, Bundle]:
    """Return the planners that students which ship went on from, by their bundles' ids.

    They are bundles without a graph: nothing drives them.

    Raises:
        BundleError: one is damaged.
    """
    folders = sorted(path.parent for path in (released_folder() / "host").glob("*/manifest.json"))
    found = [load_bundle(folder) for folder in folders]
    return {bundle.manifest.bundle_id: bundle for bundle in found}


def bundle_host(name_or_path: str) -> Host:
    """Load the planner of a bundle; of a student's, the host that the student went on from.

    Raises:
        BundleError: there is none, or it is damaged.
        ContractError: the bundle is of a student whose host does not come with the package.
    """
    bundle = load_bundle(name_or_path)
    made = bundle.manifest.provenance
    if not made.get("reasoner"):
        return _of_bundle(bundle)
    hosts = [_of_bundle(host) for host in released_hosts().values()]
    for host in hosts:
        if host.identity == made["start_from"]:
            return host
    raise ContractError(
        f"host of the student {bundle.manifest.bundle_id}",
        [host.identity for host in hosts],
        f"{made['start_from']}; name that planner instead (--host-run, or its bundle)",
    )


def _of_bundle(bundle: Bundle) -> Host:
    manifest = bundle.manifest
    made = manifest.provenance
    return replace(
        _host(manifest.bundle_id, bundle_planner(bundle)),
        codebook=manifest.codebook_id,
        views=manifest.views,
        bundle_sha256=bundle.content_sha256,
        data=DataSettings(**{name: made[name] for name in SHARES if name in made}),
    )


def run_host(folder: Path) -> Host:
    """Load the averaged planner of a run.

    Raises:
        FileNotFoundError: the folder holds no run with a checkpoint.
        ContractError: it is no planner's run.
    """
    recipe, planner, step = load_run(folder)
    return replace(_host(f"{folder.name}-step{step}", planner), data=recipe.data)


def _host(name: str, planner: StudentPlanner) -> Host:
    digest = hashlib.sha256()
    for key, value in sorted(planner.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return Host(planner, f"{name}-{digest.hexdigest()[:16]}")
