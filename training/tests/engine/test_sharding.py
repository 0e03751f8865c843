"""Weights that FSDP2 keeps in pieces come whole into a checkpoint, and out of it again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from latentvla_training.engine.averaging import AveragedModel
from latentvla_training.engine.sharding import full_state, is_sharded, load_optimizer
from torch import nn


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    module(inputs).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=0.1, foreach=True)


def in_two_processes(work: Callable[[int], None], store: Path) -> None:
    """Do some work as two processes of one group (gloo); raises where one fails."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                torch.distributed.init_process_group(
                    "gloo", init_method=f"file://{store}", rank=rank, world_size=2
                )
                work(rank)
                torch.distributed.destroy_process_group()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_state_in_pieces_is_saved_and_resumed_whole(tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    plain = make()
    optimizer = adam(plain)
    for seed in range(4):
        step(plain, optimizer, seed)

    def first_half(rank: int) -> None:
        module = make()
        fully_shard(module[0])
        fully_shard(module)
        assert is_sharded(module) and isinstance(module[0].weight, DTensor)
        optimizer = adam(module)
        for seed in range(2):
            step(module, optimizer, seed)
        weights, moments = full_state(module, optimizer)
        if rank == 0:
            torch.save({"module": weights, "optimizer": moments}, tmp_path / "state.pt")

    def second_half(rank: int) -> None:
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        module = make()
        module.load_state_dict(state["module"])
        fully_shard(module[0])
        fully_shard(module)
        optimizer = adam(module)
        load_optimizer(module, optimizer, state["optimizer"])
        for seed in (2, 3):
            step(module, optimizer, seed)
        weights, _ = full_state(module, optimizer)
        if rank == 0:
            torch.save(weights, tmp_path / "end.pt")

    in_two_processes(first_half, tmp_path / "first")
    in_two_processes(second_half, tmp_path / "second")
    end = torch.load(tmp_path / "end.pt", weights_only=True)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(end[name], value, rtol=1e-5, atol=1e-6)


def test_without_decay_nothing_is_kept_apart() -> None:
    module = make()
    averaged = AveragedModel(module, 0.0)
    assert averaged.module is module
    averaged.update(module)
    assert averaged.updates == 1 and all(p.requires_grad for p in module.parameters())


def test_tied_weights_move_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

    module = Tied()
    averaged = AveragedModel(module, 0.5)
    before = averaged.module.first.weight.clone()
    with torch.no_grad():
        module.first.weight.add_(1.0)
    averaged.update(module)
    decay = 2 / 11  # of the first update
    torch.testing.assert_close(averaged.module.first.weight, before + (1.0 - decay))
