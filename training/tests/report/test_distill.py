"""The teacher and the comparison with it in the report: rows, goals, what is stale, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.data.shards import split_folder, write_shard
from latentvla_training.distill.evaluation import goals, retention
from latentvla_training.engine.recipe import load_record
from latentvla_training.planner.contender_scores import FIGURES, differences, means
from latentvla_training.planner.oracle_codes import OracleRecipe
from latentvla_training.report import distill_figure, identity, proposal_weights
from latentvla_training.report.distill_goals import goal_lines
from latentvla_training.report.document import write_report
from latentvla_training.report.inventory import inventory
from latentvla_training.report.network_sums import NetworkSums, pooled, sums_from_json, sums_of
from latentvla_training.report.places import Places
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, read_result
from latentvla_training.teacher.calibration import calibrate
from latentvla_training.teacher.evaluation import SeedResult, code_figures, write_document
from latentvla_training.teacher.settings import load_teacher_recipe

from latentvla_ros.contract import ContractError

from ..planner.conftest import make_scene
from .test_document import oracle_document, row, section

HOST_ID = "nano-3-0123456789abcdef"
#: Mean PDMS of every row by split; "fog" takes the teacher's gain away.
LEVELS = {
    "host_as_given": 0.80, "host": 0.82, "free_queries": 0.82, "teacher": 0.88,
    "student": 0.864, "student:nano_no_kl": 0.83, "expert": 0.96,
}  # fmt: skip
ROWS = ["host", "free_queries", "teacher", "student", "student:nano_no_kl"]
SEEDS = (0, 1, 2)
#: Sub-scores that these results have.
PARTS = ("pdms_nc", "pdms_c", "epdms_nc", "epdms_lk", "epdms_unfiltered_lk")
PAIRS = [
    *((row, base) for base in ("host", "free_queries") for row in ("teacher", "student", ROWS[-1])),
    ("free_queries", "host"), ("student", "teacher"), ("student", ROWS[-1]),
    ("host", "host_as_given"),
]  # fmt: skip


def split_sums(split: str, seed: int, scale: float = 1.0) -> NetworkSums:
    """Return sums of 8 networks of 12 Scenes; ``scale`` of the gain over the host."""
    noise = np.random.default_rng(seed)
    names = np.repeat([f"{split}-{index:04d}" for index in range(8)], 12)
    shared = noise.normal(0.0, 0.03, 8).repeat(12)
    fog = np.arange(len(names)) % 3 == 0
    rows: dict[str, dict[str, Any]] = {}
    for name, level in LEVELS.items():
        gain = scale * (level - 0.82) * np.where(fog, 0.0, 1.5)
        value = np.clip(0.82 + gain + shared + noise.normal(0.0, 0.005, len(names)), 0.0, 1.0)
        rows[name] = dict.fromkeys((*FIGURES[1:], *PARTS), value)
        if name != "expert":
            rows[name]["ade"] = 1.0 - value
    groups = {"decision": ~fog, "known": ~fog, "tag: fog": fog, "tag: cut_in": ~fog}
    groups["tag: blocked_lane"] = names == names[0]  # one network: no interval
    return sums_of(names, rows, groups, {"": FIGURES})


def split_entry(split: str, scale: float = 1.0, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    parts = [split_sums(split, seed, scale) for seed in seeds]
    sums = pooled(parts)
    figures = {"nll": [1.7, 1.6, 1.8], "accuracy": [0.4, 0.3, 0.5]}
    student = {**figures, "kl": [0.2, 0.1, 0.3], "agreement": [0.6, 0.5, 0.7]}
    return {
        "scenes": 96, "networks": 8, "decision_scenes": 64, "known_scenes": 64, "unscored": {},
        "rows": {name: means(sums, name) for name in LEVELS},
        "differences": {f"{a}-{b}": differences(sums, a, b) for a, b in PAIRS},
        "retention": {name: retention(sums, name) for name in ("student", ROWS[-1])},
        "tokens": {"student": student, ROWS[-1]: student, "teacher": figures},
        "sums": [part.to_json() for part in parts],
    }  # fmt: skip


def cost(factor: float) -> dict[str, float]:
    return {
        "parameters": int(1e6 * factor), "flops": 2e9 * factor, "cpu_ms": 20.0 * factor,
        "to_host": factor, "peak_mib": 30.0 * factor,
    }  # fmt: skip


def distill_document(scale: float = 1.0, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Return a result of distill evaluate on test and longtail."""
    splits = {name: split_entry(name, scale, seeds) for name in ("test", "longtail")}
    plan = [[float(2 * step), 0.1 * step, 0.0] for step in range(1, 9)]
    return {
        "distilled": "nano", "teacher": "nano-77aa", "teacher_run": "nano-s0",
        "regime": {"max_shards": 120, "labelled_share": 1.0},
        "codebook": "nano-0123", "passes": 40000, "seeds": [*seeds], "contenders": ROWS,
        "identity": {
            "host": HOST_ID, "bundle_sha256": "b0" * 32, "recipe": "nano", "passes": 40000,
            "recipes": {"nano": "aaaa", "nano_no_kl": "bbbb"}, "seed": [*seeds],
            "world": "w" * 16, "scoring": "s" * 16, "distill": "e" * 16, "training": "7" * 16,
            "commit": "c0ffee" * 6,
            "data": {name: {"content_sha256": "t" * 64} for name in splits},
        },
        "gates": {"host": [0.0, 0.0], "student": [0.21, 0.24]},
        "goals": {name: goals(entry) for name, entry in splits.items()},
        "costs": {
            "scene": "test-0000-00/1", "machine": "x86_64", "threads": 1, "calls": 31,
            "teacher_precision": "bf16", "order": "in any order",
            "rows": {
                "host": cost(1.0), "free_queries": cost(1.1), "teacher": cost(6.0),
                "student": cost(1.2), ROWS[-1]: cost(1.2), "teacher_answer": cost(5.0),
            },
            "teacher_by_student": {"cpu": 4.2, "flops": 4.1},
            "pinned": {
                "recipe": "base", "system_shape": "3x256x512", "teacher_shape": "3x252x504",
                "system_flops": 6.5e10, "teacher_flops": 5.6e12, "ratio": 86.2,
            },
        },
        "examples": {
            "rule": "the largest gain of every event",
            "scenes": [
                {
                    "split": "longtail", "token": f"longtail-0000-00/{index}", "tag": "cut_in",
                    "shard_sha256": "5" * 64, "seed": 0, "driven": plan,
                    "pdms": {"host": 0.0, "teacher": 1.0, "student": 0.9},
                    "plans": dict.fromkeys(("host", "teacher", "student"), plan),
                }
                for index in range(3)
            ],
        },
        "splits": splits,
    }  # fmt: skip


