"""Contenders at the wheel: routes of the closed loop, planned from live frames by a trained head.

Nothing is cached or looked up: the host's frozen trunk reads the frame in float32, as a car would,
and the contender's own weights stand behind it, those of its planner as a bundle keeps them. The
teacher online answers to the same frame, by the procedure of its cache (``teacher.cache``): states
after its own greedy codes, of t0 and before. A driver holds networks alone, no Scene, no code of
what was driven and no file of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentvla_ros.contract import (
    CODEBOOK_SIZE,
    NUM_LATENT_ACTIONS,
    BundleManifest,
    ContractError,
    Observation,
    Plan,
    Rig,
)
from latentvla_ros.model.torchvision_operators import declare_missing_operators
from latentvla_training.closed_loop import benchmark
from latentvla_training.closed_loop.observing import Observer
from latentvla_training.closed_loop.routes import RouteSettings, drive_route
from latentvla_training.data.parallel import map_unordered
from latentvla_training.data.shards import load_split
from latentvla_training.distill.contenders import Contest, train_contender
from latentvla_training.distill.evaluation import seed_folder
from latentvla_training.distill.online_teacher import online_states
from latentvla_training.distill.pooling import TeacherStates
from latentvla_training.distill.settings import DistillRecipe, of_seed
from latentvla_training.distill.teaching import Teaching
from latentvla_training.export.bundle_writer import make_manifest
from latentvla_training.export.onnx_graph import round_to_half
from latentvla_training.latent_action.codes import load_codes, scenes_identity
from latentvla_training.latent_action.dynamics import weights_hash
from latentvla_training.planner.cached_encodings import FEATURES
from latentvla_training.planner.contenders import CodedSplit
from latentvla_training.planner.dataset import EGO_INPUTS
from latentvla_training.planner.head_training import PlannerOnFeatures
from latentvla_training.planner.hosts import Host
from latentvla_training.planner.release import VIEWS
from latentvla_training.report.identity import (
    contender_identity,
    distill_identity,
    driving_identity,
    settings_hash,
)
from latentvla_training.teacher.cache import teacher_id
from latentvla_training.teacher.commands import teacher_place
from latentvla_training.teacher.processor import expected_rig
from latentvla_training.teacher.release import load_teacher
from latentvla_training.teacher.training import TeacherRun
from latentvla_training.world.drivers import SensorFrame
from latentvla_training.world.rig import default_rig, default_slots
from latentvla_training.world.session import NoStartError
from latentvla_training.world.sumo_network import NetworkBuildError


@dataclass(frozen=True)
class Finished:
    """A trained contender, as it goes to the processes that drive with it.

    Attributes:
        contender: its name. module: its weights, for inference.
        manifest: views and sizes of its input, as its bundle would declare them.
        teacher: by which ``load_teacher`` finds the one that it hears online, "" for none.
        identity: what it was made of.
    """

    contender: str
    module: PlannerOnFeatures
    manifest: BundleManifest
    teacher: str
    identity: dict[str, Any]


class _Unread:
    """Stands where features of so many Scenes would: nobody reads them to drive."""

    def __init__(self, scenes: int) -> None:
        self._scenes = scenes

    def __len__(self) -> int:
        return self._scenes


def load_finished(
    contenders: Sequence[str],
    host: Host,
    recipe: DistillRecipe,
    codes: str,
    teacher: str,
    folder: Path,
    seed: int,
) -> list[Finished]:
    """Load finished contenders of a seed, verified as ``distill evaluate`` verifies them.

    Features, encodings and caches of the teacher need not be here. Weights of planners are rounded
    to half precision, as the bundle of each would carry them.

    Args:
        codes: folder with codes of the training split. teacher: a released teacher or a run of one,
            "" for none. folder: of the family's runs.

    Raises:
        ContractError: host, codes, teacher, Scenes and runs do not belong together; both are named.
        FileNotFoundError: Scenes, codes, teacher or a finished run are absent.
    """
    data = recipe.heads.data
    data.check_told(f"host {host.identity}", host.data)
    whole = load_split(data.train_split)
    host.check_views(whole)
    path = Path(codes) / f"{data.train_split}.safetensors"
    own = load_codes(path, scenes_id=scenes_identity(whole))
    own.check_told(data.odometry_share)
    reader = whole.part(data.max_shards, data.labelled_share, data.odometry_share)
    unread: Any = _Unread(len(reader))
    splits = {data.train_split: CodedSplit(reader, unread, own.of_scenes(reader))}
    teaching = None
    if teacher:
        run = load_teacher(teacher_place(teacher), own.codebook_id)
        name = teacher_id(run.recipe, run.teacher)
        teaching = Teaching(name, own.codebook_id, run.teacher.width)
    contest = Contest(
        host, of_seed(recipe, seed), splits, teaching, seed_folder(folder, seed), may_train=False
    )
    records = contest.records
    slots, views = default_slots(), host.views or VIEWS
    found = []
    for contender in contenders:
        module = train_contender(contender, contest, progress=False).module
        round_to_half(module.planner)
        hears = isinstance(module.source, TeacherStates)
        about = {
            "host": host.identity,
            "host_sha256": host.bundle_sha256,
            "recipe": recipe.name,
            "recipes": {recipe.name: settings_hash(recipe)},
            "passes": recipe.heads.run.steps * recipe.heads.run.batch_size,
            "seed": seed,
            "teacher": records.teacher,
            "codebook": records.codebook,
            "trained_on": records.scenes,
            "weights": weights_hash(module),
        }
        manifest = make_manifest(contender, module.planner.config, slots, views)
        found.append(Finished(contender, module, manifest, teacher if hears else "", about))
    return found


class LiveTeacher:
    """What a contender reads of the teacher, asked at one moment.

    Args:
        manifest: of the observations.

    Raises:
        ContractError: the teacher's prompt is not made for these views; names both.
    """

    def __init__(self, run: TeacherRun, manifest: BundleManifest, device: torch.device) -> None:
        names = " ".join(f"{view.slot}@{view.time_offset_s:g}" for view in manifest.views)
        found = f"{names} {manifest.image_width}x{manifest.image_height}"
        wanted = expected_rig(run.recipe.pictures)
        if found != wanted:
            raise ContractError("views of the host", found, f"{wanted}, those of the teacher")
        self._run = run
        run.teacher.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def states(self, observation: Observation) -> dict[str, Tensor]:
        """Return its states of the pictures (1, P, D) and of the codes' places (1, 12, D)."""
        run, views = self._run, observation.images
        views = np.zeros_like(views) if run.recipe.blank_images else views
        known = {name: getattr(observation, name) for name in EGO_INPUTS}
        return online_states(run, known, views)


