"""Simulation of tracked plans: the LQR of ``tracker`` driving NAVSIM's kinematic bicycle.

Source: design/metrics.md sections 2.2 and 2.3 (NAVSIM ``PDMSimulator``). Commands act on position
one step late, speed may become negative, and lateral acceleration is zero after row 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentvla_training.scoring.reference_trajectory import wrap_angle
from latentvla_training.scoring.tracker import (
    HORIZON,
    LateralGains,
    acceleration_command,
    curvature_profile,
    is_stopping,
    lateral_gains,
    velocity_profile,
)
from latentvla_training.scoring.vehicle import (
    NUM_STATES,
    NUM_STEPS,
    PACIFICA,
    STATE_SIZE,
    STEP_S,
    StateIndex,
)

ACCELERATION_BLEND = STEP_S / (STEP_S + 0.2)
STEERING_BLEND = STEP_S / (STEP_S + 0.05)
MAX_STEER = math.pi / 3.0


def simulate(initial: Tensor, poses: Tensor) -> Tensor:
    """Drive every reference from the same initial state.

    Args:
        initial: (S, 11) state at t = 0, copied verbatim into row 0.
        poses: (S, B, 41, 3) reference poses, same frame as ``initial``.

    Returns:
        (S, B, 41, 11) states at 0, 0.1 ... 4 s. A non-finite plan gives non-finite states of its
        own and touches no other.
    """
    scenes, batch = poses.shape[:2]
    states = poses.new_zeros(scenes, batch, NUM_STATES, STATE_SIZE)
    states[:, :, 0] = initial[:, None]
    velocity = velocity_profile(poses)
    curvature = curvature_profile(poses, velocity)
    # The speed does not depend on the steering: roll it out first, then all gains at once.
    speed, acceleration, command, stopping = _roll_out_speed(
        states[:, :, 0, StateIndex.VX], states[:, :, 0, StateIndex.AX], velocity
    )
    gains = lateral_gains(speed[..., :-1], command, stopping, curvature)
    x, y, heading, steer, steer_rate = _roll_out_steering(states[:, :, 0], poses, speed, gains)
    states[:, :, 1:, StateIndex.X] = x
    states[:, :, 1:, StateIndex.Y] = y
    states[:, :, 1:, StateIndex.HEADING] = heading
    states[:, :, 1:, StateIndex.VX] = speed[..., 1:]
    states[:, :, 1:, StateIndex.AX] = acceleration[..., 1:]
    states[:, :, 1:, StateIndex.STEER] = steer
    states[:, :, 1:, StateIndex.STEER_RATE] = steer_rate
    yaw_rate = speed[..., 1:] * torch.tan(steer) / PACIFICA.wheelbase
    states[:, :, 1:, StateIndex.YAW_RATE] = yaw_rate
    states[:, :, 1:, StateIndex.YAW_ACC] = (
        torch.diff(states[..., StateIndex.YAW_RATE], dim=-1) / STEP_S
    )
    return states


def _roll_out_speed(
    speed: Tensor, acceleration: Tensor, velocity: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return speed (..., 41), acceleration (..., 41), command (..., 40), stopping (..., 40)."""
    target = velocity.unbind(-1)
    speeds, accelerations, commands, stops = [speed], [acceleration], [], []
    for step in range(NUM_STEPS):
        reference = target[min(step + HORIZON, NUM_STEPS - 1)]
        command = acceleration_command(speed, reference)
        commands.append(command)
        stops.append(is_stopping(speed, reference))
        acceleration = acceleration + ACCELERATION_BLEND * (command - acceleration)
        speed = speed + acceleration * STEP_S
        speeds.append(speed)
        accelerations.append(acceleration)
    return (
        torch.stack(speeds, -1),
        torch.stack(accelerations, -1),
        torch.stack(commands, -1),
        torch.stack(stops, -1),
    )


def _roll_out_steering(
    initial: Tensor, poses: Tensor, speed: Tensor, gains: LateralGains
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return x, y, heading, steer, steer_rate, each (S, B, 40), of steps 1 ... 40."""
    reference_x, reference_y, reference_heading = (
        poses[..., i].movedim(-1, 0).contiguous() for i in range(3)
    )
    cos_reference, sin_reference = torch.cos(reference_heading), torch.sin(reference_heading)
    travel = (speed[..., :-1] * STEP_S).movedim(-1, 0).contiguous()
    turn_per_tan = travel / PACIFICA.wheelbase
    distance, steer_lat, drift_lat, steer_heading, drift_heading, gain_lat, gain_heading = (
        value.movedim(-1, 0).contiguous()
        for value in (
            gains.distance,
            gains.steer_to_lateral,
            gains.drift_lateral,
            gains.steer_to_heading,
            gains.drift_heading,
            gains.gain_lateral,
            gains.gain_heading,
        )
    )
    x, y = initial[..., StateIndex.X], initial[..., StateIndex.Y]
    heading, steer = initial[..., StateIndex.HEADING], initial[..., StateIndex.STEER]
    rows: list[tuple[Tensor, ...]] = []
    for k in range(NUM_STEPS):
        lateral = (y - reference_y[k]) * cos_reference[k] - (x - reference_x[k]) * sin_reference[k]
        heading_error = wrap_angle(heading - reference_heading[k])
        lateral = lateral + distance[k] * heading_error + steer_lat[k] * steer + drift_lat[k]
        heading_error = wrap_angle(heading_error + steer_heading[k] * steer + drift_heading[k])
        command = gain_lat[k] * lateral + gain_heading[k] * heading_error
        x = x + travel[k] * torch.cos(heading)
        y = y + travel[k] * torch.sin(heading)
        heading = wrap_angle(heading + turn_per_tan[k] * torch.tan(steer))
        rate = STEERING_BLEND * command
        steer = torch.clamp(steer + rate * STEP_S, -MAX_STEER, MAX_STEER)
        rows.append((x, y, heading, steer, rate))
    x, y, heading, steer, rate = (torch.stack(column, -1) for column in zip(*rows, strict=True))
    return x, y, heading, steer, rate
