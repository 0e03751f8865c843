"""Kernels that build the agents: the parts of every ``AgentModel``, and where its lamps are.

An agent's own axes are x forward, y left, z up from the ground below its centre. People far away
have fewer parts than people near by.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

from latentvla_training.world.backdrop import hash_unit
from latentvla_training.world.ray_casting import (
    BARRIER,
    BICYCLE,
    BODY,
    BOX,
    BUS,
    CABIN,
    CARGO,
    CHASSIS,
    CONE,
    HEAD,
    MOTORCYCLE,
    TRUCK_CAB,
    VAN,
    VAN_TOP,
    jit,
)

#: ``AgentModel`` as the kernels know it.
CAR_MODEL, VAN_MODEL, TRUCK_MODEL, BUS_MODEL, MOTORCYCLE_MODEL = 0, 1, 2, 3, 4
BICYCLE_MODEL, PEDESTRIAN_MODEL, CONE_MODEL, BARRIER_MODEL = 5, 6, 7, 8
#: The most parts and lamps of an agent.
MAX_PARTS, MAX_LAMPS = 8, 4
#: People nearer than this, m, have arms and two legs.
_DETAIL_M = 36.0


@jit
def _put(parts, kinds, colors, row, kind, pose, x, y, low, high, hx, hy, slant, rgb, shade):
    """Write one part: centre x, y in the agent's axes, from ``low`` to ``high`` above the ground.

    ``pose`` is x, y, ground height (relative to the camera), cos and sin of the agent; a ``slant``
    of (front, rear) in m per m; the colour is ``shade`` times rgb.
    """
    parts[row, 0] = pose[0] + pose[3] * x - pose[4] * y
    parts[row, 1] = pose[1] + pose[4] * x + pose[3] * y
    parts[row, 2] = pose[2] + 0.5 * (low + high)
    parts[row, 3], parts[row, 4], parts[row, 5] = hx, hy, 0.5 * (high - low)
    parts[row, 6], parts[row, 7] = pose[3], pose[4]
    parts[row, 8], parts[row, 9] = slant
    kinds[row] = kind
    for channel in range(3):
        colors[row, channel] = min(shade * rgb[channel], 255.0)
    return row + 1


@jit
def _swing(phase):
    """Return a wave of period 1 between -1 and 1 that lingers at its ends."""
    phase -= math.floor(phase)
    wave = 4.0 * abs(phase - 0.5) - 1.0
    return wave * (1.5 - 0.5 * wave * wave)


@jit
def _add_person(parts, kinds, colors, row, pose, hip, height, lean, step, legs, arms, looks):
    """Write a person above ``hip`` m, with 0 to 2 legs below; return the next row.

    ``lean`` is how far the shoulders are before the hip and ``step`` a foot, m; ``looks`` are the
    colours of shirt, trousers and helmet (red < 0: bare-headed).
    """
    shirt, trousers, helmet = looks
    if legs == 1:
        row = _put(
            parts, kinds, colors, row, BOX, pose, 0.0, 0.0, 0.0, hip, 0.12, 0.16, (0.0, 0.0),
            trousers, 1.0,
        )  # fmt: skip
    elif legs == 2:
        for side in (-1.0, 1.0):
            # A leg leans about the hip: its foot is ``step`` away.
            foot = side * step
            row = _put(
                parts, kinds, colors, row, BOX, pose, foot, 0.1 * side, 0.0, 1.04 * hip, 0.085,
                0.08, (foot / hip, -foot / hip), trousers, 1.0,
            )  # fmt: skip
    shoulder = 0.84 * height
    slope = lean / (shoulder - hip)
    row = _put(
        parts, kinds, colors, row, BOX, pose, 0.0, 0.0, 0.96 * hip, shoulder, 0.13, 0.2,
        (-slope, slope), shirt, 1.0,
    )  # fmt: skip
    if arms:
        for side in (-1.0, 1.0):
            # Arms swing against the legs, or reach for the handlebar.
            hand = -0.75 * side * step if legs else lean + 0.35
            low = 0.95 * hip if legs else 0.35 * hip + 0.65 * shoulder
            slope = (lean - hand) / (shoulder - low)
            row = _put(
                parts, kinds, colors, row, BOX, pose, hand, 0.25 * side, low, shoulder, 0.06,
                0.055, (-slope, slope), shirt, 0.85,
            )  # fmt: skip
    tone = 0.55 + 0.55 * hash_unit(int(shirt[0]) + 7 * int(shirt[2]), 3)
    face, tone = (helmet, 1.0) if helmet[0] >= 0.0 else ((205.0, 160.0, 130.0), tone)
    return _put(
        parts, kinds, colors, row, HEAD, pose, 1.15 * lean, 0.0, 0.85 * height, height, 0.125,
        0.115, (0.0, 0.0), face, tone,
    )  # fmt: skip


@jit
def add_agent(parts, kinds, colors, row, model, length, width, height, rgb, pose, moving, distance):
    """Write the parts of one agent from ``row`` on; return the row after them.

    Args:
        pose: x, y, ground height relative to the camera, cos and sin of the yaw, distance walked.
        moving: whether a person walks or pedals.
    """
    none = (0.0, 0.0)
    hx, hy = 0.5 * length, 0.5 * width
    near = distance < _DETAIL_M
    dark, trousers = (26.0, 26.0, 29.0), (48.0, 50.0, 62.0)
    if model == CAR_MODEL:
        if height >= 1.6:  # off-road: upright, the cabin reaches the tail
            top, back, front, rear, middle, half = 0.62, 0.03, 0.13, 0.02, -0.11, 0.375
        elif length < 4.35:  # hatchback
            top, back, front, rear, middle, half = 0.60, 0.07, 0.18, 0.04, -0.115, 0.37
        else:  # saloon
            top, back, front, rear, middle, half = 0.58, 0.10, 0.17, 0.02, -0.07, 0.31
        roof = (1.0 - top) * height
        row = _put(
            parts, kinds, colors, row, BODY, pose, 0.0, 0.0, 0.0, top * height, hx, hy,
            (0.06, rear), rgb, 1.0,
        )  # fmt: skip
        return _put(
            parts, kinds, colors, row, CABIN, pose, middle * length, 0.0, top * height, height,
            half * length, 0.44 * width, (front * length / roof, back * length / roof), rgb, 1.0,
        )  # fmt: skip
    if model == VAN_MODEL:
        bonnet = min(0.16 * length, 1.0)
        waist = 0.46 * height
        row = _put(
            parts, kinds, colors, row, VAN, pose, 0.0, 0.0, 0.0, waist, hx, hy, none, rgb, 1.0
        )
        slope = 0.75 / (height - waist)
        return _put(
            parts, kinds, colors, row, VAN_TOP, pose, -0.5 * bonnet, 0.0, waist, height,
            hx - 0.5 * bonnet, 0.97 * hy, (slope, 0.02), rgb, 1.0,
        )  # fmt: skip
    if model == TRUCK_MODEL:
        cab = min(0.25 * length, 2.2)
        row = _put(
            parts, kinds, colors, row, CHASSIS, pose, 0.0, 0.0, 0.0, 1.0, hx, 0.94 * hy, none, dark,
            1.6,
        )  # fmt: skip
        row = _put(
            parts, kinds, colors, row, TRUCK_CAB, pose, hx - 0.5 * cab, 0.0, 0.45, 0.84 * height,
            0.5 * cab, hy, (0.07, 0.0), rgb, 1.0,
        )  # fmt: skip
        box = hx - 0.5 * (cab + 0.35)
        pale = (0.35 * rgb[0] + 150.0, 0.35 * rgb[1] + 150.0, 0.35 * rgb[2] + 148.0)
        return _put(
            parts, kinds, colors, row, CARGO, pose, box - hx, 0.0, 1.0, height, box, hy, none,
            pale, 1.0,
        )  # fmt: skip
    if model == BUS_MODEL:
        return _put(
            parts, kinds, colors, row, BUS, pose, 0.0, 0.0, 0.0, height, hx, hy, (0.03, 0.0), rgb,
            1.0,
        )  # fmt: skip
    if model in (MOTORCYCLE_MODEL, BICYCLE_MODEL):
        heavy = model == MOTORCYCLE_MODEL
        if heavy:
            row = _put(
                parts, kinds, colors, row, MOTORCYCLE, pose, 0.0, 0.0, 0.0, 0.64, hx, 0.11, none,
                dark, 1.2,
            )  # fmt: skip
            row = _put(
                parts, kinds, colors, row, BOX, pose, 0.0, 0.0, 0.55, 0.95, 0.62 * hx, 0.17,
                (0.5, 0.25), rgb, 1.0,
            )  # fmt: skip
        else:
            row = _put(
                parts, kinds, colors, row, BICYCLE, pose, 0.0, 0.0, 0.0, 1.0, hx, 0.04, none, dark,
                1.3,
            )  # fmt: skip
        saddle = 0.8 if heavy else 0.95
        if near:
            stroke = 0.12 * _swing(pose[5] / 4.0) if moving and not heavy else 0.0
            for side in (-1.0, 1.0):
                low = 0.3 + side * stroke if not heavy else 0.35
                row = _put(
                    parts, kinds, colors, row, BOX, pose, 0.06, 0.16 * side, low, saddle + 0.06,
                    0.08, 0.07, (-0.12, 0.12), trousers, 1.0,
                )  # fmt: skip
        tall = max(height, saddle + 0.7)
        shirt, helmet = rgb, (-1.0, 0.0, 0.0)
        if heavy:
            shirt = (0.4 * rgb[0] + 18.0, 0.4 * rgb[1] + 18.0, 0.4 * rgb[2] + 20.0)
            helmet = rgb
        looks = (shirt, trousers, helmet)
        return _add_person(parts, kinds, colors, row, pose, saddle, tall, 0.22, 0.0, 0, near, looks)
    if model == PEDESTRIAN_MODEL:
        step = 0.22 * height * _swing(pose[5] / (0.85 * height)) if moving else 0.0
        dim = 0.7 + 0.9 * hash_unit(int(rgb[1]), int(rgb[0]) + 11)
        looks = (
            rgb,
            (dim * trousers[0], dim * trousers[1], dim * trousers[2]),
            (-1.0, 0.0, 0.0),
        )
        legs = 2 if near else 1
        return _add_person(
            parts, kinds, colors, row, pose, 0.49 * height, height, 0.0, step, legs, near, looks
        )
    if model == CONE_MODEL:
        row = _put(
            parts, kinds, colors, row, BOX, pose, 0.0, 0.0, 0.0, 0.06, hx, hy, none, dark, 1.0
        )
        radius = 0.82 * min(hx, hy)
        return _put(
            parts, kinds, colors, row, CONE, pose, 0.0, 0.0, 0.05, height, radius, radius, none,
            (255.0, 92.0, 26.0), 1.0,
        )  # fmt: skip
    return _put(
        parts, kinds, colors, row, BARRIER, pose, 0.0, 0.0, 0.0, height, hx, hy, none,
        (226.0, 226.0, 222.0), 1.0,
    )  # fmt: skip


@jit
def add_lamps(lamps, row, model, length, width, height, pose, braking, dark):
    """Write an agent's lamps that face the camera; return the row after them.

    A row of ``lamps`` is x, y, z relative to the camera, radius in m, red, green, blue, strength.
    Lamps that shine without glowing (tail lamps by day) are left out.
    """
    if model > BICYCLE_MODEL:
        return row
    # Behind the vehicle or before it.
    toward = -(pose[0] * pose[3] + pose[1] * pose[4])
    hx, hy = 0.5 * length, 0.5 * width
    up = 0.75
    if model == CAR_MODEL:
        up = 0.42 * height
    elif model in (TRUCK_MODEL, BUS_MODEL):
        up = 0.85
    single = model in (MOTORCYCLE_MODEL, BICYCLE_MODEL)
    if toward > 0.0:
        if not dark and single:
            return row
        along, red, green, blue, radius = hx, 255.0, 244.0, 214.0, 0.55
        strength = 1.0 if dark else 0.35
        if model == BICYCLE_MODEL:
            strength *= 0.5
    elif braking or dark:
        along, red, green, blue, radius = -hx, 255.0, 26.0, 18.0, 0.45
        strength = 0.85 if braking else 0.12
    else:
        return row
    for side in (-1.0, 1.0):
        across = 0.0 if single else 0.78 * side * hy
        lamps[row, 0] = pose[0] + pose[3] * along - pose[4] * across
        lamps[row, 1] = pose[1] + pose[4] * along + pose[3] * across
        lamps[row, 2] = pose[2] + up
        lamps[row, 3] = radius
        lamps[row, 4], lamps[row, 5], lamps[row, 6], lamps[row, 7] = red, green, blue, strength
        row += 1
        if single:
            break
    return row
