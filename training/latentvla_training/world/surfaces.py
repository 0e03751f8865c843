"""Kernels that colour the parts: facades, leaves, signal heads, vehicles, cones and barriers."""

# mypy: ignore-errors

from __future__ import annotations

import math

from latentvla_training.world.atmosphere import (
    AMBIENT,
    FACADE,
    HEADLIGHTS,
    LIT_WINDOWS,
    SKY_HORIZON,
    SKY_TOP,
    SUN,
    SUN_STRENGTH,
)
from latentvla_training.world.backdrop import hash_unit, value_noise
from latentvla_training.world.lamplight import headlight
from latentvla_training.world.ray_casting import (
    BARRIER,
    BODY,
    BUILDING,
    BUS,
    CABIN,
    CARGO,
    CHASSIS,
    CONE,
    CROWN,
    HEAD,
    MOTORCYCLE,
    SIGNAL,
    TRUCK_CAB,
    VAN,
    VAN_TOP,
    clamp,
    leaf,
)

#: Faces of a part.
FRONT, REAR, SIDE, TOP, BOTTOM = 0, 1, 2, 3, 4
_TYRE, _RIM = (22.0, 22.0, 24.0), (120.0, 122.0, 125.0)


@leaf
def _facade(identity, face, x, y, up, hx, hy, hz, rgb, spacing, air):
    """Return red, green, blue, emission of a wall: windows, a ground floor, light behind some."""
    red, green, blue = rgb[0] * air[FACADE], rgb[1] * air[FACADE + 1], rgb[2] * air[FACADE + 2]
    if face >= TOP:
        return 0.6 * red + 40.0, 0.6 * green + 40.0, 0.6 * blue + 40.0, 0.0
    along, half = (y, hy) if face < SIDE else (x, hx)
    wall = 1 + face if face < SIDE else (3 if y > 0.0 else 4)
    pitch = 2.5 + 1.3 * hash_unit(identity, 71)
    wide = 0.16 + 0.12 * hash_unit(identity, 73)
    columns = max(math.floor(2.0 * half / pitch), 1.0)
    floors = max(math.floor(2.0 * hz / 3.2), 1.0)
    s, r = (along + half) / (2.0 * half) * columns, up / (2.0 * hz) * floors
    part_s, part_r = s - math.floor(s), r - math.floor(r)
    shop = r < 1.0 and hash_unit(identity, 79) < 0.4
    if shop:
        window = 0.07 < part_s < 0.93 and 0.12 < part_r < 0.74
    else:
        window = wide < part_s < 1.0 - wide and 0.28 < part_r < 0.80
    if r < 1.0 and not shop:
        red, green, blue = 0.86 * red, 0.86 * green, 0.86 * blue
    draw = hash_unit(int(s) + 64 * wall, int(r) + 131 * identity)
    lit_share = air[LIT_WINDOWS]
    fade = clamp((spacing - 0.3) / 0.7, 0.0, 1.0)
    mean = (1.0 - 2.0 * wide) * 0.52
    share = (1.0 - fade) * (1.0 if window else 0.0) + fade * mean
    lit = (1.0 - fade) * (1.0 if window and draw < lit_share else 0.0) + fade * mean * lit_share
    shade = 0.35 + 0.35 * draw
    red += share * (air[SKY_TOP] * shade * 0.6 + 20.0 - red)
    green += share * (air[SKY_TOP + 1] * shade * 0.6 + 22.0 - green)
    blue += share * (air[SKY_TOP + 2] * shade * 0.6 + 26.0 - blue)
    if lit > 0.0:
        warm = 0.55 + 0.45 * hash_unit(int(s) + 17 * wall, int(r) + 31 * identity)
        red += lit * (236.0 * warm - red)
        green += lit * (190.0 * warm - green)
        blue += lit * (118.0 * warm + 10.0 - blue)
    return red, green, blue, lit


