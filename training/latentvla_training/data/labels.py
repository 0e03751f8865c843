"""Labels of a world Scene: futures, road users, the map around, lights, the route's centreline."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_training.data.scene import SceneLabels
from latentvla_training.world.episode import STEP_S, EgoVehicle, Episode
from latentvla_training.world.road_map import Layer, RoadMap

FUTURE_STEPS = 40
AGENT_STEPS = 50
HISTORY_STEPS = (-15, -10, -5, 0)
CENTERLINE_BEHIND_M = 20.0
CENTERLINE_AHEAD_M = 120.0
#: A Scene carries an event's tag from this long before the event begins: its future holds it.
EVENT_LEAD_STEPS = 20


class RoadIndex:
    """Finds the polygons of a network near a place; build once per network."""

    def __init__(self, road_map: RoadMap) -> None:
        self.road_map = road_map
        self._tree = shapely.STRtree([shapely.Polygon(p.ring) for p in road_map.polygons])

    def near(self, xy: NDArray[np.float64], range_m: float) -> NDArray[np.int64]:
        """Return the ascending indices of the polygons within ``range_m`` of a point (2,)."""
        found = self._tree.query(shapely.Point(xy), predicate="dwithin", distance=range_m)
        return np.sort(found).astype(np.int64)


def event_tags(episode: Episode, step: int) -> tuple[str, ...]:
    """Return the names of the long-tail events that matter at a step, or within 2 s of it."""
    return tuple(
        event.name.value
        for event in episode.events
        if event.start_step - EVENT_LEAD_STEPS <= step < event.end_step
    )


class RouteProgress:
    """Where the ego is along its route at every step (arc length of the centreline, m).

    The search moves forward with the ego, so that a route that crosses itself is no ambiguity.

    Args:
        episode: the state log. start_m: arc length from which on the ego's first place is looked
            for, over 100 m.
    """

    def __init__(self, episode: Episode, start_m: float = 0.0) -> None:
        points = episode.route_centerline
        keep = np.append(True, np.any(np.diff(points, axis=0) != 0, axis=1))
        self.points, self.speed_limit = points[keep], episode.route_speed_limit[keep]
        steps = np.diff(self.points, axis=0)
        self.length = np.append(0.0, np.cumsum(np.hypot(steps[:, 0], steps[:, 1])))
        headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
        self._segment_middle = (self.length[:-1] + self.length[1:]) / 2
        self._segment_heading = headings
        self.ego = self._track(episode.ego[:, :2], start_m)

    def project(self, xy: NDArray[np.float64], low_m: float, high_m: float) -> float:
        """Return the arc length of the route's nearest point to xy (2,) between two arc lengths."""
        first = max(int(np.searchsorted(self.length, low_m, side="right")) - 1, 0)
        last = min(int(np.searchsorted(self.length, high_m)), len(self.length) - 1)
        last = max(last, first + 1)
        start, end = self.points[first:last], self.points[first + 1 : last + 1]
        along = end - start
        squared = np.maximum((along**2).sum(axis=1), 1e-12)
        fraction = np.clip(((xy - start) * along).sum(axis=1) / squared, 0.0, 1.0)
        distance = np.hypot(*(start + fraction[:, None] * along - xy).T)
        best = int(distance.argmin())
        lengths = self.length[first : last + 1]
        return float(lengths[best] + fraction[best] * (lengths[best + 1] - lengths[best]))

    def _track(self, positions: NDArray[np.float64], start_m: float) -> NDArray[np.float64]:
        progress = np.empty(len(positions))
        current = self.project(positions[0], start_m, start_m + 100.0)
        for index, position in enumerate(positions):
            current = self.project(position, current - 5.0, current + 15.0)
            progress[index] = current
        return progress

    def centerline(self, step: int) -> NDArray[np.float64]:
        """Return (N, 3) x, y, heading every metre from 20 m behind to 120 m ahead of the ego."""
        wanted = self._around(step)
        x = np.interp(wanted, self.length, self.points[:, 0])
        y = np.interp(wanted, self.length, self.points[:, 1])
        heading = np.interp(wanted, self._segment_middle, self._segment_heading)
        return np.stack([x, y, se2.wrap_angle(heading)], axis=1)

    def speed_limits(self, step: int) -> NDArray[np.float64]:
        """Return (N,) the limit at the points of ``centerline``, m/s; never one in between."""
        place = np.searchsorted(self.length, self._around(step), side="right") - 1
        return self.speed_limit[place]

    def _around(self, step: int) -> NDArray[np.float64]:
        wanted = self.ego[step] + np.arange(-CENTERLINE_BEHIND_M, CENTERLINE_AHEAD_M + 0.5)
        return wanted[(wanted >= 0.0) & (wanted <= self.length[-1])]


