"""Names follow from motion: cases worked by hand; a codebook keeps them and codes carry them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.latent_action import release
from latentvla_training.latent_action.codebook import MANIFEST
from latentvla_training.latent_action.meaning import Motion
from latentvla_training.latent_action.naming import (
    HOLD,
    NAMES_FILE,
    UNCLEAR,
    CodeNames,
    manifest_entry,
    name_codes,
    read_names,
    standard_error,
    write_names,
)

from latentvla_ros.contract import ContractError

NETWORKS = 4
_WORDS = tuple(tuple(f"p{place} c{code}" for code in range(16)) for place in range(4))
NAMES = CodeNames("test-0123456789abcdef", _WORDS, ("test", "val"), 9)


def named(groups: list[tuple[list[float], list[float]]], interval: int = 0) -> list[str]:
    """Return the names of codes 0, 1, ... that stand where (delta v, delta yaw) are as given.

    Values of a group are gone through in turn over 40 pairs, 10 on each of 4 networks.
    """
    repeat = 10 * NETWORKS
    changes, codes = [], []
    for code, (speed, yaw) in enumerate(groups):
        rows = np.arange(repeat)
        changes.append([np.take(values, rows, mode="wrap") for values in (speed, yaw)])
        codes += [code] * repeat
    delta_v, delta_yaw = np.concatenate(changes, axis=1)
    networks = np.array([f"n{row // 10 % NETWORKS}" for row in range(len(codes))])
    intervals = np.full(len(codes), interval)
    motion = Motion(delta_v, delta_yaw, np.zeros(len(codes)))
    return list(name_codes(np.array(codes)[:, None], motion, intervals, networks, len(groups))[0])


def test_sizes_in_units_of_the_spread() -> None:
    # Delta v -2, -1, 0, 1, 2 alike: a standard deviation of 1.41, so -1 is 0.71 and -2 is 1.41 of
    # it. Yaw likewise, in another order and times ten.
    found = named([([v], [y]) for v, y in ((-2, 0), (-1, 10), (0, -20), (1, -10), (2, 20))])
    assert found == ["brake", "slow left", "sharp right", "speed up right", "accelerate sharp left"]


def test_small_changes_are_held() -> None:
    # A standard deviation of 1.91, the root of (9 + 9 + 0.16 + 0.16 + 0) / 5: 0.4 is 0.21 of it.
    found = named([([v], [0.0]) for v in (-3, 3, 0.4, -0.4, 0)])
    assert found == ["brake", "accelerate", HOLD, HOLD, HOLD]


def test_what_goes_both_ways_is_unclear() -> None:
    # Code 1 brakes and accelerates by turns: no change in the mean, but it holds nothing.
    found = named([([0.1], [0.0]), ([-3.0, 3.0], [0.0]), ([0.0], [0.0])])
    assert found == [HOLD, UNCLEAR, HOLD]


def test_a_change_on_one_network_is_not_told_apart() -> None:
    # Of code 0 all that is braked is braked on one network of four: mean -1.5, error 1.5.
    braked = [-6.0] * 10 + [0.0] * 30
    assert named([(braked, [0.0]), ([0.5], [0.0])])[0] == UNCLEAR
    assert standard_error(np.array(braked), np.repeat(np.arange(4), 10).astype(str)) == 1.5


def test_few_pairs_or_networks_have_no_name() -> None:
    codes = np.repeat([0, 1, 2], [19, 40, 40])[:, None]
    motion = Motion(np.repeat([-2.0, -2.0, 2.0], [19, 40, 40]), np.zeros(99), np.zeros(99))
    spread = np.array([f"n{row % 4}" for row in range(99)])
    few = name_codes(codes, motion, np.zeros(99, np.int64), spread, 4)[0]
    assert few == (UNCLEAR, "brake", "accelerate", UNCLEAR)  # 2 of a spread of 1.96
    two = np.where(codes[:, 0] == 1, np.char.replace(spread, "n3", "n1"), spread)
    two = np.where(codes[:, 0] == 1, np.char.replace(two, "n2", "n0"), two)
    assert name_codes(codes, motion, np.zeros(99, np.int64), two, 4)[0][1] == UNCLEAR


def test_one_and_two_seconds_have_units_of_their_own() -> None:
    # Codes 5 to 9 stand for two seconds, where everything is three times as much: the same names.
    once = np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], 20)
    codes = np.tile(np.arange(5), 40)[:, None] + np.repeat([0, 5], 100)[:, None]
    motion = Motion(np.concatenate([once, 3.0 * once]), np.zeros(200), np.zeros(200))
    interval = np.repeat([0, 1], 100)
    networks = np.array([f"n{row // 5 % 4}" for row in range(200)])
    found = name_codes(codes, motion, interval, networks, 10)[0]
    assert found == 2 * ("brake", "slow", HOLD, "speed up", "accelerate")
    assert name_codes(codes, motion, 0 * interval, networks, 10)[0][1] == HOLD  # 1 of 3.16


def test_positions_are_named_apart() -> None:
    motion = Motion(np.tile([-1.0, 1.0], 40), np.zeros(80), np.zeros(80))
    first = np.tile([0, 1], 40)
    networks = np.array([f"n{row // 2 % 4}" for row in range(80)])
    found = name_codes(
        np.stack([first, 1 - first], axis=1), motion, np.zeros(80, np.int64), networks, 2
    )
    assert found == (("brake", "accelerate"), ("accelerate", "brake"))


def test_names_beside_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    write_names(tmp_path / NAMES_FILE, NAMES)
    assert read_names(tmp_path / NAMES_FILE) == NAMES
    assert release.find_names(NAMES.codebook_id, tmp_path) == NAMES
    with pytest.raises(ContractError) as caught:
        release.find_names("other-0", tmp_path)
    assert "other-0" in str(caught.value) and NAMES.codebook_id in str(caught.value)
    with pytest.raises(FileNotFoundError, match="codebook encode"):
        release.find_names(NAMES.codebook_id, tmp_path / "none")
    assert release.find_names(NAMES.codebook_id) is None  # nor does it ship


def test_names_of_a_codebook_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(release, "released_folder", lambda: tmp_path)
    place = tmp_path / "book" / MANIFEST
    place.parent.mkdir()
    place.write_text(json.dumps({"codebook_id": NAMES.codebook_id, **manifest_entry(NAMES)}))
    assert release.find_names(NAMES.codebook_id) == NAMES
    place.write_text(json.dumps({"codebook_id": NAMES.codebook_id}))
    assert release.find_names(NAMES.codebook_id) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "codebook encode"),
        ("[]", "codebook encode"),
        ('{"names": []}', "codebook encode"),
        ('{"codebook_id": "a", "names": []}', "names, splits and pairs"),
        ('{"codebook_id": "a", "names": [["b"]], "splits": [], "pairs": 1}', "4 positions x 16"),
    ],
)
def test_damaged_names_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / NAMES_FILE).write_text(content)
    with pytest.raises(ContractError, match=said):
        read_names(tmp_path / NAMES_FILE)


def test_the_shipped_codebook_has_names() -> None:
    from latentvla_training.latent_action.codebook import codebook_folder

    manifest = json.loads((codebook_folder("nano") / MANIFEST).read_text())
    names = release.find_names(manifest["codebook_id"])
    assert names is not None and names.splits == release.NAMED_SPLITS
    assert {"brake", "accelerate", HOLD} <= {name for row in names.names for name in row}