@leaf
def _lamp_disc(source, state, lamps, y, z, spacing):
    """Return red, green, blue, emission of the face of a signal head."""
    radius = max(0.45, 0.75 * spacing)
    for lamp in range(3):
        ly, lz = y - lamps[source, lamp, 0], z - lamps[source, lamp, 1]
        if ly * ly + lz * lz < radius * radius:
            glow = lamp == state
            if lamp == 0:
                return (255.0, 38.0, 28.0, 1.0) if glow else (52.0, 20.0, 20.0, 0.0)
            if lamp == 1:
                return (255.0, 196.0, 20.0, 1.0) if glow else (50.0, 42.0, 18.0, 0.0)
            return (30.0, 255.0, 120.0, 1.0) if glow else (16.0, 46.0, 34.0, 0.0)
    return 24.0, 25.0, 28.0, 0.0


@leaf
def _tail_lamp(braking, dark):
    if braking:
        return 255.0, 22.0, 18.0, 1.0
    if dark:
        return 118.0, 8.0, 8.0, 1.0
    return 112.0, 12.0, 14.0, 0.0


@leaf
def _glass(air):
    return (
        34.0 + 0.10 * air[SKY_HORIZON],
        40.0 + 0.10 * air[SKY_HORIZON + 1],
        48.0 + 0.11 * air[SKY_HORIZON + 2],
    )


@leaf
def _wheel(reach, up, radius, sill):
    """Return 2 on a rim, 1 on tyre or sill, 0 on the body; ``reach`` m from the nearest axle."""
    rise = up - 0.92 * radius
    off = reach * reach + rise * rise
    if off < 0.2 * radius * radius:
        return 2
    return 1 if off < radius * radius or up < sill else 0


@leaf
def _car(kind, face, x, y, up, hx, hy, hz, rgb, braking, air):
    """Return red, green, blue, emission of a passenger car's body or cabin."""
    red, green, blue = rgb
    relative = up / (2.0 * hz)
    dark = air[HEADLIGHTS] > 0.0
    if kind == CABIN:
        pillar = face == SIDE and abs(x + 0.1 * hx) < 0.06
        if face == REAR and relative > 0.78 and abs(y) < 0.5 * hy and braking:
            return 255.0, 22.0, 18.0, 1.0
        if face < TOP and 0.1 < relative < 0.86 and not pillar:
            red, green, blue = _glass(air)
        return red, green, blue, 0.0
    if face == SIDE:
        wheel = _wheel(abs(abs(x) - 0.62 * hx), up, 0.36, 0.2)
        if wheel == 2:
            red, green, blue = _RIM
        elif wheel == 1:
            red, green, blue = _TYRE
        elif 0.62 < relative < 0.68 or abs(abs(x + 0.1 * hx) - 0.28 * hx) < 0.012:
            red, green, blue = 0.72 * red, 0.72 * green, 0.72 * blue
    elif face == REAR:
        if up < 0.3:
            red, green, blue = 30.0, 30.0, 32.0
        elif 0.42 < relative < 0.86 and abs(y) > 0.5 * hy:
            return _tail_lamp(braking, dark)
        elif 0.42 < relative < 0.66 and abs(y) < 0.3 * hy:
            red, green, blue = 205.0, 205.0, 200.0
    elif face == FRONT:
        if up < 0.3:
            red, green, blue = 30.0, 30.0, 32.0
        elif 0.55 < relative < 0.86 and abs(y) > 0.55 * hy:
            return 252.0, 250.0, 232.0, 1.0
        elif 0.35 < relative < 0.7 and abs(y) < 0.45 * hy:
            red, green, blue = 38.0, 38.0, 42.0
    return red, green, blue, 0.0


