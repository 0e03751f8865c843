"""Both stages in two processes (gloo), interrupted and gone on with, end in the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from latentvla_training.engine.checkpoint import checkpoint_step, load_checkpoint
from latentvla_training.teacher.settings import TeacherRecipe

from .conftest import Place

pytestmark = pytest.mark.slow

_TWO_STEPS = """
import sys
from pathlib import Path
import torch
from latentvla_training.teacher.settings import load_teacher_recipe
from latentvla_training.teacher.training import train_teacher
recipe, run, vision, codes = sys.argv[1:]
train_teacher(load_teacher_recipe(recipe), Path(run), Path(vision), Path(codes), 2, progress=False)
assert torch.distributed.get_world_size() == 2
"""


def run(*arguments: str | Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_go_on_where_they_were_interrupted(
    place: Place, recipe: TeacherRecipe
) -> None:
    file, script = place.root / "two.yaml", place.root / "two_steps.py"
    both = replace(recipe, name="two", vision=replace(recipe.vision, run=recipe.run))
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(both)))))
    script.write_text(_TWO_STEPS)
    whole, parts = place.root / "whole", place.root / "parts"
    command = ("-m", "latentvla_training.cli", "teacher", "train", "--recipe", file)
    command += ("--codes", place.codes, "--processes", "2", "--run")

    run(*command, whole)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    run(*torchrun, script, file, parts, place.root / "two-vision", place.codes)
    assert checkpoint_step(parts) == 2
    run(*command, parts)
    assert checkpoint_step(whole) == checkpoint_step(parts) == 6
    one, other = load_checkpoint(whole), load_checkpoint(parts)
    assert one is not None and other is not None
    for name, value in one["averaged"].items():
        assert torch.equal(value, other["averaged"][name]), name