@pytest.fixture
def now(present: Present) -> Present:
    return replace(
        present, bundle_sha256="b0" * 32, distill_code={"distill": "e" * 16}, commit="d00d" * 9,
        contender_code={"training": "7" * 16},
        recipes={"distill": {"nano": "aaaa", "nano_no_kl": "bbbb"}},
    )  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "distill_nano.json").write_text(json.dumps(distill_document()))
    return folder


@pytest.fixture(autouse=True)
def no_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTVLA_DATA", str(tmp_path / "data"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figure out where the text alone is looked at."""
    monkeypatch.setattr("latentvla_training.report.document.draw_distill_figure", lambda *_: False)


def told(folder: Path, present: Present, title: str = "Distillation") -> str:
    write_report(folder, folder.parent / "results.md", present)
    return section((folder.parent / "results.md").read_text(), title)


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
def test_goals_that_are_missed_are_said_to_be(results: Path, now: Present) -> None:
    (results / "distill_nano.json").write_text(json.dumps(distill_document(scale=-0.2)))
    lines = [line for line in told(results, now).splitlines() if line.startswith("- The ")]
    assert "interval and all on longtail, not less on test: **missed** (longtail" in lines[0]
    assert "gain, longtail: **not measured** (the teacher's gain, longtail" in lines[2]
    assert "12 free queries, interval and all, test: **missed**" in lines[3]
    assert "No share of the teacher's gain is reported" in told(results, now)
    only = distill_document()
    del only["splits"]["test"]
    (results / "distill_nano.json").write_text(json.dumps(only))
    first = next(line for line in told(results, now).splitlines() if "online adds" in line)
    assert "**not measured** (longtail +6." in first  # half a goal is none


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


