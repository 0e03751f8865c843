"""The comparison with a teacher in the report: rows, what is stale, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.engine.recipe import load_record
from latentvla_training.planner.oracle_codes import OracleRecipe
from latentvla_training.report import distill_figure, identity, proposal_weights
from latentvla_training.report.document import write_report
from latentvla_training.report.inventory import inventory
from latentvla_training.report.places import Places
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import read_result
from latentvla_training.teacher.settings import load_teacher_recipe

from latentvla_ros.contract import ContractError

from ..planner.conftest import make_scene
from .distill_documents import (
    HOST_ID,
    SEEDS,
    TRAIN,
    distill_document,
    split_sums,
    teacher_file,
    told,
)
from .oracle_documents import oracle_document
from .reading import row

OTHER_TRAIN = identity.joined_hash({"train-0001": "new"})

pytestmark = pytest.mark.usefixtures("no_scenes")


@pytest.mark.usefixtures("undrawn")
def test_a_regime_of_few_labels_says_so_and_names_its_host(results: Path, now: Present) -> None:
    assert "Scarce labels" not in told(results, now)
    scarce = distill_document()
    scarce["regime"]["labelled_share"] = 0.1
    scarce["identity"] |= {"host": "nano_scarce-step800-0123456789abcdef", "bundle_sha256": None}
    (results / "distill_scarce.json").write_text(json.dumps(scarce))
    text = told(results, now)
    own = text.partition("`distill_scarce.json`")[2]
    assert "**Scarce labels**: maps, road users and lights are known of about 10 % of the" in own
    assert "--host-run nano_scarce --teacher nano-s0 --codes" in own
    assert text.count("--host-run") == 1
    scarce["regime"] |= {"labelled_share": 1.0, "odometry_share": 0.1}
    (results / "distill_scarce.json").write_text(json.dumps(scarce))
    own = told(results, now).partition("`distill_scarce.json`")[2]
    assert "**Scarce odometry**: how the ego moved" in own and "of about 10 % of the drives" in own
    assert "Scarce labels" not in own


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"bundle": "nano", "host_run": "", "run": ""}, "--bundle nano --teacher nano-s0"),
        (
            {"bundle": "", "host_run": "nano_transfuser_fine", "run": "nano_transfuser"},
            "--host-run nano_transfuser_fine --run nano_transfuser --teacher nano-s0",
        ),
    ],
)
def test_the_command_is_that_of_the_runs_and_the_host_that_were_asked_for(
    results: Path, now: Present, asked: dict[str, str], said: str
) -> None:
    document = distill_document() | asked
    if asked["host_run"]:
        document["identity"] |= {"host": "other-step1-0123456789abcdef", "bundle_sha256": None}
    (results / "distill_nano.json").write_text(json.dumps(document))
    text = told(results, now)
    assert f"--variants nano_no_kl {said} --codes" in text
    assert text.count("--host-run") == bool(asked["host_run"])


@pytest.mark.usefixtures("undrawn")
def test_rows_goals_ablations_tags_and_costs(results: Path, now: Present) -> None:
    text = told(results, now)
    assert "†" not in text
    longtail = text.partition("#### Long-tail events")[2].partition("#### ")[0]
    student = row(longtail, "host + distilled student")
    assert student[1].startswith("87.0 [") and student[2] == student[1] and len(student) == 6
    assert row(longtail, "host + distilled student minus host")[1].startswith("**+4.")
    assert row(longtail, "host + distilled student: share")[1].startswith("0.7")
    assert row(longtail, "the teacher") == [
        "the teacher", "1.700 [1.600, 1.800]", "40.0 [30.0, 50.0]", "-", "-",
    ]  # fmt: skip
    ablation = row(longtail.partition("| ablations")[2], "host + distilled student, nano_no_kl")
    assert ablation[1] == ablation[3] and ablation[5:] == ["1.700", "0.200"]
    paired = longtail.partition("| ablations, paired")[2]
    ablation = row(paired, "host + distilled student, nano_no_kl")
    assert ablation[1].startswith("**+1.") and ablation[3].startswith("**-3.")
    assert ablation[4] == ablation[5] == ablation[3]  # EPDMS, filtered or not, is the same here
    assert row(paired, "host + distilled student")[3:] == ["-", "-", "-"]
    fog = row(longtail, "fog")
    assert fog[1] == "32" and "**" not in fog[2]  # no gain there, and none is claimed
    assert row(longtail, "cut in")[2].startswith("**+9.")
    assert "blocked lane" not in longtail
    goal = next(line for line in text.splitlines() if "teacher online adds" in line)
    assert "**met** (longtail +6." in goal and "test +6." in goal
    kept = next(line for line in text.splitlines() if "60 %" in line and "longtail" in line)
    assert "longtail: **met** (7" in kept and kept.endswith("missed; the paper kept 57 %).")
    assert "the student's gain minus 0.6 of the teacher's is +0." in kept
    assert "stretch of 90 %: the student's gain minus 0.9 of the teacher's is -1." in kept
    assert row(text, "the teacher's answer alone")[1:] == [
        "5.00",
        "10.00",
        "100.0",
        "5.00",
        "150.0",
    ]
    assert "**4.2 times** the CPU time" in text and "**86.2 times** counted at the pinned" in text
    assert "--variants nano_no_kl --teacher nano-s0 --codes data/codes/nano-0123 --seeds" in text
    assert "`longtail-0000-00/2`, cut in: PDMS host, trained on 0.0" in text
    assert "rows called in turn (in any order), ratios of the same turn" in text
    assert "at the end, by seed: host + distilled student +0.21 +0.24." in text


@pytest.mark.usefixtures("undrawn")
def test_every_difference_is_shown_by_seed_with_its_spread(results: Path, now: Present) -> None:
    text = told(results, now)
    assert "All seeds of a file go on from one trunk" in text and "is a lower bound" in text
    test = text.partition("#### Held-out")[2].partition("#### ")[0]
    table = test.partition("| seed by seed (0, 1, 2; ± standard deviation) |")[2]
    parts = [split_sums("test", seed) for seed in SEEDS]
    for other, title in (("host", "host, trained on"), ("student:nano_no_kl", "host + distilled")):
        gains = [100 * part.difference("student", other, "pdms").value for part in parts]
        own = row(table, f"host + distilled student minus {title}")
        wanted = ", ".join(f"{gain:+.1f}" for gain in gains)
        assert own[1] == f"{wanted} (± {np.std(gains, ddof=1):.1f})"
        decided = [part.difference("student", other, "pdms", "decision").value for part in parts]
        assert own[5].startswith(", ".join(f"{100 * gain:+.1f}" for gain in decided))
    alone = distill_document(seeds=(3,))
    (results / "distill_nano.json").write_text(json.dumps(alone))
    assert "seed by seed (" not in told(results, now)


def test_sums_are_one_for_each_seed(results: Path, now: Present) -> None:
    document = distill_document()
    del document["splits"]["test"]["sums"][2]
    path = results / "distill_nano.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ContractError, match=r"test\.sums: found 2, expected 3, one for each seed"):
        read_result(path, now)


@pytest.mark.usefixtures("undrawn")
def test_parts_of_all_three_scores_are_shown(results: Path, now: Present) -> None:
    test = told(results, now).partition("#### Held-out")[2].partition("#### ")[0]
    heads = {
        "PDMS, %": "NC | DAC | EP | TTC | C",
        "EPDMS, human filter applied, %": "NC | DAC | DDC | TLC | EP | TTC | LK | HC | EC",
        "EPDMS, unfiltered, %": "NC | DAC | DDC | TLC | EP | TTC | LK | HC",
    }
    known = {"PDMS, %": (1, 5), "EPDMS, human": (1, 7), "EPDMS, unfiltered, %": (7,)}
    for (head, parts), places in zip(heads.items(), known.values(), strict=True):
        table = test.partition(f"| {head} | {parts} |")[2].partition("\n\n")[0]
        cells = row(table, "host + teacher online")[1:]
        assert all((cell != "-") == (place in places) for place, cell in enumerate(cells, 1))


@pytest.mark.usefixtures("undrawn")
def test_the_true_codes_row_says_that_its_loss_pulls_otherwise(
    results: Path, now: Present, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = oracle_document() | {"passes": 40000}
    path = results / "oracle.json"
    path.write_text(json.dumps(gate))
    test = told(results, now).partition("#### Held-out")[2].partition("#### ")[0]
    assert (
        "all proposals with weight 0.5 (recipe `oracle_codes/nano` as it is now; `oracle.json` "
        "does not name these settings), that of the contenders here with 0.05 (recipe "
        "`distill/nano` as it is now; `distill_nano.json`" in test
    )
    section_of_gate = told(results, now, "Oracle codes")
    assert "of whoever is told something" in section_of_gate
    assert "with weight 0.5, of the host with 0.05 (recipe" in section_of_gate

    gate["identity"]["recipes"] = {"nano": identity.shipped_recipes()["oracle_codes"]["nano"]}
    path.write_text(json.dumps(gate))
    assert "weight 0.5 (recipe `oracle_codes/nano`), that of" in told(results, now)
    path.write_text(json.dumps(gate | {"passes": 6400}))  # not by this recipe
    unknown = "With what weight the loss of `oracle.json` pulls on all proposals is not known"
    assert unknown in told(results, now) and unknown in told(results, now, "Oracle codes")
    assert "the contenders here with" not in told(results, now)

    equal = replace(load_record(OracleRecipe, "nano", "oracle_codes"), told_all_proposals=None)
    monkeypatch.setattr(proposal_weights, "load_record", lambda *_: equal)
    path.write_text(json.dumps(gate))
    for title in ("Distillation", "Oracle codes"):
        assert "all proposals" not in told(results, now, title)


@pytest.mark.usefixtures("undrawn")
def test_rows_measured_elsewhere_stand_beside(
    results: Path, now: Present, open_loop: Callable[..., dict[str, Any]]
) -> None:
    (results / "open.json").write_text(json.dumps(open_loop("test", 0)))
    gate = oracle_document()
    gate["identity"] |= {"host": "other-1-9", "training": "7" * 16, "bundle_sha256": None}
    (results / "oracle.json").write_text(json.dumps(gate))
    text = told(results, now)
    test = text.partition("#### Held-out")[2].partition("#### ")[0]
    beside = row(test, "the planner of nano, trained on blank images (`evaluate`)")
    assert beside[0].endswith("(`evaluate`)") and beside[2].startswith("59.")
    assert beside[4].startswith("0.9") and beside[5] != "-"
    oracle = row(test, "host + the true codes (diagnostic)")
    assert oracle[0].endswith("(`oracle.json`, 8000 passes, of host other-1-9)")
    assert oracle[1] == "90.0 [85.0, 95.0]"
    longtail = text.partition("#### Long-tail")[2]
    assert "blank images" not in longtail and "true codes" not in longtail
    moved = {"test": {"content_sha256": "0" * 64}, "longtail": {"content_sha256": "t" * 64}}
    document = distill_document()
    document["identity"]["data"] = moved
    document["codebook"] = "other-9"
    (results / "distill_nano.json").write_text(json.dumps(document))
    test = told(results, now).partition("#### Held-out")[2]
    assert "trained on blank images (`evaluate`) †" in test  # not of the same Scenes
    assert "true codes" not in test  # of another codebook


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recipes": {"distill": {"nano": "cccc"}}}, "recipe nano aaaa, now cccc"),
        ({"codebooks": {"nano": "nano-9"}}, "codebook nano-0123, now nano-9"),
        ({"contender_code": {"training": "0ther"}}, "training 7777777777777777, now 0ther"),
        ({"distill_code": {"distill": "0ther"}}, "commit c0ffeec0ffee, now d00dd00dd00d"),
        ({"distill_code": {"distill": "0ther"}}, "distill eeeeeeeeeeeeeeee, now 0ther"),
        ({"scenes": {"test": "n" * 64}}, "Scenes of test tttttttttttt, now nnnnnnnnnnnn"),
        ({"train": {"train-0001": "new"}}, f"Scenes of train {TRAIN[:12]}, now {OTHER_TRAIN[:12]}"),
        ({"bundle_sha256": "f" * 64}, f"bundle of host {HOST_ID} b0b0b0b0b0b0, now ffffffffffff"),
        ({"code": {"world": "0" * 16}}, "world wwwwwwwwwwwwwwww, now 0000000000000000"),
    ],
)
def test_what_has_changed_since_marks_rows_and_names_both(
    results: Path, now: Present, changed: dict[str, Any], said: str
) -> None:
    text = told(results, replace(now, **changed))
    assert "`distill_nano.json`: recipe `nano` †" in text
    assert f"† Every figure of this comparison is stale: {said}" in text or f"; {said}" in text
    files = (results.parent / "results.md").read_text().partition("What the figures hang on")[2]
    assert f"`distill_nano.json`: {said}" in files or f"; {said}" in files


@pytest.mark.usefixtures("undrawn")
def test_no_number_of_a_stale_comparison_stands_unmarked(
    results: Path, now: Present, open_loop: Callable[..., dict[str, Any]]
) -> None:
    (results / "open.json").write_text(json.dumps(open_loop("test", 0)))
    text = told(results, replace(now, distill_code={"distill": "0ther"}))
    shown = text.partition("### `distill_nano.json`")[2].splitlines()
    beside = [line for line in shown if "(`evaluate`)" in line]
    assert beside and not any("†" in line for line in beside)  # that result is fresh
    heads = [shown[number - 1] for number, line in enumerate(shown) if line.startswith("|---")]
    for line in shown:
        if line.startswith(("| ", "- ", "#")) and line not in (*heads, *beside):
            assert "†" in line, line
    assert "Teacher to system †: **4.2 times**" in text


@pytest.mark.parametrize("lost", ["world", "scoring", "distill", "training", "bundle_sha256"])
def test_a_comparison_that_lost_what_it_hangs_on_is_stale(
    results: Path, now: Present, lost: str
) -> None:
    path, document = results / "distill_nano.json", distill_document()
    assert not read_result(path, now).stale
    del document["identity"][lost]
    path.write_text(json.dumps(document))
    said = f"bundle of host {HOST_ID}" if lost == "bundle_sha256" else lost
    assert read_result(path, now).stale[0].startswith(f"does not say by which {said} it was made")


def test_a_comparison_must_name_scenes_and_settings(results: Path, now: Present) -> None:
    path, document = results / "distill_nano.json", distill_document()
    del document["identity"]["data"]["longtail"], document["identity"]["recipes"]["nano"]
    path.write_text(json.dumps(document))
    assert [why.partition(" (")[0] for why in read_result(path, now).stale] == [
        "does not say by which Scenes of longtail it was made",
        "does not say by which settings of recipe nano it was made",
    ]
    document = distill_document()
    document["identity"] |= {"host": "nano_scarce-step800-0123456789abcdef", "bundle_sha256": None}
    path.write_text(json.dumps(document))
    assert not read_result(path, now).stale  # a run is no bundle


def test_a_bundle_that_is_a_student_of_the_host_makes_nothing_stale(
    results: Path, now: Present
) -> None:
    path = results / "distill_nano.json"
    other = replace(now, bundle_sha256="f" * 64)
    assert read_result(path, other).stale
    assert not read_result(path, replace(other, bundle_host=HOST_ID)).stale
    assert not read_result(path, replace(now, commit="another")).stale  # the same code


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("identity", "host"), None),
        (("identity", "recipes"), "nano"),
        (("splits", "test", "sums"), []),
        (("splits", "test", "tokens", "student", "nll"), [1.0]),
        (("splits", "test", "sums", 1, "networks"), ["a"] * 8),
        (("costs", "rows", "host", "cpu_ms"), "fast"),
        (("costs", "pinned", "ratio"), None),
        (("examples", "scenes", 0, "plans", "host"), [[1.0, 2.0]]),
        (("gates", "student"), 0.2),
    ],
)
def test_a_comparison_with_a_wrong_entry_is_refused(
    results: Path, now: Present, place: tuple[Any, ...], wrong: Any
) -> None:
    document = found = distill_document()
    for name in place[:-1]:
        found = found[name]
    found[place[-1]] = wrong
    (results / "distill_nano.json").write_text(json.dumps(document))
    read = write_report(results, results.parent / "results.md", now)
    names = [str(name) for name in place if not isinstance(name, int)]
    assert names[-1] in read.refused["distill_nano.json"]


def test_the_figure_is_drawn_with_scenes_and_says_where_they_are_not(
    results: Path, now: Present, monkeypatch: pytest.MonkeyPatch
) -> None:
    whys = []
    real = distill_figure.find_scene

    def find(example: dict[str, Any]) -> Any:
        found = real(example)
        whys.append(found[1])
        return found

    monkeypatch.setattr(distill_figure, "find_scene", find)
    picture = results.parent / "latentvla.png"
    assert "![" in told(results, now)
    without = picture.read_bytes()
    assert whys == ["no Scenes of longtail here"] * 3
    scenes = [make_scene(index, "longtail-0000") for index in range(2)]
    info = write_shard(split_folder("longtail") / "longtail-0000-00.parquet", scenes)
    told(results, now)
    assert whys[3] == f"Scenes {info.content_sha256[:10]} here, the result is of 5555555555"
    document = distill_document()
    for example in document["examples"]["scenes"]:
        example["shard_sha256"] = info.content_sha256
    (results / "distill_nano.json").write_text(json.dumps(document))
    told(results, now)
    assert whys[6:] == ["", "", "no such Scene in its shard"]
    assert len(picture.read_bytes()) > len(without)
    (results / "distill_nano.json").unlink()
    assert "![" not in told(results, now) and not picture.exists()


def test_status_lists_both(results: Path, tmp_path: Path) -> None:
    teacher_file(results, "teacher_test.json", 0)
    nowhere = tmp_path / "none"
    places = Places(nowhere, nowhere, nowhere, nowhere, results)
    listed = next(found for found in inventory(places) if found.title == "Results")
    cells = {entry.cells[0]: entry for entry in listed.entries}
    assert cells["distill_nano.json"].cells[1] == "distill evaluate"
    assert cells["distill_nano.json"].cells[3].startswith("nano, PDMS minus host: test +6.")
    assert any(why.startswith("distill e") for why in cells["distill_nano.json"].stale)
    assert cells["teacher_test.json"].cells[3].startswith("nano-0: ")


def test_recipes_of_all_kinds_that_results_name_are_known() -> None:
    found = identity.shipped_recipes()
    assert set(found["distill"]) >= {"nano", "smoke", "nano_no_kl"}
    assert found["teacher"]["nano"] != found["teacher"]["nano_long"]
    assert "nano" in found["oracle_codes"]
    nano = load_teacher_recipe("nano")
    noted = replace(nano, codebook="a", scenes="b", run=replace(nano.run, seed=7))
    assert identity.teacher_recipe_hash(noted) == found["teacher"]["nano"]
    longer = replace(load_teacher_recipe("nano_long"), start_from="nano")
    assert identity.teacher_recipe_hash(longer) == found["teacher"]["nano_long"]
    changed = replace(nano, ego_steps=nano.ego_steps + 1)
    assert identity.teacher_recipe_hash(changed) != found["teacher"]["nano"]
