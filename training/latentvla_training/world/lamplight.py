"""Kernels of light at night and in bad weather: headlight beams, pools on the road, halos, rain."""

# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np

from latentvla_training.world.backdrop import hash_unit
from latentvla_training.world.ray_casting import clamp, jit, leaf, rectangle

#: Place of the lamps of the ego in its frame, m: ahead of the rear axle, above the ground.
LAMPS_AHEAD_M, LAMPS_UP_M = 3.9, 0.7
#: How far a vehicle's own headlights reach in the eyes of others, m; who is farther has no pool.
_POOL_M, _POOL_RANGE_M = 16.0, 90.0


@leaf
def headlight(x, y, z, beam):
    """Return the light of the ego's headlights at a point relative to the camera.

    ``beam`` (5,) is x, y, z of the lamps relative to the camera, cos and sin of their heading.
    Dipped: little goes above the lamps.
    """
    px, py, up = x - beam[0], y - beam[1], z - beam[2]
    ahead, across = beam[3] * px + beam[4] * py, -beam[4] * px + beam[3] * py
    if ahead <= 0.3:
        return 0.0
    spread = across / (0.30 * ahead + 0.9)
    light = 1.0 / (1.0 + spread * spread)
    light *= light
    far = ahead / 24.0
    light *= min(0.35 + 0.12 * ahead, 1.0) / (1.0 + far * far)
    above = up / (0.06 * ahead + 0.5)
    if above > 0.0:
        light *= 0.12 + 0.88 / (1.0 + above * above * above * above)
    return light


@jit
def add_pool(pool, pose, half_length, rays, projection, strength):
    """Add the light that a vehicle throws on the road before it to ``pool`` (H, W), at pixels."""
    if pose[0] * pose[0] + pose[1] * pose[1] > _POOL_RANGE_M * _POOL_RANGE_M:
        return
    height, width = pool.shape
    corners = np.empty((8, 3))
    for i in range(8):
        along = half_length + (_POOL_M if i & 1 else 0.0)
        across = 3.6 if i & 2 else -3.6
        corners[i, 0] = pose[0] + pose[3] * along - pose[4] * across
        corners[i, 1] = pose[1] + pose[4] * along + pose[3] * across
        corners[i, 2] = pose[2]
    left, top, right, bottom = rectangle(corners, projection, width, height, 1)
    for row in range(top, bottom):
        for column in range(left, right):
            dz = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
            if dz > -1e-4:
                continue
            t = pose[2] / dz
            x = t * (rays[0, 0] * column + rays[0, 1] * row + rays[0, 2]) - pose[0]
            y = t * (rays[1, 0] * column + rays[1, 1] * row + rays[1, 2]) - pose[1]
            ahead = pose[3] * x + pose[4] * y - half_length
            across = (-pose[4] * x + pose[3] * y) / (0.9 + 0.17 * ahead)
            if ahead > 0.0 and ahead < _POOL_M and abs(across) < 1.0:
                fade = (1.0 - across * across) * (1.0 - ahead / _POOL_M)
                pool[row, column] += strength * fade * min(ahead, 1.0)


@jit
def add_glow(image, depth, lamps, count, projection, scale, wet, eye_height):
    """Lay a halo around every lamp that nothing hides; on a wet road also its reflection.

    ``depth`` is of 2 x 2 samples a pixel; ``scale`` the width of the image in units of 256 pixels.
    """
    height, width = image.shape[0], image.shape[1]
    for k in range(count):
        x, y, z = lamps[k, 0], lamps[k, 1], lamps[k, 2]
        t = projection[2, 0] * x + projection[2, 1] * y + projection[2, 2] * z
        if t < 1.0:
            continue
        u = (projection[0, 0] * x + projection[0, 1] * y + projection[0, 2] * z) / t
        v = (projection[1, 0] * x + projection[1, 1] * y + projection[1, 2] * z) / t
        column, row = math.floor(u + 0.5), math.floor(v + 0.5)
        if column < 0 or column >= width or row < 0 or row >= height:
            continue
        if depth[2 * row, 2 * column] < t - 0.9:
            continue
        focal = math.sqrt(
            projection[0, 0] * projection[0, 0]
            + projection[0, 1] * projection[0, 1]
            + projection[0, 2] * projection[0, 2]
        )
        radius = min(lamps[k, 3] * focal / t + 1.6 * scale, 26.0 * scale)
        strength = lamps[k, 7]
        reach = math.ceil(radius)
        for r in range(max(row - reach, 0), min(row + reach + 1, height)):
            for c in range(max(column - reach, 0), min(column + reach + 1, width)):
                share = 1.0 - ((r - v) * (r - v) + (c - u) * (c - u)) / (radius * radius)
                if share > 0.0:
                    _lighten(image, r, c, lamps, k, strength * share * share)
        if wet > 0.0:
            # Mirrored in the road: as far below the ground as the lamp is above it, drawn long.
            foot = v + (z + eye_height) * focal / t
            last = min(int(foot + 0.8 * (foot - v)) + 1, height)
            half = max(0.6 * radius, 1.0)
            for r in range(max(int(foot), 0), last):
                fade = 1.0 - (r - foot) / (last - foot + 1.0)
                for c in range(max(int(u - half), 0), min(int(u + half) + 2, width)):
                    if depth[2 * r, 2 * c] < 1e8:
                        continue
                    across = (c - u) / (half + 0.5)
                    share = 1.0 - across * across
                    if share > 0.0:
                        _lighten(image, r, c, lamps, k, 0.4 * wet * strength * share * fade)


@leaf
def _lighten(image, row, column, lamps, k, share):
    for channel in range(3):
        value = image[row, column, channel]
        image[row, column, channel] = np.uint8(min(value + share * lamps[k, 4 + channel], 255.0))


@jit
def add_rain(image, wetness, seed, lens):
    """Draw falling drops as streaks, from ``seed``, and drops on the lens, from ``lens``."""
    height, width = image.shape[0], image.shape[1]
    scale = width / 256.0
    for k in range(int(150.0 * wetness)):
        u = hash_unit(seed + 3 * k, 11) * width
        v = hash_unit(seed + 5 * k, 23) * 1.1 * height - 0.1 * height
        length = (3.0 + 9.0 * hash_unit(seed + 7 * k, 37)) * scale
        strength = 0.10 + 0.16 * hash_unit(seed + 11 * k, 41)
        for i in range(int(length)):
            r, c = int(v) + i, int(u + 0.12 * i)
            if r >= 0 and r < height and c >= 0 and c < width:
                for channel in range(3):
                    value = image[r, c, channel]
                    image[r, c, channel] = np.uint8(value + strength * (205.0 - value))
    for k in range(int(7.0 * wetness)):
        u = hash_unit(lens + 13 * k, 53) * width
        v = hash_unit(lens + 17 * k, 59) * height
        radius = (1.5 + 2.5 * hash_unit(lens + 19 * k, 61)) * scale
        reach = math.ceil(radius)
        for r in range(max(int(v) - reach, 0), min(int(v) + reach + 1, height)):
            for c in range(max(int(u) - reach, 0), min(int(u) + reach + 1, width)):
                off = ((r - v) * (r - v) + (c - u) * (c - u)) / (radius * radius)
                if off < 1.0:
                    # A drop shows the scene upside down; its edge is dark.
                    mirror = int(clamp(2.0 * v - r - 3.0 * radius, 0.0, height - 1.0))
                    edge = 1.0 - 0.35 * off * off
                    for channel in range(3):
                        value = 0.35 * image[r, c, channel] + 0.65 * image[mirror, c, channel]
                        image[r, c, channel] = np.uint8(edge * value)
