"""What the codes of one run say, judged on networks that it never saw.

Probes are fitted on training networks. Maps, lights and road users serve to judge, never to train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentvla_training.data.shards import ShardReader, load_split
from latentvla_training.engine.run_log import run_cost
from latentvla_training.latent_action.codebook import Codebook, load_run, load_stage
from latentvla_training.latent_action.codes import scenes_identity
from latentvla_training.latent_action.dynamics import (
    CONTINUOUS,
    CONTROLS,
    EGO,
    ENVIRONMENT,
    ONE_STAGE,
    Batch,
    LatentDynamics,
    change_weights,
)
from latentvla_training.latent_action.encoding import BATCH, pair_codes, pair_data, pair_latents
from latentvla_training.latent_action.motion_probes import (
    AgentQuestion,
    EgoQuestion,
    agent_question,
    ego_question,
)
from latentvla_training.latent_action.motion_reader import (
    MotionReader,
    ReadingTask,
    fit_motion_reader,
)
from latentvla_training.latent_action.pairs import MOTION_SCALE, scaled_motion
from latentvla_training.latent_action.probes import (
    F64,
    ProbeAnswer,
    ask,
    one_hot,
)
from latentvla_training.latent_action.scene_set import SceneSet
from latentvla_training.latent_action.stages import PairData, perplexity

#: Ego codes of other pairs; what stage 1 reads of a pair's unexplained change, which is no code.
SHUFFLED, UNEXPLAINED = "shuffled", "unexplained_change"
#: The speed at t0 in as many bins as there are codes: what a probe must not take for news.
SPEED_AT_T0 = "speed_at_t0"
#: What answers the probes, in the order of the report.
SOURCES = (EGO, ENVIRONMENT, ONE_STAGE, SHUFFLED, CONTINUOUS, SPEED_AT_T0, UNEXPLAINED)

#: At least so much perplexity, overall and at every position (experiments.md section 5).
LEAST_PERPLEXITY, LEAST_POSITION_PERPLEXITY = 8.0, 4.0


@dataclass(frozen=True)
class Evidence:
    """Scenes of training networks to fit on and of others to judge on, asked once for all runs."""

    scenes: dict[str, SceneSet]

    @classmethod
    def open(cls, train_shards: int, splits: Sequence[str]) -> Evidence:
        """Open at most ``train_shards`` shards of the training split, evenly chosen, and others."""
        paths = load_split("train").paths
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(train_shards, len(paths))))
        fitted = ShardReader([paths[int(index)] for index in chosen], cached_shards=4)
        judged = [load_split(split, cached_shards=4) for split in splits]
        return cls({"train": SceneSet([fitted]), "judged": SceneSet(judged)})

    def identity(self) -> dict[str, str]:
        """Return which Scenes these are."""
        return {name: scenes_identity(scenes) for name, scenes in self.scenes.items()}


class RunEvidence:
    """The evidence of one run: pairs and codes of both sets of Scenes, computed once."""

    def __init__(self, evidence: Evidence, run: Path, progress: bool = True) -> None:
        self.evidence, self.run, self.progress = evidence, run, progress
        self.codebook: Codebook = load_run(run)
        self.data: dict[str, PairData] = {}
        for name, scenes in evidence.scenes.items():
            encoder = self.codebook.encoder
            data = pair_data(self.codebook.recipe.model, encoder, scenes, progress=progress)
            codes = pair_codes(self.codebook.environment_reader, data, progress)
            self.data[name] = replace(data, environment=codes)
        sets = evidence.scenes
        self.ego: dict[str, EgoQuestion] = {
            name: ego_question(sets[name], self.data[name].pairs) for name in sets
        }
        self.agents: dict[str, AgentQuestion] = {
            name: agent_question(sets[name], self.data[name].pairs) for name in sets
        }

    def figures(self) -> dict[str, Any]:
        """Return all figures of the run."""
        recipe = self.codebook.recipe
        found: dict[str, Any] = {
            "recipe": recipe.name,
            "seed": recipe.seed,
            "ego_motion_weight": recipe.loss.ego_motion,
            "unexplained_change_weight": recipe.loss.unexplained_change,
            "odometry": recipe.model.odometry,
            "odometry_share": recipe.data.odometry_share,
            "scenes": self.evidence.identity(),
            "counts": {
                name: {
                    "pairs": len(self.data[name].pairs),
                    "ego_probe": len(self.ego[name].data),
                    "agent_probe": len(self.agents[name].data),
                }
                for name in self.data
            },
            "costs": self._costs(),
            "codebook_id": self.codebook.codebook_id,
            "stages": {},
            "ego_probe": {},
            "agent_probe": {},
        }
        ego: dict[str, ProbeAnswer] = {}
        agents: dict[str, ProbeAnswer] = {}
        for name, stage in self.stages():
            found["stages"][name] = self._stage_figures(stage)
            for source, inputs in self._inputs(name, stage):
                ego[source] = self._ask_ego(inputs)
                agents[source] = self._ask_agents(inputs)
        ego[SPEED_AT_T0] = self._ask_ego_of_speed()
        change = self._unexplained_change()
        if change:
            agents[UNEXPLAINED] = self._ask_agents(change)
        found["ego_probe"] = {name: ego_figures(answer) for name, answer in ego.items()}
        found["agent_probe"] = {name: agent_figures(answer) for name, answer in agents.items()}
        found["ahead"] = {
            "ego_probe": ahead(ego, EGO, (ENVIRONMENT, SHUFFLED, SPEED_AT_T0)),
            "agent_probe": ahead(agents, ENVIRONMENT, (EGO, SHUFFLED)),
        }
        found["swap"] = self._swap_test()
        return found

    def summary(self) -> dict[str, Any]:
        """Return of an ablation what compares it: figures and ego probe of the ego codes alone."""
        recipe = self.codebook.recipe
        _, inputs = next(self._inputs(EGO, self.codebook.ego))
        return {
            "recipe": recipe.name,
            "seed": recipe.seed,
            **self._stage_figures(self.codebook.ego),
            "ego_probe": ego_figures(self._ask_ego(inputs)),
        }

    def _costs(self) -> dict[str, dict[str, float]]:
        """Return what every stage that is kept has cost, by its name."""
        stages = (*self.codebook.recipe.stages, *CONTROLS)
        found = {stage: run_cost(self.run / stage) for stage in stages}
        return {stage: cost for stage, cost in found.items() if cost}

    def stages(self) -> Iterator[tuple[str, LatentDynamics]]:
        """Yield the stages that the run has; controls may be absent."""
        codebook = self.codebook
        yield ENVIRONMENT, codebook.environment
        yield EGO, codebook.ego
        for name in CONTROLS:
            if (self.run / name).is_dir():
                yield name, load_stage(self.run, name, codebook.recipe, codebook.encoder)

    @torch.inference_mode()
    def _stage_figures(self, stage: LatentDynamics) -> dict[str, Any]:
        """Return perplexities, and gains over copying the earlier frame, on unseen networks."""
        data, size = self.data["judged"], stage.settings.codebook_size
        codes = []
        sums = np.zeros(4)  # error, copy; both weighted by change
        for _, pairs in data.batches(BATCH):
            batch = on_device(pairs, stage)
            encoded = stage.encode(batch)
            predicted = stage.decode(batch, encoded.vectors)
            weights = change_weights(batch["earlier"], batch["later"], stage.loss)
            errors = (predicted - batch["later"]).square().mean(dim=-1)
            copies = (batch["earlier"] - batch["later"]).square().mean(dim=-1)
            sums += [
                float(value.sum()) for value in (errors, copies, weights * errors, weights * copies)
            ]
            codes.append(encoded.codes.cpu().numpy())
        used = np.concatenate(codes)
        figures: dict[str, Any] = {
            "gain_over_copy": 1.0 - sums[0] / sums[1],
            "gain_over_copy_weighted": 1.0 - sums[2] / sums[3],
        }
        if used.min() >= 0:
            figures["perplexity"] = perplexity(used, size)
            places = range(used.shape[1])
            figures["position_perplexity"] = [perplexity(used[:, i], size) for i in places]
            lengths = (used[data.pairs.interval == i] for i in np.unique(data.pairs.interval))
            figures["position_perplexity_by_length"] = [
                [perplexity(codes[:, i], size) for i in places] for codes in lengths
            ]
        return figures

    def _inputs(self, name: str, stage: LatentDynamics) -> Iterator[tuple[str, dict[str, F64]]]:
        """Yield what a probe reads of every pair, by source: codes one-hot, or vectors."""
        found = {}
        for part, data in self.data.items():
            codes, vectors = pair_latents(stage, data, self.progress)
            continuous = stage.bottleneck.quantizer is None
            found[part] = (
                vectors.reshape(len(vectors), -1).astype(np.float64)
                if continuous
                else one_hot(codes, stage.settings.codebook_size)
            )
        yield name, found
        if name == EGO:
            yield (
                SHUFFLED,
                {
                    part: inputs[np.random.default_rng(0).permutation(len(inputs))]
                    for part, inputs in found.items()
                },
            )

    def _ask_ego(self, inputs: dict[str, F64]) -> ProbeAnswer:
        """Ask (delta v, delta yaw) of every transition of all codes of a Scene."""
        return self._ask_ego_of(
            {
                part: inputs[part][question.pairs].reshape(len(question.pairs), -1)
                for part, question in self.ego.items()
            }
        )

    def _ask_ego_of_speed(self) -> ProbeAnswer:
        """Ask the same of the speed at t0 alone, in bins that hold equally many Scenes."""
        entries = self.codebook.recipe.model.codebook_size
        edges = np.quantile(self.ego["train"].speed, np.arange(1, entries) / entries)
        return self._ask_ego_of(
            {
                part: one_hot(np.digitize(question.speed, edges), entries)
                for part, question in self.ego.items()
            }
        )

    def _ask_ego_of(self, read: dict[str, F64]) -> ProbeAnswer:
        ego = self.ego
        return ask(ego["train"].data, ego["judged"].data, read["train"], read["judged"])

    def _ask_agents(self, inputs: dict[str, F64]) -> ProbeAnswer:
        """Ask how a road user moves of the codes of the first transition."""
        read = {part: inputs[part][question.pairs] for part, question in self.agents.items()}
        agents = self.agents
        return ask(agents["train"].data, agents["judged"].data, read["train"], read["judged"])

    def _unexplained_change(self) -> dict[str, F64]:
        """Return what stage 1 reads of unexplained change, of every pair; {} if it reads none."""
        module = self.codebook.environment.change
        if module is None:
            return {}
        found = {}
        for part, data in self.data.items():
            batch = on_device(data.batch(np.arange(len(data.pairs))), self.codebook.environment)
            found[part] = module.standard(batch).cpu().numpy().astype(np.float64)
        return found

    def _swap_test(self) -> dict[str, Any]:
        """Swap ego codes between Scenes and read the motion off what the decoder predicts then.

        Returns:
            correlations, for x and yaw, of (read after the swap - read before) with (true motion of
            the other Scene - own); share of swaps that move x the right way, of those whose true
            motions differ by more than 2 m; how well the reader itself reads true pairs (R2).
        """
        encoder, judged = self.codebook.encoder, self.data["judged"]
        train = self.data["train"]
        fitted = np.flatnonzero(train.pairs.interval == 0)
        motion = scaled_motion(train.pairs.trajectory[fitted, -1])
        task = ReadingTask(train, fitted, motion)
        reader = fit_motion_reader(task, encoder.grid, encoder.channels)
        chosen = np.flatnonzero(judged.pairs.interval == 0)
        partner = np.random.default_rng(0).permutation(chosen)
        read = _read_swaps(self.codebook.ego, judged, reader, chosen, partner)
        moved = read["swapped"] - read["own"]
        wanted = read["partner_true"] - read["true"]
        far = np.abs(wanted[:, 0]) > 2.0 / MOTION_SCALE[0]
        right = np.sign(moved[far, 0]) == np.sign(wanted[far, 0])
        spread = ((read["true"] - read["true"].mean(axis=0)) ** 2).sum(axis=0)
        reader_r2 = 1.0 - ((read["pair"] - read["true"]) ** 2).sum(axis=0) / spread
        return {
            "correlation_x": float(np.corrcoef(moved[:, 0], wanted[:, 0])[0, 1]),
            "correlation_yaw": float(np.corrcoef(moved[:, 2], wanted[:, 2])[0, 1]),
            "right_way_x": float(right.mean()) if far.any() else float("nan"),
            "swaps": len(chosen),
            "reader_r2": {"x": float(reader_r2[0]), "yaw": float(reader_r2[2])},
        }


@torch.inference_mode()
def _read_swaps(
    ego: LatentDynamics,
    data: PairData,
    reader: MotionReader,
    chosen: NDArray[np.int64],
    partner: NDArray[np.int64],
) -> dict[str, NDArray[np.float32]]:
    """Return scaled motions (n, 3): true, read off true pairs, predictions and swapped ones."""
    found: dict[str, list[NDArray[np.float32]]] = {
        name: [] for name in ("true", "partner_true", "pair", "own", "swapped")
    }
    for start in range(0, len(chosen), BATCH):
        batch = on_device(data.batch(chosen[start : start + BATCH]), ego)
        other = on_device(data.batch(partner[start : start + BATCH]), ego)
        own = ego.decode(batch, ego.encode(batch).vectors)
        swapped = ego.decode(batch, ego.encode(other).vectors)
        found["true"].append(batch["motion"].cpu().numpy())
        found["partner_true"].append(other["motion"].cpu().numpy())
        for name, later in (("pair", batch["later"]), ("own", own), ("swapped", swapped)):
            found[name].append(reader(batch["earlier"], later).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def on_device(batch: Batch, stage: LatentDynamics) -> Batch:
    """Return a batch where a stage computes."""
    device = next(stage.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


def ego_figures(answer: ProbeAnswer) -> dict[str, Any]:
    """Return partial R2 of delta v and of delta yaw of every transition, and their mean."""
    share = answer.share
    return {
        "delta_v": share[0::2].tolist(),
        "delta_yaw": share[1::2].tolist(),
        "mean": float(share.mean()),
    }


def agent_figures(answer: ProbeAnswer) -> dict[str, float]:
    """Return partial R2 of a road user's displacement ahead, to the left and in length; mean."""
    named = zip(("x", "y", "distance"), answer.share, strict=True)
    shares = {name: float(value) for name, value in named}
    return {**shares, "mean": float(answer.share.mean())}


