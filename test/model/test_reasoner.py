"""The latent reasoner has a size of its own, and adds nothing where it is the host's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentvla_ros.contract import ContractError
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.reasoner import LatentReasoner


def test_the_papers_reasoner_has_fifty_million_parameters() -> None:
    config = PlannerConfig(
        width=256, reasoner_width=512, reasoner_heads=8, reasoner_layers=12, reasoner_hidden=2048
    )
    with torch.device("meta"):
        reasoner = LatentReasoner(config)
    assert 47e6 <= sum(p.numel() for p in reasoner.parameters()) <= 53e6


def test_a_reasoner_as_wide_as_its_host_has_no_projections(tiny: PlannerConfig) -> None:
    names = {name.split(".")[0] for name, _ in LatentReasoner(tiny).named_parameters()}
    assert names == {"queries", "layers", "norm", "classifier"}
    same = LatentReasoner(replace(tiny, reasoner_width=32, reasoner_heads=4, reasoner_hidden=64))
    shapes = [{n: p.shape for n, p in r.named_parameters()} for r in (LatentReasoner(tiny), same)]
    assert shapes[0] == shapes[1]


def test_states_come_back_in_the_hosts_width(tiny: PlannerConfig) -> None:
    torch.manual_seed(0)
    config = replace(tiny, reasoner_width=48, reasoner_heads=3, reasoner_hidden=40)
    reasoner = LatentReasoner(config).eval()
    memory = torch.randn(2, 7, tiny.width)
    states, logits = reasoner(memory)
    assert states.shape == (2, 12, tiny.width) and logits.shape == (2, 12, 16)
    changed = memory.clone()
    changed[0, 3] += 1.0
    other, said = reasoner(changed)
    assert (other[0] - states[0]).abs().max() > 1e-4 and (said[0] - logits[0]).abs().max() > 1e-4
    torch.testing.assert_close(other[1], states[1])
    assert reasoner.layers[0].feed[0].out_features == 40


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reasoner_width": -1}, "reasoner_width"),
        ({"reasoner_width": 50}, "reasoner_width"),
        ({"reasoner_heads": 5}, "reasoner_width"),
        ({"reasoner_hidden": -4}, "reasoner_hidden"),
        ({"host": "uniad"}, "host"),
        ({"host": "transfuser", "patch": [2, 4]}, "patch"),
    ],
)
def test_bad_sizes_name_the_field(
    tiny: PlannerConfig, change: dict[str, object], field: str
) -> None:
    with pytest.raises(ContractError) as caught:
        PlannerConfig.from_dict({**tiny.to_dict(), **change})
    assert caught.value.field == field
