"""The ``ipad`` head: proposals that are refined over rounds with shared weights, and their scores.

After iPad (method.md section 7): each round looks at the BEV where its own proposal drives
(references detached), at the scene's tokens and at the other proposals. Ours differs in what a
proposal is: path increments and curvatures around the ego prior's, integrated to poses, so that the
first proposals are kinematic rollouts already.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentvla_ros.contract import KNOT_INTERVAL_S, NUM_KNOTS
from latentvla_ros.model.attention import DecoderLayer, GatedFusion
from latentvla_ros.model.bev import to_bev_grid
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.kinematics import bounded_curvature, rollout
from latentvla_ros.model.precision import full_precision

#: The BEV is also read this far (m) beyond a proposal's end, where leaders and stop lines are.
LOOK_AHEAD_M = (6.0, 15.0)

_SAMPLED = 48  # channels read per point


def _initial_controls(count: int) -> tuple[Tensor, Tensor]:
    """Return accelerations (M, 8) m/s^2 and curvatures (M, 8) 1/m that spread the proposals."""
    accelerations = torch.tensor([0.0, -1.0, -2.0, -3.5, 1.0, 2.0])
    curvatures = torch.tensor([0.0, 0.0, 0.06, -0.06])
    index = torch.arange(count)
    acceleration = accelerations[index % len(accelerations)]
    curvature = curvatures[(index // len(accelerations)) % len(curvatures)]
    ramp = torch.linspace(0.3, 1.0, NUM_KNOTS)
    return (
        acceleration[:, None].repeat(1, NUM_KNOTS),
        curvature[:, None] * ramp[None],
    )


class ProposalStart(nn.Module):
    """What M proposals begin from: the ego prior's controls, spread by learned offsets."""

    times: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        acceleration, curvature = _initial_controls(count)
        self.acceleration = nn.Parameter(acceleration)
        self.curvature = nn.Parameter(curvature)
        times = (torch.arange(NUM_KNOTS, dtype=torch.float32) + 0.5) * KNOT_INTERVAL_S
        self.register_buffer("times", times, persistent=False)

    def first_controls(self, prior: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return increments (B, M, 8) m and raw curvatures (B, M, 8) 1/m around the prior's."""
        steps, curvature = prior
        gain = self.acceleration * self.times * KNOT_INTERVAL_S  # (M, 8) m
        # Braking harder than to a stop would drive backwards; the prior itself is left as it is.
        spread = torch.maximum(gain[None], -functional.relu(steps)[:, None])
        return steps[:, None] + spread, curvature[:, None] + self.curvature[None]

    def distance_from_prior(self) -> Tensor:
        """Return first scores (M,): the proposal nearest to the prior is selected, not any."""
        acceleration, curvature = self.acceleration.detach(), self.curvature.detach()
        return -(0.5 * acceleration.abs().amax(dim=1) + 20.0 * curvature.abs().amax(dim=1))

    @staticmethod
    def control_net(width: int) -> nn.Sequential:
        """Return the net from queries to changes of controls; untrained, it changes nothing."""
        last = nn.Linear(width, 2 * NUM_KNOTS)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(width, width), nn.GELU(approximate="tanh"), last)


class ProposalHead(ProposalStart):
    """M proposals, R rounds, one score each."""

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config.proposals)
        self.config = config
        width, count = config.width, config.proposals
        self.queries = nn.Parameter(torch.randn(1, count, width) * 0.5)
        self.context = nn.Sequential(
            nn.Linear(width * (config.context_tokens + 1), 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, width),
        )
        self.reduce = nn.Conv2d(width, _SAMPLED, 1)
        points = NUM_KNOTS + len(LOOK_AHEAD_M)
        self.read = nn.Sequential(
            nn.Linear(points * _SAMPLED + 4 * NUM_KNOTS, 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, width),
        )
        self.layer = DecoderLayer(width, config.heads)
        self.fusion = GatedFusion(width, config.heads) if config.latent_fusion else None
        self.control_norm = nn.LayerNorm(width)
        self.control = self.control_net(width)
        self.score = nn.Sequential(
            nn.Linear(2 * width, width), nn.GELU(approximate="tanh"), nn.Linear(width, 1)
        )
        self.score_bias = nn.Parameter(self.distance_from_prior())

    def _read_bev(self, bev: Tensor, poses: Tensor) -> Tensor:
        """Sample the reduced BEV (B, C, X, Y) along poses (B, M, 8, 3): (B, M, points * C)."""
        last = poses[:, :, -1]
        ahead = torch.stack(
            [
                torch.stack(
                    [
                        last[..., 0] + distance * torch.cos(last[..., 2]),
                        last[..., 1] + distance * torch.sin(last[..., 2]),
                    ],
                    dim=-1,
                )
                for distance in LOOK_AHEAD_M
            ],
            dim=2,
        )
        points = torch.cat([poses[..., :2], ahead], dim=2)  # (B, M, P, 2)
        grid = to_bev_grid(points, self.config).clamp(-2.0, 2.0)
        sampled = functional.grid_sample(
            bev, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (B, C, M, P)
        return sampled.permute(0, 2, 3, 1).flatten(2)

    def forward(
        self,
        bev: Tensor,
        memory: Tensor,
        context: Tensor,
        ego: Tensor,
        prior: tuple[Tensor, Tensor],
        latent_states: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Propose, refine and score.

        Args:
            bev: (B, D, X, Y). memory: (B, S, D) tokens. context: (B, K, D). ego: (B, D).
            prior: increments and raw curvatures (B, 8) of ``EgoPrior``.
            latent_states: (B, 12, D) of the reasoner, or None to leave the fusion out.

        Returns:
            poses (B, M, 8, 3) after each round, and scores (B, M) of the last.
        """
        batch = bev.shape[0]
        gist = self.context(torch.cat([context.flatten(1), ego.to(context.dtype)], dim=1))
        queries = self.queries.expand(batch, -1, -1) + gist[:, None]
        reduced = self.reduce(bev).float()
        with full_precision(bev.device):
            steps, raw_curvature = self.first_controls(prior)
            poses = rollout(steps, bounded_curvature(raw_curvature))
        rounds = []
        read = queries
        for _ in range(self.config.rounds):
            with full_precision(bev.device):
                reference = poses.detach()
                shape = torch.stack(
                    [
                        0.05 * reference[..., 0],
                        0.1 * reference[..., 1],
                        reference[..., 2],
                        0.25 * steps.detach(),
                    ],
                    dim=-1,
                ).flatten(2)
                look = torch.cat([self._read_bev(reduced, reference), shape], dim=-1)
            read = self.read(look)
            queries = self.layer(queries + read, memory)
            if self.fusion is not None and latent_states is not None:
                queries = self.fusion(queries, latent_states)
            with full_precision(bev.device):
                change = self.control(self.control_norm(queries.float()))
                steps = steps + change[..., :NUM_KNOTS]
                raw_curvature = raw_curvature + 0.1 * change[..., NUM_KNOTS:]
                poses = rollout(steps, bounded_curvature(raw_curvature))
            rounds.append(poses)
            # Gradients flow through the increments within a round only, as in iPad.
            steps, raw_curvature = steps.detach(), raw_curvature.detach()
        with full_precision(bev.device):
            final = torch.cat([self.control_norm(queries.float()), read.float()], dim=-1)
            scores = self.score(final)[..., 0] + self.score_bias
        return rounds, scores
