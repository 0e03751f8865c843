"""What a stage costs is its own: memory of the stage before is not, work of live workers is."""

from __future__ import annotations

import os
import subprocess
import sys

from latentvla_training.engine.cost_meter import CostMeter
from latentvla_training.engine.launch import ALLOCATOR

_TWO_STAGES = """
import numpy as np
from latentvla_training.engine.cost_meter import CostMeter
first = CostMeter()
held = np.ones(50_000_000)
high = first.peak_gib
del held
second = CostMeter()
print(high, second.peak_gib, first.cpu_s > second.cpu_s)
"""

_WORKER = """
import time
held = b"1" * (200 << 20)
while time.process_time() < 0.5:
    pass
print("ready", flush=True)
input()
"""


def test_memory_that_a_stage_before_has_freed_does_not_count() -> None:
    environment = {**os.environ, **ALLOCATOR}  # which never returns any by itself
    found = subprocess.run(
        [sys.executable, "-c", _TWO_STAGES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    high, low, longer = found.stdout.split()
    assert float(high) - float(low) > 0.3  # of 0.37 GiB
    assert longer == "True"


def test_a_worker_counts_while_it_lives_and_after() -> None:
    meter = CostMeter()
    before = meter.peak_gib
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    meter.look()
    alive = meter.cpu_s
    assert alive > 0.4
    worker.communicate(b"\n")
    assert worker.returncode == 0
    assert meter.cpu_s >= alive and meter.peak_gib - before > 0.18
