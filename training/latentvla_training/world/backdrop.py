"""Kernels of what lies behind everything: the painted ground, the sky, and haze before both."""

# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np

from latentvla_training.world.atmosphere import (
    AMBIENT,
    CLOUDINESS,
    EXTINCTION,
    PHASE,
    SKY_HORIZON,
    SKY_TOP,
    SUN_STRENGTH,
)
from latentvla_training.world.ray_casting import clamp, leaf

TILE_BITS, LEVELS, RESOLUTION_M = 6, 6, 0.1
_MAX_TAPS = 8
#: The hills on the horizon are as far away, m.
_HILLS_M = 900.0
_LATTICE = np.random.default_rng(0).random((64, 64)).astype(np.float32)


@leaf
def hash_unit(x, y):
    """Return a number in [0, 1) that depends on two integers."""
    bits = np.uint32(np.uint32(x) * np.uint32(374761393) + np.uint32(y) * np.uint32(668265263))
    bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(1274126177))
    return float((bits ^ (bits >> np.uint32(16))) & np.uint32(0xFFFF)) / 65536.0


@leaf
def value_noise(x, y):
    """Return smooth noise in [0, 1) with unit cells, repeated every 64 cells."""
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    left, right, low, high = x0 & 63, (x0 + 1) & 63, y0 & 63, (y0 + 1) & 63
    below = _LATTICE[low, left] + fx * (_LATTICE[low, right] - _LATTICE[low, left])
    above = _LATTICE[high, left] + fx * (_LATTICE[high, right] - _LATTICE[high, left])
    return below + fy * (above - below)


@leaf
def transmission(distance, air):
    """Return the share of light that haze lets through; a rational stand-in for exp."""
    share = 1.0 / (1.0 + 0.0625 * distance * air[EXTINCTION])
    share *= share
    share *= share
    share *= share
    return share * share


@leaf
def ground(x, y, ux, uy, vx, vy, origin, tile_index, texels):
    """Return red, green, blue, material of the ground at a map point, filtered over a pixel.

    (ux, uy) and (vx, vy) are the steps on the ground of one pixel right and down. Near the camera
    the four texels around the point are weighted (bilinear); farther off, texels of a coarser level
    are averaged along the longer step.
    """
    length_u, length_v = math.sqrt(ux * ux + uy * uy), math.sqrt(vx * vx + vy * vy)
    if length_u > length_v:
        ux, uy, vx, vy, length_u, length_v = vx, vy, ux, uy, length_v, length_u
    gx, gy = (x - origin[0]) / RESOLUTION_M, (y - origin[1]) / RESOLUTION_M
    near = length_v < 2.0 * RESOLUTION_M
    level, taps, weight = 0, 4, 1
    part_x = part_y = np.int64(0)
    step_x = step_y = 0.0
    if near:
        gx, gy = gx - 0.5, gy - 0.5
        part_x = np.int64(16.0 * (gx - math.floor(gx)))
        part_y = np.int64(16.0 * (gy - math.floor(gy)))
    else:
        footprint = max(length_u, length_v / _MAX_TAPS) / RESOLUTION_M
        while footprint > 1.5 and level < LEVELS - 1:
            footprint *= 0.5
            level += 1
        taps = min(int(length_v / max(length_u, RESOLUTION_M)) + 1, _MAX_TAPS)
        step_x, step_y = vx / (RESOLUTION_M * taps), vy / (RESOLUTION_M * taps)
        gx -= 0.5 * (taps - 1) * step_x
        gy -= 0.5 * (taps - 1) * step_y
    # Level l of a tile has 4 ** (6 - l) texels.
    offset = (16384 - (16384 >> (2 * level))) // 3
    rows, columns = tile_index.shape
    # Two channels are summed in one integer, 16 bits apart.
    red_blue = green_material = np.int64(0)
    for tap in range(taps):
        column, row = math.floor(gx), math.floor(gy)
        if near:
            column += tap & 1
            row += tap >> 1
            weight = (part_x if tap & 1 else 16 - part_x) * (part_y if tap >> 1 else 16 - part_y)
        else:
            gx += step_x
            gy += step_y
        tile_column, tile_row = column >> TILE_BITS, row >> TILE_BITS
        tile = 0
        if 0 <= tile_row < rows and 0 <= tile_column < columns:
            tile = tile_index[tile_row, tile_column]
        inside = (((row & 63) >> level) << (TILE_BITS - level)) + ((column & 63) >> level)
        word = np.int64(texels[tile, offset + inside])
        red_blue += weight * (word & 0xFF00FF)
        green_material += weight * ((word >> 8) & 0xFF00FF)
    share = 1.0 / (256 if near else taps)
    return (
        share * (red_blue & 0xFFFF),
        share * (green_material & 0xFFFF),
        share * (red_blue >> 16),
        share * (green_material >> 16),
    )


@leaf
def ground_class(x, y, origin, tile_index, classes):
    """Return the class painted at a map point."""
    column = math.floor((x - origin[0]) / RESOLUTION_M)
    row = math.floor((y - origin[1]) / RESOLUTION_M)
    tile_column, tile_row = column >> TILE_BITS, row >> TILE_BITS
    tile = 0
    if 0 <= tile_row < tile_index.shape[0] and 0 <= tile_column < tile_index.shape[1]:
        tile = tile_index[tile_row, tile_column]
    return classes[tile, ((row & 63) << TILE_BITS) + (column & 63)]


@leaf
def sky(dx, dy, dz, air):
    """Return the colour of the sky in a direction (any length), hills on the horizon included."""
    inverse = 1.0 / max(math.sqrt(dx * dx + dy * dy), 1e-6)
    slope, east, north = dz * inverse, dx * inverse, dy * inverse
    horizon_r, horizon_g, horizon_b = air[SKY_HORIZON], air[SKY_HORIZON + 1], air[SKY_HORIZON + 2]
    if slope < 0.08:
        ridge = 0.012 + 0.05 * value_noise(3.0 * east + air[PHASE], 3.0 * north + 7.0)
        ridge += 0.012 * value_noise(11.0 * east + 3.0, 11.0 * north + air[PHASE])
        if slope < ridge - 0.012:
            light = air[AMBIENT] + 0.5 * air[SUN_STRENGTH]
            clear = 2.2 * transmission(_HILLS_M, air)
            clear = min(clear, 0.55)
            return (
                (1.0 - clear) * horizon_r + clear * 112.0 * light,
                (1.0 - clear) * horizon_g + clear * 131.0 * light,
                (1.0 - clear) * horizon_b + clear * 134.0 * light,
            )
    s = clamp(slope * 1.7, 0.0, 1.0)
    s = s * (2.0 - s)
    red = horizon_r + s * (air[SKY_TOP] - horizon_r)
    green = horizon_g + s * (air[SKY_TOP + 1] - horizon_g)
    blue = horizon_b + s * (air[SKY_TOP + 2] - horizon_b)
    if air[CLOUDINESS] <= 0.0:
        return red, green, blue
    reach = 1.0 / (slope + 0.12)
    x, y = east * reach + air[PHASE], north * reach
    cloud = 0.65 * value_noise(0.8 * x, 0.8 * y) + 0.35 * value_noise(2.3 * x, 2.3 * y)
    cover = clamp((cloud + 0.55 * air[CLOUDINESS] - 0.62) * 2.2, 0.0, 1.0) * min(slope * 6.0, 1.0)
    white = 238.0 * min(air[AMBIENT] + 0.6 * air[SUN_STRENGTH], 1.05)
    cover *= 0.75
    return (
        red + cover * (white - red),
        green + cover * (white - green),
        blue + cover * (white - blue),
    )
