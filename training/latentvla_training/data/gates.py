"""Whether the expert is good enough to learn from: its scores on a split against the world's gates.

Gates: experiments.md section 1. Nothing is hidden: every Scene that fails one is named, and drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentvla_ros.contract import ContractError
from latentvla_ros.geometry import se2
from latentvla_training.data.expert_scores import SCENES_PER_BATCH, score_expert
from latentvla_training.data.scene import RECOVERY, Scene
from latentvla_training.data.shards import ShardReader
from latentvla_training.scoring.scene_batch import SceneBatch

#: Sub-score -> least mean over a split.
GATES = {"collision": 0.99, "drivable": 0.99, "light": 0.995}
#: Names of the sub-scores in print.
LABELS = {
    "collision": "NC", "drivable": "DAC", "direction": "DDC", "light": "TLC", "progress": "EP",
    "time_to_collision": "TTC", "lane": "LK", "comfort": "HC",
}  # fmt: skip
ALL = "all"
_REFERENCE_COLOR, _EXPERT_COLOR = (245, 190, 20), (230, 30, 120)


@dataclass(frozen=True)
class Failure:
    """A Scene in which the expert loses a gated sub-score."""

    token: str
    network: str
    lost: tuple[str, ...]
    pdms: float
    epdms: float
    tags: str


@dataclass(frozen=True)
class GateReport:
    """The expert on a split.

    Attributes:
        split: name. scenes: scored (those with a map). passed: no gate is missed.
        gates: least mean by gated sub-score. missed: those below.
        means: by tag (``all``: every Scene but recovery starts), means of NC ... HC, PDMS, EPDMS,
            the share of Scenes that score 0, and their number.
        failures: Scenes in which a gated sub-score is lost.
    """

    split: str
    scenes: int
    passed: bool
    gates: dict[str, float]
    missed: tuple[str, ...]
    means: dict[str, dict[str, float]]
    failures: tuple[Failure, ...] = field(default=())

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return asdict(self)


def check_gates(split: str, reader: ShardReader) -> GateReport:
    """Score the expert on a split again and hold it against the gates.

    Raises:
        ContractError: no Scene of the split has a reference.
    """
    values: dict[str, list[NDArray[np.float64]]] = {}
    tags: list[frozenset[str]] = []
    failures: list[Failure] = []
    for scenes in _chunks(reader):
        scores = score_expert(SceneBatch.from_scenes(scenes))
        columns = {LABELS[name]: value for name, value in scores.frame.items()}
        columns |= {"PDMS": scores.pdms, "EPDMS": scores.epdms}
        columns["zero"] = ((scores.pdms == 0.0) | (scores.epdms == 0.0)).astype(np.float64)
        for name, value in columns.items():
            values.setdefault(name, []).append(value)
        for index, scene in enumerate(scenes):
            tags.append(frozenset(scene.labels.tags.split(",")))
            lost = tuple(LABELS[name] for name in GATES if scores.frame[name][index] < 1.0)
            if lost:
                failures.append(
                    Failure(
                        scene.token,
                        scene.network,
                        lost,
                        float(scores.pdms[index]),
                        float(scores.epdms[index]),
                        scene.labels.tags,
                    )
                )
    if not tags:
        raise ContractError(f"split {split}", "no scene with a reference", "scenes of the world")
    columns = {name: np.concatenate(parts) for name, parts in values.items()}
    driven = np.array([RECOVERY not in names for names in tags])
    groups = {ALL: driven if driven.any() else ~driven}
    for tag in sorted(frozenset().union(*tags) - {""}):
        groups[tag] = np.array([tag in names for names in tags])
    means = {
        tag: {
            **{name: float(value[mask].mean()) for name, value in columns.items()},
            "scenes": int(mask.sum()),
        }
        for tag, mask in groups.items()
    }
    gates = {LABELS[name]: least for name, least in GATES.items()}
    missed = tuple(name for name, least in gates.items() if means[ALL][name] < least)
    return GateReport(split, len(tags), not missed, gates, missed, means, tuple(failures))


def _chunks(reader: ShardReader) -> Iterator[list[Scene]]:
    """Yield the Scenes that have a reference, a few neighbours at a time."""
    known = np.flatnonzero(np.isfinite(reader.columns["expert_pdms"]))
    for first in range(0, len(known), SCENES_PER_BATCH):
        yield [reader[int(index)] for index in known[first : first + SCENES_PER_BATCH]]


def report_lines(report: GateReport, most_failures: int = 40) -> list[str]:
    """Return the report for people."""
    names = [*LABELS.values(), "PDMS", "EPDMS", "zero"]
    lines = [f"{'tag':22s}{'scenes':>7s}" + "".join(f"{name:>7s}" for name in names)]
    for tag, means in report.means.items():
        cells = "".join(f"{100 * means[name]:7.1f}" for name in names)
        lines.append(f"{tag:22s}{means['scenes']:7.0f}{cells}")
    for name, least in report.gates.items():
        found = report.means[ALL][name]
        verdict = "missed" if name in report.missed else "passed"
        lines.append(f"gate {name} >= {100 * least:.1f} %: {100 * found:.2f} % {verdict}")
    if report.failures:
        lines.append(f"{len(report.failures)} scenes lose a gated sub-score:")
    for failure in report.failures[:most_failures]:
        lines.append(
            f"  {failure.token:26s} {'+'.join(failure.lost):8s} PDMS {failure.pdms:.2f}"
            f" EPDMS {failure.epdms:.2f} {failure.tags}"
        )
    if len(report.failures) > most_failures:
        lines.append(f"  and {len(report.failures) - most_failures} more (all in the JSON file)")
    return lines


def draw_failures(
    reader: ShardReader, failures: Sequence[Failure], folder: Path, most: int = 12
) -> list[Path]:
    """Write pictures from above of failed Scenes: expert magenta, reference yellow.

    Failures of different networks come first. The episodes are simulated again.

    Raises:
        OSError: the folder cannot be written.
    """
    import cv2

    from latentvla_training.world.birds_eye import draw_birds_eye
    from latentvla_training.world.networks import build_road_map
    from latentvla_training.world.simulation import simulate_episode

    folder.mkdir(parents=True, exist_ok=True)
    index_of = {token: index for index, token in enumerate(reader.columns["token"])}
    rank: dict[str, int] = {}
    order = []
    for failure in failures:
        rank[failure.network] = rank.get(failure.network, -1) + 1
        order.append((rank[failure.network], failure.token))
    chosen = [failures[i] for i in sorted(range(len(failures)), key=order.__getitem__)[:most]]
    written = []
    for failure in sorted(chosen, key=lambda failure: failure.token):
        name, place = failure.token.split("/")
        step = int(place.rstrip("r"))
        episode, scene = simulate_episode(name), reader[index_of[failure.token]]
        driven = se2.compose(scene.ego_pose, scene.labels.future_10hz.astype(np.float64))
        picture = draw_birds_eye(
            build_road_map(episode.network), episode, step, 800, 70.0,
            ((scene.labels.pdm_reference_10hz[:, :2], _REFERENCE_COLOR),
             (driven[:, :2], _EXPERT_COLOR)),
        )  # fmt: skip
        path = folder / f"{name}_{place}_{'_'.join(failure.lost)}.png"
        if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{path} could not be written")
        written.append(path)
    return written
