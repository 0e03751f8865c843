"""Laws of the networks: causal in time, a copy at first, codes that are conditioned as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from latentvla_training.latent_action.bottleneck import Bottleneck, redundancy_of
from latentvla_training.latent_action.dynamics import (
    CONTINUOUS,
    EGO,
    ENVIRONMENT,
    ONE_STAGE,
    Batch,
    LatentDynamics,
    change_weighted_error,
    change_weights,
)
from latentvla_training.latent_action.networks import Block, Patches
from latentvla_training.latent_action.settings import CodebookRecipe, DynamicsLoss, DynamicsSettings
from latentvla_training.latent_action.stages import perplexity
from latentvla_training.latent_action.unexplained_change import WIDTH as CHANGE_WIDTH

GRID, CHANNELS = (2, 4), 5
#: Of 64 pairs that are all of the same length.
NONE = torch.zeros(64, dtype=torch.int64)
SETTINGS = DynamicsSettings(
    width=16, heads=2, encoder_layers=2, decoder_layers=1, patch=2, code_width=4
)


def make(
    stage: str,
    loss: DynamicsLoss | None = None,
    steps: int = 100,
    settings: DynamicsSettings = SETTINGS,
) -> LatentDynamics:
    torch.manual_seed(0)
    return LatentDynamics(stage, settings, loss or DynamicsLoss(), GRID, CHANNELS, steps, 32)


def batch(count: int = 32) -> Batch:
    random = torch.Generator().manual_seed(1)
    places = GRID[0] * GRID[1]
    return {
        "earlier": torch.randn(count, places, CHANNELS, generator=random),
        "later": torch.randn(count, places, CHANNELS, generator=random),
        "interval": torch.arange(count) % 2,
        "trajectory": torch.randn(count, 15, generator=random),
        "state": torch.randn(count, 16, generator=random),
        "later_state": torch.randn(count, 16, generator=random),
        "unforeseen": torch.randn(count, 15, generator=random),
        "motion": torch.randn(count, 3, generator=random),
        "environment": torch.randint(0, 16, (count, 4), generator=random),
    }


def test_patches_are_put_back() -> None:
    patches = Patches((4, 6), 2)
    features = torch.randn(3, 24, 5)
    assert torch.equal(patches.join(patches.split(features)), features)
    whole = features.view(3, 4, 6, 5)
    assert torch.equal(patches.split(features)[1, 0], whole[1, :2, :2].flatten())


def test_block_is_an_attention_block() -> None:
    """The written-out attention against torch's own."""
    torch.manual_seed(0)
    block = Block(16, 2, 4)
    tokens = torch.randn(3, 7, 16)
    hidden = torch.triu(torch.ones(7, 7, dtype=torch.bool), 1)
    normed = block.attention_norm(tokens)
    parts = block.query_key_value(normed).view(3, 7, 3, 2, 8).permute(2, 0, 3, 1, 4)
    mixed = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=~hidden)
    after = tokens + block.output(mixed.transpose(1, 2).reshape(3, 7, 16))
    torch.testing.assert_close(block(tokens, hidden), after + block.feed(block.feed_norm(after)))


def test_the_earlier_frame_never_reads_the_later_one() -> None:
    stage, pairs = make(ENVIRONMENT).eval(), batch(2)
    seen: list[torch.Tensor] = []
    stage.encoder.blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    stage.encode(pairs)
    stage.encode({**pairs, "later": torch.randn_like(pairs["later"])})
    before = 2 + 2  # condition and tokens of the earlier frame
    assert torch.equal(seen[0][:, :before], seen[1][:, :before])
    assert not torch.allclose(seen[0][:, before:], seen[1][:, before:])


@pytest.mark.parametrize("stage", [ENVIRONMENT, EGO, ONE_STAGE, CONTINUOUS])
def test_decoder_begins_as_a_copy(stage: str) -> None:
    dynamics, pairs = make(stage).eval(), batch()
    predicted = dynamics.decode(pairs, dynamics.encode(pairs).vectors)
    assert torch.equal(predicted, pairs["earlier"])


