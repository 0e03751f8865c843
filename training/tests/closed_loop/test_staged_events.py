"""Long-tail routes: skipped by what is planned, whoever drives; what the row says of the event."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from latentvla_training.closed_loop import routes
from latentvla_training.closed_loop.baseline_drivers import ConstantVelocityDriver
from latentvla_training.closed_loop.benchmark import drive_routes, row_of
from latentvla_training.closed_loop.routes import DrivenRoute, RouteSettings, _Drive, drive_route
from latentvla_training.world.episode import Event, EventName
from latentvla_training.world.expert import EgoState
from latentvla_training.world.rig import default_rig
from latentvla_training.world.session import NoStartError

from .conftest import Witnessed


class Session:
    """Stands for one that is about to be driven."""

    staged_event: EventName | None = None

    def __init__(self, name: str) -> None:
        self.name, self.network = name, name[:-3]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


def test_a_longtail_route_without_a_planned_event_is_skipped_by_name_and_counted(
    witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert witnessed.route.events_met == []
    monkeypatch.setattr(routes, "EpisodeSession", Session)
    monkeypatch.setattr(_Drive, "__init__", lambda *_: None)
    monkeypatch.setattr(_Drive, "run", lambda _: witnessed.route)
    name, driver, rig = "longtail-0001-02", ConstantVelocityDriver(), default_rig()
    with pytest.raises(NoStartError, match=f"{name}.*event"):
        drive_route(name, driver, rig)
    assert drive_route("test-0001-02", driver, rig) is witnessed.route
    result = drive_routes([name], "constant_velocity", progress=False)
    assert list(result.skipped) == [name] and result.summary["skipped"] == 1
    monkeypatch.setattr(Session, "staged_event", EventName.CUT_IN)  # planned, and never met
    assert drive_route(name, driver, rig) is witnessed.route


@pytest.mark.parametrize(("start_step", "before"), [(0, True), (19, True), (20, False)])
def test_the_row_says_what_is_planned_and_whether_it_began_before_the_take_over(
    witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch, start_step: int, before: bool
) -> None:
    row = row_of(driven(witnessed, monkeypatch, (Event(EventName.CUT_IN, start_step, 60, {}),)))
    assert row["event_before_takeover"] is before
    assert row["events"] == row["events_met"] == ["cut_in"]
    row = row_of(driven(witnessed, monkeypatch, ()))
    assert row["event_before_takeover"] is False
    assert row["events"] == ["cut_in"] and row["events_met"] == []


def driven(
    witnessed: Witnessed, monkeypatch: pytest.MonkeyPatch, events: tuple[Event, ...]
) -> DrivenRoute:
    """Return a route as it is put together after its end, with these events."""
    monkeypatch.setattr(routes, "Eyes", lambda *_: None)
    monkeypatch.setattr(routes, "log_episode", lambda *_: SimpleNamespace(events=events))
    session: Any = SimpleNamespace(
        name="longtail-0000-00",
        network="longtail-0000",
        weather=witnessed.route.episode.weather,
        staged_event=EventName.CUT_IN,
    )
    drive = _Drive(session, ConstantVelocityDriver(), default_rig(), RouteSettings(), False)
    drive._states = [EgoState(0.0, 0.0, 0.0, 5.0, 0.0, 0.0)] * 30
    monitor: Any = SimpleNamespace(driven_m=0.0)
    return drive._driven(witnessed.route.result, [], monitor, 100.0, 20)
