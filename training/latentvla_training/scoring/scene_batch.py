"""The scenes to score, padded to a batch of tensors.

Frames, units and layers are NAVSIM's (design/metrics.md sections 0 and 3): global frame, m, rad,
agents at 10 Hz, typed polygons, the PDM-Closed reference already at 10 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.data.scene import Scene
from latentvla_training.scoring.vehicle import NUM_STATES, STATE_SIZE
from latentvla_training.world.road_map import Layer

NUM_AGENT_FRAMES = 51
FIRST_STATIC_TYPE = 3  # agent types 0 vehicle, 1 pedestrian, 2 bicycle; 3 ... 6 are static


@dataclass(frozen=True)
class PolygonBatch:
    """Polygons of S scenes.

    Attributes:
        rings: (S, P, V, 2) open rings, padded by repeating the last vertex.
        vertices: (S, P) int64 true number of vertices; 0 for a padding polygon.
    """

    rings: Tensor
    vertices: Tensor

    @property
    def present(self) -> Tensor:
        """(S, P) bool, False for padding."""
        return self.vertices > 0

    def take(self, index: Tensor) -> PolygonBatch:
        """Select polygons by (S, L) int64 index within each scene; -1 gives padding."""
        safe = index.clamp(min=0)
        rows = torch.arange(len(index), device=index.device)[:, None]
        vertices = torch.where(index >= 0, self.vertices[rows, safe], 0)
        return PolygonBatch(self.rings[rows, safe], vertices)


@dataclass(frozen=True)
class PolylineBatch:
    """One polyline per scene: ``points`` (S, C, 2), padded by repeating the last point."""

    points: Tensor


@dataclass(frozen=True)
class SceneArrays:
    """One scene in numpy, as it comes from a file; see ``SceneBatch`` for what the fields mean.

    Attributes:
        ego: (11,). history: (4, 11) or None. start_time_s: float.
        reference: (41, 3). human: (8, 3) or None, ego frame.
        agent_type (A,), agent_size (A, 2), agent_state (A, 51, 5), agent_valid (A, 51).
        polygons: P arrays (V, 2). polygon_layer (P,), polygon_on_route (P,).
        light_polygon (L,), light_red (L, 41). centerline (C, 2).
    """

    ego: NDArray[np.float64]
    history: NDArray[np.float64] | None
    start_time_s: float
    reference: NDArray[np.float64]
    human: NDArray[np.float64] | None
    agent_type: NDArray[np.integer]
    agent_size: NDArray[np.float64]
    agent_state: NDArray[np.float64]
    agent_valid: NDArray[np.bool_]
    polygons: Sequence[NDArray[np.float64]]
    polygon_layer: NDArray[np.integer]
    polygon_on_route: NDArray[np.bool_]
    light_polygon: NDArray[np.integer]
    light_red: NDArray[np.bool_]
    centerline: NDArray[np.float64]


@dataclass(frozen=True)
class SceneBatch:
    """S scenes as padded tensors, all on one device.

    Attributes:
        origin: (S, 2) float64 subtracted from every global coordinate (zero unless localized).
        start_time_s: (S,) float64 numpy, absolute time of t = 0.
        ego: (S, 11) initial states. history: (S, 4, 11) at -1.5 ... 0 s; history_mask: (S,).
        reference: (S, 41, 3) PDM-Closed poses. human: (S, 8, 3) ego frame; human_mask: (S,).
        agent_type: (S, A) int64, -1 for padding. agent_size: (S, A, 2) length, width.
        agent_state: (S, A, 51, 5) x, y, heading, vx, vy. agent_valid: (S, A, 51) bool.
        polygons: of all layers. polygon_layer: (S, P) int64, -1 for padding;
            polygon_on_route: (S, P) bool.
        light_polygon: (S, L) int64, -1 for padding. light_red: (S, L, 41) bool.
        centerline: of the route.
    """

    origin: Tensor
    start_time_s: NDArray[np.float64]
    ego: Tensor
    history: Tensor
    history_mask: Tensor
    reference: Tensor
    human: Tensor
    human_mask: Tensor
    agent_type: Tensor
    agent_size: Tensor
    agent_state: Tensor
    agent_valid: Tensor
    polygons: PolygonBatch
    polygon_layer: Tensor
    polygon_on_route: Tensor
    light_polygon: Tensor
    light_red: Tensor
    centerline: PolylineBatch

    def __len__(self) -> int:
        return len(self.ego)

    @staticmethod
    def from_arrays(scenes: Sequence[SceneArrays]) -> SceneBatch:
        """Pad scenes to a float64 CPU batch.

        Raises:
            ContractError: on no scene at all, or arrays of the wrong shape (names the field).
        """
        if not scenes:
            raise ContractError("scenes", 0, "at least one scene")
        for number, scene in enumerate(scenes):
            _check_shapes(number, scene)
        count = len(scenes)
        agents = max(len(s.agent_type) for s in scenes)
        polygons = max(1, max(len(s.polygons) for s in scenes))
        corners = max((len(ring) for s in scenes for ring in s.polygons), default=3)
        lights = max(len(s.light_polygon) for s in scenes)
        knots = max(len(s.centerline) for s in scenes)
        history = np.zeros((count, 4, STATE_SIZE))
        human = np.zeros((count, 8, 3))
        agent_type = np.full((count, agents), -1, np.int64)
        agent_size = np.zeros((count, agents, 2))
        agent_state = np.zeros((count, agents, NUM_AGENT_FRAMES, 5))
        agent_valid = np.zeros((count, agents, NUM_AGENT_FRAMES), np.bool_)
        rings = np.zeros((count, polygons, corners, 2))
        vertices = np.zeros((count, polygons), np.int64)
        layer = np.full((count, polygons), -1, np.int64)
        on_route = np.zeros((count, polygons), np.bool_)
        light_polygon = np.full((count, lights), -1, np.int64)
        light_red = np.zeros((count, lights, NUM_STATES), np.bool_)
        centerline = np.zeros((count, knots, 2))
        for i, scene in enumerate(scenes):
            if scene.history is not None:
                history[i] = scene.history
            if scene.human is not None:
                human[i] = scene.human
            a, p, n = len(scene.agent_type), len(scene.polygons), len(scene.light_polygon)
            agent_type[i, :a], agent_size[i, :a] = scene.agent_type, scene.agent_size
            agent_valid[i, :a] = scene.agent_valid
            agent_state[i, :a] = np.where(scene.agent_valid[..., None], scene.agent_state, 0.0)
            for j, ring in enumerate(scene.polygons):
                rings[i, j, : len(ring)], rings[i, j, len(ring) :] = ring, ring[-1]
                vertices[i, j] = len(ring)
            layer[i, :p], on_route[i, :p] = scene.polygon_layer, scene.polygon_on_route
            light_polygon[i, :n], light_red[i, :n] = scene.light_polygon, scene.light_red
            centerline[i, : len(scene.centerline)] = scene.centerline
            centerline[i, len(scene.centerline) :] = scene.centerline[-1]
        tensor = torch.from_numpy
        return SceneBatch(
            origin=torch.zeros(count, 2, dtype=torch.float64),
            start_time_s=np.array([s.start_time_s for s in scenes], np.float64),
            ego=tensor(np.stack([np.asarray(s.ego, np.float64) for s in scenes])),
            history=tensor(history),
            history_mask=torch.tensor([s.history is not None for s in scenes]),
            reference=tensor(np.stack([np.asarray(s.reference, np.float64) for s in scenes])),
            human=tensor(human),
            human_mask=torch.tensor([s.human is not None for s in scenes]),
            agent_type=tensor(agent_type),
            agent_size=tensor(agent_size),
            agent_state=tensor(agent_state),
            agent_valid=tensor(agent_valid),
            polygons=PolygonBatch(tensor(rings), tensor(vertices)),
            polygon_layer=tensor(layer),
            polygon_on_route=tensor(on_route),
            light_polygon=tensor(light_polygon),
            light_red=tensor(light_red),
            centerline=PolylineBatch(tensor(centerline)),
        )

    @staticmethod
    def from_scenes(scenes: Sequence[Scene]) -> SceneBatch:
        """Batch project Scenes; the expert's driven path at 2 Hz is the "human"."""
        return SceneBatch.from_arrays([scene_arrays(scene) for scene in scenes])

    def localized(self) -> SceneBatch:
        """Move every global coordinate to the ego's position at t = 0, so float32 can hold it."""
        shift = self.ego[:, :2].to(torch.float64)
        step = shift.to(self.ego.dtype)

        def moved(values: Tensor) -> Tensor:
            out = values.clone()
            out[..., :2] -= step.reshape(len(step), *([1] * (values.ndim - 2)), 2)
            return out

        return replace(
            self,
            origin=self.origin + shift,
            ego=moved(self.ego),
            history=moved(self.history),
            reference=moved(self.reference),
            agent_state=moved(self.agent_state),
            polygons=replace(self.polygons, rings=moved(self.polygons.rings)),
            centerline=PolylineBatch(moved(self.centerline.points)),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float64) -> SceneBatch:
        """Copy to a device and floating type; float32 localizes first (UTM does not fit)."""
        source = self if dtype == torch.float64 else self.localized()

        def convert(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, PolygonBatch):
                return PolygonBatch(value.rings.to(device, dtype), value.vertices.to(device))
            if isinstance(value, PolylineBatch):
                return PolylineBatch(value.points.to(device, dtype))
            return value

        values = {f.name: convert(getattr(source, f.name)) for f in fields(source)}
        values["origin"] = source.origin.to(device)
        return SceneBatch(**values)  # type: ignore[arg-type]


