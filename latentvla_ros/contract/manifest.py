"""A bundle's manifest: what the network needs, what it was measured at, the hash of every file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from latentvla_ros.contract.errors import ContractError
from latentvla_ros.contract.latent_actions import LatentActionNames, latent_action_names

#: Major changes break readers; minor ones add fields that older readers may ignore.
#: 1.1 adds ``latent_action_names``.
SCHEMA_VERSION = (1, 1)


@dataclass(frozen=True)
class CameraSlot:
    """A camera that the model was trained with, and how far a vehicle's may differ.

    Attributes:
        name: e.g. ``front``.
        required: without it no plan is made.
        horizontal_fov_deg: trained field of view after crop and resize.
        fov_range_deg: (min, max) accepted.
        yaw_deg: trained mounting yaw, left positive.
        yaw_tolerance_deg, pitch_range_deg: accepted mounting angles (pitch: nose down positive).
        x_range_m, y_range_m, z_range_m: accepted mounting position in the ego frame.
    """

    name: str
    required: bool
    horizontal_fov_deg: float
    fov_range_deg: tuple[float, float]
    yaw_deg: float
    yaw_tolerance_deg: float
    pitch_range_deg: tuple[float, float]
    x_range_m: tuple[float, float]
    y_range_m: tuple[float, float]
    z_range_m: tuple[float, float]


@dataclass(frozen=True)
class View:
    """One network input image: a camera slot at a time offset (s, <= 0) from t0."""

    slot: str
    time_offset_s: float = 0.0


@dataclass(frozen=True)
class BundleManifest:
    """Contents of ``manifest.json``.

    Attributes:
        bundle_id: name and revision, e.g. ``nano-1``.
        schema_version: (major, minor).
        slots: the cameras.
        views: network input order.
        image_width, image_height: network input size of every view, pixels.
        horizon_s, knot_interval_s, num_candidates: shape of the plan.
        base_frame_definition: words for people, e.g. "rear axle centre on the ground".
        codebook_id: the latent-action codebook, or ``None`` while none is trained (then the latent
            actions of a plan carry no meaning).
        latent_action_names: (4, 16) what each code at each position of a transition means, in
            words; ``None`` where nobody has measured it.
        model: settings of ``latentvla_ros.model`` that rebuild the network (torch backend).
        metrics: what it was released with, by split and row.
        provenance: recipe, seeds, data hashes and commit it was made from.
        files: sha256 hex digest by file name, for every other file of the bundle.
    """

    bundle_id: str
    slots: tuple[CameraSlot, ...]
    views: tuple[View, ...]
    image_width: int
    image_height: int
    horizon_s: float
    knot_interval_s: float
    num_candidates: int
    base_frame_definition: str
    codebook_id: str | None
    model: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    latent_action_names: LatentActionNames | None = None
    schema_version: tuple[int, int] = SCHEMA_VERSION

    def __post_init__(self) -> None:
        names = [slot.name for slot in self.slots]
        if len(set(names)) != len(names):
            raise ContractError("manifest.slots", names, "distinct names")
        for index, view in enumerate(self.views):
            if view.slot not in names:
                raise ContractError(f"manifest.views[{index}].slot", view.slot, f"one of {names}")
            if view.time_offset_s > 0:
                raise ContractError(
                    f"manifest.views[{index}].time_offset_s", view.time_offset_s, "a value <= 0"
                )
        if self.image_width <= 0 or self.image_height <= 0:
            raise ContractError(
                "manifest.image size", (self.image_width, self.image_height), "positive pixels"
            )
        self._check_names()

    def _check_names(self) -> None:
        if self.latent_action_names is None:
            return
        field_name = "manifest.latent_action_names"
        if self.codebook_id is None:
            raise ContractError(
                field_name, "names with codebook_id null", "a codebook_id, whose codes they name"
            )
        latent_action_names(self.latent_action_names, field_name)

    def slot(self, name: str) -> CameraSlot:
        """Return the slot called ``name``; raises KeyError when the manifest has none."""
        for slot in self.slots:
            if slot.name == name:
                return slot
        raise KeyError(name)
