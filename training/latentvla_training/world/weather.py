"""Which weather an episode has: shares by split, rain kept out of every split but ``ood``."""

from __future__ import annotations

import numpy as np

from latentvla_training.world.episode import Weather

#: Shares of the weathers in every split but ``ood``.
WEATHER_SHARES = {Weather.CLEAR: 0.55, Weather.FOG: 0.15, Weather.NIGHT: 0.30}


def draw_weather(split: str, rng: np.random.Generator) -> Weather:
    """Return the weather of an episode of ``split``; takes one number from ``rng`` in every split.

    ``ood`` always has rain: it is the weather nobody has trained on.
    """
    draw = float(rng.random())
    if split == "ood":
        return Weather.RAIN
    bound = 0.0
    for weather, share in WEATHER_SHARES.items():
        bound += share
        if draw < bound:
            return weather
    return Weather.CLEAR
