"""From result files to the report: rows, seeds, stale marks, refusals, what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from latentvla_training.planner import evaluation
from latentvla_training.report import present as present_now
from latentvla_training.report import result_files
from latentvla_training.report.document import write_report
from latentvla_training.report.identity import different
from latentvla_training.report.places import Places
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, read_result

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import BundleError, load_bundle

from .oracle_documents import oracle_document
from .reading import change, row, section, written

Document = Callable[..., dict[str, Any]]


def test_rows_seeds_intervals_and_closed_loop_are_in_the_report(
    folder: Path, present: Present
) -> None:
    text = written(folder, present)
    test = section(text, "Held-out networks")
    nano = row(test, "**nano**")
    assert nano[1].startswith("67.1 ± 0.5 [")
    assert nano[6].startswith("63.5 [") and nano[7].startswith("50.0 [")
    assert row(test, "expert")[1:5][-1] == "-"  # its displacement from itself says nothing
    assert row(test, "the planner of nano, trained on blank images")[6].startswith("53.5")
    assert row(test, "nano minus blank images")[5] == "**+10.0 [+10.0, +10.0]**"
    assert row(test, "nano minus blank images")[4] == "**-0.210 [-0.210, -0.210]**"
    assert "2 seeds (0, 1) of nano, each against baselines of its own seed" in test
    assert "1 seed (0)" in section(text, "Long-tail")
    assert "±" not in section(text, "Long-tail").partition("| **nano**")[2].partition("\n")[0]
    assert "No result yet" in section(text, "A kind of network")
    assert "†" not in test
    assert (folder.parent / "results.png").stat().st_size > 10_000


def test_where_cameras_do_not_help_is_told_by_tag(folder: Path, present: Present) -> None:
    words = section(written(folder, present), "Where cameras do not help")
    line = next(part for part in words.splitlines() if "test, EPDMS, against blank" in part)
    assert "*not shown*: tag: night" in line and "*worse*: nowhere" in line
    assert "tag: clear (+1" in line.partition("*helps*")[2]
    assert "cut_in" not in words  # one network has no interval


def test_a_stale_file_marks_its_rows_and_says_what_differs(folder: Path, present: Present) -> None:
    for seed in (0, 1):
        change(folder / f"test_s{seed}.json", world="0ther")
    change(folder / "drive_bundle.json", closed_loop="0lder")
    text = written(folder, present)
    nano = row(section(text, "Held-out networks"), "**nano**")
    assert nano[0] == "**nano** †" and nano[6].endswith("†")
    blank = row(section(text, "Held-out networks"), "the planner of nano")
    assert blank[0].endswith("†") and not blank[6].endswith("†")
    assert "†" not in section(text, "Long-tail")
    assert "`test_s0.json`: world 0ther, now wwwwwwwwwwwwwwww." in text
    assert "`drive_bundle.json`: closed_loop 0lder, now" in text


def test_other_scenes_or_another_bundle_are_stale_too(folder: Path, present: Present) -> None:
    now = replace(
        present, scenes={"test": "n" * 64, "longtail": None}, bundle_sha256="5h1pped" + "0" * 57
    )
    text = written(folder, now)
    assert "`test_s1.json`: Scenes of test tttttttttttt, now nnnnnnnnnnnn" in text
    assert "longtail_s0.json`: Scenes" not in text  # none are here to compare with
    assert "longtail, evaluate: none of the bundles measured (b0b0b0b0b0) is" in text
    assert row(section(text, "Long-tail"), "**nano**")[0].endswith("†")
    assert not row(section(text, "Long-tail"), "constant velocity")[0].endswith("†")


def test_files_of_another_budget_or_seen_twice_are_not_pooled(
    folder: Path, present: Present, open_loop: Document
) -> None:
    other = open_loop("test", 2)
    other["identity"]["passes"] = 7
    (folder / "test_short.json").write_text(json.dumps(other))
    other["identity"] |= {"passes": 8, "world": "of before"}
    (folder / "test_stale.json").write_text(json.dumps(other))
    (folder / "test_twice.json").write_text((folder / "test_s0.json").read_text())
    text = section(written(folder, present), "Held-out networks")
    assert "2 seeds (0, 1)" in text
    assert "`test_stale.json` (passes 8, pooled are 100)" in text
    assert "`test_short.json`" not in text.partition("Not pooled")[2]
    apart = text.partition("Other planners on the same scenes")[2]
    assert "7 passes" in apart
    assert "seeds 2)" in apart
    assert "8 passes" not in text
    assert "`test_twice.json` (the same bundle as test_s0.json)" in text


def test_damaged_files_and_other_schemas_are_refused_by_name(
    folder: Path, present: Present, open_loop: Document
) -> None:
    (folder / "cut.json").write_text((folder / "test_s0.json").read_text()[:500])
    later = open_loop("ood", 0) | {"schema": "latentvla open loop 9"}
    (folder / "later.json").write_text(json.dumps(later))
    (folder / "old.json").write_text(json.dumps({"rows": {}, "ratios": {}}))
    (folder / "list.json").write_text("[]")
    (folder / "strange.json").write_text(json.dumps({"surprise": 1}))
    lacking = open_loop("ood", 0)
    del lacking["sums"]["groups"]["all"]["ade"]["count"]
    (folder / "lacking.json").write_text(json.dumps(lacking))
    (folder / "drive_bad.json").write_text(
        json.dumps({"driver": "bundle", "split": "ood", "routes": [{}], "summary": {}})
    )
    results = write_report(folder, folder.parent / "results.md", present)
    text = (folder.parent / "results.md").read_text().partition("Refused")[2]
    assert set(results.refused) == {
        "cut.json", "later.json", "old.json", "list.json", "strange.json", "lacking.json",
        "drive_bad.json",
    }  # fmt: skip
    assert all(f"`{name}`" in text for name in results.refused)
    assert "latentvla open loop 9" in results.refused["later.json"]
    assert "routes[0].name: found None" in results.refused["drive_bad.json"]
    assert "No result yet" in section((folder.parent / "results.md").read_text(), "A kind of")


def test_notes_say_which_comparisons_that_they_quote_are_stale(
    folder: Path, present: Present
) -> None:
    (folder / "oracle.json").write_text(json.dumps(oracle_document()))
    (folder / "notes.md").write_text("## Notes\n\nTrue codes gain 3 points.\n")
    assert "## Notes\n\nTrue codes gain 3 points.\n" in written(folder, present)
    change(folder / "test_s0.json", world="0ther")  # quoted nowhere
    assert "stale files" not in written(folder, present)
    change(folder / "oracle.json", world="0ther")
    assert (
        "## Notes\n\n† Figures quoted in these notes from stale files (`oracle.json`) are of the "
        "runs named there.\n\nTrue codes gain 3 points.\n" in written(folder, present)
    )
    (folder / "notes.md").write_text("No heading.\n")
    assert "(`oracle.json`) are of the runs named there.\n\nNo head" in written(folder, present)
    (folder / "notes.md").unlink()
    assert "stale files" not in written(folder, present)


def test_every_entry_of_every_kind_of_file_may_be_wrong(
    folder: Path, present: Present, open_loop: Document, closed_loop: Document
) -> None:
    whole = {
        "open": open_loop("ood", 0, networks=2, scenes=3),
        "drive": closed_loop("ood", "expert", 90.0),
        "bench": {
            "backend_cpu_ms": 1.0, "node_cpu_ms": 2.0, "node_minus_backend_ms": 1.0,
            "rates": [{"input_rate_hz": 10.0, "age_ms": None, "drops": {}}], "cameras": None,
        },
        "gates": {
            "split": "ood", "scenes": 3, "gates": {"NC": 0.99}, "missed": [],
            "means": {"all": {"NC": 1.0, "scenes": 3}}, "failures": [{"token": "a", "lost": []}],
        },
        "oracle": oracle_document(),
        "vectors": {"cases": 1, "discrete_mismatches": 0},
        "speed": {"v1_ms_256": 1.0, "v2_ms_256": 1.0},
    }  # fmt: skip
    for path in folder.glob("*.json"):
        path.unlink()
    for kind, document in whole.items():
        for name in document:
            if name in ("rows", "ratios", "differences", "skipped", "summary"):
                continue
            for number, wrong in enumerate(("x", 1, [1], {"x": 1}, None)):
                if isinstance(wrong, type(document[name])):
                    continue
                path = folder / f"{kind}_{name}_{number}.json"
                path.write_text(json.dumps({**document, name: wrong}))
    results = write_report(folder, folder.parent / "results.md", present)
    assert len(results.refused) > 60


def test_a_row_or_score_that_was_not_measured_is_a_dash(
    folder: Path, present: Present, open_loop: Document
) -> None:
    document = open_loop("ood", 0)
    for figures in document["sums"]["groups"].values():
        for name in [name for name in figures if name not in ("ade", "fde")]:
            del figures[name]
        for figure in figures.values():
            figure.pop("blank_images", None)
    (folder / "ood_s0.json").write_text(json.dumps(document))
    text = section(written(folder, present), "A kind of network")
    assert row(text, "the planner of nano, trained on blank images")[1:] == ["-"] * 7
    nano = row(text, "**nano**")
    assert nano[1] == "-" and nano[4].startswith("0.714")
    assert row(text, "nano minus blank images")[4] == "-"


def test_the_other_tables_come_from_their_files(folder: Path, present: Present) -> None:
    (folder / "lights.json").write_text(
        json.dumps(
            {
                "accuracy": 0.9128, "scenes": 390, "passed": True, "train_scenes": 6385,
                "outside_view": 3, "bins": {"0-10 m": {"accuracy": 0.974, "scenes": 309}},
                "states": {"red": {"accuracy": 0.908, "scenes": 272}, "yellow": None},
            }
        )
    )  # fmt: skip
    (folder / "bench.json").write_text(
        json.dumps(
            {
                "backend_cpu_ms": 30.7, "node_cpu_ms": 46.8, "node_minus_backend_ms": 16.1,
                "bundle_sha256": "0ld", "machine": {"cores": 2},
                "rates": [
                    {
                        "input_rate_hz": 30.0, "plan_rate_hz": 23.57, "age_bound_ms": 131.0,
                        "age_ms": {"p50": 75.0, "p99": 96.0, "max": 103.0},
                        "drops": {"superseded": 42},
                    }
                ],
                "cameras": [
                    {
                        "arrangement": "one process", "sent": {"front": 80},
                        "received": {"front": 40}, "starving": ["front"],
                    }
                ],
            }
        )
    )  # fmt: skip
    (folder / "vectors.json").write_text(
        json.dumps(
            {"cases": 208, "discrete_mismatches": 0, "max_abs_state": 6e-9, "max_abs_score": 5e-9}
        )
    )
    (folder / "notes.md").write_text("## Notes\n\nThe MLP sees *acceleration*.\n")
    text = written(folder, present)
    assert "91.3 % of 390 scenes" in section(text, "Can the trunk")
    assert row(text, "accuracy %")[1] == "97.4"
    runtime = section(text, "Runtime")
    assert row(runtime, "`bench.json` †")[3:5] == ["16.1 ms", "missed: node"]
    assert row(runtime, "`bench.json` †, cameras at 30 Hz")[4] == "42 superseded"
    assert row(runtime, "`bench.json` †: one process")[1:] == ["40", "80", "front"]
    assert "208 cases, 0 discrete mismatches, states within 6e-09" in text
    assert "## Notes\n\nThe MLP sees *acceleration*.\n" in text


@pytest.mark.parametrize(
    "figures",
    [
        {"cases": 208, "discrete_mismatches": 0},
        {"v1_ms_256": 24.0, "v2_ms_256": 28.0},
    ],
)
def test_figures_of_other_scores_are_stale(
    folder: Path, present: Present, figures: dict[str, Any]
) -> None:
    path = folder / "scores.json"
    path.write_text(json.dumps({**figures, "identity": {"scoring": "s" * 16}}))
    assert "`scores.json` (" in section(written(folder, present), "Scores against NAVSIM")
    change(path, scoring="0ther")
    text = written(folder, present)
    assert "`scores.json` † (" in section(text, "Scores against NAVSIM")
    assert "`scores.json`: scoring 0ther, now ssssssssssssssss." in text


def test_the_same_files_give_the_same_bytes(folder: Path, present: Present) -> None:
    first = written(folder, present)
    picture = (folder.parent / "results.png").read_bytes()
    assert written(folder, present) == first
    assert (folder.parent / "results.png").read_bytes() == picture


def test_an_empty_or_absent_folder(tmp_path: Path, present: Present) -> None:
    (tmp_path / "results").mkdir()
    text = written(tmp_path / "results", present)
    assert text.count("No result yet") == 10
    assert not (tmp_path / "results.png").exists()
    with pytest.raises(FileNotFoundError, match="none"):
        write_report(tmp_path / "none", tmp_path / "results.md", present)


def test_schema_is_the_one_that_evaluate_writes() -> None:
    expected = f"{result_files.OPEN_LOOP_SCHEMA} {result_files.OPEN_LOOP_VERSION}"
    assert expected == evaluation.SCHEMA
    assert Kind("evaluate") is Kind.OPEN_LOOP


def test_what_is_not_said_is_not_the_same() -> None:
    assert different({"a": 1, "c": 3}, {"a": 1, "c": None, "e": None}) == []
    assert different({"a": 1}, {"a": 2}) == ["a 1, now 2"]
    for found in ({"b": None}, {}):
        assert different(found, {"b": 2}) == ["does not say by which b it was made (now 2)"]


def test_shipped_results_say_all_that_their_kind_must() -> None:
    """Those of comparisons that were made before training was among it are stale for it."""
    now = present_now.without_scenes(Places())
    splits = dict.fromkeys(present_now.SPLITS, "f" * 64)
    now = replace(now, scenes=splits, scenes_ids=dict.fromkeys(splits, "f" * 16))
    for path in sorted(Places().results.glob("*.json")):
        file = read_result(path, now)
        if file.kind not in (Kind.ORACLE_CODES, Kind.DISTILL):
            assert not [why for why in file.stale if "does not say" in why], path.name


@pytest.mark.parametrize("lost", ["world", "scoring", "data"])
def test_a_result_that_lost_what_it_hangs_on_is_stale(
    folder: Path, present: Present, lost: str
) -> None:
    assert not read_result(folder / "test_s0.json", present).stale
    change(folder / "test_s0.json", **{lost: {} if lost == "data" else None})
    (why,) = read_result(folder / "test_s0.json", present).stale
    said = "Scenes of test" if lost == "data" else lost
    assert why.startswith(f"does not say by which {said} it was made (now ")


def test_another_bundle_and_codebook_may_be_the_present_ones(
    folder: Path, present: Present, tmp_path: Path
) -> None:
    """Code, Scenes and settings of recipes are compared all the same."""
    shipped = load_bundle(Places().bundles / "nano")
    codebook = tmp_path / "codebook"
    codebook.mkdir()
    (codebook / "manifest.json").write_text('{"codebook_id": "nano-0123"}')
    made = shipped.manifest.provenance
    document = {**oracle_document(), "codebook": "nano-0123"}
    document["identity"] |= {"host": made["start_from"], "bundle_sha256": "e" * 64}
    path = folder / "oracle.json"
    path.write_text(json.dumps(document))
    present = replace(present, codebooks={"nano": "nano-9", "other": "other-9"})
    assert len(read_result(path, present).stale) == 2
    now = present.with_made(shipped.path, codebook)
    assert now.codebooks == {"nano": "nano-0123", "other": "other-9"}
    assert not read_result(path, now).stale
    for changed, said in (
        ({"code": {"world": "0ther"}}, "world"),
        ({"scenes": {"test": "0" * 64}}, "Scenes of test"),
        ({"recipes": {"oracle_codes": {"nano": "0ther"}}}, "recipe nano"),
    ):
        assert said in read_result(path, replace(now, **changed)).stale[0]
    with pytest.raises(ContractError, match="codebook"):
        present.with_made(codebook=tmp_path)
    with pytest.raises(BundleError):
        present.with_made(bundle=tmp_path)


def test_gates_are_shown_by_tag_with_every_scene_that_fails(folder: Path, present: Present) -> None:
    means = {"NC": 1.0, "DAC": 0.985, "TLC": 1.0, "PDMS": 0.9, "zero": 0.02, "scenes": 200}
    document = {
        "split": "test",
        "scenes": 200,
        "passed": False,
        "gates": {"NC": 0.99, "DAC": 0.99},
        "missed": ["DAC"],
        "means": {"all": means, "fog": {**means, "scenes": 20}},
        "failures": [{"token": f"test-0000-00/{i:05d}", "lost": ["DAC"]} for i in range(70)],
        "identity": {"reference": 1, "world": "w" * 16},
    }
    (folder / "gates_test.json").write_text(json.dumps(document))
    now = replace(present, code={**present.code, "reference": 2})
    gates = section(written(folder, now), "Gates of the world")
    assert "NC 100.00 % (gate 99.0 %, passed); DAC 98.50 % (gate 99.0 %, missed)" in gates
    assert row(gates, "fog")[1:6] == ["20", "100.0", "98.5", "100.0", "90.0"]
    assert "test-0000-00/00059 (DAC), and 10 more in the file." in gates
    assert "`gates_test.json` †" in gates  # made with another reference
