"""The long-tail events by name, each a parameterised injection into a running episode."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from latentvla_training.world.episode import EventName
from latentvla_training.world.events.base import LongTailEvent, Moment, Setting
from latentvla_training.world.events.cut_in import CutIn
from latentvla_training.world.events.cyclist import WrongWayCyclist
from latentvla_training.world.events.leader import LeadHardBrakes, StopInJunction
from latentvla_training.world.events.pedestrian import OccludedPedestrian
from latentvla_training.world.events.runner import RedLightRunner
from latentvla_training.world.events.standing import BlockedLane, TrafficBehindCurve

__all__ = ["EVENTS", "LongTailEvent", "Moment", "Setting", "kinds_for"]

EVENTS: dict[EventName, type[LongTailEvent]] = {
    kind.name: kind
    for kind in (
        LeadHardBrakes,
        CutIn,
        OccludedPedestrian,
        RedLightRunner,
        WrongWayCyclist,
        BlockedLane,
        TrafficBehindCurve,
        StopInJunction,
    )
}
#: Share of ``train`` episodes with an event; all of ``longtail`` have one, no other split has any.
TRAIN_SHARE = 0.2


def kinds_for(
    split: str, network_index: int, episode_index: int, rng: np.random.Generator
) -> Iterator[type[LongTailEvent]]:
    """Return the kinds of event to try in an episode, in order; the first that fits is taken.

    ``longtail`` cycles through them by episode, shifted by network, so that each network sees
    several, with the others in random order behind; ``train`` draws one in ``TRAIN_SHARE`` of its
    episodes.
    """
    kinds = [EVENTS[name] for name in EventName]
    if split == "longtail":
        first = (episode_index + 3 * network_index) % len(kinds)
        yield kinds.pop(first)
        yield from (kinds[index] for index in rng.permutation(len(kinds)))
    elif split == "train" and rng.random() < TRAIN_SHARE:
        yield from (kinds[index] for index in rng.permutation(len(kinds)))
