"""Cut the small subset of scoring vectors kept here from the full files.

    python training/tests/scoring/vectors/make_subset.py PUBLIC.npz COMFORT.npz TWO_STAGE.json

Scenes are chosen greedily until every value of every discrete result column occurs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

SCENES = 8
COMFORT_ROWS = 16
TWO_STAGE_CASES = 5
RAGGED = {
    "scene_centerline_offset": ("centerline",),
    "scene_agent_offset": ("ag_type", "ag_size", "ag_valid", "ag_state"),
    "scene_tl_offset": ("tl_poly", "tl_red"),
}
DISCRETE = (
    "v2_pair",
    "v2_filt",
    "v2_final",
    "v2_human",
    "v1_pair",
    "v2_comfort_bits",
    "v1_comfort_bits",
    "v2_batch_areas",
)


def choose_scenes(data: dict[str, np.ndarray], count: int) -> list[int]:
    """Return scene indices that cover the most (column, value) pairs."""
    features: list[set[tuple[object, ...]]] = []
    for scene in range(len(data["ego"])):
        found: set[tuple[object, ...]] = {("kind", str(k)) for k in data["cand_kind"][scene]}
        for key in DISCRETE:
            rows = data[key][scene].reshape(-1, data[key].shape[-1]).astype(float)
            for column in range(rows.shape[1]):
                values = set(np.unique(rows[:, column])) & {0.0, 0.5, 1.0}
                found |= {(key, column, value) for value in values}
        forgiven = np.argwhere(data["v2_filt"][scene] > data["v2_pair"][scene])
        found |= {("forgiven", int(column), 1.0) for column in forgiven[:, 1]}
        found.add(("utm", 0, float(abs(data["ego"][scene, 0]) > 1e5)))
        features.append(found)
    return greedy_cover(features, count)


def greedy_cover(features: list[set[tuple[object, ...]]], count: int) -> list[int]:
    """Return ``count`` indices whose features together cover the most."""
    chosen: list[int] = []
    covered: set[tuple[object, ...]] = set()
    while len(chosen) < count:
        rest = [i for i in range(len(features)) if i not in chosen]
        best = max(rest, key=lambda i: (len(features[i] - covered), -i))
        chosen.append(best)
        covered |= features[best]
    return sorted(chosen)


def choose_comfort_rows(data: dict[str, np.ndarray], count: int) -> list[int]:
    """Return rows in which every bound both holds and fails somewhere."""
    features = [
        {
            (key, *np.ravel(column), bool(bit))
            for key in ("v1_bits", "v2_bits", "ec")
            for column, bit in np.ndenumerate(data[key][row])
        }
        for row in range(len(data["states"]))
    ]
    return greedy_cover(features, count)


def cut_scenes(data: dict[str, np.ndarray], scenes: list[int]) -> dict[str, np.ndarray]:
    """Select scenes from flat and ragged arrays alike."""
    ragged = {name for names in RAGGED.values() for name in names}
    polygon_keys = {"scene_poly_offset", "poly_vertex_offset", "poly_xy", "poly_type"}
    polygon_keys |= {"poly_on_route"}
    out = {
        key: value[scenes]
        for key, value in data.items()
        if key not in ragged and key not in RAGGED and key not in polygon_keys
    }
    for offset_key, names in RAGGED.items():
        offsets = data[offset_key]
        index = [np.arange(offsets[s], offsets[s + 1]) for s in scenes]
        out[offset_key] = np.cumsum([0, *map(len, index)]).astype(offsets.dtype)
        for name in names:
            out[name] = data[name][np.concatenate(index).astype(int)]
    offsets, vertices = data["scene_poly_offset"], data["poly_vertex_offset"]
    polygons = [np.arange(offsets[s], offsets[s + 1]) for s in scenes]
    flat = np.concatenate(polygons).astype(int)
    out["scene_poly_offset"] = np.cumsum([0, *map(len, polygons)]).astype(offsets.dtype)
    out["poly_type"], out["poly_on_route"] = data["poly_type"][flat], data["poly_on_route"][flat]
    rings = [data["poly_xy"][vertices[p] : vertices[p + 1]] for p in flat]
    out["poly_xy"] = np.concatenate(rings)
    out["poly_vertex_offset"] = np.cumsum([0, *map(len, rings)]).astype(vertices.dtype)
    return out


def main() -> None:
    """Write the three subset files beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("public", type=Path)
    parser.add_argument("comfort", type=Path)
    parser.add_argument("two_stage", type=Path)
    arguments = parser.parse_args()
    folder = Path(__file__).parent
    data = dict(np.load(arguments.public, allow_pickle=False))
    np.savez_compressed(folder / "scenes.npz", **cut_scenes(data, choose_scenes(data, SCENES)))
    comfort = dict(np.load(arguments.comfort, allow_pickle=False))
    rows = choose_comfort_rows(comfort, COMFORT_ROWS)
    np.savez_compressed(folder / "comfort.npz", **{k: v[rows] for k, v in comfort.items()})
    cases = json.loads(arguments.two_stage.read_text(encoding="utf-8"))
    cases.sort(key=lambda case: len(case["inputs"]["token"]))
    text = json.dumps(cases[:TWO_STAGE_CASES])
    (folder / "two_stage.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
