"""The prompt and its pictures are those of the real processor; other cameras are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.teacher.dataset import TeacherDataset
from latentvla_training.teacher.processor import (
    COMMANDS,
    TeacherProcessor,
    load_processor,
    prompt,
)
from latentvla_training.teacher.settings import ModelSettings, PictureSettings, TeacherRecipe

from latentvla_ros.contract import ContractError

from .conftest import SHARD_RECIPE, Place, make_scene


@pytest.fixture(scope="module")
def processor() -> TeacherProcessor:
    return load_processor(ModelSettings(), PictureSettings())


def views(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (4, 128, 256, 3), np.uint8)


@pytest.mark.parametrize("which", range(4))
def test_prompts_are_those_of_the_real_processor(processor: TeacherProcessor, which: int) -> None:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    settings, shown = processor.settings, views()
    whole = Qwen2_5_VLProcessor(
        image_processor=processor.images,
        tokenizer=processor.tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    found = whole(
        text=[prompt(COMMANDS[which], processor.tokenizer.pad_token)],
        images=[shown[1], shown[2]],
        videos=[np.stack([shown[3], shown[0]])],
        images_kwargs={"size": dict(zip(_EDGES, settings.side_pixels, strict=True))},
        videos_kwargs={"size": {"shortest_edge": 3136, "longest_edge": 2 * 39200}}
        | {"do_sample_frames": False},
        return_tensors="np",
    )
    layout = processor.layout
    assert found["input_ids"][0].tolist() == layout.ids[which].tolist()
    assert found["mm_token_type_ids"][0].tolist() == layout.kinds.tolist()
    assert np.array_equal(found["image_grid_thw"], layout.image_grid)
    assert np.array_equal(found["video_grid_thw"], layout.video_grid)
    own = processor.pictures(shown)
    assert np.array_equal(found["pixel_values"], own["pixel_values"])
    # The video part resizes with torchvision, so that roundings differ; frames are in order.
    assert np.abs(found["pixel_values_videos"] - own["pixel_values_videos"]).max() < 0.1


_EDGES = ("shortest_edge", "longest_edge")


def test_places_of_pictures_and_ego_state(processor: TeacherProcessor) -> None:
    layout = processor.layout
    names = [(p.name, p.rows, p.columns) for p in layout.pictures]
    assert names == [("front", 5, 9), ("left", 3, 6), ("right", 3, 6)]
    for picture, kind in zip(layout.pictures, (2, 1, 1), strict=True):
        own = layout.kinds[picture.start : picture.start + picture.tokens]
        assert (own == kind).all()
    ego = layout.ids[:, layout.ego_start : layout.ego_start + 4]
    assert (ego == processor.actions.filler).all()


@pytest.mark.parametrize("shape", [(4, 64, 128, 3), (3, 128, 256, 3), (4, 128, 256, 1)])
def test_views_of_another_shape_are_refused(
    processor: TeacherProcessor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ContractError, match=r"views: found .uint8.*expected uint8 \(4, 128"):
        processor.pictures(np.zeros(shape, np.uint8))


def test_pictures_of_another_size_in_a_shard_are_refused(
    processor: TeacherProcessor, tmp_path: Path
) -> None:
    path = tmp_path / "other.parquet"
    write_shard(path, [make_scene(0, "a-0000", size=128)], SHARD_RECIPE)
    dataset = TeacherDataset(ShardReader([path]), processor)
    with pytest.raises(ContractError, match=r"a-0000-00/0.*\(64, 128, 3\), expected \(128, 256"):
        dataset[0]


def test_another_rig_is_refused_by_name(processor: TeacherProcessor, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    other = {**SHARD_RECIPE, "views": [*SHARD_RECIPE["views"][:3], {**_REAR}]}
    write_shard(path, [make_scene(0, "a-0000")], other)
    with pytest.raises(ContractError, match=r"rear@0 256x128.*expected front@0 left@0 right@0 fr"):
        TeacherDataset(ShardReader([path]), processor)


_REAR = {"slot": "rear", "time_offset_s": 0.0}


def test_identity_hangs_on_what_is_shown(processor: TeacherProcessor) -> None:
    same = load_processor(ModelSettings(), PictureSettings())
    other = load_processor(ModelSettings(), replace(PictureSettings(), side_pixels=(3136, 3136)))
    assert same.identity == processor.identity != other.identity


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"model\.source"):
        load_processor(ModelSettings(source=str(tmp_path)), PictureSettings())


def test_sample_hangs_on_seed_and_position_alone(place: Place, recipe: TeacherRecipe) -> None:
    made = load_processor(recipe.model, recipe.pictures)

    def sample(seed: int, position: int) -> np.ndarray:
        dataset = TeacherDataset(
            place.reader("train"), made, augmentation=recipe.augmentation, seed=seed
        )
        return np.asarray(dataset[position, 3]["pixel_values_videos"])

    assert np.array_equal(sample(0, 5), sample(0, 5))
    assert not np.array_equal(sample(0, 5), sample(0, 6))
    assert not np.array_equal(sample(0, 5), sample(1, 5))
