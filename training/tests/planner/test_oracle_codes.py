"""The oracle-codes gate: who is told what, what it takes to pass, what is refused and resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latentvla_training.data.shards import ShardReader, load_split, split_folder, write_shard
from latentvla_training.distill.settings import load_distill_recipe
from latentvla_training.engine.recipe import load_record
from latentvla_training.latent_action.codes import LatentCodes, save_codes
from latentvla_training.planner import oracle_evaluation
from latentvla_training.planner.contender_scores import GIVEN
from latentvla_training.planner.contenders import FREE, HOST, open_splits, plan_quality
from latentvla_training.planner.hosts import Host, run_host
from latentvla_training.planner.kinematic_codes import (
    changes_of_motion,
    fit_centres,
    kinematic_codes,
    nearest_codes,
)
from latentvla_training.planner.oracle_codes import (
    CONTENDERS,
    CONTROLS,
    ORACLE,
    SHUFFLED,
    OracleRecipe,
    of_seed,
    scenes_elsewhere,
    told,
    train_contender,
)
from latentvla_training.planner.oracle_evaluation import run_gate, verdict
from latentvla_training.planner.release import load_run
from latentvla_training.planner.training import TrainedPlanner, start_from
from latentvla_training.report import identity
from latentvla_training.report.oracle_tables import oracle_section
from latentvla_training.report.present import Present
from latentvla_training.report.result_files import Kind, read_result, read_results

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner

from .conftest import make_scene


@pytest.fixture
def host(tiny: PlannerConfig) -> Host:
    torch.manual_seed(0)
    return Host(StudentPlanner(tiny).eval(), "tiny-1-0123456789abcdef")


@pytest.fixture
def recipe() -> OracleRecipe:
    return load_record(OracleRecipe, "smoke", "oracle_codes")


@pytest.fixture
def scored(splits: Path) -> Path:
    """The data root, with test Scenes that can be scored: their reference is what was driven."""
    for network in ("test-0000", "test-0001", "test-0002"):
        scenes = []
        for index in range(4):
            scene = make_scene(index, network)
            reference = scene.labels.future_10hz.astype(np.float64)
            labels = replace(scene.labels, pdm_reference_10hz=reference)
            scenes.append(replace(scene, labels=labels))
        write_shard(split_folder("test") / f"{network}-00.parquet", scenes)
    return splits


def test_the_gate_from_codes_to_the_report(
    scored: Path, host: Host, recipe: OracleRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scored / "results" / "oracle.json"
    arguments = (host, recipe, "kinematic", scored / "runs", (0, 1), ("test",), path)
    result = run_gate(*arguments, progress=False)
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    found = result["splits"]["test"]
    assert (found["scenes"], found["networks"], found["unscored"]) == (12, 3, {})
    assert set(found["rows"]) == {GIVEN, *CONTENDERS, "expert"}
    for row in (GIVEN, *CONTENDERS):
        for figure in ("ade", "pdms", "epdms"):
            value, low, high = found["rows"][row][figure]
            assert low <= value <= high
    for other in CONTROLS:
        value = found["differences"][f"{ORACLE}-{other}"]["pdms"][0]
        means = [found["rows"][row]["pdms"][0] for row in (ORACLE, other)]
        assert value == pytest.approx(means[0] - means[1], abs=2e-6)
    assert result["gate_opened"][HOST] == [0.0, 0.0] and all(result["gate_opened"][ORACLE])

    file = read_result(path, Present())
    assert file.kind is Kind.ORACLE_CODES and not file.stale
    text = oracle_section(read_results(path.parent, Present()))
    assert "host + the true codes (diagnostic)" in text and "Gate " in text
    other = Present(scenes={"test": "0" * 64}, code={"scoring": "0" * 16})
    assert [why.partition(" ")[0] for why in read_result(path, other).stale] == [
        "scoring",
        "Scenes",
    ]
    own = Present(contender_code=identity.contender_identity(), recipes=identity.shipped_recipes())
    assert not read_result(path, own).stale
    assert result["identity"]["recipes"] == {"smoke": own.recipes["oracle_codes"]["smoke"]}

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("latentvla_training.planner.head_training.imitation_loss", never)
    assert run_gate(*arguments, progress=False) == result


def test_a_killed_contender_goes_on_to_the_same_result(
    splits: Path, host: Host, recipe: OracleRecipe
) -> None:
    opened = open_splits(host, recipe, "kinematic", ("test",), progress=False)

    def train(folder: str, stop: int | None = None) -> dict[str, torch.Tensor]:
        where = splits / folder
        module = train_contender(
            ORACLE, host, recipe, opened, where, stop_after_steps=stop, progress=False
        )
        return dict(module.state_dict())

    whole = train("whole")
    train("parts", stop=1)
    parts = train("parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["source.place"], train("other", stop=1)["source.place"])
    assert float(host.planner.head.fusion.gate) == 0.0  # type: ignore[union-attr]


def test_selection_may_learn_the_pdm_score(scored: Path, host: Host, recipe: OracleRecipe) -> None:
    data = replace(recipe.data, train_split="test")
    loss = replace(recipe.loss, pdm=4.0)
    recipe = replace(recipe, data=data)
    opened = open_splits(host, recipe, "kinematic", ("test",), progress=False)
    plain = train_contender(ORACLE, host, recipe, opened, scored / "plain", progress=False)
    assert plan_quality(recipe, opened["test"].reader) is None
    recipe = replace(recipe, loss=loss)
    with pytest.raises(ContractError, match=r"loss\.pdm: found 4\.0, expected 0 without labels"):
        train_contender(ORACLE, host, recipe, opened, scored / "none", progress=False)
    quality = plan_quality(recipe, opened["test"].reader, progress=False)
    assert quality is not None
    module = train_contender(ORACLE, host, recipe, opened, scored / "pdm", quality, progress=False)
    weights = [found.planner.head.score[0].weight for found in (plain, module)]
    assert not torch.equal(*weights)


def test_each_is_told_its_own(splits: Path, host: Host, recipe: OracleRecipe) -> None:
    split = open_splits(host, recipe, "kinematic", ("test",), progress=False)["test"]
    own = split.codes.sequence
    assert not told(split, HOST, 0).extras and not told(split, FREE, 0).extras
    np.testing.assert_array_equal(told(split, ORACLE, 0).extras["codes"], own)
    order = scenes_elsewhere(split.reader.columns["network"], split.codes.mask, 0)
    np.testing.assert_array_equal(told(split, SHUFFLED, 0).extras["codes"], own[order])


@pytest.mark.parametrize("counts", [(6, 6), (5, 3, 1), (1, 1), (4, 4, 4, 4)])
def test_other_scenes_are_of_other_networks_each_once(counts: tuple[int, ...]) -> None:
    networks = np.repeat([f"n{i}" for i in range(len(counts))], counts)
    rng = np.random.default_rng(1)
    networks = networks[rng.permutation(len(networks))]
    known = np.ones((len(networks), 3), np.bool_)
    order = scenes_elsewhere(networks, known, seed=3)
    assert sorted(order) == list(range(len(networks)))
    if 2 * max(counts) <= len(networks):
        assert (networks[order] != networks).all()
    if len(networks) > 4:
        assert not np.array_equal(order, scenes_elsewhere(networks, known, seed=4))


def test_what_is_missing_stays_missing_when_codes_are_exchanged() -> None:
    rng = np.random.default_rng(0)
    networks = np.array([f"n{i}" for i in rng.integers(0, 6, 300)])
    known = np.arange(3)[None] < rng.integers(0, 4, 300)[:, None]  # later transitions are missing
    order = scenes_elsewhere(networks, known, seed=0)
    assert sorted(order) == list(range(300))
    np.testing.assert_array_equal(known[order], known)
    assert (networks[order] != networks).all()


def figures(gains: Mapping[str, float]) -> dict[str, Any]:
    named = {other: gains.get(other, 0.02) for other in CONTROLS}
    return {
        "differences": {
            f"{ORACLE}-{other}": {"pdms": [low + 0.01, low, low + 0.02]}
            for other, low in named.items()
        }
    }


@pytest.mark.parametrize(
    ("test", "longtail", "passed"),
    [
        ({}, {}, True),
        ({HOST: -0.01}, {}, True),
        ({HOST: -0.01}, {SHUFFLED: -0.001}, False),
        ({FREE: 0.0}, {FREE: -0.01}, False),
    ],
)
def test_every_control_must_be_beaten_on_one_split(
    test: dict[str, float], longtail: dict[str, float], passed: bool
) -> None:
    found = verdict({"test": figures(test), "longtail": figures(longtail)})
    assert found["passed"] is passed
    assert found["beaten"]["test"] == [o for o in CONTROLS if test.get(o, 0.02) > 0.0]


def test_scores_that_are_not_known_do_not_pass() -> None:
    empty = {"differences": {f"{ORACLE}-{other}": {} for other in CONTROLS}}
    assert verdict({"test": empty})["passed"] is False


def test_no_bundle_is_made_of_a_contender_and_no_planner_goes_on_from_one(
    splits: Path, host: Host, recipe: OracleRecipe, tiny: PlannerConfig
) -> None:
    opened = open_splits(host, recipe, "kinematic", ("test",), progress=False)
    train_contender(ORACLE, host, recipe, opened, splits / "runs", progress=False)
    (run,) = (splits / "runs").iterdir()
    with pytest.raises(ContractError, match=r"a contender.*expected a planner's run"):
        load_run(run)
    with pytest.raises(ContractError, match="a contender"):
        run_host(run)
    from latentvla_training.engine.recipe import Recipe

    with pytest.raises(ContractError, match="start_from"):
        start_from(TrainedPlanner(Recipe("x", model=tiny)), run)


def test_a_run_of_another_host_codebook_or_seed_is_refused_by_both_names(
    splits: Path, host: Host, recipe: OracleRecipe
) -> None:
    opened = open_splits(host, recipe, "kinematic", ("test",), progress=False)
    arguments = (recipe, opened, splits / "runs")
    train_contender(HOST, host, *arguments, stop_after_steps=1, progress=False)
    other = Host(host.planner, "tiny-2-fedcba9876543210")
    with pytest.raises(ContractError, match=r"host: 'tiny-1-\w+' there, 'tiny-2-\w+' here"):
        train_contender(HOST, other, *arguments, progress=False)
    again = of_seed(recipe, 1)
    with pytest.raises(ContractError, match=r"settings\.run\.seed: 0 there, 1 here"):
        train_contender(HOST, host, again, opened, splits / "runs", progress=False)


def test_a_host_that_has_states_already_is_refused(
    splits: Path, host: Host, recipe: OracleRecipe
) -> None:
    opened = open_splits(host, recipe, "kinematic", ("test",), progress=False)
    with torch.no_grad():
        host.planner.head.fusion.gate.fill_(0.5)  # type: ignore[union-attr]
    with pytest.raises(ContractError, match=r"host\.gate"):
        train_contender(HOST, host, recipe, opened, splits / "runs", progress=False)


def write_codes(folder: Path, **changed: dict[str, str]) -> None:
    readers = {name: load_split(name) for name in ("train", "val", "test")}
    for name, codes in kinematic_codes(readers["train"], readers).items():
        save_codes(folder / f"{name}.safetensors", replace(codes, **changed.get(name, {})))


def test_codes_come_from_a_folder(splits: Path, host: Host, recipe: OracleRecipe) -> None:
    write_codes(splits / "codes")
    opened = open_splits(host, recipe, str(splits / "codes"), ("test",), progress=False)
    assert set(opened) == {"train", "val", "test"}
    assert len(opened["train"].reader) == 6  # the recipe takes one shard
    assert len(opened["train"].codes.tokens) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"val": {"codebook_id": "other-1"}}, r"codebook_id: found 'other-1', expected kinematic-"),
        ({"test": {"scenes_id": "0" * 16}}, r"test\.safetensors scenes_id: found '0+', expected"),
    ],
)
def test_codes_of_another_codebook_or_other_scenes_are_refused(
    changed: dict[str, dict[str, str]], said: str, splits: Path, host: Host, recipe: OracleRecipe
) -> None:
    write_codes(splits / "codes", **changed)
    with pytest.raises(ContractError, match=said):
        open_splits(host, recipe, str(splits / "codes"), ("test",), progress=False)
    (splits / "codes" / "train.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="make them with latentvla-train codebook"):
        open_splits(host, recipe, str(splits / "codes"), ("test",), progress=False)


def test_codes_in_another_order_are_refused(splits: Path, host: Host, recipe: OracleRecipe) -> None:
    tokens = load_split("test").columns["token"][::-1]
    write_codes(splits / "codes", test={"tokens": tokens})  # type: ignore[dict-item]
    with pytest.raises(ContractError, match=r"codes\.tokens"):
        open_splits(host, recipe, str(splits / "codes"), ("test",), progress=False)


@pytest.mark.parametrize(
    ("section", "name"), [("augmentation", "photometric"), ("loss", "auxiliary")]
)
def test_what_cannot_be_done_on_features_is_refused(
    section: str, name: str, recipe: OracleRecipe
) -> None:
    settings = replace(getattr(recipe, section), **{name: 0.5})
    with pytest.raises(ContractError, match=rf"{section}\.{name}: found 0\.5, expected 0"):
        replace(recipe, **{section: settings})


@pytest.mark.parametrize("name", ["nano", "smoke"])
def test_the_host_of_the_gate_is_that_of_the_distillation(name: str) -> None:
    gate, distill = load_record(OracleRecipe, name, "oracle_codes"), load_distill_recipe(name)
    assert gate.heads.of(HOST) == distill.heads.of(HOST)


def test_who_is_told_something_may_have_a_loss_of_its_own(recipe: OracleRecipe) -> None:
    own = replace(recipe, told_all_proposals=0.5)
    assert own.heads.of(HOST) == recipe.heads.of(HOST) == recipe.heads
    assert own.heads.of(ORACLE) == own.heads.of(FREE)
    assert own.heads.of(ORACLE).loss == replace(recipe.loss, all_proposals=0.5)


def test_seeds_are_given_once(splits: Path, host: Host, recipe: OracleRecipe) -> None:
    for seeds in ((), (1, 1)):
        with pytest.raises(ContractError, match="seeds"):
            run_gate(host, recipe, "kinematic", splits / "runs", seeds, progress=False)


def test_decision_scenes_have_figures_of_their_own(
    scored: Path, host: Host, recipe: OracleRecipe
) -> None:
    split = open_splits(host, recipe, "kinematic", ("test",), progress=False)["test"]
    columns = split.reader.columns
    far = np.arange(12) % 3 == 0
    columns["future_2hz"] = columns["future_2hz"] + np.where(far, 3.0, 0.0)[:, None, None]
    plans = {GIVEN: columns["future_2hz"]}
    for number, row in enumerate(CONTENDERS):
        plans[f"{row}/0"] = columns["future_2hz"] + number * far[:, None, None]
    found = oracle_evaluation.split_figures(split, plans, (0,), progress=False)
    assert found["decision_scenes"] == 4
    gain = found["differences"][f"{ORACLE}-{HOST}"]
    assert gain["ade_decision"][0] == pytest.approx(3.0 * np.sqrt(2.0))
    assert gain["ade"][0] == pytest.approx(np.sqrt(2.0))


def test_kinematic_codes_say_how_motion_changes(reader: ShardReader) -> None:
    columns = reader.columns
    assert np.abs(changes_of_motion(reader)).max() < 1e-5  # straight on at a constant speed
    times = np.arange(1, 9) * 0.5
    speed = columns["ego_dynamics"][:, 0]
    columns["future_2hz"][3, :, 0] = speed[3] * times + 0.5 * times**2  # 1 m/s^2
    columns["future_2hz"][4, :, 2] = np.linspace(0.5, 4.0, 8)  # 1 rad/s, past pi
    columns["future_mask"][5, 3:] = False
    changes = changes_of_motion(reader)
    np.testing.assert_allclose(changes[3, :, 0], [0.75, 1.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(changes[4, :, 1], [1.0, 1.0, 2.0], atol=1e-5)
    assert np.isfinite(changes[5, 0]).all() and np.isnan(changes[5, 1:]).all()

    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(400, 3, 2)) * [3.0, 0.1]
    centres = fit_centres(wanted)
    codes = nearest_codes(wanted, centres)
    assert codes.shape == (400, 3, 4) and (codes == codes[..., :1]).all()
    assert all(len(np.unique(codes[:, number])) == 16 for number in range(3))
    told = np.take_along_axis(centres[None], codes[..., :1, None].astype(int), axis=2)[:, :, 0]
    assert ((wanted - told).var(axis=0) < 0.25 * wanted.var(axis=0)).all()
    assert (nearest_codes(np.full((1, 3, 2), np.nan), centres) == -1).all()


def test_scenes_with_all_codes_have_figures_of_their_own(
    scored: Path, host: Host, recipe: OracleRecipe
) -> None:
    split = open_splits(host, recipe, "kinematic", ("test",), progress=False)["test"]
    ego = split.codes.ego.copy()
    ego[::3, 2] = -1
    environment = np.where(ego < 0, np.int8(-1), split.codes.environment)
    split = replace(split, codes=replace(split.codes, ego=ego, environment=environment))
    future = split.reader.columns["future_2hz"]
    plans = {GIVEN: future} | {f"{row}/0": future.copy() for row in CONTENDERS}
    plans[f"{HOST}/0"][::3] += 1.0
    found = oracle_evaluation.split_figures(split, plans, (0,), progress=False)
    assert found["known_scenes"] == 8
    assert found["rows"][HOST]["ade_known"][0] == pytest.approx(0.0)
    assert found["rows"][HOST]["ade"][0] == pytest.approx(np.sqrt(2.0) / 3, abs=1e-5)


def test_kinematic_codes_are_those_of_their_scenes(splits: Path) -> None:
    readers = {name: load_split(name) for name in ("train", "test")}
    found = kinematic_codes(readers["train"], readers)
    assert isinstance(found["test"], LatentCodes) and len(found["test"].tokens) == 12
    assert found["train"].codebook_id == found["test"].codebook_id
    assert found["train"].codebook_id.startswith("kinematic-")
    assert found["train"].scenes_id != found["test"].scenes_id
