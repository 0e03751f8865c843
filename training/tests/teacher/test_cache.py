"""The cache knows nothing after t0, is what it says it is, and survives kill -9 and a full disk."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.scene import Scene
from latentvla_training.data.shards import DiskFullError, ShardReader, write_shard
from latentvla_training.teacher import cache as cache_module
from latentvla_training.teacher.cache import (
    ACTION,
    CODES,
    MARGINALS,
    VISUAL,
    CachedTeacher,
    cache_folder,
    cache_identity,
    ensure_cache,
    prefix_uniforms,
)
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.settings import TeacherRecipe
from latentvla_training.teacher.training import TeacherRun
from safetensors import safe_open
from safetensors.numpy import load_file, save

from latentvla_ros.contract import ContractError

from .conftest import CODEBOOK, SHARD_RECIPE, Place, exit_code, kill_at_flush, make_scene

NAMES = (VISUAL, ACTION, MARGINALS, CODES)


@pytest.fixture
def run(recipe: TeacherRecipe) -> TeacherRun:
    processor = load_processor(recipe.model, recipe.pictures)
    known = replace(recipe, codebook=CODEBOOK)
    return TeacherRun(known, processor, make_teacher(known.model, processor).eval(), 0)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def test_what_is_kept(place: Place, run: TeacherRun) -> None:
    found = ensure_cache(run, place.reader("test"), "test", place.root / "c", progress=False)
    width = run.recipe.model.width
    assert found.visual.shape == (12, 3 * 2, width) and found.visual.dtype == np.float16
    assert found.action.shape == (12, 12, width) and found.action.dtype == np.float16
    assert found.marginals.shape == (12, 12, 16)
    np.testing.assert_allclose(found.marginals.sum(axis=-1), 1.0, atol=1e-5)
    assert found.codes.shape == (12, 12) and 0 <= found.codes.min() <= found.codes.max() < 16
    assert found.identity["codebook"] == CODEBOOK


def test_what_comes_later_leaves_it_byte_identical(tmp_path: Path, run: TeacherRun) -> None:
    """Later Scenes show other pictures and motion, in the same batch too; futures are no input."""
    early = 2
    assert early < run.recipe.cache.batch_size == 4

    def changed(index: int) -> Scene:
        scene = make_scene(index, "test-0000", shown=index if index < early else 50 + index)
        future = scene.labels.future_10hz[::-1].copy()
        labels = replace(scene.labels, future_10hz=future, future_2hz=future[:8])
        if index < early:
            return replace(scene, labels=labels)
        return replace(
            scene,
            labels=labels,
            ego_history=scene.ego_history * 1.5,
            ego_dynamics=scene.ego_dynamics + 3,
            command=np.roll(scene.command, 1),
        )

    def states(scenes: list[Scene], name: str) -> CachedTeacher:
        path = tmp_path / name / "test-0000-00.parquet"
        write_shard(path, scenes, SHARD_RECIPE)
        return ensure_cache(run, ShardReader([path]), "test", tmp_path / name, progress=False)

    before = states([make_scene(index, "test-0000") for index in range(8)], "before")
    after = states([changed(index) for index in range(8)], "after")
    for name in NAMES:
        old, new = getattr(before, name), getattr(after, name)
        assert old[:early].tobytes() == new[:early].tobytes(), name
        if name != CODES:  # of random weights, and few: they may stay
            for index in range(early, 8):  # what is varied does matter
                assert old[index].tobytes() != new[index].tobytes(), (name, index)


def test_states_of_two_kinds_of_devices_are_not_mixed(place: Place, run: TeacherRun) -> None:
    """A GPU's states are read anywhere, and neither kind is gone on with on the other."""
    reader, root = place.reader("test"), place.root / "c"
    made = ensure_cache(run, reader, "test", root, progress=False)
    folder = cache_folder(made.identity["teacher"], "test", root)
    first, second = (folder / f"{path.stem}.safetensors" for path in reader.paths)

    def say_cuda(path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
        assert "device" not in about  # as in files that were made before there was a choice
        path.write_bytes(save(load_file(path), {"about": json.dumps({**about, "device": "cuda"})}))

    say_cuda(first)
    with pytest.raises(ContractError, match=r"test-0001-00.*device: found 'cpu', expected cuda"):
        CachedTeacher(folder, reader, made.identity)
    say_cuda(second)
    assert np.array_equal(CachedTeacher(folder, reader, made.identity).action, made.action)
    ensure_cache(run, reader, "test", root, progress=False)  # all there: nothing to go on with
    second.unlink()
    for split in ("test", "val"):
        with pytest.raises(ContractError, match=r"device: found 'cuda', expected cpu, as here"):
            ensure_cache(run, place.reader(split), split, root, progress=False)
    first.unlink()
    ensure_cache(run, reader, "test", root, progress=False)


def test_killed_and_repeated_it_is_the_same(
    place: Place, run: TeacherRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = place.reader("test")
    ensure_cache(run, reader, "test", place.root / "whole", progress=False)
    parts = place.root / "parts"
    with monkeypatch.context() as patched:
        kill_at_flush(patched, 2)
        work = partial(ensure_cache, run, reader, "test", parts, progress=False)
        assert exit_code(work) == -signal.SIGKILL
    left = [p for p in parts.rglob("*.safetensors") if not p.name.startswith(".")]
    assert len(left) == 1  # the second is not taken for whole
    stamp = left[0].stat().st_mtime_ns
    ensure_cache(run, reader, "test", parts, progress=False)
    assert left[0].stat().st_mtime_ns == stamp
    whole = files(place.root / "whole")
    assert {name: data for name, data in files(parts).items() if name in whole} == whole


def test_a_full_disk_leaves_nothing_half_written(
    place: Place, run: TeacherRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left for the teacher's states of test-0000"):
        ensure_cache(run, place.reader("test"), "test", place.root / "c", progress=False)
    assert files(place.root / "c") == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("teacher", "other-1"),
        ("codebook", "other-1"),
        ("processor", "0123"),
        ("rig", "rear@0"),
        ("prefixes", "64"),
    ],
)
def test_states_of_another_are_refused(
    place: Place, run: TeacherRun, field: str, value: str
) -> None:
    reader, root = place.reader("test"), place.root / "c"
    made = ensure_cache(run, reader, "test", root, progress=False)
    folder = cache_folder(made.identity["teacher"], "test", root)
    with pytest.raises(ContractError) as caught:
        CachedTeacher(folder, reader, {**made.identity, field: value})
    text = str(caught.value)
    assert field in text and value in text and made.identity[field] in text


def test_states_of_other_scenes_are_made_again(place: Place, run: TeacherRun) -> None:
    root = place.root / "c"
    reader = place.reader("test")
    ensure_cache(run, reader, "test", root, progress=False)
    rows = [make_scene(index, "test-0000", shown=40 + index) for index in range(6)]
    write_shard(reader.paths[0], rows, SHARD_RECIPE)
    changed = place.reader("test")
    identity = cache_identity(run, changed)
    folder = cache_folder(identity["teacher"], "test", root)
    with pytest.raises(ContractError, match="scenes"):
        CachedTeacher(folder, changed, identity)
    ensure_cache(run, changed, "test", root, progress=False)
    CachedTeacher(folder, changed, identity)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_is_found(place: Place, run: TeacherRun, damage: str) -> None:
    reader, root = place.reader("test"), place.root / "c"
    made = ensure_cache(run, reader, "test", root, progress=False)
    path = next((root).rglob("test-0000-00.safetensors"))
    good = path.read_bytes()
    middle = len(good) - 100
    broken = good[:middle] if damage == "cut" else good[:middle] + b"\0\1" + good[middle + 2 :]
    path.write_bytes(broken)
    with pytest.raises(ContractError, match="remove it to have it made again"):
        CachedTeacher(path.parent, reader, made.identity)
    ensure_cache(run, reader, "test", root, progress=False)
    assert path.read_bytes() == good


def test_another_teacher_has_another_place(place: Place, run: TeacherRun) -> None:
    reader = place.reader("test")
    other = TeacherRun(
        run.recipe, run.processor, make_teacher(run.recipe.model, run.processor, 1).eval(), 0
    )
    first, second = (cache_identity(teacher, reader)["teacher"] for teacher in (run, other))
    assert first != second


def test_random_numbers_are_those_of_the_token(recipe: TeacherRecipe) -> None:
    both = prefix_uniforms(["a/1", "a/2"], recipe.cache)
    assert both.shape == (2, recipe.cache.prefixes, 12)
    assert np.array_equal(prefix_uniforms(["a/2"], recipe.cache)[0], both[1])
    assert not np.array_equal(both[0], both[1])
    other = prefix_uniforms(["a/1"], replace(recipe.cache, seed=1))
    assert not np.array_equal(other[0], both[0])


def test_nothing_is_read_but_inputs(
    place: Place, run: TeacherRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are not even opened."""
    for path in place.codes.glob("*"):
        path.unlink()
    monkeypatch.setattr(ShardReader, "heavy_label", _refuse)
    found = ensure_cache(run, place.reader("val"), "val", place.root / "c", progress=False)
    assert len(found) == 12
    assert not hasattr(cache_module, "load_codes")


def _refuse(*_: object) -> None:
    raise AssertionError("labels are no input of the teacher")