def swayed(share: float, by: float = 0.0) -> dict[str, Any]:
    """Return a result whose student keeps a share of the gain, ``by`` more or less by network."""
    document = distill_document()
    for found in document["splits"].values():
        for part in found["sums"]:
            sums = part["groups"]["all"]["pdms"]
            gains = np.subtract(sums["teacher"], sums["host"])
            kept = share + by * np.resize([1.0, -1.0], len(gains))
            sums["student"] = (np.array(sums["host"]) + kept * gains).tolist()
        sums = pooled([sums_from_json(part) for part in found["sums"]])
        found["retention"] = {"student": retention(sums, "student")}
    return document


@pytest.mark.parametrize(
    ("share", "by", "kept", "stretch"),
    [
        (0.95, 0.0, "met", "met"),
        (0.7, 0.02, "met", "missed"),
        (0.7, 0.6, "point estimate above 60 %, not shown", "missed"),
        (1.0, 0.6, "point estimate above 60 %, not shown", "point estimate above 90 %, not shown"),
        (0.5, 0.0, "missed", "missed"),
    ],
)
def test_a_share_is_kept_where_the_whole_interval_says_so(
    share: float, by: float, kept: str, stretch: str
) -> None:
    lines = [line for line in goal_lines(swayed(share, by)) if "keeps at least" in line]
    assert len(lines) == 2
    for line in lines:
        assert f": **{kept}** ({100 * share:.0f} %; the student's gain" in line
        assert line.endswith(f", {stretch}; the paper kept 57 %).")


@pytest.mark.parametrize(("seeds", "said"), [((0,), "one seed"), ((0, 1), "two seeds")])
def test_nothing_is_claimed_of_fewer_than_three_seeds(seeds: Sequence[int], said: str) -> None:
    lines = goal_lines(distill_document(seeds=seeds))
    for line in lines[:-1]:
        assert f": **{said}: no claim** (" in line
        assert "**met**" not in line and "missed" not in line
    assert "**met** (86.2 counted" in lines[-1]  # of which seeds say nothing


@pytest.mark.usefixtures("undrawn")
def test_the_goal_is_answered_by_regime_from_fresh_results_alone(
    results: Path, now: Present
) -> None:
    def answers() -> list[str]:
        return [line for line in told(results, now).splitlines() if line.startswith("- `")][:3]

    full, maps, odometry = answers()
    assert full.startswith("- `full` (labels and odometry of all drives): **yes**; ")
    assert "`distill_nano.json` met (longtail +6." in full
    assert maps == "- `scarce_maps` (labels of few drives): **no result**."
    scarce = distill_document(scale=-0.2)
    scarce["regime"]["labelled_share"] = 0.1
    (results / "distill_maps.json").write_text(json.dumps(scarce))
    scarce["regime"]["odometry_share"] = 0.1
    scarce["identity"]["distill"] = "0lder"
    (results / "distill_odometry.json").write_text(json.dumps(scarce))
    worse = distill_document(scale=-0.2)
    (results / "distill_worse.json").write_text(json.dumps(worse))
    (results / "distill_alone.json").write_text(json.dumps(distill_document(seeds=(0,))))
    full, maps, odometry = answers()
    assert "**in 1 of 2 comparisons**" in full and "`distill_worse.json` missed (" in full
    assert "`distill_alone.json` one seed: no claim (longtail" in full
    assert "**no**; `distill_maps.json` missed (longtail -1." in maps
    assert odometry.endswith("**no fresh result**; stale and not counted: `distill_odometry.json`.")


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


