"""Results of distill evaluate, by hand, and a folder that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latentvla_training.distill.evaluation import goals, retention
from latentvla_training.planner.contender_scores import FIGURES, differences, means
from latentvla_training.report.document import write_report
from latentvla_training.report.identity import joined_hash
from latentvla_training.report.network_sums import NetworkSums, pooled, sums_of
from latentvla_training.report.present import Present
from latentvla_training.teacher.calibration import calibrate
from latentvla_training.teacher.evaluation import SeedResult, code_figures, write_document

from .reading import section

HOST_ID = "nano-3-0123456789abcdef"
#: What the Scenes of train are that it learned from.
TRAIN = joined_hash({"train-0000": "old"})
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
            "data": {name: {"content_sha256": "t" * 64} for name in splits}
            | {"train": {"content_sha256": TRAIN}},
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


def told(folder: Path, present: Present, title: str = "Distillation") -> str:
    write_report(folder, folder.parent / "results.md", present)
    return section((folder.parent / "results.md").read_text(), title)


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
