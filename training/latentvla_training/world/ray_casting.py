"""Kernels of the cameras: visibility of boxes and ellipsoids, shading, shadows, ground and sky.

All kernels live in this one file because numba's cache notices changes of the file of the outermost
kernel only. They are single-threaded, release the GIL, use no fast-math and no transcendental
function, so the same input gives the same bytes.

A *part* is a box turned about z, or the ellipsoid in it, ``geometry`` (10,): centre x, y, z; half
size x, y, z; cos and sin of the yaw; slant of the front and of the rear face (m inwards per m up).
Objects are sampled 2x2 per pixel; ground and sky are filtered once per pixel.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

import numba
import numpy as np

BOX, BUILDING, CROWN, BODY, CABIN, VAN, SIGNAL, HEAD, BICYCLE = range(9)

#: Parts farther than this are not drawn, m; shadows and agents nearer.
PART_RANGE_M, AGENT_RANGE_M, SHADOW_RANGE_M = 220.0, 160.0, 70.0

_NEAR = 0.15
_HEAD_BACK_M = (0.17, 0.55)
_TILE_BITS, _LEVELS, _RESOLUTION_M = 6, 6, 0.1
_MAX_TAPS = 8
_LATTICE = np.random.default_rng(0).random((64, 64)).astype(np.float32)

_jit = numba.njit(cache=True, nogil=True, error_model="numpy")
_inline = numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")


@_jit
def _hash(x, y):
    """Return a number in [0, 1) that depends on two integers."""
    bits = np.uint32(np.uint32(x) * np.uint32(374761393) + np.uint32(y) * np.uint32(668265263))
    bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(1274126177))
    return float((bits ^ (bits >> np.uint32(16))) & np.uint32(0xFFFF)) / 65536.0


@_jit
def _value_noise(x, y):
    """Return smooth noise in [0, 1) with unit cells, repeated every 64 cells."""
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    left, right, low, high = x0 & 63, (x0 + 1) & 63, y0 & 63, (y0 + 1) & 63
    below = _LATTICE[low, left] + fx * (_LATTICE[low, right] - _LATTICE[low, left])
    above = _LATTICE[high, left] + fx * (_LATTICE[high, right] - _LATTICE[high, left])
    return below + fy * (above - below)


@_jit
def _clamp(value, low, high):
    return min(max(value, low), high)


@_jit
def _rectangle(corners, projection, width, height):
    """Return u0, v0, u1, v1 (half open, in samples) that holds a box's projection, clipped.

    Corners (8, 3) relative to the camera, numbered so that an edge flips one bit.
    """
    u0, v0, u1, v1 = 1e9, 1e9, -1e9, -1e9
    points = np.empty((8, 3))
    for i in range(8):
        for row in range(3):
            points[i, row] = (
                projection[row, 0] * corners[i, 0]
                + projection[row, 1] * corners[i, 1]
                + projection[row, 2] * corners[i, 2]
            )
    for i in range(8):
        if points[i, 2] > _NEAR:
            u, v = points[i, 0] / points[i, 2], points[i, 1] / points[i, 2]
            u0, v0, u1, v1 = min(u0, u), min(v0, v), max(u1, u), max(v1, v)
            for bit in range(3):
                other = i ^ (1 << bit)
                if points[other, 2] <= _NEAR:
                    s = (points[i, 2] - _NEAR) / (points[i, 2] - points[other, 2])
                    u = (points[i, 0] + s * (points[other, 0] - points[i, 0])) / _NEAR
                    v = (points[i, 1] + s * (points[other, 1] - points[i, 1])) / _NEAR
                    u0, v0, u1, v1 = min(u0, u), min(v0, v), max(u1, u), max(v1, v)
    left = int(_clamp(math.floor(2.0 * u0), 0.0, 2.0 * width))
    top = int(_clamp(math.floor(2.0 * v0), 0.0, 2.0 * height))
    right = int(_clamp(math.ceil(2.0 * u1) + 2.0, 0.0, 2.0 * width))
    bottom = int(_clamp(math.ceil(2.0 * v1) + 2.0, 0.0, 2.0 * height))
    return left, top, right, bottom


@_inline
def _hit(kind, hx, hy, hz, slant_front, slant_rear, ox, oy, oz, dx, dy, dz):
    """Return the ray parameter where o + t d enters a part, or -1 (also from inside)."""
    t = -1.0
    if kind in (CROWN, HEAD):
        ax, ay, az, bx, by, bz = dx / hx, dy / hy, dz / hz, ox / hx, oy / hy, oz / hz
        a = ax * ax + ay * ay + az * az
        b = ax * bx + ay * by + az * bz
        discriminant = b * b - a * (bx * bx + by * by + bz * bz - 1.0)
        if discriminant > 0.0:
            t = (-b - math.sqrt(discriminant)) / a
    else:
        inverse_y = 1.0 / (dy if abs(dy) > 1e-12 else 1e-12)
        inverse_z = 1.0 / (dz if abs(dz) > 1e-12 else 1e-12)
        y1, y2 = (-hy - oy) * inverse_y, (hy - oy) * inverse_y
        z1, z2 = (-hz - oz) * inverse_z, (hz - oz) * inverse_z
        near, far = max(min(y1, y2), min(z1, z2)), min(max(y1, y2), max(z1, z2))
        front = dx + slant_front * dz
        to_front = (hx - ox - slant_front * (oz + hz)) / (front if abs(front) > 1e-12 else 1e-12)
        rear = -dx + slant_rear * dz
        to_rear = (hx + ox - slant_rear * (oz + hz)) / (rear if abs(rear) > 1e-12 else 1e-12)
        if front > 0.0:
            far = min(far, to_front)
        else:
            near = max(near, to_front)
        if rear > 0.0:
            far = min(far, to_rear)
        else:
            near = max(near, to_rear)
        if near < far:
            t = near
    return t


@_jit
def _local_rays(geometry, rays):
    """Return (3, 3): the columns of ``rays`` in the frame of a part."""
    cos, sin = geometry[6], geometry[7]
    local = np.empty((3, 3))
    for column in range(3):
        local[0, column] = cos * rays[0, column] + sin * rays[1, column]
        local[1, column] = -sin * rays[0, column] + cos * rays[1, column]
        local[2, column] = rays[2, column]
    return local


@_jit
def _draw(part, kind, geometry, nearest, rays, corners, projection, depth, owner):
    """Enter a part, centre relative to the camera, into the depth and owner buffers."""
    height, width = depth.shape[0] // 2, depth.shape[1] // 2
    left, top, right, bottom = _rectangle(corners, projection, width, height)
    if left >= right or top >= bottom:
        return
    local = _local_rays(geometry, rays)
    cx, cy = geometry[0], geometry[1]
    ox = -(geometry[6] * cx + geometry[7] * cy)
    oy = -(-geometry[7] * cx + geometry[6] * cy)
    oz = -geometry[2]
    hx, hy, hz = geometry[3], geometry[4], geometry[5]
    front, rear = geometry[8], geometry[9]
    for row in range(top, bottom):
        v = 0.5 * row - 0.25
        bx = local[0, 1] * v + local[0, 2]
        by = local[1, 1] * v + local[1, 2]
        bz = local[2, 1] * v + local[2, 2]
        for column in range(left, right):
            if depth[row, column] < nearest:
                continue
            u = 0.5 * column - 0.25
            dx, dy, dz = bx + local[0, 0] * u, by + local[1, 0] * u, bz + local[2, 0] * u
            t = _hit(kind, hx, hy, hz, front, rear, ox, oy, oz, dx, dy, dz)
            if _NEAR < t < depth[row, column]:
                depth[row, column] = t
                owner[row, column] = part


@_jit
def _corners(geometry, corners):
    """Write the corners (8, 3) of a part."""
    for i in range(8):
        x = geometry[3] if i & 1 else -geometry[3]
        y = geometry[4] if i & 2 else -geometry[4]
        corners[i, 0] = geometry[0] + geometry[6] * x - geometry[7] * y
        corners[i, 1] = geometry[1] + geometry[7] * x + geometry[6] * y
        corners[i, 2] = geometry[2] + (geometry[5] if i & 4 else -geometry[5])


@_jit
def _cast_shadow(kind, geometry, sun, eye_height, rays, corners, projection, owner, shadow, value):
    """Mark the ground samples from which the sun is behind a part."""
    height, width = owner.shape[0] // 2, owner.shape[1] // 2
    for i in range(8):
        drop = (corners[i, 2] + eye_height) / sun[2]
        corners[i, 0] -= drop * sun[0]
        corners[i, 1] -= drop * sun[1]
        corners[i, 2] = -eye_height
    left, top, right, bottom = _rectangle(corners, projection, width, height)
    cos, sin = geometry[6], geometry[7]
    sx, sy = cos * sun[0] + sin * sun[1], -sin * sun[0] + cos * sun[1]
    hx, hy, hz = geometry[3], geometry[4], geometry[5]
    front, rear = geometry[8], geometry[9]
    for row in range(top, bottom):
        for column in range(left, right):
            if owner[row, column] >= 0 or shadow[row, column] >= value:
                continue
            u, v = 0.5 * column - 0.25, 0.5 * row - 0.25
            dz = rays[2, 0] * u + rays[2, 1] * v + rays[2, 2]
            if dz > -1e-6:
                continue
            t = -eye_height / dz
            x = t * (rays[0, 0] * u + rays[0, 1] * v + rays[0, 2]) - geometry[0]
            y = t * (rays[1, 0] * u + rays[1, 1] * v + rays[1, 2]) - geometry[1]
            z = -eye_height - geometry[2] - 1e-3
            x, y = cos * x + sin * y, -sin * x + cos * y
            if _hit(kind, hx, hy, hz, front, rear, x, y, z, sx, sy, sun[2]) > 0.0:
                shadow[row, column] = value


@_jit
def _ground(x, y, ux, uy, vx, vy, origin, tile_index, texels):
    """Return red, green, blue, material of the ground at a map point, filtered over a pixel.

    (ux, uy) and (vx, vy) are the steps on the ground of one pixel right and down. Near the camera
    the four texels around the point are weighted (bilinear); farther off, texels of a coarser level
    are averaged along the longer step.
    """
    length_u, length_v = math.sqrt(ux * ux + uy * uy), math.sqrt(vx * vx + vy * vy)
    if length_u > length_v:
        ux, uy, vx, vy, length_u, length_v = vx, vy, ux, uy, length_v, length_u
    gx, gy = (x - origin[0]) / _RESOLUTION_M, (y - origin[1]) / _RESOLUTION_M
    near = length_v < 2.0 * _RESOLUTION_M
    level, taps, weight = 0, 4, 1
    part_x = part_y = np.int64(0)
    step_x = step_y = 0.0
    if near:
        gx, gy = gx - 0.5, gy - 0.5
        part_x = np.int64(16.0 * (gx - math.floor(gx)))
        part_y = np.int64(16.0 * (gy - math.floor(gy)))
    else:
        footprint = max(length_u, length_v / _MAX_TAPS) / _RESOLUTION_M
        while footprint > 1.5 and level < _LEVELS - 1:
            footprint *= 0.5
            level += 1
        taps = min(int(length_v / max(length_u, _RESOLUTION_M)) + 1, _MAX_TAPS)
        step_x, step_y = vx / (_RESOLUTION_M * taps), vy / (_RESOLUTION_M * taps)
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
        tile_column, tile_row = column >> _TILE_BITS, row >> _TILE_BITS
        tile = 0
        if 0 <= tile_row < rows and 0 <= tile_column < columns:
            tile = tile_index[tile_row, tile_column]
        inside = (((row & 63) >> level) << (_TILE_BITS - level)) + ((column & 63) >> level)
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


@_jit
def _sky(dx, dy, dz, air):
    """Return the colour of the sky in a direction (any length), hills on the horizon included."""
    inverse = 1.0 / max(math.sqrt(dx * dx + dy * dy), 1e-6)
    slope, east, north = dz * inverse, dx * inverse, dy * inverse
    if slope < 0.08:
        ridge = 0.012 + 0.05 * _value_noise(3.0 * east + air[19], 3.0 * north + 7.0)
        ridge += 0.012 * _value_noise(11.0 * east + 3.0, 11.0 * north + air[19])
        if slope < ridge - 0.012:
            light = air[4] + 0.5 * air[3]
            return (
                0.45 * air[8] + 62.0 * light,
                0.45 * air[9] + 72.0 * light,
                0.45 * air[10] + 74.0 * light,
            )
    s = _clamp(slope * 1.7, 0.0, 1.0)
    s = s * (2.0 - s)
    red = air[8] + s * (air[5] - air[8])
    green = air[9] + s * (air[6] - air[9])
    blue = air[10] + s * (air[7] - air[10])
    reach = 1.0 / (slope + 0.12)
    x, y = east * reach + air[19], north * reach
    cloud = 0.65 * _value_noise(0.8 * x, 0.8 * y) + 0.35 * _value_noise(2.3 * x, 2.3 * y)
    cover = _clamp((cloud + 0.55 * air[17] - 0.62) * 2.2, 0.0, 1.0) * min(slope * 6.0, 1.0)
    white = 238.0 * min(air[4] + 0.6 * air[3], 1.05)
    cover *= 0.75
    return (
        red + cover * (white - red),
        green + cover * (white - green),
        blue + cover * (white - blue),
    )


@_jit
def _shade(part, identity, kind, parts, colors, lit, source, lamps, x, y, z, spacing, air):
    """Return the colour of a part at a local point; ``spacing`` is the distance of samples in m."""
    hx, hy, hz = parts[part, 3], parts[part, 4], parts[part, 5]
    cos, sin = parts[part, 6], parts[part, 7]
    red, green, blue = colors[part, 0], colors[part, 1], colors[part, 2]
    up = z + hz
    # Normal in the part's frame; face 0 front, 1 rear, 2 left or right, 3 top, 4 bottom.
    if kind in (CROWN, HEAD):
        nx, ny, nz = x / (hx * hx), y / (hy * hy), z / (hz * hz)
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx / length, ny / length, nz / length
        face = 3
    else:
        front = x + parts[part, 8] * up - hx
        rear = -x + parts[part, 9] * up - hx
        side, top = abs(y) - hy, abs(z) - hz
        nx = ny = nz = 0.0
        if top >= front and top >= rear and top >= side:
            nz = 1.0 if z > 0.0 else -1.0
            face = 3 if z > 0.0 else 4
        elif side >= front and side >= rear:
            ny = 1.0 if y > 0.0 else -1.0
            face = 2
        elif front >= rear:
            length = math.sqrt(1.0 + parts[part, 8] * parts[part, 8])
            nx, nz = 1.0 / length, parts[part, 8] / length
            face = 0
        else:
            length = math.sqrt(1.0 + parts[part, 9] * parts[part, 9])
            nx, nz = -1.0 / length, parts[part, 9] / length
            face = 1
    glow = False
    if kind == BUILDING and face < 3:
        along, half = (y, hy) if face < 2 else (x, hx)
        wall = 1 + face if face < 2 else (3 if y > 0.0 else 4)
        columns = max(math.floor(2.0 * half / 3.0), 1.0)
        floors = max(math.floor(2.0 * hz / 3.2), 1.0)
        s, r = (along + half) / (2.0 * half) * columns, up / (2.0 * hz) * floors
        window = 0.22 < s - math.floor(s) < 0.78 and 0.28 < r - math.floor(r) < 0.80
        shade = 0.35 + 0.35 * _hash(int(s) + 64 * wall, int(r) + 131 * identity)
        fade = _clamp((spacing - 0.3) / 0.7, 0.0, 1.0)
        share = (1.0 - fade) * (1.0 if window else 0.0) + fade * 0.29
        red += share * (air[5] * shade * 0.6 + 20.0 - red)
        green += share * (air[6] * shade * 0.6 + 22.0 - green)
        blue += share * (air[7] * shade * 0.6 + 26.0 - blue)
    elif kind == BUILDING and face == 3:
        red, green, blue = 0.6 * red + 40.0, 0.6 * green + 40.0, 0.6 * blue + 40.0
    elif kind == CROWN:
        across = x + 0.7 * y + 5.0 * identity
        leaf = 0.6 * _value_noise(2.3 * across, 2.3 * z - 1.1 * y)
        leaf += 0.4 * _value_noise(6.1 * across, 6.1 * z + 2.9 * y)
        leaf = 1.0 + (leaf - 0.5) * 0.8 * _clamp(1.0 - spacing, 0.0, 1.0)
        leaf *= 0.72 + 0.28 * (z / hz)
        red, green, blue = red * leaf, green * leaf, blue * leaf
    elif kind == SIGNAL:
        if face == 0:
            state = int(lit)
            radius = max(0.45, 0.75 * spacing)
            for lamp in range(3):
                ly, lz = y - lamps[source, lamp, 0], z - lamps[source, lamp, 1]
                if ly * ly + lz * lz < radius * radius:
                    glow = lamp == state
                    if lamp == 0:
                        red, green, blue = (255.0, 38.0, 28.0) if glow else (52.0, 20.0, 20.0)
                    elif lamp == 1:
                        red, green, blue = (255.0, 196.0, 20.0) if glow else (50.0, 42.0, 18.0)
                    else:
                        red, green, blue = (30.0, 255.0, 120.0) if glow else (16.0, 46.0, 34.0)
    elif kind == BODY:
        relative = up / (2.0 * hz)
        if face == 2:
            reach = abs(abs(x) - 0.62 * hx)
            rise = up - 0.33
            wheel = reach * reach + rise * rise
            if wheel < 0.16 * 0.16:
                red, green, blue = 120.0, 122.0, 125.0
            elif wheel < 0.36 * 0.36 or up < 0.2:
                red, green, blue = 22.0, 22.0, 24.0
        elif face == 1:
            if up < 0.3:
                red, green, blue = 30.0, 30.0, 32.0
            elif 0.42 < relative < 0.86 and abs(y) > 0.5 * hy:
                glow = lit > 0.0
                red, green, blue = (255.0, 22.0, 18.0) if glow else (112.0, 12.0, 14.0)
            elif 0.42 < relative < 0.66 and abs(y) < 0.3 * hy:
                red, green, blue = 205.0, 205.0, 200.0
        elif face == 0:
            if up < 0.3:
                red, green, blue = 30.0, 30.0, 32.0
            elif 0.55 < relative < 0.86 and abs(y) > 0.55 * hy:
                glow = True
                red, green, blue = 252.0, 250.0, 232.0
            elif 0.35 < relative < 0.7 and abs(y) < 0.45 * hy:
                red, green, blue = 38.0, 38.0, 42.0
    elif kind == CABIN:
        relative = up / (2.0 * hz)
        pillar = face == 2 and abs(x + 0.1 * hx) < 0.06
        if face == 1 and relative > 0.72 and abs(y) < 0.5 * hy and lit > 0.0:
            glow = True
            red, green, blue = 255.0, 22.0, 18.0
        elif face < 3 and 0.1 < relative < 0.86 and not pillar:
            red, green, blue = 34.0 + 0.10 * air[8], 40.0 + 0.10 * air[9], 48.0 + 0.11 * air[10]
    elif kind == VAN:
        if face == 2:
            reach = hx - abs(x) - 1.1
            rise = up - 0.45
            wheel = reach * reach + rise * rise
            if wheel < 0.2 * 0.2:
                red, green, blue = 115.0, 116.0, 118.0
            elif wheel < 0.48 * 0.48 or up < 0.35:
                red, green, blue = 22.0, 22.0, 24.0
            elif up > hz and up < 1.6 * hz and (x > hx - 1.9 and x < hx - 0.4):
                red, green, blue = 45.0, 54.0, 64.0
        elif face == 1:
            if up < 0.45:
                red, green, blue = 26.0, 26.0, 28.0
            elif 0.6 < up < 1.15 and abs(y) > 0.55 * hy:
                glow = lit > 0.0
                red, green, blue = (255.0, 22.0, 18.0) if glow else (112.0, 12.0, 14.0)
            elif abs(y) < 0.03 or up > 2.0 * hz - 0.12:
                red, green, blue = 0.55 * red, 0.55 * green, 0.55 * blue
        elif face == 0:
            if up < 0.45:
                red, green, blue = 26.0, 26.0, 28.0
            elif 0.6 < up < 1.0 and abs(y) > 0.55 * hy:
                glow = True
                red, green, blue = 252.0, 250.0, 232.0
            elif 1.0 * hz < up < 1.6 * hz and abs(y) < 0.9 * hy:
                red, green, blue = 45.0, 54.0, 64.0
    elif kind == BICYCLE:
        reach, rise = abs(x) - 0.6 * hx, up - 0.35
        wheel = reach * reach + rise * rise
        if wheel < 0.34 * 0.34:
            red, green, blue = 30.0, 30.0, 32.0
    if glow:
        return red, green, blue
    mx, my = cos * nx - sin * ny, sin * nx + cos * ny
    sun = mx * air[0] + my * air[1] + nz * air[2]
    light = air[4] * (0.82 + 0.18 * nz) + air[3] * max(sun, 0.0)
    return red * light, green * light, blue * light


@_jit
def _place(parts, kinds, row, kind, x, y, z, hx, hy, hz, cos, sin):
    """Write an upright part into a row of ``parts`` and ``kinds``."""
    parts[row, 0], parts[row, 1], parts[row, 2] = x, y, z
    parts[row, 3], parts[row, 4], parts[row, 5] = hx, hy, hz
    parts[row, 6], parts[row, 7], parts[row, 8], parts[row, 9] = cos, sin, 0.0, 0.0
    kinds[row] = kind


@_jit
def _add_agent(parts, kinds, row, agent, agent_type, agent_size, agent_state, eye):
    """Write the parts of one agent, relative to the camera at ``eye``; return how many (1 to 3)."""
    length, width, height = agent_size[agent, 0], agent_size[agent, 1], agent_size[agent, 2]
    x, y, floor = agent_state[agent, 0] - eye[0], agent_state[agent, 1] - eye[1], -eye[2]
    cos, sin = math.cos(agent_state[agent, 2]), math.sin(agent_state[agent, 2])
    hx, hy = 0.5 * length, 0.5 * width
    if agent_type[agent] == 0:
        if height >= 2.2 or length >= 6.5:
            hz = 0.5 * height
            _place(parts, kinds, row, VAN, x, y, floor + hz, hx, hy, hz, cos, sin)
            return 1
        hz = 0.29 * height
        _place(parts, kinds, row, BODY, x, y, floor + hz, hx, hy, hz, cos, sin)
        x, y, z = x - 0.07 * length * cos, y - 0.07 * length * sin, floor + 0.79 * height
        hx, hy, hz = 0.31 * length, 0.44 * width, 0.21 * height
        _place(parts, kinds, row + 1, CABIN, x, y, z, hx, hy, hz, cos, sin)
        parts[row + 1, 8] = 0.17 * length / (0.42 * height)
        parts[row + 1, 9] = 0.10 * length / (0.42 * height)
        return 2
    low = 0.24 * height
    if agent_type[agent] == 2:
        low = 0.29 * height
        _place(parts, kinds, row, BICYCLE, x, y, floor + low, hx, 0.06, low, cos, sin)
    else:
        _place(parts, kinds, row, BOX, x, y, floor + low, 0.14, 0.16, low, cos, sin)
    torso = 0.5 * (0.85 * height - 1.7 * low)
    z = floor + 1.7 * low + torso
    _place(parts, kinds, row + 1, BOX, x, y, z, 0.16, 0.24, torso, cos, sin)
    z, hz = floor + 0.925 * height, 0.085 * height
    _place(parts, kinds, row + 2, HEAD, x, y, z, 0.12, 0.11, hz, cos, sin)
    return 3


@_jit
def render(
    image,
    rays,
    projection,
    eye,
    static_kind,
    static_geometry,
    static_color,
    static_signal,
    signal_lamps,
    signal_state,
    agent_type,
    agent_size,
    agent_color,
    agent_state,
    agent_valid,
    agent_braking,
    origin,
    tile_index,
    texels,
    air,
):
    """Render one image.

    Args:
        image: (H, W, 3) uint8, written.
        rays: (3, 3); rays @ (u, v, 1) is the map direction of a pixel with optical depth 1.
        projection: (3, 3), inverse of ``rays``. eye: (3,) camera position in the map frame.
        static_*: (P,) kind, (P, 10) geometry in the map frame, (P, 3) colour 0-255, (P,) index of
            the signal that a signal head shows or -1.
        signal_lamps: (S, 3, 2) y, z of the lamps in the frame of their head. signal_state: (S,).
        agent_*: one step of the episode's arrays.
        origin, tile_index, texels: ``GroundRaster``. air: ``Atmosphere.packed``.
    """
    height, width = image.shape[0], image.shape[1]
    forward = np.array([projection[2, 0], projection[2, 1], projection[2, 2]])

    # 1. Parts in range and not behind the camera.
    chosen = np.empty(static_kind.shape[0], np.int64)
    selected = 0
    for i in range(static_kind.shape[0]):
        x, y = static_geometry[i, 0] - eye[0], static_geometry[i, 1] - eye[1]
        reach = abs(static_geometry[i, 3]) + abs(static_geometry[i, 4]) + abs(static_geometry[i, 5])
        if x * x + y * y > (PART_RANGE_M + reach) ** 2:
            continue
        # Shadows reach into the view from behind.
        if forward[0] * x + forward[1] * y + reach < -25.0:
            continue
        chosen[selected] = i
        selected += 1
    capacity = selected + 3 * agent_type.shape[0]
    parts, colors = np.empty((capacity, 10)), np.empty((capacity, 3))
    kinds, lit = np.empty(capacity, np.int64), np.zeros(capacity)
    sources = np.full(capacity, -1, np.int64)
    identity = np.zeros(capacity, np.int64)
    count = 0
    for k in range(selected):
        i = chosen[k]
        for column in range(10):
            parts[count, column] = static_geometry[i, column]
        for axis in range(3):
            parts[count, axis] -= eye[axis]
            colors[count, axis] = static_color[i, axis]
        kinds[count] = static_kind[i]
        identity[count] = i
        if static_signal[i] >= 0:
            sources[count] = static_signal[i]
            lit[count] = signal_state[static_signal[i]]
            behind = parts[count, 6] * parts[count, 0] + parts[count, 7] * parts[count, 1]
            if behind > 0.0:
                # Lamps are oversized; from behind a head is slim, or it would hide other lamps.
                parts[count, 2] += parts[count, 5] - _HEAD_BACK_M[1]
                parts[count, 4], parts[count, 5] = _HEAD_BACK_M
        count += 1
    first_agent = count
    for i in range(agent_type.shape[0]):
        if not agent_valid[i]:
            continue
        x, y = agent_state[i, 0] - eye[0], agent_state[i, 1] - eye[1]
        if x * x + y * y > AGENT_RANGE_M**2 or forward[0] * x + forward[1] * y < -15.0:
            continue
        added = _add_agent(parts, kinds, count, i, agent_type, agent_size, agent_state, eye)
        for part in range(count, count + added):
            # The legs of a person and the frame of a bicycle are darker; a head is skin.
            share = 0.3 if added == 3 and part == count else 1.0
            for channel in range(3):
                colors[part, channel] = share * agent_color[i, channel]
            lit[part] = 1.0 if agent_braking[i] else 0.0
        if added == 3:
            colors[count + 2, 0], colors[count + 2, 1], colors[count + 2, 2] = 205.0, 160.0, 130.0
        count += added

    # 2. Visibility, near parts first.
    depth = np.full((2 * height, 2 * width), np.float32(1e9), np.float32)
    owner = np.full((2 * height, 2 * width), np.int32(-1), np.int32)
    shadow = np.zeros((2 * height, 2 * width), np.uint8)
    corners = np.empty((8, 3))
    nearest = np.empty(count)
    for part in range(count):
        _corners(parts[part], corners)
        low = 1e9
        for i in range(8):
            along = 0.0
            for axis in range(3):
                along += forward[axis] * corners[i, axis]
            low = min(low, along)
        nearest[part] = low
    order = np.argsort(nearest, kind="mergesort")
    for k in range(count):
        part = order[k]
        _corners(parts[part], corners)
        _draw(
            part, kinds[part], parts[part], nearest[part], rays, corners, projection, depth, owner
        )

    # 3. Shadows on the ground: 1 from the sky light below a vehicle, 2 from the sun.
    sun = np.array([air[0], air[1], air[2]])
    for part in range(count):
        x, y = parts[part, 0], parts[part, 1]
        if x * x + y * y > SHADOW_RANGE_M**2:
            continue
        _corners(parts[part], corners)
        kind = kinds[part]
        _cast_shadow(
            kind, parts[part], sun, eye[2], rays, corners, projection, owner, shadow, np.uint8(2)
        )
    zenith = np.array([0.0, 0.0, 1.0])
    for part in range(first_agent, count):
        if kinds[part] in (BODY, VAN):
            wide = parts[part].copy()
            wide[3] += 0.2
            wide[4] += 0.2
            _corners(wide, corners)
            _cast_shadow(
                VAN, wide, zenith, eye[2], rays, corners, projection, owner, shadow, np.uint8(3)
            )

    # 4. Colour.
    step = 0.5 * math.sqrt(rays[0, 0] ** 2 + rays[1, 0] ** 2 + rays[2, 0] ** 2)
    ground_light = air[4] + air[3] * air[2]
    sunless = air[4] / ground_light
    for row in range(height):
        for column in range(width):
            red = green = blue = 0.0
            open_samples, shaded = 0, 0.0
            # Inside one wall or crown two samples, diagonally, do.
            first = owner[2 * row, 2 * column]
            stride = 1
            if (
                first >= 0
                and kinds[first] in (BOX, BUILDING, CROWN)
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
                    if shadow[r, c] == 2:
                        shaded += 1.0 - sunless
                    elif shadow[r, c] == 3:
                        shaded += 1.0 - 0.5 * sunless
                    continue
                t = float(depth[r, c])
                u, v = 0.5 * c - 0.25, 0.5 * r - 0.25
                x = t * (rays[0, 0] * u + rays[0, 1] * v + rays[0, 2]) - parts[part, 0]
                y = t * (rays[1, 0] * u + rays[1, 1] * v + rays[1, 2]) - parts[part, 1]
                z = t * (rays[2, 0] * u + rays[2, 1] * v + rays[2, 2]) - parts[part, 2]
                cos, sin = parts[part, 6], parts[part, 7]
                x, y = cos * x + sin * y, -sin * x + cos * y
                sr, sg, sb = _shade(
                    part,
                    identity[part],
                    kinds[part],
                    parts,
                    colors,
                    lit[part],
                    sources[part],
                    signal_lamps,
                    x,
                    y,
                    z,
                    t * step,
                    air,
                )
                haze = t * air[18] / (1.0 + t * air[18])
                red += weight * (sr + haze * (air[8] - sr))
                green += weight * (sg + haze * (air[9] - sg))
                blue += weight * (sb + haze * (air[10] - sb))
            if open_samples > 0:
                dx = rays[0, 0] * column + rays[0, 1] * row + rays[0, 2]
                dy = rays[1, 0] * column + rays[1, 1] * row + rays[1, 2]
                dz = rays[2, 0] * column + rays[2, 1] * row + rays[2, 2]
                if dz < -1e-4:
                    inverse = 1.0 / dz
                    t = -eye[2] * inverse
                    right, down = rays[2, 0] * inverse, rays[2, 1] * inverse
                    ux, uy = t * (rays[0, 0] - dx * right), t * (rays[1, 0] - dy * right)
                    vx, vy = t * (rays[0, 1] - dx * down), t * (rays[1, 1] - dy * down)
                    gx, gy = eye[0] + t * dx, eye[1] + t * dy
                    sr, sg, sb, material = _ground(
                        gx, gy, ux, uy, vx, vy, origin, tile_index, texels
                    )
                    grass = max(1.0 - material / 128.0, 0.0)
                    asphalt = max(material / 128.0 - 1.0, 0.0)
                    plain = 1.0 - grass - asphalt
                    light = ground_light * (1.0 - shaded / open_samples)
                    if t < 120.0:
                        patch = _value_noise(0.11 * gx, 0.11 * gy) - 0.5
                        if t < 40.0:
                            fine = _value_noise(0.53 * gx, 0.53 * gy) - 0.5
                            patch += 0.5 * (1.0 - 0.025 * t) * fine
                        light *= 1.0 + (0.24 * grass + 0.09 * asphalt) * patch
                    sr *= light * (plain + asphalt * air[11] + grass * air[14])
                    sg *= light * (plain + asphalt * air[12] + grass * air[15])
                    sb *= light * (plain + asphalt * air[13] + grass * air[16])
                    haze = t * air[18] / (1.0 + t * air[18])
                    sr += haze * (air[8] - sr)
                    sg += haze * (air[9] - sg)
                    sb += haze * (air[10] - sb)
                else:
                    sr, sg, sb = _sky(dx, dy, dz, air)
                red += open_samples * sr
                green += open_samples * sg
                blue += open_samples * sb
            image[row, column, 0] = np.uint8(_clamp(0.25 * red + 0.5, 0.0, 255.0))
            image[row, column, 1] = np.uint8(_clamp(0.25 * green + 0.5, 0.0, 255.0))
            image[row, column, 2] = np.uint8(_clamp(0.25 * blue + 0.5, 0.0, 255.0))
