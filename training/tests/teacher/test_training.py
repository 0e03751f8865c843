"""Both stages end to end; kill -9 at any file ends in the same weights; other codes are refused."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.engine.checkpoint import checkpoint_step, load_checkpoint
from latentvla_training.engine.recipe import DataSettings
from latentvla_training.latent_action.codes import load_codes, save_codes, scenes_identity
from latentvla_training.teacher.baselines import train_net
from latentvla_training.teacher.cache import (
    CachedTeacher,
    cache_folder,
    cache_identity,
    ensure_cache,
    scenes_as_shown,
)
from latentvla_training.teacher.model import make_teacher
from latentvla_training.teacher.processor import load_processor
from latentvla_training.teacher.release import release
from latentvla_training.teacher.settings import TeacherRecipe, vision_recipe
from latentvla_training.teacher.training import (
    TrainedTeacher,
    load_teacher_run,
    open_coded_split,
    start_from_ego_net,
    train_teacher,
)
from latentvla_training.teacher.vision_pretraining import (
    HiddenPatches,
    is_pretrained,
    pretrain_vision,
    start_from_vision,
)
from latentvla_training.teacher.vlm import build_vlm
from numpy.typing import NDArray
from torch import Tensor, nn

from latentvla_ros.contract import ContractError

from .conftest import (
    SHARD_RECIPE,
    Place,
    codes_of,
    exit_code,
    kill_at_flush,
    make_scene,
)


@pytest.fixture
def often(recipe: TeacherRecipe) -> TeacherRecipe:
    """The recipe with a checkpoint after every step."""
    run = replace(recipe.run, checkpoint_minutes=0.0)
    return replace(recipe, run=run, vision=replace(recipe.vision, run=run))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_kill_in_any_stage_ends_in_the_same_weights(
    place: Place, often: TeacherRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str) -> nn.Module:
        folder = place.root / name
        return train_teacher(often, folder / "run", folder / "vision", place.codes, progress=False)

    whole = train("whole")

    # Six steps a stage, a checkpoint each: mid-file in the vision stage, at the first checkpoint of
    # the other, and after some of them, so that each stage goes on from one.
    folder = place.root / "parts"
    for number, steps in ((4, (3, 0)), (4, (6, 0)), (3, (6, 2)), (3, (6, 4))):
        with monkeypatch.context() as patched:
            kill_at_flush(patched, number)
            assert exit_code(lambda: train("parts")) == -signal.SIGKILL
        assert (checkpoint_step(folder / "vision"), checkpoint_step(folder / "run")) == steps
    assert is_pretrained(vision_recipe(often), folder / "vision")
    assert same(train("parts"), whole)
    again = load_teacher_run(place.root / "parts" / "run")
    assert isinstance(whole, TrainedTeacher)
    assert same(again.teacher, whole.teacher) and again.steps == 6


def test_odometry_of_drives_that_have_none_decides_nothing(
    place: Place, recipe: TeacherRecipe
) -> None:
    scarce = replace(recipe, data=DataSettings(odometry_share=0.5))
    with pytest.raises(ContractError, match=r"odometry_share of codebook test-.*at most 0\.5"):
        open_coded_split("train", place.codes, scarce.data)
    told_less = replace(load_codes(place.codes / "train.safetensors"), odometry_share=0.5)
    save_codes(place.codes / "train.safetensors", told_less)

    def trained(name: str) -> tuple[nn.Module, NDArray[np.float16], list[str]]:
        folder = place.root / name
        found = train_teacher(scarce, folder / "run", folder / "v", place.codes, progress=False)
        run = load_teacher_run(folder / "run")
        reader = scenes_as_shown(run, "train")
        assert reader.has_odometry.tolist() == [False] * 6 + [True] * 6
        assert scenes_as_shown(run, "test").has_odometry.all()  # what is judged is all known
        return found, ensure_cache(run, reader, "train", folder, False).action, reader.contents()

    whole, states, _ = trained("whole")
    hidden = place.reader("train").paths[0]
    rows = [
        replace(scene, ego_dynamics=scene.ego_dynamics + 3, command=np.roll(scene.command, 1))
        for scene in ShardReader([hidden])
    ]
    codes = load_codes(place.codes / "train.safetensors")
    write_shard(hidden, rows, SHARD_RECIPE)
    same_codes = replace(codes, scenes_id=scenes_identity(place.reader("train")))
    save_codes(place.codes / "train.safetensors", same_codes)
    again, states_again, contents = trained("again")
    assert same(whole, again)
    np.testing.assert_array_equal(states, states_again)
    run = load_teacher_run(place.root / "again" / "run")
    told = place.reader("train")  # where a comparison would tell what the teacher never was
    assert told.contents()[0] != contents[0] and told.contents()[1] == contents[1]
    identity = cache_identity(run, told)
    folder = cache_folder(identity["teacher"], "train", place.root / "again")
    with pytest.raises(ContractError, match=r"scenes: found '\w+ without odometry'"):
        CachedTeacher(folder, told, identity)


def test_the_tower_starts_as_the_vision_stage_left_it(place: Place, recipe: TeacherRecipe) -> None:
    folder = place.root / "vision"
    module = pretrain_vision(vision_recipe(recipe), folder, progress=False)
    assert isinstance(module, HiddenPatches)
    tower = build_vlm(recipe.model, load_processor(recipe.model, recipe.pictures)).model.visual
    assert not same(tower, module.tower)
    start_from_vision(tower, folder)
    assert same(tower, module.tower)
    wider = replace(recipe.model, vision_width=64)
    other = build_vlm(wider, load_processor(wider, recipe.pictures)).model.visual
    with pytest.raises(ContractError, match=r"found 'blocks\..*expected"):
        start_from_vision(other, folder)
    with pytest.raises(FileNotFoundError, match="pre-train the vision tower first"):
        start_from_vision(tower, place.root / "none")


@pytest.mark.parametrize("what", ["hidden_share", "side_pixels", "max_shards", "scenes"])
def test_a_tower_of_another_stage_is_refused(
    place: Place, recipe: TeacherRecipe, what: str
) -> None:
    vision = place.root / "vision"
    pretrain_vision(vision_recipe(recipe), vision, progress=False)
    other = {
        "hidden_share": replace(recipe, vision=replace(recipe.vision, hidden_share=0.5)),
        "side_pixels": replace(recipe, pictures=replace(recipe.pictures, side_pixels=(3136, 8000))),
        "max_shards": replace(recipe, data=replace(recipe.data, max_shards=1)),
        "scenes": recipe,
    }[what]
    if what == "scenes":
        rows = [make_scene(index, "train-0000", shown=40 + index) for index in range(6)]
        write_shard(place.reader("train").paths[0], rows, SHARD_RECIPE)
        save_codes(place.codes / "train.safetensors", codes_of(place.reader("train"), "train"))
    with pytest.raises(ContractError, match=rf"vision tower of .*{what}: .* there, .* here"):
        train_teacher(other, place.root / "run", vision, place.codes, progress=False)
    assert not (place.root / "run").exists()


def test_a_tower_that_is_the_same_is_taken(place: Place, recipe: TeacherRecipe) -> None:
    vision = place.root / "vision"
    pretrain_vision(vision_recipe(recipe), vision, progress=False)
    noted = (vision / "recipe.yaml").read_text().splitlines()
    assert noted[-1] == f"scenes: {scenes_identity(place.reader('train'))}"
    (vision / "recipe.yaml").write_text("\n".join(noted[:-1]))  # as older runs are
    named = replace(recipe, name="other")
    before = (vision / "checkpoint.pt").read_bytes()
    train_teacher(named, place.root / "run", vision, place.codes, 1, progress=False)
    assert (vision / "checkpoint.pt").read_bytes() == before
    for path in vision.iterdir():
        path.unlink()  # a teacher that has begun has its tower
    train_teacher(named, place.root / "run", vision, place.codes, 1, progress=False)
    assert checkpoint_step(place.root / "run") == 2 and not list(vision.iterdir())


def test_stages_may_differ_in_precision(place: Place, recipe: TeacherRecipe) -> None:
    mixed = replace(recipe, run=replace(recipe.run, mixed_precision="bf16"))
    folder = place.root / "run"
    train_teacher(mixed, folder, place.root / "vision", place.codes, 1, progress=False)
    assert checkpoint_step(folder) == 1


def test_error_counts_at_hidden_places_and_they_are_unseen(recipe: TeacherRecipe) -> None:
    torch.manual_seed(0)
    tower = build_vlm(recipe.model, load_processor(recipe.model, recipe.pictures)).model.visual
    painter = HiddenPatches(tower, 0.5).eval()
    grid = torch.tensor([[1, 4, 4]])
    pixels = torch.randn(16, 1176)
    hidden = torch.tensor([True, False, False, False])

    def error(changed: Tensor, hidden: Tensor = hidden) -> Tensor:
        return painter.painted_error(changed, grid, hidden)

    # What is hidden is only the target: its scale is normalised away, its contrast is not.
    louder = pixels.clone()
    louder[:4] = 3.0 * louder[:4]
    torch.testing.assert_close(error(louder), error(pixels), rtol=2e-2, atol=1e-3)
    seen = pixels.clone()
    seen[4:] += torch.randn(12, 1176)
    assert not torch.allclose(error(seen), error(pixels))
    with torch.no_grad():
        painter.paint.weight.zero_()
        painter.paint.bias.zero_()
    torch.testing.assert_close(error(pixels), torch.tensor(1.0), rtol=0.0, atol=0.02)


def test_training_lowers_the_loss(place: Place, recipe: TeacherRecipe) -> None:
    longer = replace(
        recipe,
        vision=replace(recipe.vision, enabled=False),
        optimizer=replace(recipe.optimizer, learning_rate=3e-3, ema_decay=0.0),
        run=replace(recipe.run, passes=120, validate_passes=60),
    )
    train_teacher(longer, place.root / "run", place.root, place.codes, progress=False)
    lines = (place.root / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line)["val/nll"] for line in lines if "val/nll" in line]
    # 5 speeds decide all: from ln 16 = 2.77 towards 0.
    assert found[-1] < 2.6 and found[-1] < found[0]


def test_the_ego_encoder_starts_as_a_net_without_pictures_left_it(
    place: Place, recipe: TeacherRecipe
) -> None:
    split = open_coded_split("train", place.codes)
    teacher = make_teacher(recipe.model, load_processor(recipe.model, recipe.pictures))
    settings = replace(recipe.baseline, width=teacher.width, steps=recipe.ego_steps)
    net = train_net(split.reader, split.codes, settings, False, 0.5)
    assert not same(teacher.ego, net.ego)
    start_from_ego_net(teacher, recipe, split)
    assert same(teacher.ego, net.ego)


def test_a_run_goes_on_from_another(place: Place, recipe: TeacherRecipe) -> None:
    runs = place.root / "runs"
    first = train_teacher(recipe, runs / "short", runs / "vision", place.codes, progress=False)
    no_vision = replace(recipe.vision, enabled=False)
    on = replace(recipe, name="on", start_from="short", vision=no_vision, ego_steps=0)
    still = replace(on, optimizer=replace(on.optimizer, learning_rate=1e-12))
    kept = train_teacher(still, runs / "still", runs / "none", place.codes, progress=False)
    assert isinstance(first, TrainedTeacher) and isinstance(kept, TrainedTeacher)
    for before, after in zip(first.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)
    moved = train_teacher(on, runs / "on", runs / "none", place.codes, progress=False)
    assert not same(moved, first) and not (runs / "none").exists()
    released = release(load_teacher_run(runs / "short"), place.root / "released")
    later = replace(still, start_from=str(released))
    taken = train_teacher(later, runs / "later", runs / "none", place.codes, progress=False)
    assert isinstance(taken, TrainedTeacher)
    for before, after in zip(first.parameters(), taken.parameters(), strict=True):
        torch.testing.assert_close(after, before.half().float(), atol=1e-6, rtol=1e-5)
    wider = replace(on, model=replace(on.model, layers=on.model.layers + 1))
    with pytest.raises(ContractError, match="start_from short: model"):
        train_teacher(wider, runs / "wider", runs / "none", place.codes, progress=False)
    absent = replace(on, start_from="gone")
    with pytest.raises(FileNotFoundError, match="gone"):
        train_teacher(absent, runs / "absent", runs / "none", place.codes, progress=False)


@pytest.mark.parametrize("what", ["codebook", "scenes", "split"])
def test_other_codes_are_refused(place: Place, recipe: TeacherRecipe, what: str) -> None:
    settings = replace(recipe, vision=replace(recipe.vision, enabled=False))
    folder = place.root / "run"
    path = place.codes / "train.safetensors"

    def train() -> None:
        train_teacher(settings, folder, folder, place.codes, 1, progress=False)

    train()
    codes = load_codes(path)
    if what == "codebook":  # of both splits: the run remembers
        for split in ("train", "val"):
            own = place.codes / f"{split}.safetensors"
            save_codes(own, replace(load_codes(own), codebook_id="other-1"))
        with pytest.raises(ContractError, match=r"codebook: 'test-0123.*there, 'other-1' here"):
            train()
    elif what == "scenes":
        save_codes(path, replace(codes, scenes_id="0" * 16))
        with pytest.raises(ContractError, match=r"scenes_id: found '0{16}', expected [0-9a-f]{16}"):
            train()
    else:
        save_codes(path, replace(codes, codebook_id="other-1"))
        with pytest.raises(ContractError, match=r"codebook of val: found .test-.*expected other-1"):
            train()


def test_a_few_shards_keep_their_codes(place: Place) -> None:
    whole = open_coded_split("train", place.codes)
    few = open_coded_split("train", place.codes, DataSettings(max_shards=1))
    assert len(few.reader) == 6 < len(whole.reader)
    assert np.array_equal(few.codes.sequence, whole.codes.sequence[:6])
    assert few.codes.scenes_id != whole.codes.scenes_id


def test_blank_pictures_are_seen_once_and_change_nothing(
    place: Place, recipe: TeacherRecipe
) -> None:
    blank = replace(recipe, blank_images=True, vision=replace(recipe.vision, enabled=False))
    module = train_teacher(blank, place.root / "run", place.root, place.codes, 1, progress=False)
    assert isinstance(module, TrainedTeacher) and module.blank
    state = load_checkpoint(place.root / "run")
    assert state is not None and state["step"] == 1


def test_codes_of_a_scene_without_any_are_left_out(place: Place, recipe: TeacherRecipe) -> None:
    reader = place.reader("train")
    codes = codes_of(reader, "train")
    none = replace(codes, ego=np.full_like(codes.ego, -1), environment=np.full_like(codes.ego, -1))
    save_codes(place.codes / "train.safetensors", none)
    settings = replace(recipe, vision=replace(recipe.vision, enabled=False))
    with pytest.raises(ContractError, match="at least one Scene with codes"):
        train_teacher(settings, Path(place.root / "run"), place.root, place.codes, progress=False)
