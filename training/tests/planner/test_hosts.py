"""The planner that a comparison goes on from, also where a student of it ships."""

import json
import shutil

import pytest
import torch
from latentvla_training.planner import hosts
from latentvla_training.planner.contenders import fresh_planner, opened_gate
from latentvla_training.planner.hosts import bundle_host, bundle_planner, released_hosts

from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import load_bundle


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
