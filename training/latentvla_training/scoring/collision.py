"""At-fault collisions, time to collision and red lights.

Source: design/metrics.md sections 4.1 (NC), 4.4 (TLC) and 4.6 (TTC). NAVSIM walks through time
with a set of ignored tracks per proposal; since a track is either at fault or ignored from its
first contact on, only the first contact of each (proposal, track) matters, and that is what is
evaluated here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentvla_training.scoring.areas import EgoAreas
from latentvla_training.scoring.geometry import (
    boxes_touch_polygons,
    convex_intersect,
    first_contacts,
)
from latentvla_training.scoring.scene_batch import FIRST_STATIC_TYPE, SceneBatch
from latentvla_training.scoring.vehicle import (
    NUM_STATES,
    STEP_S,
    StateIndex,
    ego_corners,
    oriented_box_corners,
)

STOPPED_SPEED = 0.05
STATIC_COLLISION_SCORE = 0.5
TTC_OFFSETS = (0, 3, 6, 9)
TTC_MIN_SPEED = 0.005
AHEAD_ANGLE = math.radians(30.0)
BEHIND_ANGLE = math.radians(150.0)


@dataclass(frozen=True)
class Tracks:
    """Agents as the scorer sees them.

    Attributes:
        corners: (S, A, F, 4, 2). centroid: (S, A, F, 2). valid: (S, A, F) bool.
        static: (S, A) bool, class that cannot move.
        stopped: (S, A) bool, static or not moving when first seen.
    """

    corners: Tensor
    centroid: Tensor
    valid: Tensor
    static: Tensor
    stopped: Tensor


@dataclass(frozen=True)
class Contacts:
    """A score (S, B) and the first time index (S, B) at which it was lost, inf when never."""

    score: Tensor
    first_step: Tensor


def build_tracks(scenes: SceneBatch, num_frames: int, remove_overlapping: bool) -> Tracks:
    """Prepare the agents of the first ``num_frames`` 10 Hz frames.

    Args:
        remove_overlapping: drop tracks whose frame-0 box meets the ego's frame-0 box from every
            frame (v2 log-replay traffic policy).
    """
    state = scenes.agent_state[:, :, :num_frames]
    size = scenes.agent_size[:, :, None]
    corners = oriented_box_corners(
        state[..., :2], state[..., 2], size[..., 0] / 2.0, size[..., 1] / 2.0
    )
    valid = scenes.agent_valid[:, :, :num_frames]
    if remove_overlapping:
        ego = ego_corners(scenes.ego)[:, None]
        overlapping = valid[:, :, 0] & convex_intersect(corners[:, :, 0], ego)
        valid = valid & ~overlapping[:, :, None]
    # Speed and class come from the first frame in which the track exists, not the current one.
    first = valid.to(torch.int64).argmax(-1)[:, :, None, None].expand(-1, -1, 1, 2)
    velocity = torch.gather(state[..., 3:5], 2, first)[:, :, 0]
    static = scenes.agent_type >= FIRST_STATIC_TYPE
    speed = torch.hypot(velocity[..., 0], velocity[..., 1])
    return Tracks(corners, _centroid(corners), valid, static, static | (speed <= STOPPED_SPEED))


def _centroid(corners: Tensor) -> Tensor:
    """Area centroid of quadrilaterals (..., 4, 2) by a fan of triangles (GEOS ``Centroid``)."""
    base = corners[..., 0, :]
    total = torch.zeros_like(base)
    area = torch.zeros_like(base[..., 0])
    for second, third in ((1, 2), (2, 3)):
        p, q = corners[..., second, :], corners[..., third, :]
        twice = (p[..., 0] - base[..., 0]) * (q[..., 1] - base[..., 1]) - (
            q[..., 0] - base[..., 0]
        ) * (p[..., 1] - base[..., 1])
        total = total + twice[..., None] * (base + p + q)
        area = area + twice
    flat = area == 0.0
    centroid = total / 3.0 / torch.where(flat, 1.0, area)[..., None]
    return torch.where(flat[..., None], corners.mean(-2), centroid)


def _relative_angle(position: Tensor, heading: Tensor, target: Tensor) -> Tensor:
    """Angle from the heading to the direction of ``target``; NaN where NAVSIM's is: no clamping."""
    offset = target - position
    norm = torch.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2)
    direction = offset / norm[..., None]
    return torch.acos(
        torch.cos(heading) * direction[..., 0] + torch.sin(heading) * direction[..., 1]
    )


def _at_first(values: Tensor, step: Tensor) -> Tensor:
    """Gather values (S, B, T) or (S, B, T, D) at steps (S, B, A) -> (S, B, A) or (S, B, A, D)."""
    if values.ndim == 3:
        return torch.gather(values, 2, step)
    index = step[..., None].expand(*step.shape, values.shape[-1])
    return torch.gather(values, 2, index)


