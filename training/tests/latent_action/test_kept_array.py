"""What is kept is told whole from damaged by itself, and made again where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from latentvla_training.latent_action.kept_array import kept_array

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def never() -> np.ndarray:
    raise AssertionError("made again")


def kept(path: Path, make: object = never, mapped: bool = False) -> np.ndarray:
    return kept_array(path, (3, 4), np.float32, make, mapped)  # type: ignore[arg-type]


@pytest.mark.parametrize("mapped", [False, True])
def test_made_once(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "folder" / "array.npy"
    for make in (lambda: ARRAY, never):
        np.testing.assert_array_equal(kept(path, make, mapped), ARRAY)
    np.testing.assert_array_equal(np.load(path), ARRAY)  # for whoever knows of no hash
    assert [entry.name for entry in path.parent.iterdir()] == ["array.npy"]


def test_files_of_before_there_was_a_hash_are_used(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", ARRAY)
    before = (tmp_path / "array.npy").read_bytes()
    np.testing.assert_array_equal(kept(tmp_path / "array.npy"), ARRAY)
    assert (tmp_path / "array.npy").read_bytes() == before


def flipped(content: bytes) -> bytes:
    return content[:140] + bytes([content[140] ^ 1]) + content[141:]


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:-1],
        lambda content: content[:-60],
        lambda content: content[:100],
        lambda content: content + b"more",
        lambda content: b"",
        lambda content: b"no such file at all",
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_damaged_is_named_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, mapped: bool
) -> None:
    path = tmp_path / "array.npy"
    kept(path, lambda: ARRAY)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    np.testing.assert_array_equal(kept(path, lambda: ARRAY, mapped), ARRAY)
    assert path.read_bytes() == whole
    assert f"{path} is damaged" in caplog.text and "made again" in caplog.text


def test_an_old_file_cut_short_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, ARRAY)
    path.write_bytes(path.read_bytes()[:-4])
    np.testing.assert_array_equal(kept(path, lambda: ARRAY), ARRAY)


def test_another_shape_or_type_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    for other in (ARRAY[:2], ARRAY.astype(np.float64)):
        np.save(path, other)
        np.testing.assert_array_equal(kept(path, lambda: ARRAY), ARRAY)
        np.testing.assert_array_equal(kept(path), ARRAY)


@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_is_kept_too(tmp_path: Path, mapped: bool) -> None:
    for make in (lambda: np.empty((0, 4)), never):
        found = kept_array(tmp_path / "none.npy", (0, 4), np.int64, make, mapped)
        assert found.shape == (0, 4) and found.dtype == np.int64