@leaf
def _van(kind, face, x, y, up, hx, hy, hz, rgb, braking, air):
    """Return red, green, blue, emission of a van's lower or upper half."""
    red, green, blue = rgb
    dark = air[HEADLIGHTS] > 0.0
    relative = up / (2.0 * hz)
    if kind == VAN_TOP:
        window = face == SIDE and x > 0.42 * hx and 0.06 < relative < 0.56
        if window or (face == FRONT and 0.06 < relative < 0.72):
            red, green, blue = _glass(air)
        elif face == SIDE and abs(x - 0.36 * hx) < 0.02:
            red, green, blue = 0.7 * red, 0.7 * green, 0.7 * blue
        elif face == REAR and abs(y) < 0.025:
            red, green, blue = 0.5 * red, 0.5 * green, 0.5 * blue
        elif face == REAR and 0.15 < relative < 0.62 and abs(y) < 0.8 * hy:
            red, green, blue = _glass(air)
        return red, green, blue, 0.0
    if face == SIDE:
        wheel = _wheel(abs(abs(x + 0.05 * hx) - 0.62 * hx), up, 0.37, 0.25)
        if wheel == 2:
            red, green, blue = _RIM
        elif wheel == 1:
            red, green, blue = _TYRE
        elif 0.60 < relative < 0.68:
            red, green, blue = 0.45 * red, 0.45 * green, 0.45 * blue
    elif face == REAR:
        if up < 0.4:
            red, green, blue = 28.0, 28.0, 30.0
        elif relative > 0.42 and abs(y) > 0.72 * hy:
            return _tail_lamp(braking, dark)
        elif abs(y) < 0.025:
            red, green, blue = 0.5 * red, 0.5 * green, 0.5 * blue
        elif 0.45 < relative < 0.6 and abs(y) < 0.28 * hy:
            red, green, blue = 205.0, 205.0, 200.0
    elif face == FRONT:
        if up < 0.35:
            red, green, blue = 30.0, 30.0, 32.0
        elif 0.52 < relative < 0.78 and abs(y) > 0.6 * hy:
            return 252.0, 250.0, 232.0, 1.0
        elif 0.4 < relative < 0.75 and abs(y) < 0.5 * hy:
            red, green, blue = 38.0, 38.0, 42.0
    return red, green, blue, 0.0


@leaf
def _truck(kind, face, x, y, up, hx, hy, hz, rgb, braking, air):
    """Return red, green, blue, emission of a truck's chassis, cab or box."""
    red, green, blue = rgb
    dark = air[HEADLIGHTS] > 0.0
    relative = up / (2.0 * hz)
    if kind == CHASSIS:
        if face == SIDE:
            rear_axle = min(abs(x + hx - 1.1), abs(x + hx - 2.3)) if hx > 4.5 else abs(x + hx - 1.7)
            wheel = _wheel(min(rear_axle, abs(hx - 1.2 - x)), up, 0.48, 0.0)
            if wheel == 2:
                red, green, blue = _RIM
            elif wheel == 1:
                red, green, blue = _TYRE
            elif up > 0.85:
                red, green, blue = 96.0, 98.0, 102.0
        elif face == REAR:
            if 0.6 < up < 0.95 and abs(y) > 0.6 * hy:
                return _tail_lamp(braking, dark)
            if 0.62 < up < 0.85 and abs(y) < 0.25 * hy:
                red, green, blue = 205.0, 205.0, 200.0
    elif kind == TRUCK_CAB:
        if face == FRONT:
            if 0.42 < relative < 0.85 and abs(y) < 0.92 * hy:
                red, green, blue = _glass(air)
            elif 0.06 < relative < 0.18 and abs(y) > 0.58 * hy:
                return 252.0, 250.0, 232.0, 1.0
            elif 0.05 < relative < 0.34 and abs(y) < 0.52 * hy:
                red, green, blue = 36.0, 36.0, 40.0
        elif face == SIDE and 0.42 < relative < 0.8 and x > -0.3 * hx and x < 0.86 * hx:
            red, green, blue = _glass(air)
    elif face == REAR:
        edge = min(hy - abs(y), min(up, 2.0 * hz - up))
        if abs(y) < 0.03 or edge < 0.07:
            red, green, blue = 0.45 * red, 0.45 * green, 0.45 * blue
        elif up < 0.28:
            stripe = y * 1.6
            white = stripe - math.floor(stripe) < 0.5
            red, green, blue = (225.0, 225.0, 222.0) if white else (200.0, 34.0, 30.0)
    elif face == SIDE:
        if 0.42 < relative < 0.62 and abs(x) < 0.6 * hx:
            red, green, blue = 0.55 * red, 0.6 * green, 0.68 * blue
        elif relative > 0.96 or relative < 0.03:
            red, green, blue = 0.5 * red, 0.5 * green, 0.5 * blue
    return red, green, blue, 0.0