@pytest.mark.parametrize(
    ("stage", "reads"),
    [
        (ENVIRONMENT, {"trajectory", "state"}),
        (EGO, {"environment"}),
        (CONTINUOUS, {"environment"}),
        (ONE_STAGE, set()),
    ],
)
def test_what_a_stage_is_told(stage: str, reads: set[str]) -> None:
    """Stage 1 is told what was driven, stage 2 the environment codes and nothing driven."""
    dynamics, pairs = make(stage).eval(), batch()
    torch.nn.init.normal_(dynamics.decoder.change.weight)
    with torch.no_grad():
        vectors = dynamics.encoder(
            pairs["earlier"], pairs["later"], pairs["interval"], dynamics.condition(pairs)
        )
        predicted = dynamics.decode(pairs, vectors)
        for name in ("trajectory", "state", "motion", "environment"):
            other = {**pairs, name: pairs[name].flip(0)}
            condition = dynamics.condition(other)
            moved = dynamics.encoder(pairs["earlier"], pairs["later"], pairs["interval"], condition)
            assert torch.equal(moved, vectors) == (name not in reads)
            assert torch.equal(dynamics.decode(other, vectors), predicted) == (name not in reads)


@pytest.mark.parametrize("stage", [EGO, ONE_STAGE, CONTINUOUS])
def test_odometry_is_read_by_the_encoder_alone(stage: str) -> None:
    """Speed, yaw rate, ... at either frame; never what was driven between, never the command."""
    dynamics = make(stage, settings=replace(SETTINGS, odometry=True)).eval()
    torch.nn.init.normal_(dynamics.decoder.change.weight)
    seen: list[torch.Tensor] = []
    dynamics.encoder.register_forward_hook(lambda _m, _i, output: seen.append(output))
    tokens: list[torch.Tensor] = []
    dynamics.encoder.blocks[-1].register_forward_hook(lambda _m, _i, out: tokens.append(out))
    pairs = batch()
    predicted = dynamics.decode(pairs, dynamics.encode(pairs).vectors)

    def changed(name: str, columns: slice) -> bool:
        other = {**pairs, name: pairs[name].clone()}
        other[name][:, columns] += 1.0
        dynamics.encode(other)
        assert torch.equal(
            dynamics.decode(other, dynamics.bottleneck(seen[0], pairs["interval"]).vectors),
            predicted,
        )
        return not torch.equal(seen[-1], seen[0])

    assert changed("state", slice(0, 12)) and changed("later_state", slice(0, 12))
    before = dynamics.condition.count + 1 + 2  # condition, state and places of the earlier frame
    assert torch.equal(tokens[0][:, :before], tokens[2][:, :before])
    for name in ("state", "later_state"):
        assert not changed(name, slice(12, 16))
    for name in ("trajectory", "motion", "unforeseen"):
        assert not changed(name, slice(None))


def test_stage_1_is_the_same_with_odometry() -> None:
    plain, told = (
        make(ENVIRONMENT, settings=replace(SETTINGS, odometry=value)).state_dict()
        for value in (False, True)
    )
    assert all(torch.equal(plain[name], value) for name, value in told.items())


def test_interval_is_known_to_encoder_and_decoder() -> None:
    dynamics, pairs = make(ONE_STAGE).eval(), batch()
    torch.nn.init.normal_(dynamics.decoder.change.weight)
    other = {**pairs, "interval": 1 - pairs["interval"]}
    condition = dynamics.condition(pairs)
    first, second = (
        dynamics.encoder(pairs["earlier"], pairs["later"], each["interval"], condition)
        for each in (pairs, other)
    )
    assert not torch.allclose(first, second)
    assert not torch.allclose(dynamics.decode(pairs, first), dynamics.decode(other, first))


