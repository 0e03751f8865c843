"""The kept subset of NAVSIM's vectors: every column, both geometries, float32, bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.scoring.pdm import score_epdms, score_pdms
from latentvla_training.scoring.score_vectors import score_vectors
from latentvla_training.scoring.vectors import VectorFileError, load_vectors


@pytest.mark.parametrize("geometry", ["auto", "torch"])
def test_every_column_agrees_with_navsim(
    vectors_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geometry: str
) -> None:
    monkeypatch.setenv("LATENTVLA_SCORING_GEOMETRY", geometry)
    out = tmp_path / "report.json"
    lines: list[str] = []
    score_vectors(
        vectors_folder / "scenes.npz",
        vectors_folder / "comfort.npz",
        vectors_folder / "two_stage.json",
        out,
        lines.append,
    )
    report = json.loads(out.read_text())
    assert report["cases"] == 8 * 8 + 16 + 5
    assert report["discrete_mismatches"] == 0
    assert 0.0 < report["max_abs_state"] < 1e-6
    assert 0.0 < report["max_abs_score"] < 1e-6
    assert report["not_in_file"] == []
    assert all(column["mismatches"] == 0 for column in report["columns"].values())
    # Every result array of the file was compared.
    compared = {name.partition(":")[0] for name in report["columns"]}
    data = load_vectors(vectors_folder / "scenes.npz")
    labels = {"scene_name", "turn", "human_kind", "cand_kind"}
    assert set(data.results) - labels <= compared
    assert len(lines) == len(report["columns"]) + 2


def test_a_wrong_result_is_reported(vectors_folder: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(vectors_folder / "scenes.npz"))
    arrays["v2_pair"][0, 0, 0] = 1.0 - arrays["v2_pair"][0, 0, 0]
    arrays["sim"][0, 0, 5, 0] += 0.25
    never = tuple(np.argwhere(np.isinf(arrays["v2_batch_t_col"]))[0])
    arrays["v2_batch_t_col"][never] = 3.0
    del arrays["v1_batch_score"]
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    report = score_vectors(path, report_line=lambda line: None).as_dict()
    assert report["discrete_mismatches"] == 2
    assert report["max_abs_state"] == pytest.approx(0.25)
    assert report["columns"]["v2_pair:NC"]["mismatches"] == 1
    assert report["columns"]["v2_batch_t_col"]["mismatches"] == 1
    assert report["columns"]["v2_batch_t_col"]["max_abs"] == "inf"
    json.dumps(report, allow_nan=False)
    assert report["not_in_file"] == ["v1_batch_score"]


def test_float32_stays_close(vectors_folder: Path) -> None:
    data = load_vectors(vectors_folder / "scenes.npz")
    scenes, plans = data.batch(), torch.from_numpy(data.plans)
    single = scenes.to("cpu", torch.float32)
    for score in (score_pdms, score_epdms):
        exact, fast = score(scenes, plans), score(single, plans)
        assert fast.states.dtype == torch.float32
        moved = exact.states[..., :2] - scenes.ego[:, None, None, :2]
        assert (moved - fast.states[..., :2]).abs().max() < 1e-4
        assert (exact.score - fast.score).abs().max() < 1e-5
        restored = fast.states[..., :2].double() + single.origin[:, None, None]
        assert (restored - exact.states[..., :2]).abs().max() < 1e-4


def test_a_truncated_file_is_named(vectors_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes((vectors_folder / "scenes.npz").read_bytes()[:5000])
    with pytest.raises(VectorFileError, match=r"cut\.npz"):
        load_vectors(path)
    with pytest.raises(VectorFileError, match=r"absent\.npz"):
        load_vectors(tmp_path / "absent.npz")


def test_missing_and_misshapen_arrays_are_named(vectors_folder: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(vectors_folder / "scenes.npz"))
    np.savez(tmp_path / "a.npz", **{k: v for k, v in arrays.items() if k != "tl_red"})
    with pytest.raises(VectorFileError, match="tl_red"):
        load_vectors(tmp_path / "a.npz")
    arrays["ref"] = arrays["ref"][:, :40]
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(VectorFileError, match="ref"):
        load_vectors(tmp_path / "b.npz")
    (tmp_path / "c.json").write_text("[{}]")
    with pytest.raises(VectorFileError, match=r"c\.json"):
        score_vectors(
            vectors_folder / "scenes.npz",
            two_stage=tmp_path / "c.json",
            report_line=lambda line: None,
        )