def ahead(
    answers: dict[str, ProbeAnswer], winner: str, others: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return how far the mean of one source is above 0 (``nothing``) and above others, paired."""
    found = {"nothing": answers[winner].ahead_of(None)}
    return found | {other: answers[winner].ahead_of(answers[other]) for other in others}


def gates(figures: dict[str, Any]) -> dict[str, bool]:
    """Return which of the codebook's gates a run passes.

    The winner of a probe is above nothing and above every other source that ``ahead`` names; of the
    ego probe, where it is asked to say most of the answer, beyond the interval by network.
    """
    stages = figures["stages"]
    passed = {
        f"perplexity of {name} codes": stages[name]["perplexity"] >= LEAST_PERPLEXITY
        and least_position_perplexity(stages[name]) >= LEAST_POSITION_PERPLEXITY
        for name in (EGO, ENVIRONMENT)
    }
    ego, agents = figures["ahead"]["ego_probe"], figures["ahead"]["agent_probe"]
    swap = figures["swap"]
    passed["ego codes win the ego probe"] = all(one["low"] > 0.0 for one in ego.values())
    passed["environment codes win the agent probe"] = all(
        one["value"] > 0.0 for one in agents.values()
    )
    passed["swapped ego codes move the motion their way"] = (
        min(swap["correlation_x"], swap["correlation_yaw"]) > 0.0 and swap["right_way_x"] > 0.5
    )
    return passed


def least_position_perplexity(stage: dict[str, Any]) -> float:
    """Return the least perplexity of a position, over all pairs and over those of every length."""
    by_length = [value for row in stage["position_perplexity_by_length"] for value in row]
    return float(min(*stage["position_perplexity"], *by_length))