def scene_arrays(scene: Scene) -> SceneArrays:
    """Take from a project Scene what the scores need.

    Raises:
        ContractError: when the scene has no PDM reference (NaN), which EP cannot do without.
    """
    labels = scene.labels
    if not np.isfinite(labels.pdm_reference_10hz).all():
        raise ContractError(
            f"{scene.token}.pdm_reference_10hz", "NaN", "finite poses: EP is relative to them"
        )
    offsets = labels.polygon_offset
    return SceneArrays(
        ego=labels.past_states[-1],
        history=labels.past_states,
        start_time_s=scene.stamp_ns * 1e-9,
        reference=labels.pdm_reference_10hz,
        human=labels.future_2hz.astype(np.float64) if labels.future_mask.all() else None,
        agent_type=labels.agent_type,
        agent_size=labels.agent_size.astype(np.float64),
        agent_state=labels.agent_state,
        agent_valid=labels.agent_valid,
        polygons=[labels.polygon_xy[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)],
        polygon_layer=labels.polygon_layer,
        polygon_on_route=labels.polygon_on_route,
        light_polygon=labels.light_polygon,
        light_red=labels.light_red,
        centerline=labels.centerline[:, :2],
    )


def _check_shapes(number: int, scene: SceneArrays) -> None:
    agents, polygons, lights = (
        len(scene.agent_type),
        len(scene.polygons),
        len(scene.light_polygon),
    )
    expected: dict[str, tuple[int, ...]] = {
        "ego": (STATE_SIZE,),
        "reference": (NUM_STATES, 3),
        "agent_size": (agents, 2),
        "agent_state": (agents, NUM_AGENT_FRAMES, 5),
        "agent_valid": (agents, NUM_AGENT_FRAMES),
        "polygon_layer": (polygons,),
        "polygon_on_route": (polygons,),
        "light_red": (lights, NUM_STATES),
    }
    if scene.history is not None:
        expected["history"] = (4, STATE_SIZE)
    if scene.human is not None:
        expected["human"] = (8, 3)
    for name, shape in expected.items():
        found = np.shape(getattr(scene, name))
        if found != shape:
            raise ContractError(f"scenes[{number}].{name}.shape", found, str(shape))
    if scene.centerline.ndim != 2 or scene.centerline.shape[1] != 2 or len(scene.centerline) < 2:
        raise ContractError(
            f"scenes[{number}].centerline.shape", scene.centerline.shape, "(C >= 2, 2)"
        )
    for index, ring in enumerate(scene.polygons):
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
            raise ContractError(
                f"scenes[{number}].polygons[{index}].shape", ring.shape, "(V >= 3, 2)"
            )
    if lights and not (0 <= scene.light_polygon.min() <= scene.light_polygon.max() < polygons):
        raise ContractError(
            f"scenes[{number}].light_polygon",
            (int(scene.light_polygon.min()), int(scene.light_polygon.max())),
            f"indices in [0, {polygons})",
        )
    layers = [int(v) for v in Layer]
    if polygons and not np.isin(scene.polygon_layer, layers).all():
        raise ContractError(
            f"scenes[{number}].polygon_layer",
            sorted({int(v) for v in scene.polygon_layer}),
            f"values among {layers}",
        )
