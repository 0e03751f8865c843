"""The gate of the codes in the report: verdict, seeds, what is refused or stale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latentvla_training.report.document import write_report
from latentvla_training.report.network_sums import sums_of
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import read_result

from latentvla_ros.contract import ContractError

from .oracle_documents import oracle_document
from .reading import row, section, written


def test_the_gate_of_the_codes_is_told_with_its_verdict(folder: Path, present: Present) -> None:
    (folder / "oracle.json").write_text(json.dumps(oracle_document()))
    text = section(written(folder, present), "Oracle codes")
    assert "`oracle.json`, codes of `nano-0123`, 8000 passes a row, seeds 0, 1: Gate failed" in text
    assert (
        "oracle-codes --codes data/codes/nano-0123 --recipe nano --seeds 0 1 --splits test --js"
        in text
    )
    assert "test: beats host, trained on, host + 12 free queries" in text
    assert row(text, "host + the true codes")[1:4] == [
        "90.0 [85.0, 95.0]",
        "-",
        "0.500 [0.400, 0.600]",
    ]
    assert row(text, "true codes minus host, trained on")[1] == "**+3.0 [+1.0, +5.0]**"
    assert row(text, "true codes minus host + codes of")[1] == "+1.0 [-1.0, +3.0]"
    assert "†" not in text
    changed = replace(present, scenes={"test": "0" * 64})
    text = section(written(folder, changed), "Oracle codes")
    assert "`oracle.json` †" in text and row(text, "host + the true codes (diagnostic) †")
    assert row(text, "true codes minus host, trained on †")


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("splits", "test", "rows"), []),
        (("splits", "test", "rows", "host"), 1),
        (("splits", "test", "rows", "host", "pdms"), [0.1, 0.2]),
        (("splits", "test", "differences", "oracle_codes-host", "pdms"), [0.1, True, 0.2]),
        (("splits", "test", "scenes"), "many"),
        (("verdict", "beaten", "test"), "host"),
        (("identity", "data"), None),
        (("identity", "data", "test"), 1),
    ],
)
def test_a_gate_with_a_wrong_entry_is_refused(
    folder: Path, present: Present, place: tuple[str, ...], wrong: Any
) -> None:
    document = found = oracle_document()
    for name in place[:-1]:
        found = found[name]
    found[place[-1]] = wrong
    (folder / "oracle.json").write_text(json.dumps(document))
    results = write_report(folder, folder.parent / "results.md", present)
    assert place[-1] in results.refused["oracle.json"]


def test_the_gate_shows_every_seed_where_it_kept_them(folder: Path, present: Present) -> None:
    document = oracle_document()
    names = np.array(["test-0000", "test-0000", "test-0001"])
    parts = [
        sums_of(
            names,
            {
                row: {"pdms": np.full(3, level), "ade": np.full(3, 1.0 - level)}
                for row, level in (("host", 0.7), ("oracle_codes", gain))
            },
            {},
            {},
        )
        for gain in (0.75, 0.79)
    ]
    document["splits"]["test"]["sums"] = [part.to_json() for part in parts]
    path = folder / "oracle.json"
    path.write_text(json.dumps(document))
    text = section(written(folder, present), "Oracle codes")
    table = text.partition("| seed by seed (0, 1; ± standard deviation) |")[2]
    cells = row(table, "true codes minus host, trained on")
    assert cells[1:] == ["+5.0, +9.0 (± 2.8)", "-", "-0.050, -0.090 (± 0.028)", "-", "-"]
    assert row(table, "true codes minus host + codes of")[1:] == ["-"] * 5  # not in the sums
    document["splits"]["test"]["sums"].pop()
    path.write_text(json.dumps(document))
    with pytest.raises(ContractError, match=r"test\.sums: found 1, expected 2, one for each seed"):
        read_result(path, present)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"contender_code": {"training": "0ther"}}, "does not say by which training it was made"),
        ({"recipes": {"oracle_codes": {"nano": "0ther"}}}, "recipe nano 0racle, now 0ther"),
        ({"codebooks": {"nano": "nano-9"}}, "codebook nano-0123, now nano-9"),
        ({"bundle_sha256": "f" * 64}, "bundle of host nano-3-0123456789abcdef b0b0b0b0b0b0, now"),
    ],
)
def test_a_gate_of_other_code_settings_codebook_or_host_is_stale(
    folder: Path, present: Present, changed: dict[str, Any], said: str
) -> None:
    path = folder / "oracle.json"
    path.write_text(json.dumps(oracle_document()))
    assert not read_result(path, present).stale
    assert read_result(path, replace(present, **changed)).stale[0].startswith(said)
    same = replace(present, bundle_sha256="f" * 64, bundle_host="nano-3-0123456789abcdef")
    assert not read_result(path, replace(same, codebooks={"other": "other-9"})).stale
