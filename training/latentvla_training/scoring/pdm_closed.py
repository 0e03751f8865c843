"""The PDM-Closed reference of a Scene: what EP and every score relative to a planner compare with.

Frozen: whatever changes the poses raises ``REFERENCE_VERSION``, which goes into the recipe of every
shard. Rules (Dauner et al. 2023; NAVSIM's ``PDMClosedPlanner``): 15 proposals (``idm_proposals``)
are simulated by tracker and bicycle and scored by PDMS against a forecast; the best one's own poses
are the reference. The forecast is what the planner can know: every agent keeps its present
velocity, every light its present state.

Where we differ: the leader is looked up at the first step as well, the limit is that of the place
instead of the starting lane, speeds do not become negative, the end of the known centreline is no
obstacle, and running a red light (v2's TLC, on the forecast) loses the score.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.scoring.aggregation import frame_scores_v1, pdms
from latentvla_training.scoring.bicycle import simulate
from latentvla_training.scoring.collision import traffic_light_compliance
from latentvla_training.scoring.idm_proposals import (
    LATERAL_OFFSETS_M,
    NUM_PROPOSALS,
    SPEED_FRACTIONS,
    unroll,
)
from latentvla_training.scoring.scene_batch import (
    FIRST_STATIC_TYPE,
    NUM_AGENT_FRAMES,
    SceneBatch,
)
from latentvla_training.scoring.sub_scores import sub_scores_v1
from latentvla_training.scoring.vehicle import NUM_STATES, STEP_S, ego_corners

#: Raised whenever the reference of some Scene comes out different.
REFERENCE_VERSION = 1


@torch.no_grad()
def pdm_closed_reference(scenes: SceneBatch, speed_limit_mps: Tensor) -> Tensor:
    """Return the reference (S, 41, 3): x, y, heading at 0, 0.1 ... 4 s in the **map** frame.

    Args:
        scenes: float64, on the CPU; their ``reference`` is not read, nor anything after t = 0.
        speed_limit_mps: (S, C) at the points of ``scenes.centerline``.

    Raises:
        ContractError: another shape, a limit that is not positive, another device or type.
    """
    points = scenes.centerline.points
    if speed_limit_mps.shape != points.shape[:2]:
        raise ContractError(
            "speed_limit_mps.shape", tuple(speed_limit_mps.shape), str(tuple(points.shape[:2]))
        )
    if not bool((torch.isfinite(speed_limit_mps) & (speed_limit_mps > 0.0)).all()):
        raise ContractError("speed_limit_mps", "NaN or <= 0", "positive speeds")
    if points.device.type != "cpu" or points.dtype != torch.float64:
        raise ContractError("scenes", f"{points.dtype} on {points.device}", "float64 on cpu")
    proposals = propose(scenes, speed_limit_mps)
    score = score_proposals(scenes, proposals)
    best = score.argmax(dim=1)
    reference = proposals[torch.arange(len(scenes)), best]
    reference[..., :2] += scenes.origin[:, None]
    return reference


def propose(scenes: SceneBatch, speed_limit_mps: Tensor) -> Tensor:
    """Return the proposals (S, 15, 41, 3) in the frame of ``scenes``, on the centreline first."""
    lines, limits = scenes.centerline.points.numpy(), speed_limit_mps.numpy()
    red = scenes.light_red[..., 0] & (scenes.light_polygon >= 0)
    rows = torch.arange(len(scenes))[:, None]
    red &= scenes.polygon_on_route[rows, scenes.light_polygon.clamp(min=0)]
    present = scenes.agent_valid[:, :, 0] & (scenes.agent_type >= 0)
    out = np.empty((len(scenes), NUM_PROPOSALS, NUM_STATES, 3))
    for i in range(len(scenes)):
        keep = _distinct(lines[i])
        agents = present[i]
        wanted = scenes.light_polygon[i][red[i]]
        unroll(
            scenes.ego[i].numpy(),
            lines[i][keep],
            limits[i][keep].astype(np.float64),
            scenes.agent_state[i, agents, 0].numpy(),
            scenes.agent_size[i, agents].numpy(),
            (scenes.agent_type[i, agents] >= FIRST_STATIC_TYPE).numpy(),
            scenes.polygons.rings[i, wanted].numpy(),
            scenes.polygons.vertices[i, wanted].numpy(),
            SPEED_FRACTIONS,
            LATERAL_OFFSETS_M,
            out[i],
        )
    return torch.from_numpy(out)


def score_proposals(scenes: SceneBatch, proposals: Tensor) -> Tensor:
    """Return PDMS, or 0 where a red light is run, (S, 15) on the forecast of ``scenes``."""
    known = forecast(scenes)
    states = simulate(known.ego, proposals)
    score = pdms(frame_scores_v1(sub_scores_v1(known, states), companion=None))
    score = score * traffic_light_compliance(known, ego_corners(states))
    return torch.where(torch.isfinite(states).flatten(2).all(-1), score, -1.0)


def forecast(scenes: SceneBatch) -> SceneBatch:
    """Return scenes whose agents keep their velocity and whose lights keep their state."""
    time = torch.arange(NUM_AGENT_FRAMES, dtype=torch.float64) * STEP_S
    now = scenes.agent_state[:, :, :1]
    state = now.expand(-1, -1, NUM_AGENT_FRAMES, -1).clone()
    moving = (scenes.agent_type < FIRST_STATIC_TYPE)[:, :, None, None]
    state[..., :2] += torch.where(moving, now[..., 3:5] * time[:, None], 0.0)
    return replace(
        scenes,
        agent_state=state,
        agent_valid=scenes.agent_valid[:, :, :1].expand(-1, -1, NUM_AGENT_FRAMES).contiguous(),
        light_red=scenes.light_red[..., :1].expand(-1, -1, NUM_STATES).contiguous(),
    )


def _distinct(line: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the points of a polyline (C, 2) that differ from the one before: no padding."""
    moved = np.append(True, np.any(np.diff(line, axis=0) != 0.0, axis=1))
    kept = np.flatnonzero(moved)
    if len(kept) < 2:
        raise ContractError("scenes.centerline", f"{len(kept)} distinct points", "at least 2")
    return kept