@pytest.mark.parametrize("odometry", [False, True])
def test_losses_reach_every_weight(odometry: bool) -> None:
    settings = replace(SETTINGS, odometry=odometry)
    dynamics = make(EGO, DynamicsLoss(ego_motion=0.5), settings=settings)
    torch.nn.init.normal_(dynamics.decoder.change.weight)
    losses = dynamics(batch())
    assert set(losses) == {"features", "commitment", "redundancy", "ego_motion"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    without = [name for name, p in dynamics.named_parameters() if p.grad is None]
    assert not without


def test_regulariser_is_off_unless_weighted() -> None:
    assert "ego_motion" not in make(EGO)(batch())
    assert "ego_motion" not in make(ENVIRONMENT, DynamicsLoss(ego_motion=0.5))(batch())


def test_continuous_bottleneck_has_no_codes() -> None:
    encoded = make(CONTINUOUS)(batch())
    assert float(encoded["commitment"]) == 0
    assert int(make(CONTINUOUS).encode(batch()).codes.max()) == -1


def test_commitment_is_the_weighted_distance() -> None:
    """0.25 of the mean squared distance to the entry; straight-through: the entry goes on."""
    bottleneck = Bottleneck(SETTINGS, DynamicsLoss(), revive_steps=0, batch_vectors=128)
    bottleneck(torch.randn(64, 4, 4), NONE)  # first entries
    vectors = torch.randn(64, 4, 4, requires_grad=True)
    entries = bottleneck.entries.clone()
    quantized, codes, commitment, _ = bottleneck(vectors, NONE)
    torch.testing.assert_close(quantized, entries[codes])
    normed = (vectors.flatten(1) - vectors.flatten(1).mean(0)) / (
        vectors.flatten(1).var(0, unbiased=False) + 1e-5
    ).sqrt()
    distance = (entries[codes] - normed.view(64, 4, 4)).square().mean()
    torch.testing.assert_close(commitment, 0.25 * distance, rtol=1e-4, atol=1e-6)
    quantized.sum().backward()
    assert vectors.grad is not None and torch.isfinite(vectors.grad).all()


def test_redundancy() -> None:
    """0 for independent numbers; of D copies each repeats D - 1 others."""
    torch.manual_seed(0)
    independent = torch.linalg.qr(torch.randn(64, 8))[0] * 8.0
    assert float(redundancy_of(independent)) < 1e-6
    copies = torch.randn(64, 1).expand(-1, 8)
    copies = copies / copies.square().mean().sqrt()
    assert float(redundancy_of(copies)) == pytest.approx(7.0, rel=1e-4)


def test_an_interval_takes_up_no_code() -> None:
    """Vectors that say the length of a pair and little else: what is quantised is the rest."""
    torch.manual_seed(0)
    bottleneck = Bottleneck(SETTINGS, DynamicsLoss(), revive_steps=0, batch_vectors=256)
    interval = torch.arange(64) % 2
    vectors = 50.0 * interval[:, None, None] + torch.randn(64, 4, 4)
    normed = bottleneck.norm(vectors.flatten(1), interval)
    for index in (0, 1):
        own = normed[interval == index]
        torch.testing.assert_close(own.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            own.var(dim=0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0
        )
    for _ in range(100):
        bottleneck.norm(vectors.flatten(1), interval)
    bottleneck.eval()
    torch.testing.assert_close(
        bottleneck.norm(vectors.flatten(1), interval), normed, atol=1e-2, rtol=1e-2
    )
    alone = bottleneck.train().norm(vectors.flatten(1)[:1], interval[:1])  # one has no spread
    assert torch.isfinite(alone).all()


def _dead(bottleneck: Bottleneck) -> torch.Tensor:
    """Make an entry that nothing is near; return a copy of it."""
    assert bottleneck.quantizer is not None
    bottleneck.quantizer._codebook.embed[0, 3] = 100.0
    bottleneck.quantizer._codebook.embed_avg[0, 3] = 0.0
    bottleneck.quantizer._codebook.cluster_size[0, 3] = 0.0
    return bottleneck.entries[3].clone()


def test_dead_entries_are_revived_in_training_alone() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(SETTINGS, DynamicsLoss(), revive_steps=2, batch_vectors=256)
    vectors = torch.randn(64, 4, 4)
    bottleneck(vectors, NONE)
    _dead(bottleneck)
    bottleneck(vectors, NONE)
    assert float(bottleneck.entries[3].abs().max()) < 10  # revived
    before = _dead(bottleneck)
    weights = {name: value.clone() for name, value in bottleneck.state_dict().items()}
    bottleneck.eval()
    bottleneck(vectors, NONE)
    assert torch.equal(bottleneck.entries[3], before)
    assert all(torch.equal(weights[name], v) for name, v in bottleneck.state_dict().items())


def test_no_entry_is_revived_near_the_end_of_a_run() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(SETTINGS, DynamicsLoss(), revive_steps=1, batch_vectors=256)
    vectors = torch.randn(64, 4, 4)
    bottleneck(vectors, NONE)
    _dead(bottleneck)
    bottleneck(vectors, NONE)
    # It went where the average of nothing is, not to one of the vectors.
    assert float(bottleneck.entries[3].abs().max()) < 1e-6


def test_weights_follow_change() -> None:
    earlier = torch.zeros(1, 4, 2)
    later = torch.tensor([0.0, 0.0, 1.0, 9.0]).view(1, 4, 1).expand(1, 4, 2)
    uniform = change_weights(earlier, later, DynamicsLoss(change=0.0))
    assert torch.equal(uniform, torch.ones(1, 4))
    weights = change_weights(earlier, later, DynamicsLoss(change=0.5, largest_change=2.0))[0]
    assert weights[0] == weights[1] < weights[2] < weights[3]
    assert float(weights.mean()) == pytest.approx(1.0)
    assert weights[3] / weights[0] == pytest.approx((0.5 + 0.5 * 2.0) / 0.5)
    assert float(change_weighted_error(later, earlier, later, DynamicsLoss())) == 0.0


def test_perplexity() -> None:
    assert perplexity(np.arange(16), 16) == pytest.approx(16.0)
    assert perplexity(np.zeros(5, int), 16) == pytest.approx(1.0)
    assert perplexity(np.array([0, 1, 0, 1]), 16) == pytest.approx(2.0)


def test_patch_must_divide_the_places(recipe: CodebookRecipe) -> None:
    from latentvla_ros.contract import ContractError

    with pytest.raises(ContractError, match=r"model\.patch"):
        LatentDynamics(EGO, replace(recipe.model, patch=3), recipe.loss, GRID, CHANNELS)


def test_unexplained_change_reaches_the_codes_and_never_the_decoder() -> None:
    settings = replace(SETTINGS, unexplained_change=True)
    stage = make(ENVIRONMENT, DynamicsLoss(unexplained_change=1.0), settings=settings)
    shown = batch() | {"change": torch.randn(32, CHANGE_WIDTH)}
    other = shown | {"change": torch.randn(32, CHANGE_WIDTH)}
    assert stage.change is not None
    stage.change.standardise(shown["change"], shown["interval"])
    stage.eval()
    read, otherwise = (
        stage.encoder.forward(
            part["earlier"],
            part["later"],
            part["interval"],
            torch.cat(
                [stage.condition(part), stage.change.token(stage.change.standard(part))[:, None]], 1
            ),
        )
        for part in (shown, other)
    )
    assert (read - otherwise).abs().max() > 1e-4
    vectors = stage.encode(shown).vectors
    assert torch.equal(stage.decode(shown, vectors), stage.decode(other, vectors))
    losses = stage.train()(shown)
    losses["unexplained_change"].backward()
    for part in (stage.encoder.queries, stage.change.codes.weight, stage.change.driven[0].weight):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_unexplained_change_is_standard_for_each_length() -> None:
    settings = replace(SETTINGS, unexplained_change=True)
    stage = make(ENVIRONMENT, settings=settings)
    shown = batch()
    interval = shown["interval"]
    shown["change"] = torch.randn(32, CHANGE_WIDTH) * (1 + 4 * interval[:, None]) - 7.0
    assert stage.change is not None
    stage.change.standardise(shown["change"], interval)
    for length in (0, 1):
        found = stage.change.standard(shown)[interval == length]
        torch.testing.assert_close(found.mean(0), torch.zeros(CHANGE_WIDTH), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.std(0), torch.ones(CHANGE_WIDTH), atol=1e-4, rtol=0)


def test_other_stages_read_no_unexplained_change(recipe: CodebookRecipe) -> None:
    assert recipe.model.unexplained_change
    for name in (EGO, ONE_STAGE, CONTINUOUS):
        model, loss = recipe.dynamics(name)
        assert not model.unexplained_change
        assert loss.unexplained_change == 0.0
        assert LatentDynamics(name, model, loss, GRID, CHANNELS).change is None
