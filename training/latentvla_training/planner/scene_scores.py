"""PDMS and EPDMS of several rows of plans on every Scene of a split, in chunks.

Every row is paired with the reference alone, as on NAVSIM's leaderboard. Extended comfort compares
a plan with that of the same row 0.5 s earlier in the same episode, where there is such a Scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_training.data.scene import Scene
from latentvla_training.data.shards import ShardReader
from latentvla_training.scoring.scene_batch import SceneArrays, SceneBatch, scene_arrays

if TYPE_CHECKING:
    from latentvla_training.scoring.pdm import PdmResult

F64 = NDArray[np.float64]

#: Sub-scores by their names in tables: PDMS has five (NAVSIM 1.1), EPDMS nine (2.2).
PDMS_PARTS = {
    "nc": "collision",
    "dac": "drivable",
    "ep": "progress",
    "ttc": "time_to_collision",
    "c": "comfort",
}
EPDMS_PARTS = {
    "nc": "collision",
    "dac": "drivable",
    "ddc": "direction",
    "tlc": "light",
    "ep": "progress",
    "ttc": "time_to_collision",
    "lk": "lane",
    "hc": "comfort",
}
EXTENDED_COMFORT = "ec"
#: The three scores: NAVSIM 1.1, 2.2 with the human filter, 2.2 without it.
SCORES = ("pdms", "epdms", "epdms_unfiltered")
SCENES_AT_ONCE = 32

_PREDECESSOR_NS = 500_000_000
_TOLERANCE_NS = 20_000_000


@dataclass
class SceneScores:
    """Scores of R rows on N Scenes.

    Attributes:
        rows: (N,) values in 0 ... 1 by row and figure (``SCORES``, and ``<score>_<part>``). Empty
            where no Scene at all could be scored.
        scenes_unscored: how many Scenes could not be scored, by reason; they count as 0.
        plans_unscored: how many plans of a row scored 0 without having been scored, by reason.
    """

    rows: dict[str, dict[str, F64]] = field(default_factory=dict)
    scenes_unscored: Counter[str] = field(default_factory=Counter)
    plans_unscored: dict[str, Counter[str]] = field(default_factory=dict)


def predecessors(tokens: NDArray[np.str_], stamps_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of N Scenes the index of that 0.5 s before in its episode, or -1.

    Recovery starts (``<episode>/<step>r``) are nobody's: what led to them was not driven.
    """
    moment = {
        (_episode(token), int(stamp)): index
        for index, (token, stamp) in enumerate(zip(tokens, stamps_ns, strict=True))
        if str(token)[-1:].isdigit()
    }
    by_episode: dict[str, list[int]] = {}
    for episode, stamp in moment:
        by_episode.setdefault(episode, []).append(stamp)
    found = np.full(len(tokens), -1, np.int64)
    for (episode, stamp), index in moment.items():
        earlier = np.array(by_episode[episode], np.int64)
        gap = np.abs(stamp - _PREDECESSOR_NS - earlier)
        nearest = int(gap.argmin())
        if gap[nearest] <= _TOLERANCE_NS:
            found[index] = moment[episode, int(earlier[nearest])]
    return found


def _episode(token: str) -> str:
    return str(token).rpartition("/")[0]


def score_rows(
    reader: ShardReader, plans: Mapping[str, NDArray[np.floating]], progress: bool = True
) -> SceneScores:
    """Score the plans (N, 8, 3) of every row on every Scene."""
    from tqdm import tqdm

    names = list(plans)
    stacked = np.stack([np.asarray(plans[name], np.float64) for name in names], axis=1)
    before = predecessors(reader.columns["token"], reader.columns["stamp_ns"])
    result = SceneScores(plans_unscored={name: Counter() for name in names})
    figures = [
        *SCORES,
        *(f"pdms_{part}" for part in PDMS_PARTS),
        *(f"{score}_{part}" for score in SCORES[1:] for part in EPDMS_PARTS),
        f"epdms_{EXTENDED_COMFORT}",
    ]
    values = {name: np.zeros((len(reader), len(names))) for name in figures}
    # Extended comfort is a part only of Scenes that have a predecessor.
    values[f"epdms_{EXTENDED_COMFORT}"][before < 0] = np.nan
    scored = 0
    starts = range(0, len(reader), SCENES_AT_ONCE)
    with tqdm(total=len(reader), desc="scores", unit="scene", disable=not progress) as bar:
        for start in starts:
            chosen = range(start, min(start + SCENES_AT_ONCE, len(reader)))
            index, batch = _usable(reader, chosen, result.scenes_unscored)
            if batch is not None:
                _score(batch, index, stacked, before, values, names, result)
                scored += len(index)
            bar.update(len(chosen))
    if scored:
        result.rows = {
            name: {figure: array[:, column] for figure, array in values.items()}
            for column, name in enumerate(names)
        }
    return result


def _usable(
    reader: ShardReader, chosen: Sequence[int], unscored: Counter[str]
) -> tuple[NDArray[np.int64], SceneBatch | None]:
    """Return those of the chosen Scenes that can be scored; counts the others by reason."""
    index: list[int] = []
    arrays: list[SceneArrays] = []
    for number in chosen:
        try:
            arrays.append(_checked(reader[number]))
            index.append(number)
        except ContractError as error:
            unscored[_reason(error)] += 1
    batch = SceneBatch.from_arrays(arrays) if arrays else None
    return np.array(index, np.int64), batch


def _checked(scene: Scene) -> SceneArrays:
    arrays = scene_arrays(scene)
    SceneBatch.from_arrays([arrays])  # names what is of a wrong shape, for this Scene alone
    return arrays


def _reason(error: ContractError) -> str:
    """Return what is wrong, without the token or number that makes every Scene's text its own."""
    name = error.field.rpartition("/")[2].partition(".")[2] or error.field
    return f"{name}: {error.found}"


def _score(
    batch: SceneBatch,
    index: NDArray[np.int64],
    plans: F64,
    before: NDArray[np.int64],
    values: dict[str, F64],
    names: list[str],
    result: SceneScores,
) -> None:
    """Score the plans (N, R, 8, 3) of Scenes ``index`` and put the figures into ``values``."""
    from latentvla_training.scoring.pdm import Reason, score_epdms, score_pdms

    now = torch.from_numpy(plans[index])
    known = before[index] >= 0
    previous = torch.from_numpy(plans[before[index]])
    v1 = score_pdms(batch, now)
    found: dict[str, tuple[PdmResult, dict[str, str]]] = {"pdms": (v1, PDMS_PARTS)}
    for name, filtered in (("epdms", True), ("epdms_unfiltered", False)):
        scores = score_epdms(
            batch,
            now,
            filter_by_human=filtered,
            previous_plans=previous,
            previous_mask=torch.from_numpy(known) & batch.history_mask,
        )
        found[name] = (scores, EPDMS_PARTS)
    for name, (scores, parts) in found.items():
        values[name][index] = scores.score.numpy()
        for part, attribute in parts.items():
            values[f"{name}_{part}"][index] = getattr(scores.frame, attribute).numpy()
    v2 = found["epdms"][0]
    comfort = v2.extended_comfort.numpy()
    values[f"epdms_{EXTENDED_COMFORT}"][index] = comfort
    for column, name in enumerate(names):
        reasons = np.maximum(v1.reason[:, column].numpy(), v2.reason[:, column].numpy())
        for reason, count in Counter(reasons.tolist()).items():
            if reason != Reason.SCORED:
                result.plans_unscored[name][Reason(reason).describe()] += count
