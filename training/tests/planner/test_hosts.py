"""The planner that a comparison goes on from, also where a student of it ships."""

import json
import shutil

import pytest
import torch
from latentvla_training.data.shards import ShardReader, write_shard
from latentvla_training.planner import hosts
from latentvla_training.planner.contenders import fresh_planner, opened_gate
from latentvla_training.planner.hosts import bundle_host, bundle_planner, released_hosts

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import load_bundle

from .conftest import SHARD_RECIPE, make_scene


def test_the_host_of_the_student_that_ships_is_the_planner_it_went_on_from():
    student = load_bundle("nano")
    host = bundle_host("nano")
    assert host.identity == student.manifest.provenance["start_from"]
    assert host.codebook is None  # it has states of no codebook
    assert opened_gate(host.planner) == 0.0
    assert opened_gate(bundle_planner(student)) != 0.0
    fresh_planner(host, 0)  # raises where a host has states already


def test_a_student_keeps_its_hosts_trunk():
    own, host = bundle_planner(load_bundle("nano")), bundle_host("nano").planner
    theirs = host.image_encoder.state_dict()
    for name, value in own.image_encoder.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0.0, atol=0.0)


def test_a_host_is_its_own():
    (found,) = released_hosts().values()
    assert bundle_host(str(found.path)).identity == bundle_host("nano").identity


def test_a_student_of_a_planner_that_is_not_here_is_refused_with_both_names(tmp_path, monkeypatch):
    student = load_bundle("nano")
    monkeypatch.setattr(hosts, "released_folder", lambda: tmp_path)
    assert not released_hosts()
    with pytest.raises(ContractError, match=student.manifest.provenance["start_from"]):
        bundle_host("nano")


def test_scenes_of_another_rig_are_refused_with_both(tmp_path):
    host = bundle_host("nano")
    views = [{"slot": view.slot, "time_offset_s": view.time_offset_s} for view in host.views]
    swapped = [views[1], views[0], *views[2:]]
    for name, recorded in (("same", views), ("swapped", swapped)):
        path = tmp_path / f"{name}.parquet"
        write_shard(path, [make_scene(0)], {**SHARD_RECIPE, "views": recorded})
    host.check_views(ShardReader([tmp_path / "same.parquet"]))
    with pytest.raises(ContractError, match=r"left@0, front@0, .*front@0, left@0, .*nano-3"):
        host.check_views(ShardReader([tmp_path / "swapped.parquet"]))


def test_a_damaged_host_is_refused(tmp_path, monkeypatch):
    (found,) = released_hosts().values()
    folder = tmp_path / "host" / found.path.name
    shutil.copytree(found.path, folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = dict.fromkeys(manifest["files"], "0" * 64)
    path.write_text(json.dumps(manifest))
    monkeypatch.setattr(hosts, "released_folder", lambda: tmp_path)
    with pytest.raises(ContractError, match="sha256"):
        bundle_host("nano")
