"""The bundle of a student says what its latent actions mean, in its own codebook's words."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from latentvla_training.distill.contenders import STUDENT, Contest, train_contender
from latentvla_training.distill.export import export_student
from latentvla_training.distill.settings import DistillRecipe, StudentSettings
from latentvla_training.distill.teaching import open_teaching
from latentvla_training.latent_action.naming import NAMES_FILE, CodeNames, write_names
from latentvla_training.planner.contenders import open_splits
from latentvla_training.planner.hosts import Host

from latentvla_ros.cli.inspect import inspect_bundle
from latentvla_ros.contract import ContractError
from latentvla_ros.runtime.bundle import load_bundle

from .conftest import CODEBOOK, Place
from .test_choice import val_result

NAMES = CodeNames(
    CODEBOOK,
    tuple(tuple(f"p{place} c{code}" for code in range(16)) for place in range(4)),
    ("test", "val"),
    9,
)


def test_names_of_the_codes_go_with_the_student(
    host: Host,
    recipe: DistillRecipe,
    place: Place,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits = open_splits(host, recipe.heads, str(place.codes), ("test",), progress=False)
    teaching = open_teaching(str(place.teacher), splits)
    contest = Contest(host, recipe, splits, teaching, tmp_path / "runs")
    student = train_contender(STUDENT, contest, progress=False).folder
    bundle, codes = tmp_path / "bundle", tmp_path / "codes"

    with pytest.raises(FileNotFoundError, match="no names at"):
        export_student(student, "tiny", 1, bundle, codes=codes)
    write_names(codes / NAMES_FILE, replace(NAMES, codebook_id="other-0"))
    with pytest.raises(ContractError) as caught:
        export_student(student, "tiny", 1, bundle, codes=codes)
    assert "other-0" in str(caught.value) and CODEBOOK in str(caught.value)
    assert not bundle.exists()

    with caplog.at_level(logging.WARNING):
        export_student(student, "tiny", 1, bundle)
    assert load_bundle(bundle).manifest.latent_action_names is None
    assert f"{CODEBOOK}: its codes have no names" in caplog.text
    assert "latent_actions" not in inspect_bundle(str(bundle))

    write_names(codes / NAMES_FILE, NAMES)
    export_student(student, "tiny", 1, bundle, codes=codes)
    manifest = load_bundle(bundle).manifest
    assert (manifest.codebook_id, manifest.latent_action_names) == (CODEBOOK, NAMES.names)
    shown = inspect_bundle(str(bundle))["latent_actions"]
    assert shown["code 3"] == "p0 c3 / p1 c3 / p2 c3 / p3 c3"

    about = {"distilled": "smoke", "teacher": place.teacher_id, "codebook": CODEBOOK}
    result = val_result([(0.6, 0.5)], **about, identity={"host": host.identity})
    path = tmp_path / "val.json"
    for changed, said in (
        ({"teacher": "another-0"}, "--result teacher"),
        ({"identity": {"host": "another-1-0"}}, "--result host"),
        ({"seeds": [3]}, "--result seeds"),
    ):
        path.write_text(json.dumps({**result, **changed}))
        with pytest.raises(ContractError, match=said):
            export_student(student, "tiny", 1, bundle, codes=codes, result=path)
    path.write_text(json.dumps(result))
    export_student(student, "tiny", 1, bundle, codes=codes, result=path)
    kept = load_bundle(bundle).manifest
    assert kept.metrics["val"]["rows"]["ours"]["epdms"] == 0.58
    assert kept.metrics["val"]["differences"]["ours-host"]["pdms"]["difference"] == 0.1
    assert kept.files == manifest.files
    ships = load_bundle("nano").path / "manifest.json"
    before = ships.read_bytes()
    monkeypatch.chdir(tmp_path)  # a bare name is a folder here, not the bundle that ships
    export_student(student, "tiny", 1, Path("nano"), codes=codes, result=path)
    assert load_bundle(tmp_path / "nano").manifest.metrics == kept.metrics
    assert ships.read_bytes() == before


@pytest.mark.parametrize("features", [0.0, 1.0])
def test_who_was_taught_no_codes_names_no_codebook(
    features: float,
    host: Host,
    recipe: DistillRecipe,
    place: Place,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also one that has learned the teacher's states alone: what it says was never listened to."""
    settings = StudentSettings(kl=0.0, cross_entropy=0.0, features=features, end_to_end=True)
    recipe = replace(recipe, name="untaught", student=settings)
    splits = open_splits(host, recipe.heads, str(place.codes), (), progress=False)
    teaching = open_teaching(str(place.teacher), splits) if features else None
    contest = Contest(host, recipe, splits, teaching, tmp_path / "runs")
    student = train_contender(STUDENT, contest, progress=False).folder
    bundle, codes = tmp_path / "bundle", tmp_path / "codes"
    write_names(codes / NAMES_FILE, NAMES)
    with caplog.at_level(logging.WARNING):
        export_student(student, "tiny", 1, bundle, codes=codes)
    manifest = load_bundle(bundle).manifest
    assert manifest.codebook_id is None and manifest.latent_action_names is None
    assert manifest.provenance["codebook_id"] is None
    assert "nobody taught it codes" in caplog.text
    shown = inspect_bundle(str(bundle))
    assert shown["codebook"].startswith("none:") and "latent_actions" not in shown
