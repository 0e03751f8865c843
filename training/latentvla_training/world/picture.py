"""The two kernels of a camera: its picture, and the range and class of what each pixel shows.

Numba's cache notices changes in the file of a cached function only, and these two are compiled with
everything they call. So only they are cached, and a digest of all kernels' sources, closed over, is
part of the key under which the cache holds them.
"""

# mypy: ignore-errors

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from types import ModuleType

import numba
import numpy as np

from latentvla_training.world import (
    actor_shapes,
    atmosphere,
    backdrop,
    lamplight,
    ray_casting,
    scene_parts,
    surfaces,
)
from latentvla_training.world.atmosphere import (
    AMBIENT,
    ASPHALT,
    GLOW,
    GRASS,
    HEADLIGHTS,
    SKY_HORIZON,
    SKY_TOP,
    SUN,
    SUN_STRENGTH,
    TEXTURE,
    WETNESS,
)
from latentvla_training.world.backdrop import ground, ground_class, sky, transmission, value_noise
from latentvla_training.world.lamplight import add_glow, add_pool, add_rain, headlight
from latentvla_training.world.ray_casting import (
    BODY,
    BOX,
    BUS,
    CHASSIS,
    CROWN,
    SHADOW_RANGE_M,
    VAN,
    cast_shadow,
    clamp,
    draw_parts,
    jit,
    leaf,
    write_corners,
)
from latentvla_training.world.scene_parts import gather
from latentvla_training.world.surfaces import shade

#: ``SemanticClass.SKY``.
_SKY_CLASS = 0


def source_digest(*modules: ModuleType) -> int:
    """Return a number that changes with the source text of any of ``modules``."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(module.__file__).read_bytes())
    return int.from_bytes(digest.digest()[:6], "little")


@jit
def _shadows(parts, kinds, first_agent, count, view, air, owner, shadow):
    """Mark ground samples: 2 behind which the sun is hidden, 3 below a vehicle."""
    corners = np.empty((8, 3))
    sun = np.array([air[SUN], air[SUN + 1], air[SUN + 2]])
    if air[SUN_STRENGTH] > 0.06:
        for part in range(count):
            x, y = parts[part, 0], parts[part, 1]
            # Of small things, as arms and heads, shadows are cast near by alone.
            reach = min(SHADOW_RANGE_M, 90.0 * max(parts[part, 3], parts[part, 5]))
            if x * x + y * y > reach * reach:
                continue
            write_corners(parts[part], corners)
            cast_shadow(
                kinds[part], parts[part], sun, view.eye[2], view.rays, corners, view.projection,
                owner, shadow, np.uint8(2),
            )  # fmt: skip
    zenith = np.array([0.0, 0.0, 1.0])
    for part in range(first_agent, count):
        kind = kinds[part]
        x, y = parts[part, 0], parts[part, 1]
        if x * x + y * y > SHADOW_RANGE_M**2:
            continue
        if kind in (BODY, VAN, CHASSIS, BUS):
            wide = parts[part].copy()
            wide[3] += 0.2
            wide[4] += 0.2
            write_corners(wide, corners)
            cast_shadow(
                BOX, wide, zenith, view.eye[2], view.rays, corners, view.projection, owner, shadow,
                np.uint8(3),
            )  # fmt: skip


@jit
def _pools(pool, moving, view, strength):
    """Fill ``pool`` (H, W) with the light of the other vehicles' headlights on the road."""
    eye, forward = view.eye, view.projection[2]
    for i in range(moving.model.shape[0]):
        if not moving.valid[i] or moving.model[i] > 4:
            continue
        x, y = moving.state[i, 0] - eye[0], moving.state[i, 1] - eye[1]
        if forward[0] * x + forward[1] * y < -20.0:
            continue
        yaw = moving.state[i, 2]
        pose = (x, y, -eye[2], math.cos(yaw), math.sin(yaw), 0.0)
        add_pool(pool, pose, 0.5 * moving.size[i, 0], view.rays, view.projection, strength)


