"""A Scene with several plans: on the road before the front camera, and seen from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from latentvla_ros.geometry import se2, se3
from latentvla_ros.geometry.camera import project
from latentvla_training.data.scene import Scene
from latentvla_training.data.shard_footer import read_shard_info
from latentvla_training.data.shards import SUFFIX, ShardReader, split_folder
from latentvla_training.world.episode import EgoVehicle
from latentvla_training.world.road_map import Layer, SignalState

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = NDArray[np.float64]

_ROAD, _ROUTE, _GRASS = "#c9cbd0", "#b4bccb", "#eef0e8"
_AGENT, _EGO = "#5b6270", "#1f4e9e"
_LIGHTS = {SignalState.RED: "#e02828", SignalState.YELLOW: "#e6b012", SignalState.GREEN: "#1fae5a"}
#: What is shown, m: behind; ahead of the furthest plan; ahead at least and at most.
_BEHIND, _BEYOND, _LEAST, _MOST = 8.0, 10.0, 22.0, 56.0
#: Paths are drawn from here on, m: nearer ground is not in the picture.
_NEAREST_M = 1.0
#: States of agents a second, and of plans.
_AGENT_HZ, _PLAN_HZ = 10, 2


def find_scene(example: Mapping[str, Any]) -> tuple[Scene | None, str]:
    """Return the Scene of an example, or why there is none: absent here, or made anew since."""
    episode = str(example["token"]).rpartition("/")[0]
    path = split_folder(example["split"]) / f"{episode}{SUFFIX}"
    info = read_shard_info(path) if path.is_file() else None
    if info is None:
        return None, f"no Scenes of {example['split']} here"
    if info.content_sha256 != example["shard_sha256"]:
        found, wanted = info.content_sha256[:10], example["shard_sha256"][:10]
        return None, f"Scenes {found} here, the result is of {wanted}"
    reader = ShardReader([path])
    (places,) = np.nonzero(reader.columns["token"] == example["token"])
    if not len(places):
        return None, "no such Scene in its shard"
    return reader[int(places[0])], ""


def draw_camera(axes: Axes, scene: Scene, paths: Sequence[tuple[F64, str]]) -> None:
    """Draw the first view with paths (N, 3) on the ground and their colours."""
    data = np.frombuffer(scene.view_jpegs[0], np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    axes.set_axis_off()
    if picture is None:
        axes.text(0.5, 0.5, "no picture", ha="center", transform=axes.transAxes)
        return
    axes.imshow(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), interpolation="lanczos")
    height, width = picture.shape[:2]
    camera_from_ego = se3.inverse(scene.ego_from_camera[0].astype(np.float64))
    for path, colour in paths:
        line = _along(path)
        line = line[line[:, 0] > _NEAREST_M]
        points = np.column_stack([line[:, :2], np.zeros(len(line))])
        seen, _ = project(scene.intrinsics[0], se3.transform_points(camera_from_ego, points))
        axes.plot(seen[:, 0], seen[:, 1], color="white", linewidth=3.4, alpha=0.7)
        axes.plot(seen[:, 0], seen[:, 1], color=colour, linewidth=2.0)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def shown_ahead_m(paths: Sequence[F64]) -> float:
    """Return how far ahead of the ego a view of paths (N, 3) reaches, m."""
    furthest = max(float(path[:, 0].max()) for path in paths)
    return float(np.clip(furthest + _BEYOND, _LEAST, _MOST))


def draw_above(
    axes: Axes,
    scene: Scene,
    driven: F64,
    plan: F64,
    colour: str,
    driven_colour: str,
    ahead_m: float,
) -> None:
    """Draw roads, route, traffic, own light, a plan and what was driven; the ego looks up.

    Ego, by the plan, and traffic are outlined once a second, so that one sees what meets.

    Args:
        driven, plan: (N, 3) at 2 Hz in the ego frame. ahead_m: how far is shown.
    """
    from matplotlib.patches import Polygon

    labels, to_ego = scene.labels, se2.inverse(scene.ego_pose)
    axes.set_facecolor(_GRASS)
    rings = np.split(labels.polygon_xy, labels.polygon_offset[1:-1])
    for layer, on_route, ring in sorted(
        zip(labels.polygon_layer, labels.polygon_on_route, rings, strict=True),
        key=lambda entry: (bool(entry[1]), entry[0] != Layer.INTERSECTION),
    ):
        if layer == Layer.CARPARK_AREA:
            continue
        local = _up(se2.transform_points(to_ego, ring))
        axes.add_patch(Polygon(local, closed=True, color=_ROUTE if on_route else _ROAD, lw=0))
    line = _up(se2.transform_points(to_ego, labels.centerline[:, :2]))
    axes.plot(line[:, 0], line[:, 1], color="white", linewidth=1.0, linestyle=(0, (6, 6)))
    for state, valid, size in zip(
        labels.agent_state, labels.agent_valid, labels.agent_size, strict=True
    ):
        if not valid[0]:
            continue
        moved = _up(se2.transform_points(to_ego, state[valid][:41, :2]))
        axes.plot(moved[:, 0], moved[:, 1], color=_AGENT, linewidth=1.0, alpha=0.45)
        for later in state[: 4 * _AGENT_HZ + 1 : _AGENT_HZ][1:]:
            if np.isfinite(later[:3]).all():
                box = _box(se2.compose(to_ego, later[:3]), float(size[0]), float(size[1]))
                axes.add_patch(Polygon(_up(box), closed=True, fill=False, ec=_AGENT, lw=0.6))
        box = _box(se2.compose(to_ego, state[0, :3]), float(size[0]), float(size[1]))
        axes.add_patch(Polygon(_up(box), closed=True, facecolor=_AGENT, edgecolor="white", lw=0.6))
    ego = EgoVehicle()
    centre = np.array([ego.rear_axle_to_center_m, 0.0, 0.0])
    box = _box(centre, ego.length_m, ego.width_m)
    axes.add_patch(Polygon(_up(box), closed=True, facecolor=_EGO, edgecolor="white", lw=0.6))
    if labels.own_light >= 0 and np.isfinite(labels.own_light_distance_m):
        arc = np.hypot(*np.diff(labels.centerline[:, :2], axis=0).T).cumsum()
        start = int(np.hypot(*(labels.centerline[:, :2] - scene.ego_pose[:2]).T).argmin())
        along = np.append(0.0, arc) - np.append(0.0, arc)[start]
        at = line[int(np.abs(along - labels.own_light_distance_m).argmin())]
        lamp = _LIGHTS[SignalState(labels.own_light)]
        axes.plot(*at, "s", color=lamp, markersize=7, markeredgecolor="white")
    for path, ink, dots in ((driven, driven_colour, "-"), (plan, colour, "o-")):
        points = _up(np.vstack([np.zeros((1, 3)), path])[:, :2])
        axes.plot(points[:, 0], points[:, 1], color="white", linewidth=3.2, alpha=0.8)
        axes.plot(points[:, 0], points[:, 1], dots, color=ink, linewidth=1.8, markersize=3.2)
    for pose in plan[_PLAN_HZ - 1 :: _PLAN_HZ]:
        box = _box(se2.compose(pose, centre), ego.length_m, ego.width_m)
        axes.add_patch(Polygon(_up(box), closed=True, fill=False, ec=colour, lw=0.9))
    aside = 0.4 * (_BEHIND + ahead_m)
    axes.set_xlim(-aside, aside)
    axes.set_ylim(-_BEHIND, ahead_m)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _along(path: F64, points: int = 80) -> F64:
    """Return a path (N, 3) with the ego's own pose before it, close enough to look curved."""
    knots = np.vstack([np.zeros((1, 3)), path])
    at = np.linspace(0.0, len(knots) - 1.0, points)
    return np.stack([np.interp(at, np.arange(len(knots)), column) for column in knots.T], axis=1)


def _up(points: F64) -> F64:
    """Return ego points (N, 2) with x up and y to the left."""
    return np.column_stack([-points[:, 1], points[:, 0]])


def _box(pose: F64, length: float, width: float) -> F64:
    corners = 0.5 * np.array(
        [[length, width], [length, -width], [-length, -width], [-length, width]]
    )
    return np.asarray(se2.transform_points(pose, corners))