@leaf
def _bus(face, x, y, up, hx, hy, hz, rgb, braking, air):
    """Return red, green, blue, emission of a bus: window bands, doors on its right, a sign."""
    red, green, blue = rgb
    dark = air[HEADLIGHTS] > 0.0
    relative = up / (2.0 * hz)
    light = 1.0 if dark else 0.0
    if face == SIDE:
        axle = min(abs(x - hx + 2.7), abs(x + hx - 3.2))
        wheel = _wheel(axle, up, 0.5, 0.28)
        bay = (x + hx) / 1.5
        pillar = bay - math.floor(bay) < 0.08
        door = y < 0.0 and (abs(x - hx + 1.2) < 0.65 or abs(x) < 0.7)
        if wheel == 2:
            red, green, blue = _RIM
        elif wheel == 1:
            red, green, blue = _TYRE
        elif (0.44 < relative < 0.80 and not pillar) or (door and 0.12 < relative < 0.80):
            if dark:
                return 190.0, 176.0, 130.0, 1.0
            red, green, blue = _glass(air)
        elif relative > 0.86:
            red, green, blue = 0.5 * red + 112.0, 0.5 * green + 112.0, 0.5 * blue + 110.0
    elif face == REAR:
        if 0.5 < relative < 0.8 and abs(y) < 0.8 * hy:
            red, green, blue = _glass(air)
        elif 0.7 < up < 1.3 and abs(y) > 0.7 * hy:
            return _tail_lamp(braking, dark)
        elif up < 0.4 or (0.6 < up < 1.2 and abs(y) < 0.45 * hy):
            red, green, blue = 36.0, 36.0, 40.0
    elif face == FRONT:
        if 0.84 < relative < 0.95 and abs(y) < 0.65 * hy:
            return 250.0, 158.0, 30.0, max(light, 0.8)
        if 0.34 < relative < 0.82 and abs(y) < 0.94 * hy:
            red, green, blue = _glass(air)
        elif 0.55 < up < 0.85 and abs(y) > 0.6 * hy:
            return 252.0, 250.0, 232.0, 1.0
        elif up < 0.4:
            red, green, blue = 30.0, 30.0, 32.0
    return red, green, blue, 0.0


@leaf
def _normal(kind, x, y, z, hx, hy, hz, slant_front, slant_rear):
    """Return the face of a part that a local point lies on, and its local unit normal."""
    if kind in (CROWN, HEAD):
        nx, ny, nz = x / (hx * hx), y / (hy * hy), z / (hz * hz)
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        return TOP, nx / length, ny / length, nz / length
    if kind == CONE:
        length = math.sqrt(x * x + y * y) + 1e-9
        return SIDE, 0.95 * x / length, 0.95 * y / length, 0.3
    up = z + hz
    front = x + slant_front * up - hx
    rear = -x + slant_rear * up - hx
    side, top = abs(y) - hy, abs(z) - hz
    if top >= front and top >= rear and top >= side:
        return (TOP, 0.0, 0.0, 1.0) if z > 0.0 else (BOTTOM, 0.0, 0.0, -1.0)
    if side >= front and side >= rear:
        return SIDE, 0.0, (1.0 if y > 0.0 else -1.0), 0.0
    if front >= rear:
        length = math.sqrt(1.0 + slant_front * slant_front)
        return FRONT, 1.0 / length, 0.0, slant_front / length
    length = math.sqrt(1.0 + slant_rear * slant_rear)
    return REAR, -1.0 / length, 0.0, slant_rear / length


