"""Settings of the property tests: a loaded machine must not fail them by being slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("latentvla", deadline=None, max_examples=60)
settings.load_profile("latentvla")
