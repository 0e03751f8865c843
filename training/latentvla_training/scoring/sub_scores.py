"""All sub-scores of simulated proposals, before any comparison between proposals.

``sub_scores_v1`` and ``sub_scores_v2`` differ where NAVSIM 1.1 and 2.2 do: horizon of agents and
TTC, tracks overlapping the ego at t = 0, intersections in DDC, lights, lane keeping, comfort.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentvla_training.scoring.areas import (
    EgoAreas,
    drivable_area_compliance,
    driving_direction_compliance,
    ego_areas,
)
from latentvla_training.scoring.collision import (
    build_tracks,
    no_at_fault_collision,
    time_to_collision,
    traffic_light_compliance,
)
from latentvla_training.scoring.comfort import (
    comfort_bits_v1,
    history_comfort_bits,
)
from latentvla_training.scoring.progress import lane_keeping, raw_progress
from latentvla_training.scoring.scene_batch import SceneBatch
from latentvla_training.scoring.vehicle import box_center, ego_corners

V1_FRAMES = 51
V2_FRAMES = 41
V1_TTC_STEPS = 41
V2_TTC_STEPS = 32


@dataclass(frozen=True)
class SubScores:
    """Raw sub-scores of S x B proposals, float64 unless said otherwise.

    Attributes:
        collision, drivable, direction, time_to_collision, comfort: (S, B) NC, DAC, DDC, TTC and
            C (v1) or HC (v2).
        light, lane: (S, B) TLC and LK; ones in v1, which has neither.
        progress: (S, B) metres along the centreline.
        collision_step, ttc_step: (S, B) first violating time index, inf when none.
        comfort_bits: (S, B, 6) bool. areas: flags per time.
    """

    collision: Tensor
    drivable: Tensor
    direction: Tensor
    light: Tensor
    time_to_collision: Tensor
    lane: Tensor
    comfort: Tensor
    progress: Tensor
    collision_step: Tensor
    ttc_step: Tensor
    comfort_bits: Tensor
    areas: EgoAreas


def sub_scores_v1(scenes: SceneBatch, states: Tensor) -> SubScores:
    """NAVSIM 1.1 sub-scores of states (S, B, 41, 11)."""
    corners, center = ego_corners(states), box_center(states)
    areas = ego_areas(scenes, corners, center, states[..., :2])
    tracks = build_tracks(scenes, V1_FRAMES, remove_overlapping=False)
    collision = no_at_fault_collision(states, corners, areas, tracks)
    ttc = time_to_collision(states, corners, areas, tracks, V1_TTC_STEPS)
    bits = comfort_bits_v1(states)
    ones = torch.ones_like(collision.score)
    return SubScores(
        collision=collision.score,
        drivable=drivable_area_compliance(areas),
        direction=driving_direction_compliance(areas, center, forgive_intersections=False),
        light=ones,
        time_to_collision=ttc.score,
        lane=ones,
        comfort=bits.all(-1).to(torch.float64),
        progress=raw_progress(scenes, center).to(torch.float64),
        collision_step=collision.first_step,
        ttc_step=ttc.first_step,
        comfort_bits=bits,
        areas=areas,
    )


def sub_scores_v2(scenes: SceneBatch, states: Tensor) -> SubScores:
    """NAVSIM 2.2 sub-scores of states (S, B, 41, 11); HC is 1 where a scene has no history."""
    corners, center = ego_corners(states), box_center(states)
    areas = ego_areas(scenes, corners, center, states[..., :2])
    tracks = build_tracks(scenes, V2_FRAMES, remove_overlapping=True)
    collision = no_at_fault_collision(states, corners, areas, tracks)
    ttc = time_to_collision(states, corners, areas, tracks, V2_TTC_STEPS)
    bits = history_comfort_bits(states, scenes.history) | ~scenes.history_mask[:, None, None]
    return SubScores(
        collision=collision.score,
        drivable=drivable_area_compliance(areas),
        direction=driving_direction_compliance(areas, center, forgive_intersections=True),
        light=traffic_light_compliance(scenes, corners),
        time_to_collision=ttc.score,
        lane=lane_keeping(scenes, center, areas.center_in_intersection),
        comfort=bits.all(-1).to(torch.float64),
        progress=raw_progress(scenes, center).to(torch.float64),
        collision_step=collision.first_step,
        ttc_step=ttc.first_step,
        comfort_bits=bits,
        areas=areas,
    )
