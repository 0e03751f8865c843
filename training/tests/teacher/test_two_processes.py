"""Two processes (gloo), interrupted and gone on with, end in the same weights; FSDP2 as well."""

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
from latentvla_training.teacher import settings
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


#: accelerate makes FSDP2 of several GPUs alone. This lets it do so with two processes of a CPU, by
#: the configuration that ships; all else is the loop and the model as they are.
_SHARDED = """
import sys
from pathlib import Path
import accelerate, torch, yaml
from accelerate.state import AcceleratorState, DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin
from latentvla_training.engine.sharding import is_sharded
from latentvla_training.teacher.settings import load_teacher_recipe
from latentvla_training.teacher.training import train_teacher

recipe, run, vision, codes, configuration, stop = sys.argv[1:]
config = yaml.safe_load(Path(configuration).read_text())["fsdp_config"]
initialise, prepare = accelerate.Accelerator.__init__, accelerate.Accelerator.prepare

def sharded(self, *arguments, **keywords):
    initialise(self, *arguments, **keywords)
    AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
    self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=config["fsdp_version"],
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=config["fsdp_transformer_layer_cls_to_wrap"].split(","),
        reshard_after_forward=config["fsdp_reshard_after_forward"],
        cpu_ram_efficient_loading=config["fsdp_cpu_ram_efficient_loading"],
        state_dict_type=config["fsdp_state_dict_type"],
    )

def prepare_and_look(self, *arguments):
    prepared = prepare(self, *arguments)
    units = [m for m in prepared[0].modules() if is_sharded(m)]
    assert is_sharded(prepared[0]) and len(units) > 4, len(units)
    return prepared

accelerate.Accelerator.__init__, accelerate.Accelerator.prepare = sharded, prepare_and_look
stop_after = int(stop) or None
train_teacher(
    load_teacher_recipe(recipe), Path(run), Path(vision), Path(codes), stop_after, progress=False
)
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_teacher_in_pieces_learns_and_goes_on_like_one_that_is_whole(
    place: Place, recipe: TeacherRecipe
) -> None:
    file, script = place.root / "pieces.yaml", place.root / "pieces.py"
    pieces = replace(
        recipe,
        name="pieces",
        model=replace(recipe.model, gradient_checkpointing=True),
        vision=replace(recipe.vision, enabled=False),
        optimizer=replace(recipe.optimizer, ema_decay=0.0),
    )
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(pieces)))))
    script.write_text(_SHARDED)
    configuration = Path(settings.__file__).parents[1] / "recipes" / "accelerate" / "fsdp2.yaml"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

    def sharded(folder: Path, stop: int) -> None:
        run(*torchrun, script, file, folder, "unused", place.codes, configuration, str(stop))

    whole, parts, plain = place.root / "whole", place.root / "parts", place.root / "plain"
    sharded(whole, 0)
    sharded(parts, 2)
    assert checkpoint_step(parts) == 2
    sharded(parts, 0)
    command = ("-m", "latentvla_training.cli", "teacher", "train", "--recipe", file)
    run(*command, "--codes", place.codes, "--processes", "2", "--run", plain)
    states = [load_checkpoint(folder) for folder in (whole, parts, plain)]
    one, other, unsharded = (state["module"] for state in states if state is not None)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
        torch.testing.assert_close(value, unsharded[name], rtol=1e-3, atol=1e-4, msg=name)
