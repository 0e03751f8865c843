"""The trained baselines that come with the package, so that a table of results needs no training.

A folder of safetensors files in half precision with their hashes. Of the planner that was trained
on blank images only what is needed is kept: its image features are one constant map.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError, Observation
from latentvla_ros.model.config import PlannerConfig
from latentvla_ros.model.planner import StudentPlanner
from latentvla_ros.runtime.bundle import sha256_of
from latentvla_training.planner.baselines import EgoStatusNet

MANIFEST = "released.json"
EGO_STATUS = "ego_status.safetensors"
BLANK = "blank_planner.safetensors"
_FEATURES = "blank_image_features"

#: Parts of the planner that planning on blank images does not use.
_LEFT_OUT = ("image_encoder.", "reasoner.", "head.fusion.")


def released_folder() -> Path:
    """Return the folder of the baselines that come with the package."""
    return Path(__file__).resolve().parents[1] / "released"


class BlankPlanner:
    """The planner as it plans when every image it ever saw was blank."""

    def __init__(self, planner: StudentPlanner, features: Tensor) -> None:
        self.planner = planner.eval()
        self.features = features  # (1, C, h, w)

    @torch.inference_mode()
    def plan(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the selected plans (B, 8, 3) of inputs named as ``Observation`` but images."""
        names = [name for name in Observation.INPUTS if name != "images"]
        batch, views = inputs["view_mask"].shape
        features = self.features[None].expand(batch, views, *self.features.shape[1:])
        encoded = self.planner.encode(features, *(inputs[name] for name in names))
        rounds, scores = self.planner.decode(encoded, None)
        best = scores.argmax(dim=1)
        return rounds[-1][torch.arange(batch), best]


@dataclass(frozen=True)
class Baselines:
    """Both trained baselines and what their manifest says about them."""

    ego_status: EgoStatusNet
    blank: BlankPlanner
    provenance: dict[str, Any]

    @property
    def blank_id(self) -> str:
        """What a run names that goes on from the blank planner."""
        return f"blank-{self.provenance[BLANK]['sha256'][:8]}"

    def identity(self) -> dict[str, Any]:
        """Return what tells one pair of baselines from another: hashes, seeds, budgets."""
        ego, blank = self.provenance[EGO_STATUS], self.provenance[BLANK]
        made = blank.get("provenance", {})
        return {
            "ego_status": {name: ego.get(name) for name in ("sha256", "seed", "steps")},
            "blank": {
                "sha256": blank["sha256"],
                **{name: made.get(name) for name in ("recipe", "start_from", "seed", "passes")},
            },
        }


def save_ego_status(
    net: EgoStatusNet, shape: dict[str, int], about: dict[str, Any], folder: Path
) -> None:
    """Write the ego-status net; ``shape`` are the arguments that rebuild it."""
    _save(folder, EGO_STATUS, dict(net.state_dict()), {"shape": shape, **about})


def save_blank(
    planner: StudentPlanner, features: Tensor, about: dict[str, Any], folder: Path
) -> None:
    """Write the planner that was trained on blank images; ``features`` (C, h, w) stand for them."""
    config = planner.eval().config
    state = {
        name: value
        for name, value in planner.state_dict().items()
        if not name.startswith(_LEFT_OUT) and value.is_floating_point()
    }
    _save(folder, BLANK, {**state, _FEATURES: features[None]}, {"model": config.to_dict(), **about})


def _save(folder: Path, name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in tensors.items()}
    part = folder / f".{name}.part"
    part.write_bytes(save(half))  # save_file hides a full disk, and lets nobody else read
    part.chmod(0o644)
    part.replace(folder / name)
    path = folder / MANIFEST
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    manifest[name] = {"sha256": sha256_of(folder / name), **about}
    part = folder / f".{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    part.replace(path)


def load_baselines(folder: Path | None = None) -> Baselines:
    """Load and verify both baselines.

    Raises:
        FileNotFoundError: there are none. ContractError: a file does not match its hash.
    """
    folder = folder or released_folder()
    manifest = _read_manifest(folder)
    weights = {name: _load(folder, name, manifest) for name in (EGO_STATUS, BLANK)}
    net = EgoStatusNet(**manifest[EGO_STATUS]["shape"])
    net.load_state_dict(weights[EGO_STATUS])
    planner = StudentPlanner(PlannerConfig.from_dict(manifest[BLANK]["model"]))
    features = weights[BLANK].pop(_FEATURES)
    missing, unexpected = planner.load_state_dict(weights[BLANK], strict=False)
    lacking = [
        name
        for name in missing
        if not name.startswith(_LEFT_OUT) and not name.endswith("num_batches_tracked")
    ]
    if lacking or unexpected:
        raise ContractError(BLANK, [*lacking, *unexpected][:3], "exactly the planner's tensors")
    return Baselines(net.eval(), BlankPlanner(planner, features), manifest)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"no baselines in {folder}; make them with latentvla-train release-baselines --out"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(str(path), str(error), "the JSON of release-baselines") from error
    if not isinstance(manifest, dict):
        raise ContractError(str(path), type(manifest).__name__, "the JSON of release-baselines")
    return manifest


def _load(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if name not in manifest:
        raise ContractError(f"{MANIFEST}", sorted(manifest), f"an entry {name!r}")
    found = sha256_of(folder / name)
    if found != manifest[name]["sha256"]:
        raise ContractError(f"{name}.sha256", found, manifest[name]["sha256"])
    return {key: value.float() for key, value in load_file(folder / name).items()}
