"""The light of an episode: sun, sky, haze and tint, drawn from its seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Atmosphere:
    """Attributes:
    sun: (3,) unit vector towards the sun, map frame.
    sun_strength, ambient: light on a face that looks at the sun, and on every face.
    sky_top, sky_horizon: (3,) RGB 0-255.
    asphalt_tint, grass_tint: (3,) factors about 1.
    cloudiness: 0 clear ... 1 overcast.
    haze_distance_m: where half of a colour has turned into haze.
    phase: moves clouds and hills.
    """

    sun: Array
    sun_strength: float
    ambient: float
    sky_top: Array
    sky_horizon: Array
    asphalt_tint: Array
    grass_tint: Array
    cloudiness: float
    haze_distance_m: float
    phase: float

    def packed(self) -> Array:
        """Return all fields as one (21,) vector in the order above (the renderer reads it)."""
        scalars = [self.cloudiness, 1.0 / self.haze_distance_m, self.phase]
        return np.concatenate(
            [
                self.sun,
                [self.sun_strength, self.ambient],
                self.sky_top,
                self.sky_horizon,
                self.asphalt_tint,
                self.grass_tint,
                scalars,
            ]
        )


def draw_atmosphere(seed: int) -> Atmosphere:
    """Draw the light of the episode with this seed."""
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 0x5C9])
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(22.0, 60.0))
    sun = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    cloudiness = float(rng.uniform(0.0, 1.0))
    exposure = rng.uniform(0.82, 1.08)
    clear_top, clear_horizon = np.array([88.0, 140.0, 208.0]), np.array([196.0, 214.0, 230.0])
    grey_top, grey_horizon = np.array([150.0, 160.0, 172.0]), np.array([198.0, 203.0, 208.0])
    overcast = cloudiness**2
    warmth = rng.uniform(-1.0, 1.0) * np.array([5.0, 0.0, -6.0])
    return Atmosphere(
        sun=sun,
        sun_strength=float(exposure * (0.55 - 0.42 * overcast)),
        ambient=float(exposure * (0.60 + 0.25 * overcast)),
        sky_top=exposure * (clear_top + overcast * (grey_top - clear_top)),
        sky_horizon=exposure * (clear_horizon + overcast * (grey_horizon - clear_horizon)) + warmth,
        asphalt_tint=rng.uniform(0.82, 1.15) * rng.uniform(0.97, 1.03, 3),
        grass_tint=np.array([1.0, 1.0, 1.0]) + rng.uniform(-1.0, 1.0, 3) * [0.22, 0.10, 0.15],
        cloudiness=cloudiness,
        haze_distance_m=float(rng.uniform(350.0, 700.0)),
        phase=float(rng.uniform(0.0, 100.0)),
    )


@lru_cache(maxsize=64)
def packed_atmosphere(seed: int) -> Array:
    """Return ``draw_atmosphere(seed).packed()``, read-only."""
    values = draw_atmosphere(seed).packed()
    values.setflags(write=False)
    return values
