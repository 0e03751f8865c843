"""What the onboard half and the training half agree on: frozen records, numpy only."""

from latentvla_ros.contract.command import Command
from latentvla_ros.contract.ego_motion import EGO_DYNAMICS, HISTORY_OFFSETS_S, EgoMotion
from latentvla_ros.contract.errors import ContractError
from latentvla_ros.contract.latent_actions import (
    CODES_PER_TRANSITION,
    TRANSITIONS_S,
    LatentActionNames,
    latent_action_lines,
    latent_action_names,
)
from latentvla_ros.contract.manifest import SCHEMA_VERSION, BundleManifest, CameraSlot, View
from latentvla_ros.contract.observation import Observation
from latentvla_ros.contract.plan import (
    CODEBOOK_SIZE,
    KNOT_INTERVAL_S,
    NUM_KNOTS,
    NUM_LATENT_ACTIONS,
    Plan,
)
from latentvla_ros.contract.rig import CameraModel, Rig, RigCamera

__all__ = [
    "CODEBOOK_SIZE",
    "CODES_PER_TRANSITION",
    "EGO_DYNAMICS",
    "HISTORY_OFFSETS_S",
    "KNOT_INTERVAL_S",
    "NUM_KNOTS",
    "NUM_LATENT_ACTIONS",
    "SCHEMA_VERSION",
    "TRANSITIONS_S",
    "BundleManifest",
    "CameraModel",
    "CameraSlot",
    "Command",
    "ContractError",
    "EgoMotion",
    "LatentActionNames",
    "Observation",
    "Plan",
    "Rig",
    "RigCamera",
    "View",
    "latent_action_lines",
    "latent_action_names",
]