@leaf
def _ground_color(row, column, rays, eye, beam, origin, tile_index, texels, air, sunlit, extra):
    """Return the colour of the ground at a pixel that looks down.

    ``sunlit`` is the share of the daylight that is not in a shadow, ``extra`` light of lamps.
    """
    dx = rays[0, 0] * column + rays[0, 1] * row + rays[0, 2]
    dy = rays[1, 0] * column + rays[1, 1] * row + rays[1, 2]
    dz = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
    inverse = 1.0 / dz
    t = -eye[2] * inverse
    right, down = rays[2, 0] * inverse, rays[2, 1] * inverse
    ux, uy = t * (rays[0, 0] - dx * right), t * (rays[1, 0] - dy * right)
    vx, vy = t * (rays[0, 1] - dx * down), t * (rays[1, 1] - dy * down)
    gx, gy = eye[0] + t * dx, eye[1] + t * dy
    red, green, blue, material = ground(gx, gy, ux, uy, vx, vy, origin, tile_index, texels)
    grass = max(1.0 - material / 128.0, 0.0)
    asphalt = max(material / 128.0 - 1.0, 0.0)
    plain = 1.0 - grass - asphalt
    light = (air[AMBIENT] + air[SUN_STRENGTH] * air[SUN + 2]) * sunlit
    if air[HEADLIGHTS] > 0.0:
        light += air[HEADLIGHTS] * headlight(t * dx, t * dy, -eye[2], beam) + extra
    patch = 0.0
    if t < 120.0:
        patch = value_noise(0.11 * gx, 0.11 * gy) - 0.5
        if t < 40.0:
            fine = value_noise(0.53 * gx, 0.53 * gy) - 0.5
            patch += 0.5 * (1.0 - 0.025 * t) * fine
        light *= 1.0 + air[TEXTURE] * (0.24 * grass + 0.09 * asphalt) * patch
    red *= light * (plain + asphalt * air[ASPHALT] + grass * air[GRASS])
    green *= light * (plain + asphalt * air[ASPHALT + 1] + grass * air[GRASS + 1])
    blue *= light * (plain + asphalt * air[ASPHALT + 2] + grass * air[GRASS + 2])
    if air[WETNESS] > 0.0:
        # Water mirrors the sky, the more the flatter the look and the deeper the puddle.
        down = -dz / math.sqrt(dx * dx + dy * dy + dz * dz)
        graze = (1.0 - down) * (1.0 - down)
        puddle = clamp(4.0 * (patch - 0.12), 0.0, 1.0)
        mirror = air[WETNESS] * (1.0 - grass) * (0.05 + (0.42 + 0.4 * puddle) * graze * graze)
        slope = min(1.7 * down, 1.0)
        for_red = air[SKY_HORIZON] + slope * (air[SKY_TOP] - air[SKY_HORIZON])
        for_green = air[SKY_HORIZON + 1] + slope * (air[SKY_TOP + 1] - air[SKY_HORIZON + 1])
        for_blue = air[SKY_HORIZON + 2] + slope * (air[SKY_TOP + 2] - air[SKY_HORIZON + 2])
        red += mirror * (for_red - red)
        green += mirror * (for_green - green)
        blue += mirror * (for_blue - blue)
    haze = 1.0 - transmission(t, air)
    return (
        red + haze * (air[SKY_HORIZON] - red),
        green + haze * (air[SKY_HORIZON + 1] - green),
        blue + haze * (air[SKY_HORIZON + 2] - blue),
    )