@leaf
def shade(
    part, identity, kind, parts, colors, lit, source, lamps, x, y, z, place, spacing, beam, air
):
    """Return the colour of a part and how much of it is emitted.

    Args:
        lit: the state of a signal head, or whether an agent brakes.
        x, y, z: local point. place: the same relative to the camera, map axes.
        spacing: distance of samples there, m. beam: ``lamplight.headlight``.
    """
    hx, hy, hz = parts[part, 3], parts[part, 4], parts[part, 5]
    cos, sin = parts[part, 6], parts[part, 7]
    face, nx, ny, nz = _normal(kind, x, y, z, hx, hy, hz, parts[part, 8], parts[part, 9])
    rgb = (colors[part, 0], colors[part, 1], colors[part, 2])
    red, green, blue = rgb
    emission = 0.0
    up = z + hz
    braking = lit > 0.0
    if kind == BUILDING:
        red, green, blue, emission = _facade(
            identity, face, x, y, up, hx, hy, hz, rgb, spacing, air
        )
    elif kind == CROWN:
        across = x + 0.7 * y + 5.0 * identity
        leaf = 0.6 * value_noise(2.3 * across, 2.3 * z - 1.1 * y)
        leaf += 0.4 * value_noise(6.1 * across, 6.1 * z + 2.9 * y)
        leaf = 1.0 + (leaf - 0.5) * 0.8 * clamp(1.0 - spacing, 0.0, 1.0)
        leaf *= 0.72 + 0.28 * (z / hz)
        red, green, blue = red * leaf, green * leaf, blue * leaf
    elif kind == SIGNAL:
        if face == FRONT:
            red, green, blue, emission = _lamp_disc(source, int(lit), lamps, y, z, spacing)
    elif kind in (BODY, CABIN):
        red, green, blue, emission = _car(kind, face, x, y, up, hx, hy, hz, rgb, braking, air)
    elif kind in (VAN, VAN_TOP):
        red, green, blue, emission = _van(kind, face, x, y, up, hx, hy, hz, rgb, braking, air)
    elif kind in (CHASSIS, TRUCK_CAB, CARGO):
        red, green, blue, emission = _truck(kind, face, x, y, up, hx, hy, hz, rgb, braking, air)
    elif kind == BUS:
        red, green, blue, emission = _bus(face, x, y, up, hx, hy, hz, rgb, braking, air)
    elif kind == MOTORCYCLE:
        radius = 0.29 * hx
        reach, rise = abs(x) - hx + radius, up - radius
        if face == REAR and up > 0.4:
            red, green, blue, emission = _tail_lamp(braking, air[HEADLIGHTS] > 0.0)
        elif face == FRONT and up > 0.4:
            red, green, blue, emission = 252.0, 250.0, 232.0, 1.0
        elif face == SIDE and reach * reach + rise * rise < 0.25 * radius * radius:
            red, green, blue = _RIM
    elif kind == CONE:
        relative = up / (2.0 * hz)
        if 0.30 < relative < 0.48 or 0.62 < relative < 0.76:
            red, green, blue = 238.0, 238.0, 234.0
    elif kind == BARRIER:
        along = y if hy > hx else x
        stripe = 1.4 * (along + up)
        if up < 0.18 * hz:
            red, green, blue = 74.0, 76.0, 80.0
        elif stripe - math.floor(stripe) < 0.5:
            red, green, blue = 208.0, 30.0, 28.0
    mx, my = cos * nx - sin * ny, sin * nx + cos * ny
    sun = mx * air[SUN] + my * air[SUN + 1] + nz * air[SUN + 2]
    light = air[AMBIENT] * (0.82 + 0.18 * nz) + air[SUN_STRENGTH] * max(sun, 0.0)
    if air[HEADLIGHTS] > 0.0:
        # Seen from beside the lamps, so what faces the camera faces them.
        facing = -(mx * place[0] + my * place[1] + nz * place[2])
        facing /= math.sqrt(place[0] * place[0] + place[1] * place[1] + place[2] * place[2])
        beam_light = headlight(place[0], place[1], place[2], beam)
        light += air[HEADLIGHTS] * beam_light * (0.3 + 0.7 * max(facing, 0.0))
    light += emission * (1.0 - light)
    return red * light, green * light, blue * light, emission