class ContenderDriver:
    """A ``world.drivers.Driver`` that plans with a contender, on the GPU where there is one.

    Attributes:
        manifest: views and sizes that it reads.

    Raises:
        ContractError: the teacher that it hears online is no longer the one that it has learned
            with, or is not made for its views.
    """

    uses_cameras = True

    def __init__(self, finished: Finished) -> None:
        self.name, self.manifest = finished.contender, finished.manifest
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = finished.module.to(self._device).eval().requires_grad_(False)
        self._teacher = None
        if finished.teacher:
            run = load_teacher(teacher_place(finished.teacher))
            found, wanted = teacher_id(run.recipe, run.teacher), finished.identity["teacher"]
            if found != wanted:
                raise ContractError(f"teacher {finished.teacher}", found, wanted)
            self._teacher = LiveTeacher(run, self.manifest, self._device)
        self._observer: Observer | None = None

    def start(self, rig: Rig) -> None:
        """Forget the route before; raises ContractError when the rig does not fit the host."""
        self._observer = Observer(self.manifest, rig)

    @torch.inference_mode()
    def plan(self, frame: SensorFrame) -> Plan | None:
        """Return the plan of a frame, None while warming up; it says no latent actions."""
        assert self._observer is not None, "plan before start"
        observation = self._observer.observe(frame)
        if observation is None:
            return None
        batch: dict[str, Tensor] = {
            name: torch.from_numpy(values).to(self._device)
            for name, values in observation.inputs().items()
        }
        batch[FEATURES] = self._module.planner.encode_images(batch.pop("images"))
        if self._teacher is not None:
            batch |= self._teacher.states(observation)
        rounds, scores = self._module.decode(batch)
        candidates, scores = (found[0].float().cpu() for found in (rounds[-1], scores))
        silent = np.zeros((NUM_LATENT_ACTIONS, CODEBOOK_SIZE), np.float32)
        return Plan.from_outputs(candidates.numpy(), scores.numpy(), silent, frame.stamp_ns)

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class ContenderRoute:
    """One route to drive, as it goes to a process. ``finished``: file of who drives."""

    route: str
    finished: Path
    settings: RouteSettings
    video: str = ""


