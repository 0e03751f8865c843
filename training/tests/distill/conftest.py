"""Scenes that can be scored, a host, codes, and a small teacher's real cache of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.distill.settings import DistillRecipe, load_distill_recipe
from latentvla_training.latent_action.codes import LatentCodes, save_codes, scenes_identity
from latentvla_training.planner.hosts import Host
from latentvla_training.teacher.cache import ensure_cache, teacher_id
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.release import load_teacher, release
from latentvla_training.teacher.settings import TeacherRecipe, load_teacher_recipe
from latentvla_training.teacher.training import TeacherRun

from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from ..planner.conftest import SHARD_RECIPE, TINY, make_scene

CODEBOOK = "test-0123456789abcdef"
SPLITS = ("train", "val", "test")
_SCENES = 4


def write_split(split: str) -> ShardReader:
    """Write a split of two networks whose reference is what was driven."""
    for network in (f"{split}-0000", f"{split}-0001"):
        scenes = []
        for index in range(_SCENES):
            scene = make_scene(index, network)
            reference = scene.labels.future_10hz.astype(np.float64)
            labels = replace(scene.labels, pdm_reference_10hz=reference)
            scenes.append(replace(scene, stamp_ns=index * 500_000_000, labels=labels))
        write_shard(split_folder(split) / f"{network}-00.parquet", scenes, SHARD_RECIPE)
    return load_split(split)


def codes_of(reader: ShardReader, split: str, codebook: str = CODEBOOK) -> LatentCodes:
    """Return codes that follow from the speed driven; the last transition of some is cut."""
    speed = reader.columns["future_10hz"][:, 10, 0].astype(int)
    ego = ((speed[:, None, None] * (np.arange(12).reshape(3, 4) + 1)) % 16).astype(np.int8)
    ego[::4, 2] = -1
    tokens = reader.columns["token"].astype(str)
    return LatentCodes(split, codebook, scenes_identity(reader), tokens, ego, ego)


def teacher_recipe(codebook: str = CODEBOOK) -> TeacherRecipe:
    """Return the shipped recipe for tests, for the Scenes here."""
    smoke = load_teacher_recipe("smoke")
    pictures = replace(smoke.pictures, width=64, height=32)
    return replace(smoke, pictures=pictures, codebook=codebook)


@dataclass(frozen=True)
class Place:
    """A data root with splits, their codes, a released teacher and its cache.

    Attributes:
        teacher: folder of the released teacher. teacher_id: its identity.
    """

    root: Path
    codes: Path
    teacher: Path
    teacher_id: str
    run: TeacherRun


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("distill")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LATENTVLA_DATA", str(root / "data"))
        recipe = teacher_recipe()
        processor = load_processor(recipe.model, recipe.pictures)
        teacher = make_teacher(recipe.model, processor).eval()
        release(TeacherRun(recipe, processor, teacher, 0), root / "teacher")
        run = load_teacher(root / "teacher")
        for split in SPLITS:
            reader = write_split(split)
            save_codes(root / "codes" / f"{split}.safetensors", codes_of(reader, split))
            ensure_cache(run, reader, split, progress=False)
    identity = teacher_id(run.recipe, run.teacher)
    return Place(root, root / "codes", root / "teacher", identity, run)


@pytest.fixture
def place(made: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("LATENTVLA_DATA", str(made.root / "data"))
    return made


@pytest.fixture
def tiny() -> PlannerConfig:
    return TINY


@pytest.fixture
def host(tiny: PlannerConfig) -> Host:
    return make_host(tiny)


def make_host(config: PlannerConfig) -> Host:
    """Return a host of random weights."""
    torch.manual_seed(0)
    planner = StudentPlanner(config).eval()
    with torch.no_grad():  # untrained control and prior layers are zero: let them say something
        for module in (planner.head.control[-1], planner.ego_prior):
            for parameter in module.parameters():
                parameter.normal_(0.0, 0.05)
    return Host(planner, "tiny-1-0123456789abcdef")


@pytest.fixture
def recipe() -> DistillRecipe:
    return load_distill_recipe("smoke")
