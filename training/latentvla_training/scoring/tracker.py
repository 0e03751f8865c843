"""NAVSIM's batch LQR tracker: reference profiles of a plan and the feedback gains per step.

Unusual here, and as NAVSIM computes it (design/metrics.md section 2.1): the "jerk" penalty is in
fact a penalty on acceleration, because slice assignments in NAVSIM overwrite one another. nuPlan's
own tracker has the intended matrix and simulates differently.

Two identities make it fast and are exact: the normal matrix of the velocity fit does not depend on
the headings, so the fit is one constant matrix; the curvature fit is a chain of springs, solved by
a sum-only elimination (no subtraction, hence no cancellation at standstill).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from latentvla_training.scoring.reference_trajectory import wrap_angle
from latentvla_training.scoring.vehicle import NUM_STEPS, PACIFICA, STEP_S

HORIZON = 10
ACCELERATION_PENALTY = 1e-4
CURVATURE_PENALTY = 1e-10
CURVATURE_RATE_PENALTY = 1e-2
STOPPING_SPEED = 0.2
STOPPING_GAIN = 0.5
SPEED_COST = 10.0
LATERAL_COST = 1.0
HEADING_COST = 10.0


@lru_cache(maxsize=1)
def _velocity_fit_matrix() -> np.ndarray:
    """Return W (40, 40): velocity profile = projected displacements @ W."""
    steps = NUM_STEPS
    model = np.full((steps, steps), STEP_S)
    model[:, 1:] = STEP_S**2 * (np.arange(1, steps)[None, :] <= np.arange(steps)[:, None])
    penalty = np.zeros((steps - 2, steps))  # over [v0, a_0 ... a_38]
    penalty[np.arange(steps - 2), np.arange(1, steps - 1)] = -1.0
    penalty[-1, -1] = 1.0
    normal = model.T @ model + ACCELERATION_PENALTY * penalty.T @ penalty
    solution = np.linalg.pinv(normal) @ model.T  # (unknowns, displacements)
    return np.ascontiguousarray((model / STEP_S @ solution).T)


def velocity_profile(poses: Tensor) -> Tensor:
    """Fit the speed at the start of each interval of ``poses`` (..., 41, 3); returns (..., 40)."""
    difference = torch.diff(poses[..., :2], dim=-2)
    heading = poses[..., :-1, 2]
    along = torch.cos(heading) * difference[..., 0] + torch.sin(heading) * difference[..., 1]
    return along @ torch.from_numpy(_velocity_fit_matrix()).to(poses)


def curvature_profile(poses: Tensor, velocity: Tensor) -> Tensor:
    """Fit the curvature (1/m) of each interval given the speeds (..., 40); returns (..., 40).

    Minimises sum (dtheta_i - v_i dt k_i)^2 + 1e-10 k_0^2 + 1e-2 sum ((k_{i+1} - k_i) / dt)^2, the
    problem of metrics.md 2.1 written in the curvatures themselves: tridiagonal.
    """
    turn = wrap_angle(torch.diff(poses[..., 2], dim=-1))
    travel = velocity * STEP_S
    ground = (travel * travel).unbind(-1)  # stiffness to "ground" of each node
    load = (travel * turn).unbind(-1)
    spring = CURVATURE_RATE_PENALTY / STEP_S**2
    stiffness, force = [ground[0] + CURVATURE_PENALTY], [load[0]]
    for i in range(1, NUM_STEPS):
        passed = spring / (stiffness[-1] + spring)
        force.append(load[i] + force[-1] * passed)
        stiffness.append(ground[i] + stiffness[-1] * passed)
    curvature = [force[-1] / stiffness[-1]]
    for i in range(NUM_STEPS - 2, -1, -1):
        curvature.append((force[i] + spring * curvature[-1]) / (stiffness[i] + spring))
    return torch.stack(curvature[::-1], dim=-1)


def acceleration_command(speed: Tensor, reference_speed: Tensor) -> Tensor:
    """Longitudinal command (m/s^2) towards the speed ``HORIZON`` steps ahead; any shape."""
    lookahead = HORIZON * STEP_S
    gain = lookahead * SPEED_COST / (lookahead**2 * SPEED_COST + 1.0)
    error = speed - reference_speed
    return torch.where(is_stopping(speed, reference_speed), -STOPPING_GAIN * error, -gain * error)


def is_stopping(speed: Tensor, reference_speed: Tensor) -> Tensor:
    """Whether the stopping controller acts; speeds are signed, so reversing counts."""
    return (reference_speed <= STOPPING_SPEED) & (speed <= STOPPING_SPEED)


@dataclass(frozen=True)
class LateralGains:
    """Per step (..., 40): predicted terminal errors and the gains on them (zero when stopping).

    e_lat = lateral + distance * heading_error + steer_to_lateral * steer + drift_lateral
    e_heading = wrap(heading_error + steer_to_heading * steer + drift_heading)
    steering rate = gain_lateral * e_lat + gain_heading * e_heading
    """

    distance: Tensor
    steer_to_lateral: Tensor
    drift_lateral: Tensor
    steer_to_heading: Tensor
    drift_heading: Tensor
    gain_lateral: Tensor
    gain_heading: Tensor


def lateral_gains(
    speed: Tensor, acceleration: Tensor, stopping: Tensor, curvature: Tensor
) -> LateralGains:
    """Closed form of the ten-step lateral LQR of metrics.md section 2.2.

    Args:
        speed, acceleration: (..., 40) speed and commanded acceleration at each step.
        stopping: (..., 40) bool. curvature: (..., 40) profile of the plan.
    """
    ahead = torch.arange(HORIZON, device=speed.device)
    offset = ahead.to(speed) * STEP_S
    # (..., 40, 10): metres travelled in each lookahead step, and in all later ones
    travel = (speed.unsqueeze(-1) + offset * acceleration.unsqueeze(-1)) * STEP_S
    distance = travel.sum(-1)
    later = distance.unsqueeze(-1) - torch.cumsum(travel, dim=-1)
    step = torch.arange(NUM_STEPS, device=speed.device)
    window = torch.clamp(step[:, None] + ahead, max=NUM_STEPS - 1)
    turned = travel * curvature[..., window]
    response = travel * offset
    wheelbase = PACIFICA.wheelbase
    lateral_response = (response * later).sum(-1) / wheelbase
    heading_response = response.sum(-1) / wheelbase
    effort = LATERAL_COST * lateral_response**2 + HEADING_COST * heading_response**2 + 1.0
    active = torch.where(stopping, 0.0, -1.0 / effort)
    return LateralGains(
        distance=distance,
        steer_to_lateral=(travel * later).sum(-1) / wheelbase,
        drift_lateral=-(turned * later).sum(-1),
        steer_to_heading=distance / wheelbase,
        drift_heading=-turned.sum(-1),
        gain_lateral=active * LATERAL_COST * lateral_response,
        gain_heading=active * HEADING_COST * heading_response,
    )
