"""The ground as a mip-mapped raster in tiles: asphalt, paint, kerbs, pavement; painted once a map.

Only tiles that hold something else than grass are stored. Every tile carries its own mip levels, so
that a distant marking fades instead of flickering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numba
import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray

from latentvla_training.world.road_map import Crosswalk, Layer, Marking, MarkingKind, RoadMap
from latentvla_training.world.scenery import COUNTRY_KINDS
from latentvla_training.world.semantics import SemanticClass

Array = NDArray[np.float64]

#: Edge of one texel at level 0, m; texels along a tile; texels of a tile with all its levels.
RESOLUTION_M = 0.1
TILE_TEXELS = 64
LEVELS = 6
TEXELS_PER_TILE = sum((TILE_TEXELS >> level) ** 2 for level in range(LEVELS))

_CHUNK_TILES = 8
_OVERSAMPLING = 2
_TILE_FINE = TILE_TEXELS * _OVERSAMPLING
_SUBPIXEL_BITS = 4
_SIDEWALK_M, _KERB_M = 2.6, 0.25
_DASH_M, _GAP_M = 3.0, 6.0
_ZEBRA_M = 0.5
#: Beside roads out of town: a paved shoulder, then a verge of gravel and short grass.
_SHOULDER_M, _VERGE_M = 0.9, 2.2

GRASS, SIDEWALK, KERB, ASPHALT, JUNCTION, WHITE, YELLOW, SHOULDER, VERGE = range(9)
_CLASSES = np.array(
    [
        SemanticClass.TERRAIN,
        SemanticClass.SIDEWALK,
        SemanticClass.SIDEWALK,
        SemanticClass.ROAD,
        SemanticClass.ROAD,
        SemanticClass.MARKING,
        SemanticClass.MARKING,
        SemanticClass.TERRAIN,
        SemanticClass.TERRAIN,
    ],
    np.uint8,
)

#: Red, green, blue, material (0 grass, 128 neither, 255 asphalt: what an episode tints), noise.
_PALETTE = np.array(
    [
        [96, 122, 66, 0, 13],
        [158, 152, 144, 128, 6],
        [196, 194, 188, 128, 4],
        [84, 85, 89, 255, 7],
        [79, 80, 84, 255, 7],
        [236, 236, 232, 128, 4],
        [232, 186, 58, 128, 4],
        [112, 110, 106, 255, 10],
        [128, 124, 88, 64, 14],
    ],
    np.float64,
)


@dataclass(frozen=True)
class GroundRaster:
    """Attributes:
    origin: (2,) map position of the corner of texel (0, 0), m.
    tile_index: (rows, columns) int32, index into ``texels``; 0 is grass, as is all outside.
    texels: (tiles, TEXELS_PER_TILE) uint32, levels one after another, rows of y, packed
        red | green << 8 | blue << 16 | material << 24.
    classes: (tiles, TILE_TEXELS**2) uint8 ``SemanticClass``, rows of y.
    """

    origin: Array
    tile_index: NDArray[np.int32]
    texels: NDArray[np.uint32]
    classes: NDArray[np.uint8]


def paint_ground(road_map: RoadMap) -> GroundRaster:
    """Paint the ground of ``road_map``; deterministic, about a second for a network of 600 m."""
    shapes = [
        *_surfaces(road_map),
        *_zebras(road_map.crosswalks, road_map.markings),
        *_paint(road_map.markings),
    ]
    geometries = np.array([shape for _, shape in shapes], object)
    tree = shapely.STRtree(geometries)
    chunk_m = _CHUNK_TILES * TILE_TEXELS * RESOLUTION_M
    origin = np.floor(np.asarray(road_map.bounds[:2]) - 10.0)
    extent = np.asarray(road_map.bounds[2:]) + 10.0 - origin
    columns, rows = (int(n) for n in np.ceil(extent / chunk_m))
    tile_index = np.zeros((rows * _CHUNK_TILES, columns * _CHUNK_TILES), np.int32)
    side = _CHUNK_TILES * TILE_TEXELS * _OVERSAMPLING
    fine = np.zeros((side, side), np.uint8)
    stored = [_pack(fine, np.zeros((1, 2), np.int64), _PALETTE, 0, 0)]
    classes = [np.full((1, TILE_TEXELS**2), SemanticClass.TERRAIN, np.uint8)]
    count = 1
    for row in range(rows):
        for column in range(columns):
            corner = origin + chunk_m * np.array([column, row])
            window = shapely.box(*(corner - 1.0), *(corner + chunk_m + 1.0))
            touching = np.sort(tree.query(window))
            if not len(touching):
                continue
            fine[:] = GRASS
            clipped = _clip(geometries[touching], window)
            for index, geometry in zip(touching, clipped, strict=True):
                for part in getattr(geometry, "geoms", [geometry]):
                    _fill(fine, part, corner, shapes[index][0])
            blocks = fine.reshape(_CHUNK_TILES, _TILE_FINE, _CHUNK_TILES, _TILE_FINE)
            tiles = np.argwhere((blocks != GRASS).any(axis=(1, 3)))
            top, left = row * _CHUNK_TILES, column * _CHUNK_TILES
            tile_index[top + tiles[:, 0], left + tiles[:, 1]] = count + np.arange(len(tiles))
            count += len(tiles)
            stored.append(_pack(fine, tiles, _PALETTE, left, top))
            shown = blocks[tiles[:, 0], ::_OVERSAMPLING, tiles[:, 1], ::_OVERSAMPLING]
            classes.append(_CLASSES[shown.reshape(len(tiles), TILE_TEXELS**2)])
    return GroundRaster(origin, tile_index, np.concatenate(stored), np.concatenate(classes))


def _clip(geometries: NDArray[np.object_], window: shapely.Polygon) -> NDArray[np.object_]:
    """Return what lies within ``window``.

    GEOS's fast clipping raises where it would leave a ring of two points (a corner that touches the
    window); the slower intersection does not.
    """
    try:
        clipped = shapely.clip_by_rect(geometries, *window.bounds)
    except shapely.GEOSException:
        clipped = shapely.intersection(geometries, window)
    return np.asarray(clipped)


def _surfaces(road_map: RoadMap) -> Iterator[tuple[int, shapely.Geometry]]:
    """Yield (class, shape) of pavement, kerbs and asphalt in painting order."""
    shapes = shapely.make_valid(
        np.array([shapely.Polygon(polygon.ring) for polygon in road_map.polygons], object)
    )
    drivable = shapely.union_all(shapes)
    if road_map.kind in COUNTRY_KINDS:
        margins = [(_VERGE_M, VERGE), (_SHOULDER_M, SHOULDER)]
    elif road_map.sidewalks:
        paved = shapely.union_all(
            shapely.make_valid(np.array([shapely.Polygon(r) for r in road_map.sidewalks], object))
        )
        yield from ((SIDEWALK, part) for part in _parts(paved))
        margins = [(_KERB_M, KERB)]
    else:
        margins = [(_SIDEWALK_M, SIDEWALK), (_KERB_M, KERB)]
    for margin, kind in (*margins, (0.0, ASPHALT)):
        yield from ((kind, part) for part in _parts(drivable.buffer(margin, quad_segs=4)))
    for polygon, shape in zip(road_map.polygons, shapes, strict=True):
        if polygon.layer == Layer.INTERSECTION:
            yield from ((JUNCTION, part) for part in _parts(shape))


def _paint(markings: Sequence[Marking]) -> Iterator[tuple[int, shapely.Geometry]]:
    """Yield (class, shape) of every painted line, dash and zebra stripe."""
    for marking in markings:
        line = shapely.LineString(marking.points)
        kind = YELLOW if marking.kind == MarkingKind.CENTRE else WHITE
        # A dash or a zebra stripe is a short piece of the line, as wide as the line.
        if marking.kind == MarkingKind.DASHED:
            pieces = _pieces(line, _DASH_M, _GAP_M)
        elif marking.kind == MarkingKind.CROSSING:
            pieces = _pieces(line, _ZEBRA_M, _ZEBRA_M)
        else:
            pieces = [line]
        for piece in pieces:
            shape = piece.buffer(marking.width_m / 2.0, cap_style="flat", join_style="mitre")
            yield from ((kind, part) for part in _parts(shape))


def _zebras(
    crosswalks: Sequence[Crosswalk], markings: Sequence[Marking]
) -> Iterator[tuple[int, shapely.Geometry]]:
    """Yield the stripes of every crosswalk that no marking paints already."""
    lines = shapely.STRtree(
        [shapely.LineString(m.points) for m in markings if m.kind == MarkingKind.CROSSING]
    )
    for crosswalk in crosswalks:
        shape = shapely.make_valid(shapely.Polygon(crosswalk.ring))
        if len(lines.query(shape, "intersects")):
            continue
        corners = shapely.get_coordinates(shape.minimum_rotated_rectangle)[:4]
        if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
            corners = np.roll(corners, -1, axis=0)
        # People walk along the longer sides, so the stripes follow one another along them.
        walk = 0.5 * (corners[[0, 1]] + corners[[3, 2]])
        width = float(np.linalg.norm(corners[3] - corners[0]))
        for piece in _pieces(shapely.LineString(walk), _ZEBRA_M, _ZEBRA_M):
            yield WHITE, piece.buffer(0.47 * width, cap_style="flat")


def _pieces(line: shapely.LineString, length: float, gap: float) -> list[shapely.LineString]:
    starts = np.arange(0.0, line.length - length / 2.0, length + gap)
    return [shapely.ops.substring(line, start, start + length) for start in starts]


def _parts(shape: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Yield the non-empty polygons of a polygon or collection."""
    for part in getattr(shape, "geoms", [shape]):
        if part.geom_type == "Polygon" and not part.is_empty:
            yield part