@jit
def _picture(image, view, standing, moving, floor, air, seed, lens):
    height, width = image.shape[0], image.shape[1]
    # Taken out of their tuples once: inside the loop each look into a tuple counts references.
    rays, eye, beam, head_lamps = view.rays, view.eye, view.beam, standing.lamps
    origin, tile_index, texels = floor.origin, floor.tile_index, floor.texels
    dark = air[HEADLIGHTS] > 0.0
    parts, colors, kinds, identity, lit, sources, _, count, first_agent, lamps, lamp_count = gather(
        view, standing, moving, air[GLOW], dark
    )
    depth = np.full((2 * height, 2 * width), np.float32(1e9), np.float32)
    owner = np.full((2 * height, 2 * width), np.int32(-1), np.int32)
    draw_parts(parts, kinds, count, rays, view.projection, depth, owner, 2)
    shadow = np.zeros((2 * height, 2 * width), np.uint8)
    _shadows(parts, kinds, first_agent, count, view, air, owner, shadow)
    pool = np.zeros((height, width) if dark else (1, 1), np.float32)
    if dark:
        _pools(pool, moving, view, 0.5)
    step = 0.5 * math.sqrt(rays[0, 0] ** 2 + rays[1, 0] ** 2 + rays[2, 0] ** 2)
    sunless = air[AMBIENT] / (air[AMBIENT] + air[SUN_STRENGTH] * air[SUN + 2])
    for row in range(height):
        sky_r = sky_g = sky_b = 0.0
        sky_column, sunlit = -2, 1.0
        for column in range(width):
            red = green = blue = 0.0
            open_samples, shade_samples, shaded = 0, 0, 0.0
            # Inside one wall or crown two samples, diagonally, do.
            first = owner[2 * row, 2 * column]
            stride = 1
            if (
                first >= 0
                and (kinds[first] <= CROWN)
                and first == owner[2 * row, 2 * column + 1]
                and first == owner[2 * row + 1, 2 * column]
                and first == owner[2 * row + 1, 2 * column + 1]
            ):
                stride = 3
            weight = 2.0 if stride == 3 else 1.0
            for sample in range(0, 4, stride):
                r, c = 2 * row + (sample >> 1), 2 * column + (sample & 1)
                part = owner[r, c]
                if part < 0:
                    open_samples += 1
                    if sample == 0 or sample == 3:
                        shade_samples += 1
                    if shadow[r, c] == 2:
                        shaded += 1.0 - sunless
                    elif shadow[r, c] == 3:
                        shaded += 1.0 - 0.5 * sunless
                    continue
                t = float(depth[r, c])
                u, v = 0.5 * c - 0.25, 0.5 * r - 0.25
                place = (
                    t * (rays[0, 0] * u + rays[0, 1] * v + rays[0, 2]),
                    t * (rays[1, 0] * u + rays[1, 1] * v + rays[1, 2]),
                    t * (rays[2, 0] * u + rays[2, 1] * v + rays[2, 2]),
                )
                x, y, z = place[0] - parts[part, 0], place[1] - parts[part, 1], place[2]
                cos, sin = parts[part, 6], parts[part, 7]
                x, y, z = cos * x + sin * y, -sin * x + cos * y, z - parts[part, 2]
                sr, sg, sb, emission = shade(
                    part, identity[part], kinds[part], parts, colors, lit[part], sources[part],
                    head_lamps, x, y, z, place, t * step, beam, air,
                )  # fmt: skip
                clear = transmission(t, air)
                if emission > 0.0:
                    # Haze scatters a lamp's light mostly forwards: it is seen farther.
                    clear += emission * (math.sqrt(clear) - clear)
                red += weight * (clear * sr + (1.0 - clear) * air[SKY_HORIZON])
                green += weight * (clear * sg + (1.0 - clear) * air[SKY_HORIZON + 1])
                blue += weight * (clear * sb + (1.0 - clear) * air[SKY_HORIZON + 2])
            if open_samples > 0:
                extra = float(pool[row, column]) if dark else 0.0
                if shade_samples > 0:  # else as beside it
                    sunlit = 1.0 - shaded / shade_samples
                dz = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
                if dz < -1e-4:
                    sr, sg, sb = _ground_color(
                        row, column, rays, eye, beam, origin, tile_index, texels, air, sunlit, extra
                    )
                else:
                    dx = rays[0, 0] * column + rays[0, 1] * row + rays[0, 2]
                    dy = rays[1, 0] * column + rays[1, 1] * row + rays[1, 2]
                    # Well above the hills the sky is smooth: every second pixel repeats the last.
                    if column % 2 == 0 or sky_column != column - 1:
                        sky_r, sky_g, sky_b = sky(dx, dy, dz, air)
                        if dz * dz > 0.01 * (dx * dx + dy * dy):
                            sky_column = column
                    sr, sg, sb = sky_r, sky_g, sky_b
                red += open_samples * sr
                green += open_samples * sg
                blue += open_samples * sb
            image[row, column, 0] = np.uint8(clamp(0.25 * red + 0.5, 0.0, 255.0))
            image[row, column, 1] = np.uint8(clamp(0.25 * green + 0.5, 0.0, 255.0))
            image[row, column, 2] = np.uint8(clamp(0.25 * blue + 0.5, 0.0, 255.0))
    if air[GLOW] > 0.0:
        wet = air[WETNESS] if air[WETNESS] > 0.5 else 0.0
        scale = width / 256.0
        add_glow(image, depth, lamps, lamp_count, view.projection, scale, wet, view.eye[2])
    if air[WETNESS] > 0.5:
        add_rain(image, air[WETNESS], seed, lens)


@jit
def _ranges(depth_m, semantic, view, standing, moving, floor):
    height, width = depth_m.shape
    rays, eye = view.rays, view.eye
    parts, _, kinds, _, _, _, classes, count, _, _, _ = gather(view, standing, moving, 0.0, False)
    depth = np.full((height, width), np.float32(1e9), np.float32)
    owner = np.full((height, width), np.int32(-1), np.int32)
    draw_parts(parts, kinds, count, rays, view.projection, depth, owner, 1)
    for row in range(height):
        for column in range(width):
            if owner[row, column] >= 0:
                depth_m[row, column] = depth[row, column]
                semantic[row, column] = classes[owner[row, column]]
                continue
            dz = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
            if dz < -1e-4:
                t = -eye[2] / dz
                x = eye[0] + t * (rays[0, 0] * column + rays[0, 1] * row + rays[0, 2])
                y = eye[1] + t * (rays[1, 0] * column + rays[1, 1] * row + rays[1, 2])
                depth_m[row, column] = t
                semantic[row, column] = ground_class(
                    x, y, floor.origin, floor.tile_index, floor.classes
                )
            else:
                depth_m[row, column] = np.inf
                semantic[row, column] = _SKY_CLASS


def _cached_kernels(digest):
    """Return the two kernels, compiled and cached for sources of this digest."""
    cached = numba.njit(cache=True, nogil=True, error_model="numpy")

    @cached
    def draw_picture(image, view, standing, moving, floor, air, seed, lens):
        """Render one image (H, W, 3) uint8; ``seed`` and ``lens`` of the falling rain."""
        if digest != 0:
            _picture(image, view, standing, moving, floor, air, seed, lens)

    @cached
    def draw_ranges(depth_m, semantic, view, standing, moving, floor):
        """Write optical depth (H, W) float32, inf in the sky, and class (H, W) uint8."""
        if digest != 0:
            _ranges(depth_m, semantic, view, standing, moving, floor)

    return draw_picture, draw_ranges


draw_picture, draw_ranges = _cached_kernels(
    source_digest(actor_shapes, atmosphere, backdrop, lamplight, ray_casting, scene_parts, surfaces)
)
