"""What one picture shows: camera, standing and moving things, and the parts of what is in range.

``gather`` is the kernel that turns them into parts relative to the camera.
"""

# mypy: ignore-errors

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.actor_shapes import MAX_LAMPS, MAX_PARTS, add_agent, add_lamps
from latentvla_training.world.ray_casting import jit

Array = NDArray[np.float64]

#: Parts farther than this are not drawn, m; agents nearer.
PART_RANGE_M, AGENT_RANGE_M = 220.0, 160.0
#: Half size of a signal head seen from behind, m.
_HEAD_BACK_M = (0.17, 0.55)
_LAMP_COLORS = np.array([[255.0, 40.0, 28.0], [255.0, 180.0, 30.0], [40.0, 255.0, 120.0]])


class View(NamedTuple):
    """A pinhole camera in the map frame.

    ``rays`` (3, 3): rays @ (u, v, 1) is the map direction of a pixel with optical depth 1;
    ``projection`` (3, 3) its inverse; ``eye`` (3,) position; ``beam`` (5,) the ego's headlights:
    x, y, z relative to the camera, cos and sin of their heading.
    """

    rays: Array
    projection: Array
    eye: Array
    beam: Array


class Standing(NamedTuple):
    """What does not move: P parts in the map frame and S signal heads.

    ``kind`` (P,), ``geometry`` (P, 10), ``color`` (P, 3) 0-255, ``signal`` (P,) index of the signal
    that a head shows or -1, ``semantic`` (P,) class; ``lamps`` (S, 3, 2) y, z of the lamps in the
    frame of their head.
    """

    kind: NDArray[np.int64]
    geometry: Array
    color: Array
    signal: NDArray[np.int64]
    semantic: NDArray[np.uint8]
    lamps: Array


class Moving(NamedTuple):
    """One step of an episode: ``Episode``'s arrays of agents and signals, ``semantic`` (A,)."""

    model: NDArray[np.uint8]
    size: Array
    color: NDArray[np.uint8]
    state: Array
    valid: NDArray[np.bool_]
    braking: NDArray[np.bool_]
    semantic: NDArray[np.uint8]
    signals: NDArray[np.uint8]


class Floor(NamedTuple):
    """``GroundRaster`` as the kernels take it."""

    origin: Array
    tile_index: NDArray[np.int32]
    texels: NDArray[np.uint32]
    classes: NDArray[np.uint8]


@jit
def gather(view, standing, moving, glow, dark):
    """Return parts, colours, kinds, identity, lit, source, class, count, first agent, lamps, count.

    Everything in range and not behind the camera, relative to it.
    """
    eye, forward = view.eye, view.projection[2]
    chosen = np.empty(standing.kind.shape[0], np.int64)
    selected = 0
    for i in range(standing.kind.shape[0]):
        x, y = standing.geometry[i, 0] - eye[0], standing.geometry[i, 1] - eye[1]
        reach = abs(standing.geometry[i, 3]) + abs(standing.geometry[i, 4])
        reach += abs(standing.geometry[i, 5])
        if x * x + y * y > (PART_RANGE_M + reach) ** 2:
            continue
        # Shadows reach into the view from behind.
        if forward[0] * x + forward[1] * y + reach < -25.0:
            continue
        chosen[selected] = i
        selected += 1
    agents = moving.model.shape[0]
    capacity = selected + MAX_PARTS * agents
    parts, colors = np.empty((capacity, 10)), np.empty((capacity, 3))
    kinds, lit = np.empty(capacity, np.int64), np.zeros(capacity)
    sources = np.full(capacity, -1, np.int64)
    identity = np.zeros(capacity, np.int64)
    semantic = np.zeros(capacity, np.uint8)
    lamps = np.empty((selected + MAX_LAMPS * agents, 8))
    count = lamp_count = 0
    for k in range(selected):
        i = chosen[k]
        for column in range(10):
            parts[count, column] = standing.geometry[i, column]
        for axis in range(3):
            parts[count, axis] -= eye[axis]
            colors[count, axis] = standing.color[i, axis]
        kinds[count], semantic[count] = standing.kind[i], standing.semantic[i]
        identity[count] = i
        signal = standing.signal[i]
        if signal >= 0:
            sources[count] = signal
            state = moving.signals[signal]
            lit[count] = state
            cos, sin = parts[count, 6], parts[count, 7]
            if cos * parts[count, 0] + sin * parts[count, 1] > 0.0:
                # Lamps are oversized; from behind a head is slim, or it would hide other lamps.
                parts[count, 2] += parts[count, 5] - _HEAD_BACK_M[1]
                parts[count, 4], parts[count, 5] = _HEAD_BACK_M
            elif glow > 0.0:
                across, half = standing.lamps[signal, state, 0], parts[count, 3]
                lamps[lamp_count, 0] = parts[count, 0] + cos * half - sin * across
                lamps[lamp_count, 1] = parts[count, 1] + sin * half + cos * across
                lamps[lamp_count, 2] = parts[count, 2] + standing.lamps[signal, state, 1]
                lamps[lamp_count, 3] = 1.3
                for channel in range(3):
                    lamps[lamp_count, 4 + channel] = _LAMP_COLORS[state, channel]
                lamps[lamp_count, 7] = 0.55 * glow
                lamp_count += 1
        count += 1
    first_agent = count
    for i in range(agents):
        if not moving.valid[i]:
            continue
        x, y = moving.state[i, 0] - eye[0], moving.state[i, 1] - eye[1]
        if x * x + y * y > AGENT_RANGE_M**2 or forward[0] * x + forward[1] * y < -15.0:
            continue
        yaw = moving.state[i, 2]
        cos, sin = math.cos(yaw), math.sin(yaw)
        walked = cos * moving.state[i, 0] + sin * moving.state[i, 1]
        pose = (x, y, -eye[2], cos, sin, walked)
        speed = abs(moving.state[i, 3]) + abs(moving.state[i, 4])
        length, width, height = moving.size[i, 0], moving.size[i, 1], moving.size[i, 2]
        color = moving.color[i]
        rgb = (float(color[0]), float(color[1]), float(color[2]))
        distance = math.sqrt(x * x + y * y)
        after = add_agent(
            parts, kinds, colors, count, moving.model[i], length, width, height, rgb, pose,
            speed > 0.2, distance,
        )  # fmt: skip
        for part in range(count, after):
            lit[part] = 1.0 if moving.braking[i] else 0.0
            semantic[part] = moving.semantic[i]
        count = after
        if glow > 0.0:
            first = lamp_count
            lamp_count = add_lamps(
                lamps, lamp_count, moving.model[i], length, width, height, pose, moving.braking[i],
                dark,
            )  # fmt: skip
            for lamp in range(first, lamp_count):
                lamps[lamp, 7] *= glow
    return (
        parts, colors, kinds, identity, lit, sources, semantic, count, first_agent, lamps,
        lamp_count,
    )  # fmt: skip