def teacher_file(folder: Path, name: str, seed: int, **changed: Any) -> None:
    rng = np.random.default_rng(seed)
    networks = np.repeat([f"test-{index:04d}" for index in range(4)], 10)
    codes = rng.integers(0, 16, (40, 12)).astype(np.int8)
    rows: dict[str, dict[str, Any]] = {}
    chances = {}
    known = {"teacher": 3.0, "ego_mlp": 1.0, "unigram": 0.0, "previous_token": 0.5}
    for kind, strength in {**known, "ego_mlp_previous": 2.95}.items():
        logits = strength * np.eye(16)[codes] + rng.normal(0.0, 0.3, (40, 12, 16))
        chances[kind] = (logits - np.log(np.exp(logits).sum(2, keepdims=True))).astype(np.float32)
        rows[kind] = code_figures(chances[kind], codes)
        own = code_figures(chances[kind], codes, by_place=False)
        rows[kind] |= {f"own_{figure}": value for figure, value in own.items()}
    calibration = calibrate(networks, chances["teacher"], codes)
    about = {
        "teacher_id": f"nano-{seed}", "codebook_id": "nano-0123", "scenes_id": "5" * 16,
        "recipe": "nano", "seed": seed, "passes": 16000, "scenes": 40, **changed,
    }  # fmt: skip
    result = SeedResult(about, sums_of(networks, rows, {}, {}), calibration, calibration)
    write_document({f"nano-s{seed}": result}, "test", folder / name)


def test_teachers_of_one_recipe_are_pooled_and_others_stand_apart(
    tmp_path: Path, present: Present
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    teacher_file(folder, "teacher_test.json", 0)
    teacher_file(folder, "teacher_test_s1.json", 1)
    teacher_file(folder, "teacher_other.json", 2, codebook_id="other-9")
    text = told(folder, present, "What the teacher knows")
    assert text.count("### Teacher nano on test") == 2 and "1 seed(s) (nano-s2)" in text
    assert "2 seed(s) (nano-s0, nano-s1), 40 Scenes of 4 networks" in text
    assert "--runs nano-s1 --split test --json docs/results/teacher_test_s1.json" in text
    assert "Beats ego state and command (MLP) by 0.1 nat: **yes**" in text
    assert "true codes before (MLP) by 0.1 nat, not asked for: **no**" in text
    stale = replace(present, scenes_ids={"test": "9" * 16})
    assert "### Teacher nano on test †" in told(folder, stale, "What the teacher knows")
    read = read_result(folder / "teacher_test.json", stale)
    assert read.stale == ("scenes 5555555555555555, now 9999999999999999",)
    other = replace(present, codebooks={"nano": "nano-9"}, recipes={"teacher": {"nano": "now"}})
    (why,) = read_result(folder / "teacher_test.json", other).stale
    assert why == "codebook nano-0123, now nano-9"  # it says no settings
    teacher_file(folder, "teacher_test.json", 0, recipes={"nano": "then"})
    assert "recipe nano then, now now" in read_result(folder / "teacher_test.json", other).stale
    teacher_file(folder, "teacher_test.json", 0, passes="many")
    read_all = write_report(folder, tmp_path / "results.md", present)
    assert "passes" in read_all.refused["teacher_test.json"]


def test_shipped_results_of_teachers_are_read() -> None:
    for name in ("teacher_test.json", "teacher_test_s1.json"):
        assert read_result(Places().results / name, Present()).kind is Kind.TEACHER


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
    changed = replace(nano, ego_steps=nano.ego_steps + 1)
    assert identity.teacher_recipe_hash(changed) != found["teacher"]["nano"]