class EpisodeLabels:
    """Labels of every step of an episode.

    Args:
        episode: the state log. road: index of its network.
        range_m: polygons and road users within this distance of the ego at t0 are kept; a road
            user is kept with its whole 5 s when it comes within range in any of its frames.
        start_m: see ``RouteProgress``.

    Raises:
        ContractError: the episode is of another network, or its signals do not match.
    """

    def __init__(
        self, episode: Episode, road: RoadIndex, range_m: float = 100.0, start_m: float = 0.0
    ) -> None:
        road_map = road.road_map
        if episode.network != road_map.name:
            raise ContractError("episode.network", episode.network, road_map.name)
        if episode.signal_state.shape[1] != len(road_map.signals):
            raise ContractError(
                "episode.signal_state", episode.signal_state.shape, f"(T, {len(road_map.signals)})"
            )
        self._episode, self._road, self._range_m = episode, road, range_m
        self._progress = RouteProgress(episode, start_m)
        route_edges = {road_map.lanes[lane].edge_id for lane in episode.route_lanes}
        drivable = (Layer.LANE, Layer.LANE_CONNECTOR)
        self._on_route = np.array(
            [
                polygon.layer in drivable
                and road_map.lanes[polygon.source_id].edge_id in route_edges
                for polygon in road_map.polygons
            ],
            np.bool_,
        )
        self._signal_of_polygon = np.array(
            [
                road_map.lanes[polygon.source_id].signal
                if polygon.layer == Layer.LANE_CONNECTOR
                else -1
                for polygon in road_map.polygons
            ],
            np.int64,
        )
        self._stop_lines = self._route_stop_lines()

    def _route_stop_lines(self) -> list[tuple[float, int]]:
        """Return (arc length, signal) of every light along the route, in driving order."""
        road_map, progress = self._road.road_map, self._progress
        found: list[tuple[float, int]] = []
        behind = 0.0
        for lane_id in self._episode.route_lanes:
            lane = road_map.lanes[lane_id]
            if not lane.is_connector or lane.signal < 0:
                continue
            middle = road_map.signals[lane.signal].stop_line.mean(axis=0)
            nearby = np.hypot(*(progress.points - middle).T) < 15.0
            ahead = np.flatnonzero(nearby & (progress.length >= behind))
            if not len(ahead):
                continue
            first = float(progress.length[ahead[0]])
            behind = progress.project(middle, first - 1.0, first + 30.0)
            found.append((behind, lane.signal))
            behind += 5.0
        return found

    def at(self, step: int) -> SceneLabels:
        """Return the labels at a step that has 5 s after and 1.6 s before it.

        Raises:
            IndexError: the episode does not reach that far.
        """
        episode = self._episode
        if step + AGENT_STEPS >= episode.num_steps or step + HISTORY_STEPS[0] < 0:
            raise IndexError(f"{episode.name} has {episode.num_steps} steps: none around {step}")
        ego = episode.ego[step, :3]
        future = se2.relative(ego, episode.ego[step : step + FUTURE_STEPS + 1, :3])
        agents = self._agents(step)
        # On a fast road 4 s lead beyond the range: what is driven there must be on the map.
        ahead = 25.0 + FUTURE_STEPS * STEP_S * episode.ego[step, 3]
        polygons = self._road.near(ego[:2], max(self._range_m, ahead))
        rings = [self._road.road_map.polygons[index].ring for index in polygons]
        lengths = [len(ring) for ring in rings]
        controlled = np.flatnonzero(self._signal_of_polygon[polygons] >= 0)
        signals = self._signal_of_polygon[polygons[controlled]]
        states = episode.signal_state[step : step + FUTURE_STEPS + 1, signals]
        light, distance, switched = self._own_light(step)
        return SceneLabels(
            future_2hz=future[5::5].astype(np.float32),
            future_10hz=future.astype(np.float32),
            future_mask=np.ones(8, np.bool_),
            past_states=self._past_states(step),
            agent_type=episode.agent_type[agents].astype(np.uint8),
            agent_size=episode.agent_size[agents, :2].astype(np.float32),
            agent_height=episode.agent_size[agents, 2].astype(np.float32),
            agent_state=episode.agent_state[step : step + AGENT_STEPS + 1, agents].swapaxes(0, 1),
            agent_valid=episode.agent_valid[step : step + AGENT_STEPS + 1, agents].T,
            agent_braking=episode.agent_braking[step, agents],
            polygon_xy=np.concatenate(rings) if rings else np.zeros((0, 2)),
            polygon_offset=np.append(0, np.cumsum(lengths)).astype(np.int64),
            polygon_layer=np.array(
                [self._road.road_map.polygons[index].layer for index in polygons], np.uint8
            ),
            polygon_on_route=self._on_route[polygons],
            light_polygon=controlled.astype(np.int64),
            light_red=(states == 0).T,
            centerline=self._progress.centerline(step),
            own_light=light,
            own_light_distance_m=distance,
            own_light_switched=switched,
            pdm_reference_10hz=np.full((FUTURE_STEPS + 1, 3), np.nan),
            speed_limit_mps=self._progress.speed_limits(step),
            tags=",".join((episode.weather.value, *event_tags(episode, step))),
        )

    def _agents(self, step: int) -> NDArray[np.int64]:
        window = slice(step, step + AGENT_STEPS + 1)
        offset = self._episode.agent_state[window, :, :2] - self._episode.ego[step, :2]
        near = np.hypot(offset[..., 0], offset[..., 1]) <= self._range_m
        return np.flatnonzero((near & self._episode.agent_valid[window]).any(axis=0))

    def _past_states(self, step: int) -> NDArray[np.float64]:
        """NAVSIM's 11 columns; rates are backward differences, ay = speed * yaw rate."""
        rows = step + np.array(HISTORY_STEPS)
        x, y, yaw, speed, acceleration, wheel_angle, yaw_rate = self._episode.ego[rows].T
        before = self._episode.ego[np.maximum(rows - 1, 0)]
        steer_rate = (wheel_angle - before[:, 5]) / STEP_S
        yaw_acceleration = (yaw_rate - before[:, 6]) / STEP_S
        lateral = speed * yaw_rate
        columns = (x, y, yaw, speed, np.zeros(4), acceleration, lateral, wheel_angle)
        return np.stack([*columns, steer_rate, yaw_rate, yaw_acceleration], axis=1)

    def _own_light(self, step: int) -> tuple[int, float, bool]:
        """State, distance from front bumper to stop line, and whether it changes within 4 s."""
        vehicle = EgoVehicle()
        bumper = self._progress.ego[step] + vehicle.rear_axle_to_center_m + vehicle.length_m / 2
        for stop_line, signal in self._stop_lines:
            distance = stop_line - bumper
            if distance < -1.0:
                continue
            if distance > CENTERLINE_AHEAD_M:
                break
            states = self._episode.signal_state[step : step + FUTURE_STEPS + 1, signal]
            return int(states[0]), float(distance), bool((states != states[0]).any())
        return -1, float("nan"), False