def _fill(fine: NDArray[np.uint8], shape: shapely.Geometry, corner: Array, kind: int) -> None:
    """Fill a polygon with class ``kind`` in a chunk whose lower corner lies at ``corner``."""
    if shape.geom_type != "Polygon" or shape.is_empty:
        return
    unit = 1 << _SUBPIXEL_BITS
    rings = [
        np.round(
            ((np.asarray(ring.coords)[:-1] - corner) * (_OVERSAMPLING / RESOLUTION_M) - 0.5) * unit
        ).astype(np.int32)
        for ring in (shape.exterior, *shape.interiors)
    ]
    cv2.fillPoly(fine, rings, int(kind), cv2.LINE_8, _SUBPIXEL_BITS)


@numba.njit(cache=True, nogil=True)
def _pack(fine, tiles, palette, first_column, first_row):  # type: ignore[no-untyped-def]
    """Turn tiles of a class image into packed texels with mip levels.

    Args:
        fine: (2 * 64 * n, 2 * 64 * n) uint8 classes. tiles: (k, 2) row and column in ``fine``.
        palette: (classes, 5).
        first_column, first_row: tile coordinates of the chunk, which seed the noise.

    Returns:
        (k, TEXELS_PER_TILE) uint32.
    """
    packed = np.zeros((len(tiles), TEXELS_PER_TILE), np.uint32)
    level_0 = np.zeros((TILE_TEXELS, TILE_TEXELS, 4))
    for tile in range(len(tiles)):
        top, left = tiles[tile, 0] * TILE_TEXELS, tiles[tile, 1] * TILE_TEXELS
        for y in range(TILE_TEXELS):
            for x in range(TILE_TEXELS):
                noise = 0.0
                for channel in range(4):
                    level_0[y, x, channel] = 0.0
                for sub in range(4):
                    kind = fine[2 * (top + y) + (sub >> 1), 2 * (left + x) + (sub & 1)]
                    noise += 0.25 * palette[kind, 4]
                    for channel in range(4):
                        level_0[y, x, channel] += 0.25 * palette[kind, channel]
                global_x = np.uint32(first_column * TILE_TEXELS + left + x)
                global_y = np.uint32(first_row * TILE_TEXELS + top + y)
                bits = np.uint32(global_x * np.uint32(374761393) + global_y * np.uint32(668265263))
                bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(1274126177))
                noise *= float((bits >> np.uint32(16)) & np.uint32(255)) / 127.5 - 1.0
                for channel in range(3):
                    level_0[y, x, channel] += noise
        offset, size = 0, TILE_TEXELS
        current = level_0
        for _ in range(LEVELS):
            for y in range(size):
                for x in range(size):
                    word = np.uint32(0)
                    for channel in range(4):
                        value = np.uint32(min(max(current[y, x, channel] + 0.5, 0.0), 255.0))
                        word |= value << np.uint32(8 * channel)
                    packed[tile, offset + y * size + x] = word
            offset += size * size
            size //= 2
            smaller = np.zeros((size, size, 4))
            for y in range(size):
                for x in range(size):
                    for channel in range(4):
                        smaller[y, x, channel] = 0.25 * (
                            current[2 * y, 2 * x, channel]
                            + current[2 * y, 2 * x + 1, channel]
                            + current[2 * y + 1, 2 * x, channel]
                            + current[2 * y + 1, 2 * x + 1, channel]
                        )
            current = smaller
    return packed