@lru_cache(maxsize=1)
def _driver(finished: Path) -> ContenderDriver:
    """Loaded once for the routes of a process."""
    torch.set_num_threads(1)  # more might change a plan's last digit
    declare_missing_operators()  # before timm's layers are read
    return ContenderDriver(torch.load(finished, weights_only=False))  # of our own, just written


def drive_one(task: ContenderRoute) -> dict[str, Any]:
    """Drive one route, film it where asked for, and return its row.

    The cameras publish in the size that the contender's Scenes have.
    """
    driver = _driver(task.finished)
    size = driver.manifest.image_width, driver.manifest.image_height
    driven = drive_route(
        task.route, driver, default_rig(*size), task.settings, keep_plans=bool(task.video)
    )
    if task.video:
        from latentvla_training.closed_loop.film import film_route

        film_route(driven, Path(task.video))
    return benchmark.row_of(driven)


def drive_finished(
    finished: Finished,
    routes: Sequence[str],
    workers: int = 1,
    settings: RouteSettings | None = None,
    video: Path | None = None,
    progress: bool = True,
) -> benchmark.DriveResult:
    """Drive routes with a contender in processes, as ``closed_loop.benchmark.drive_routes`` does.

    Args:
        video: folder for one MP4 a route; None for none.

    Raises:
        ContractError: the contender or its teacher is at fault.
        OSError: the disk is full, or ``video`` cannot be written.
    """
    from tqdm import tqdm

    if video is not None:
        video.mkdir(parents=True, exist_ok=True)
    result = benchmark.DriveResult()
    rows: dict[str, dict[str, Any]] = {}
    bar = tqdm(total=len(routes), desc=finished.contender, unit="route", disable=not progress)
    with TemporaryDirectory(prefix="latentvla-drive-") as folder, bar:
        place = Path(folder) / "contender.pt"
        torch.save(finished, place)
        tasks = [
            ContenderRoute(
                route,
                place,
                settings or RouteSettings(),
                str(video / f"{route}.mp4") if video else "",
            )
            for route in routes
        ]
        for task, row in map_unordered(drive_one, tasks, workers):
            bar.update()
            if isinstance(row, (NetworkBuildError, NoStartError)):
                result.skipped[task.route] = " ".join(str(row).split())
            elif isinstance(row, Exception):
                raise row
            else:
                rows[task.route] = row
    result.rows = [rows[route] for route in routes if route in rows]
    result.skipped = dict(sorted(result.skipped.items()))
    result.summary = benchmark.summary_of(result.rows, result.skipped)
    return result


def document_of(
    finished: Finished, split: str, settings: RouteSettings, teacher: str
) -> dict[str, Any]:
    """Return all of a result but the routes, as ``latentvla-train drive`` writes it.

    Args:
        teacher: name or folder of the one that was named, whether or not it is heard.
    """
    code = {**distill_identity(), **contender_identity(), **driving_identity()}
    return {
        "driver": finished.contender,
        "contender": finished.contender,
        "bundle": None,
        "split": split,
        "seed": 0,
        "settings": benchmark.settings_document(settings),
        "teacher_run": Path(teacher).name,
        "identity": {
            **benchmark.identity(finished.contender, "", ""),
            **code,
            **finished.identity,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    }
