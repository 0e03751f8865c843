"""From an observation to a plan through any backend."""

from __future__ import annotations

import time

from latentvla_ros.contract import ContractError, Observation, Plan
from latentvla_ros.runtime.backend import Backend
from latentvla_ros.runtime.bundle import Bundle


class Planner:
    """A loaded bundle that turns observations into plans.

    Thread ownership: as ``Backend``; use from one thread at a time.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        """Load ``bundle`` into ``backend`` and warm it up (this takes seconds)."""
        self.bundle = bundle
        self.backend = backend
        backend.load(bundle)
        backend.warm_up()

    def plan(self, observation: Observation) -> Plan:
        """Return the plan of one moment.

        Raises:
            ContractError: the images do not have the manifest's views and size.
        """
        manifest = self.bundle.manifest
        expected = (len(manifest.views), manifest.image_height, manifest.image_width, 3)
        if observation.images.shape != expected:
            raise ContractError("observation.images", observation.images.shape, str(expected))
        started = time.monotonic()
        outputs = self.backend.infer(observation.inputs())
        candidates, scores, logits = (outputs[name][0] for name in Plan.OUTPUTS)
        return Plan.from_outputs(
            candidates,
            scores,
            logits,
            observation.stamp_ns,
            {"backend": time.monotonic() - started},
        )