def _track_at(values: Tensor, frame: Tensor) -> Tensor:
    """Gather track values (S, A, F, D) at frames (S, B, A) -> (S, B, A, D)."""
    index = frame.transpose(1, 2)[..., None].expand(-1, -1, -1, values.shape[-1])
    return torch.gather(values, 2, index).transpose(1, 2)


def no_at_fault_collision(
    states: Tensor, corners: Tensor, areas: EgoAreas, tracks: Tracks
) -> Contacts:
    """NC (S, B) in {0, 0.5, 1} of states (S, B, 41, 11) with ego corners (S, B, 41, 4, 2)."""
    frames = torch.arange(NUM_STATES, device=states.device)[:, None]
    active = torch.ones(states.shape[:3], dtype=torch.bool, device=states.device)
    still = states.new_zeros(*states.shape[:3], 1, 2)
    first = first_contacts(corners, still, active, frames, tracks.corners, tracks.valid)
    touched = first >= 0
    step = first.clamp(min=0)
    pose = _at_first(states[..., :3], step)
    speed = torch.hypot(states[..., StateIndex.VX], states[..., StateIndex.VY])
    moving = _at_first(speed, step) > STOPPED_SPEED
    behind = (
        _relative_angle(pose[..., :2], pose[..., 2], _track_at(tracks.centroid, step))
        > BEHIND_ANGLE
    )
    front_edge = _at_first(corners[..., (0, 3), :].flatten(-2), step)
    track_box = _track_at(tracks.corners.flatten(-2), step)
    front = convex_intersect(
        front_edge.reshape(*step.shape, 2, 2), track_box.reshape(*step.shape, 4, 2)
    )
    exposed = _at_first(areas.multiple_lanes | areas.non_drivable, step)
    stopped_track = tracks.stopped[:, None]
    at_fault = touched & moving & (stopped_track | (~behind & (front | exposed)))
    loss = torch.where(tracks.static[:, None], STATIC_COLLISION_SCORE, 0.0).to(torch.float64)
    return _worst(at_fault, loss, step)


def time_to_collision(
    states: Tensor, corners: Tensor, areas: EgoAreas, tracks: Tracks, num_steps: int
) -> Contacts:
    """TTC (S, B) in {0, 1}: the box shifted by 0, 0.3, 0.6, 0.9 s of its speed meets a track.

    Args:
        num_steps: time steps that are checked (v1 41, v2 32).
    """
    offsets = torch.tensor(TTC_OFFSETS, device=states.device)
    heading = states[..., :num_steps, StateIndex.HEADING]
    speed = torch.hypot(states[..., StateIndex.VX], states[..., StateIndex.VY])[..., :num_steps]
    per_second = torch.stack([torch.cos(heading) * speed, torch.sin(heading) * speed], dim=-1)
    shifts = per_second[..., None, :] * (offsets.to(states) * STEP_S)[:, None]
    frames = torch.arange(num_steps, device=states.device)[:, None] + offsets
    first = first_contacts(
        corners[:, :, :num_steps],
        shifts,
        speed >= TTC_MIN_SPEED,
        frames,
        tracks.corners,
        tracks.valid,
    )
    query = first.clamp(min=0)
    step = query // len(TTC_OFFSETS)
    pose = _at_first(states[..., :3], step)
    centroid = _track_at(tracks.centroid, frames.flatten()[query])
    angle = _relative_angle(pose[..., :2], pose[..., 2], centroid)
    exposed = areas.multiple_lanes | areas.non_drivable | areas.rear_axle_in_intersection
    beside = _at_first(exposed, step) & ~(angle > BEHIND_ANGLE)
    violated = (first >= 0) & ((angle < AHEAD_ANGLE) | beside)
    return _worst(violated, torch.zeros_like(angle, dtype=torch.float64), step)


def _worst(violated: Tensor, loss: Tensor, step: Tensor) -> Contacts:
    """Reduce per-track violations (S, B, A) to the lowest score and the earliest step."""
    loss = loss.expand(violated.shape)
    if violated.shape[-1] == 0:
        shape = violated.shape[:-1]
        return Contacts(
            torch.ones(shape, dtype=torch.float64, device=violated.device),
            torch.full(shape, math.inf, dtype=torch.float64, device=violated.device),
        )
    return Contacts(
        torch.where(violated, loss, 1.0).amin(-1),
        torch.where(violated, step.to(torch.float64), math.inf).amin(-1),
    )


def traffic_light_compliance(scenes: SceneBatch, corners: Tensor) -> Tensor:
    """TLC (S, B) in {0, 1}: the box (S, B, 41, 4, 2) never meets a red connector of the route."""
    index = scenes.light_polygon
    polygons = scenes.polygons.take(index)
    on_route = torch.gather(scenes.polygon_on_route, 1, index.clamp(min=0)) & (index >= 0)
    red = scenes.light_red & on_route[:, :, None]
    return (~boxes_touch_polygons(corners, red, polygons)).to(torch.float64)
