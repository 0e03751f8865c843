"""The light of an episode: weather, sun, sky, haze and tints, drawn from its seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentvla_training.world.episode import Weather

Array = NDArray[np.float64]

#: Places of the fields in ``Atmosphere.packed``; the kernels read them by these names.
SUN, SUN_STRENGTH, AMBIENT, SKY_TOP, SKY_HORIZON = 0, 3, 4, 5, 8
ASPHALT, GRASS, FACADE, CLOUDINESS, EXTINCTION, PHASE = 11, 14, 17, 20, 21, 22
HEADLIGHTS, GLOW, WETNESS, LIT_WINDOWS, TEXTURE, AIR_SIZE = 23, 24, 25, 26, 27, 28

#: 5 % of a contrast is left at the visibility V by (1 + x / 16) ** -16, x = this * distance / V.
_CONTRAST_REACH = 16.0 * (20.0 ** (1.0 / 16.0) - 1.0)


@dataclass(frozen=True)
class Atmosphere:
    """Attributes:
    sun: (3,) unit vector towards the sun (or moon), map frame.
    sun_strength, ambient: light on a face that looks at the sun, and on every face.
    sky_top, sky_horizon: (3,) RGB 0-255; the horizon's is also that of haze and fog.
    asphalt_tint, grass_tint, facade_tint: (3,) factors about 1.
    cloudiness: 0 clear ... 1 overcast.
    visibility_m: where 5 % of a contrast is left.
    phase: moves clouds and hills.
    headlights: strength of the vehicles' lamps on what they shine at, 0 by day.
    glow: halo around lamps, 0 by day.
    wetness: 0 dry ... 1 water stands on the road, and drops fall.
    lit_windows: share of a building's windows with light behind them.
    texture: how strongly asphalt and grass are mottled.
    """

    sun: Array
    sun_strength: float
    ambient: float
    sky_top: Array
    sky_horizon: Array
    asphalt_tint: Array
    grass_tint: Array
    facade_tint: Array
    cloudiness: float
    visibility_m: float
    phase: float
    headlights: float = 0.0
    glow: float = 0.0
    wetness: float = 0.0
    lit_windows: float = 0.0
    texture: float = 1.0

    def packed(self) -> Array:
        """Return all fields as one (AIR_SIZE,) vector in the order above (the kernels read it)."""
        extinction = _CONTRAST_REACH / self.visibility_m
        scalars = [self.cloudiness, extinction, self.phase, self.headlights, self.glow]
        return np.concatenate(
            [
                self.sun,
                [self.sun_strength, self.ambient],
                self.sky_top,
                self.sky_horizon,
                self.asphalt_tint,
                self.grass_tint,
                self.facade_tint,
                [*scalars, self.wetness, self.lit_windows, self.texture],
            ]
        )


def draw_atmosphere(seed: int, weather: Weather = Weather.CLEAR) -> Atmosphere:
    """Draw the light of the episode with this seed in this weather."""
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
    warmth = rng.uniform(-1.0, 1.0) * np.array([5.0, 0.0, -6.0])
    asphalt = rng.uniform(0.72, 1.22) * rng.uniform(0.96, 1.04, 3)
    grass = np.array([1.0, 1.0, 1.0]) + rng.uniform(-1.0, 1.0, 3) * [0.25, 0.12, 0.18]
    facade = rng.uniform(0.82, 1.12) * (1.0 + rng.uniform(-1.0, 1.0, 3) * [0.10, 0.06, 0.12])
    visibility_m = float(rng.uniform(1500.0, 3000.0))
    phase, texture = float(rng.uniform(0.0, 100.0)), float(rng.uniform(0.5, 1.8))
    if weather == Weather.FOG:
        grey = exposure * rng.uniform(150.0, 195.0) * np.array([0.99, 1.0, 1.01]) + 0.5 * warmth
        return Atmosphere(
            sun=sun,
            sun_strength=0.05,
            ambient=float(0.72 * exposure),
            sky_top=1.03 * grey,
            sky_horizon=grey,
            asphalt_tint=asphalt,
            grass_tint=_grey(grass, 0.25),
            facade_tint=facade,
            cloudiness=0.0,
            visibility_m=float(rng.uniform(60.0, 200.0)),
            phase=phase,
            glow=0.7,
            wetness=0.15,
            lit_windows=0.06,
            texture=texture,
        )
    if weather == Weather.NIGHT:
        streetlight = rng.uniform(0.16, 0.28)
        town = rng.uniform(0.6, 1.6)
        return Atmosphere(
            sun=sun,
            sun_strength=0.02,
            ambient=float(streetlight),
            sky_top=np.array([9.0, 12.0, 26.0]) * rng.uniform(0.7, 1.4),
            sky_horizon=np.array([34.0, 29.0, 32.0]) * town,
            asphalt_tint=asphalt,
            grass_tint=grass,
            facade_tint=facade,
            cloudiness=0.6 * cloudiness,
            visibility_m=visibility_m,
            phase=phase,
            headlights=float(rng.uniform(0.85, 1.1)),
            glow=1.0,
            lit_windows=float(rng.uniform(0.15, 0.4)),
            texture=texture,
        )
    if weather == Weather.RAIN:
        return Atmosphere(
            sun=sun,
            sun_strength=0.03,
            ambient=float(0.62 * exposure),
            sky_top=exposure * np.array([112.0, 118.0, 126.0]),
            sky_horizon=exposure * np.array([150.0, 154.0, 158.0]),
            asphalt_tint=0.62 * asphalt,
            grass_tint=0.85 * _grey(grass, 0.1),
            facade_tint=0.85 * facade,
            cloudiness=0.5 + 0.5 * cloudiness,
            visibility_m=float(rng.uniform(250.0, 500.0)),
            phase=phase,
            glow=0.45,
            wetness=float(rng.uniform(0.7, 1.0)),
            lit_windows=0.1,
            texture=texture,
        )
    clear_top, clear_horizon = np.array([88.0, 140.0, 208.0]), np.array([196.0, 214.0, 230.0])
    grey_top, grey_horizon = np.array([150.0, 160.0, 172.0]), np.array([198.0, 203.0, 208.0])
    overcast = cloudiness**2
    return Atmosphere(
        sun=sun,
        sun_strength=float(exposure * (0.55 - 0.42 * overcast)),
        ambient=float(exposure * (0.60 + 0.25 * overcast)),
        sky_top=exposure * (clear_top + overcast * (grey_top - clear_top)),
        sky_horizon=exposure * (clear_horizon + overcast * (grey_horizon - clear_horizon)) + warmth,
        asphalt_tint=asphalt,
        grass_tint=grass,
        facade_tint=facade,
        cloudiness=cloudiness,
        visibility_m=visibility_m,
        phase=phase,
        texture=texture,
    )


def _grey(tint: Array, share: float) -> Array:
    """Move a factor on grass (96, 122, 66) towards grey."""
    color = tint * np.array([96.0, 122.0, 66.0])
    grey: Array = color + share * (color.mean() - color)
    return np.asarray(grey / np.array([96.0, 122.0, 66.0]))


@lru_cache(maxsize=64)
def packed_atmosphere(seed: int, weather: Weather = Weather.CLEAR) -> Array:
    """Return ``draw_atmosphere(seed, weather).packed()``, read-only."""
    values = draw_atmosphere(seed, weather).packed()
    values.setflags(write=False)
    return values
