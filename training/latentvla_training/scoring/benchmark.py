"""``latentvla-train bench-scoring``: CPU time of the scores on one core."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from latentvla_training.scoring.pdm import score_epdms, score_pdms
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.vectors import ScoringVectors, load_vectors

PLANS_ON_ONE_SCENE = 256
BENCHED_SCENES = 8
BATCH_SCENES = 64
BATCH_PLANS = 64
# CPU ms of NAVSIM's transform + simulate + score for 256 plans (README beside the vectors).
NAVSIM_V1_MS = 375.0 + 199.0 + 381.0
NAVSIM_V2_MS = 546.0 + 274.0 + 1612.0


def bench_scoring(
    vectors: str | Path,
    json_path: str | Path | None = None,
    repetitions: int = 3,
    report_line: Callable[[str], None] = print,
) -> dict[str, float]:
    """Time the scores on a vector file's scenes, single-threaded, in CPU milliseconds.

    ``v1_ms_256`` and ``v2_ms_256`` are medians over scenes spread through the file of 256 distinct
    plans on one scene (transform + simulate + score, reference included, no human filter: what
    NAVSIM's table times); ``batch_64x64_ms`` is v2 on 64 scenes x 64 plans in one call. Padding a
    scene to tensors is outside the clock, as NAVSIM's metric cache is.

    Raises:
        VectorFileError: when the file cannot be read as vectors.
    """
    data = load_vectors(vectors)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = _measure(data, repetitions)
    finally:
        torch.set_num_threads(threads)
    report_line(
        f"256 plans: v1 {result['v1_ms_256']:.1f} ms ({result['v1_speedup']:.0f} x NAVSIM), "
        f"v2 {result['v2_ms_256']:.1f} ms ({result['v2_speedup']:.0f} x NAVSIM); "
        f"64 scenes x 64 plans: {result['batch_64x64_ms']:.0f} ms, "
        f"float32 {result['batch_64x64_float32_ms']:.0f} ms (CPU time, one core)"
    )
    if json_path is not None:
        Path(json_path).parent.mkdir(parents=True, exist_ok=True)
        Path(json_path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _measure(data: ScoringVectors, repetitions: int) -> dict[str, float]:
    count = len(data.scenes)
    v1, v2 = [], []
    for index in np.linspace(0, count - 1, min(BENCHED_SCENES, count)).astype(int):
        scene = data.batch(index, index + 1)
        plans = varied_plans(data, [int(index)], PLANS_ON_ONE_SCENE)
        without_filter = partial(score_epdms, scene, plans, filter_by_human=False)
        v1.append(_cpu_ms(partial(score_pdms, scene, plans), repetitions))
        v2.append(_cpu_ms(without_filter, repetitions))
    chosen = [i % count for i in range(BATCH_SCENES)]
    scenes = SceneBatch.from_arrays([data.scenes[i] for i in chosen])
    plans = varied_plans(data, chosen, BATCH_PLANS)
    single = scenes.to("cpu", torch.float32)
    many = _cpu_ms(lambda: score_epdms(scenes, plans, filter_by_human=False), 1)
    many_single = _cpu_ms(lambda: score_epdms(single, plans, filter_by_human=False), 1)
    return {
        "v1_ms_256": median(v1),
        "v2_ms_256": median(v2),
        "batch_64x64_ms": many,
        "batch_64x64_float32_ms": many_single,
        "v1_ms_256_worst_scene": max(v1),
        "v2_ms_256_worst_scene": max(v2),
        "v1_speedup": NAVSIM_V1_MS / median(v1),
        "v2_speedup": NAVSIM_V2_MS / median(v2),
    }


def varied_plans(data: ScoringVectors, scenes: list[int], count: int) -> Tensor:
    """Return (S, count, 8, 3) distinct plans: each scene's candidates, smoothly perturbed."""
    generator = np.random.default_rng(0)
    candidates = data.plans[scenes]
    repeats = -(-count // candidates.shape[1])
    plans = np.tile(candidates, (1, repeats, 1, 1))[:, :count]
    ramp = np.linspace(0.0, 1.0, 9)[1:, None]
    scale = generator.normal(0.0, [1.0, 0.3, 0.03], (*plans.shape[:2], 1, 3))
    return torch.from_numpy(plans + ramp * scale)


def _cpu_ms(call: Callable[[], object], repetitions: int) -> float:
    call()  # compiles the kernels and fills the caches
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return median(times) * 1e3
