"""Kernels that find what each ray meets first: boxes, cones and ellipsoids, and their shadows.

A *part* is a solid turned about z, ``geometry`` (10,): centre x, y, z relative to the camera; half
size x, y, z; cos and sin of the yaw; slant of the front and of the rear face (m inwards per m up).
Equal and opposite slants make a leaning box. An image is sampled ``per`` x ``per`` times a pixel.

The kernels of the cameras are single-threaded, release the GIL, use no fast-math and no
transcendental function, so the same input gives the same bytes. They are compiled, and cached, as
one with the entry points in ``picture``.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

import numba
import numpy as np

#: Parts by what their surface looks like.
BOX, BUILDING, CROWN, SIGNAL, HEAD = 0, 1, 2, 3, 4
BODY, CABIN, VAN, VAN_TOP, CHASSIS, TRUCK_CAB, CARGO, BUS = 5, 6, 7, 8, 9, 10, 11, 12
MOTORCYCLE, BICYCLE, CONE, BARRIER = 13, 14, 15, 16

#: Shadows are cast nearer than this, m.
SHADOW_RANGE_M = 70.0
#: A bicycle farther than this, m, is drawn with full wheels: its spokes would flicker.
_SPOKES_M = 16.0

NEAR_M = 0.15

jit = numba.njit(nogil=True, error_model="numpy")
#: For what runs once a sample or pixel and allocates nothing: without counting references to its
#: arrays, which took a fifth of the time of a picture.
leaf = numba.njit(nogil=True, error_model="numpy", _nrt=False)
inline = numba.njit(nogil=True, error_model="numpy", inline="always")


@leaf
def clamp(value, low, high):
    return min(max(value, low), high)


@jit
def rectangle(corners, projection, width, height, per):
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
        if points[i, 2] > NEAR_M:
            u, v = points[i, 0] / points[i, 2], points[i, 1] / points[i, 2]
            u0, v0, u1, v1 = min(u0, u), min(v0, v), max(u1, u), max(v1, v)
            for bit in range(3):
                other = i ^ (1 << bit)
                if points[other, 2] <= NEAR_M:
                    s = (points[i, 2] - NEAR_M) / (points[i, 2] - points[other, 2])
                    u = (points[i, 0] + s * (points[other, 0] - points[i, 0])) / NEAR_M
                    v = (points[i, 1] + s * (points[other, 1] - points[i, 1])) / NEAR_M
                    u0, v0, u1, v1 = min(u0, u), min(v0, v), max(u1, u), max(v1, v)
    left = int(clamp(math.floor(per * u0), 0.0, float(per * width)))
    top = int(clamp(math.floor(per * v0), 0.0, float(per * height)))
    right = int(clamp(math.ceil(per * u1) + 2.0, 0.0, float(per * width)))
    bottom = int(clamp(math.ceil(per * v1) + 2.0, 0.0, float(per * height)))
    return left, top, right, bottom


@inline
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
    elif kind == CONE:
        # x^2 + y^2 = slope^2 (hz - z)^2 below the apex; the nearer root on the lower nappe.
        slope = 0.5 * hx / hz
        p = hz - oz
        a = dx * dx + dy * dy - slope * slope * dz * dz
        b = ox * dx + oy * dy + slope * slope * p * dz
        discriminant = b * b - a * (ox * ox + oy * oy - slope * slope * p * p)
        if discriminant > 0.0 and abs(a) > 1e-12:
            root = math.sqrt(discriminant)
            first, second = (-b - root) / a, (-b + root) / a
            if first > second:
                first, second = second, first
            if abs(oz + first * dz) <= hz:
                t = first
            elif abs(oz + second * dz) <= hz:
                t = second
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


@leaf
def _off_segment(x, z, x0, z0, x1, z1):
    """Return the squared distance of (x, z) from a segment."""
    ex, ez = x1 - x0, z1 - z0
    s = clamp(((x - x0) * ex + (z - z0) * ez) / (ex * ex + ez * ez), 0.0, 1.0)
    ex, ez = x - x0 - s * ex, z - z0 - s * ez
    return ex * ex + ez * ez


@leaf
def _on_two_wheeler(kind, x, up, hx, hz, t, end_on):
    """Return whether there is wheel or frame at a point of a two-wheeler, ``up`` above ground.

    ``end_on``: the ray comes from before or behind.
    """
    radius = 0.38 * hx if kind == BICYCLE else 0.29 * hx
    hub = hx - radius
    if abs(x) > hx - 0.01:
        return end_on and up < 2.0 * radius
    wheel = abs(x) - hub
    distance = wheel * wheel + (up - radius) * (up - radius)
    if distance < radius * radius:
        spokes = kind == BICYCLE and t < _SPOKES_M
        return not spokes or distance > 0.62 * radius * radius or distance < 0.006
    if kind == MOTORCYCLE:
        return abs(x) < 0.42 * hx and up > 0.2
    saddle, low = 1.9 * hz, 0.85 * radius
    tube = 0.0013 if t < _SPOKES_M else 0.004
    return (
        _off_segment(x, up, -0.12 * hx, low, -0.3 * hx, saddle) < tube
        or _off_segment(x, up, -0.12 * hx, low, 0.42 * hx, 0.85 * saddle) < tube
        or _off_segment(x, up, -0.27 * hx, 0.85 * saddle, 0.42 * hx, 0.85 * saddle) < tube
        or _off_segment(x, up, hub, radius, 0.4 * hx, saddle) < tube
    )


@jit
def draw(part, kind, geometry, nearest, rays, corners, projection, depth, owner, per):
    """Enter a part, centre relative to the camera, into the depth and owner buffers."""
    height, width = depth.shape[0] // per, depth.shape[1] // per
    left, top, right, bottom = rectangle(corners, projection, width, height, per)
    if left >= right or top >= bottom:
        return
    pitch = 1.0 / per
    start = 0.5 * pitch - 0.5
    cos, sin = geometry[6], geometry[7]
    local = np.empty((3, 3))
    for column in range(3):
        local[0, column] = cos * rays[0, column] + sin * rays[1, column]
        local[1, column] = -sin * rays[0, column] + cos * rays[1, column]
        local[2, column] = rays[2, column]
    cx, cy = geometry[0], geometry[1]
    ox, oy, oz = -(cos * cx + sin * cy), -(-sin * cx + cos * cy), -geometry[2]
    hx, hy, hz = geometry[3], geometry[4], geometry[5]
    front, rear = geometry[8], geometry[9]
    two_wheeler = kind in (BICYCLE, MOTORCYCLE)
    for row in range(top, bottom):
        v = pitch * row + start
        bx = local[0, 1] * v + local[0, 2]
        by = local[1, 1] * v + local[1, 2]
        bz = local[2, 1] * v + local[2, 2]
        for column in range(left, right):
            if depth[row, column] < nearest:
                continue
            u = pitch * column + start
            dx, dy, dz = bx + local[0, 0] * u, by + local[1, 0] * u, bz + local[2, 0] * u
            t = _hit(kind, hx, hy, hz, front, rear, ox, oy, oz, dx, dy, dz)
            if NEAR_M < t < depth[row, column]:
                if two_wheeler:
                    x, up = ox + t * dx, oz + t * dz + hz
                    if not _on_two_wheeler(kind, x, up, hx, hz, t, abs(dx) > 5.0 * abs(dy)):
                        continue
                depth[row, column] = t
                owner[row, column] = part


@leaf
def write_corners(geometry, corners):
    """Write the corners (8, 3) of a part."""
    for i in range(8):
        x = geometry[3] if i & 1 else -geometry[3]
        y = geometry[4] if i & 2 else -geometry[4]
        up = 2.0 * geometry[5] if i & 4 else 0.0
        # A face that leans outwards reaches past the base.
        if i & 1:
            x += max(-geometry[8] * up, 0.0)
        else:
            x -= max(-geometry[9] * up, 0.0)
        corners[i, 0] = geometry[0] + geometry[6] * x - geometry[7] * y
        corners[i, 1] = geometry[1] + geometry[7] * x + geometry[6] * y
        corners[i, 2] = geometry[2] - geometry[5] + up


@jit
def draw_parts(parts, kinds, count, rays, projection, depth, owner, per):
    """Find the nearest part of every sample, near parts first; depth and owner start empty."""
    corners = np.empty((8, 3))
    nearest = np.empty(count)
    for part in range(count):
        write_corners(parts[part], corners)
        low = 1e9
        for i in range(8):
            along = 0.0
            for axis in range(3):
                along += projection[2, axis] * corners[i, axis]
            low = min(low, along)
        nearest[part] = low
    order = np.argsort(nearest, kind="mergesort")
    for k in range(count):
        part = order[k]
        write_corners(parts[part], corners)
        draw(
            part,
            kinds[part],
            parts[part],
            nearest[part],
            rays,
            corners,
            projection,
            depth,
            owner,
            per,
        )


@jit
def cast_shadow(kind, geometry, sun, eye_height, rays, corners, projection, owner, shadow, value):
    """Mark the ground samples from which the sun is behind a part.

    Of the 2 x 2 samples of a pixel, the two on its falling diagonal: a shadow's edge is soft.
    """
    height, width = owner.shape[0] // 2, owner.shape[1] // 2
    for i in range(8):
        drop = (corners[i, 2] + eye_height) / sun[2]
        corners[i, 0] -= drop * sun[0]
        corners[i, 1] -= drop * sun[1]
        corners[i, 2] = -eye_height
    left, top, right, bottom = rectangle(corners, projection, width, height, 2)
    cos, sin = geometry[6], geometry[7]
    sx, sy = cos * sun[0] + sin * sun[1], -sin * sun[0] + cos * sun[1]
    hx, hy, hz = geometry[3], geometry[4], geometry[5]
    front, rear = geometry[8], geometry[9]
    for row in range(top, bottom):
        for column in range(left + ((left + row) & 1), right, 2):
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
