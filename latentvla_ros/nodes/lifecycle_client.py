"""Asks lifecycle nodes for transitions, from outside their process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

#: Each transition, and the state that it leads to.
_TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    "activate": (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    "cleanup": (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
}
_PERIOD_S = 0.01
#: Asked again after so long: a request or an answer is lost while the two do not know each other
#: yet, or while a node of the same name that was killed is still thought to be alive.
_AGAIN_S = 5.0


class NodeSilent(TimeoutError):
    """A node did not answer in time."""


class LifecycleClient:
    """Calls ``change_state`` services; another thread spins ``node``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clients: dict[tuple[str, type], Any] = {}

    def change_state(
        self, node: str, transition: str, timeout_s: float, alive: Callable[[], None]
    ) -> bool:
        """Ask ``node`` for ``configure``, ``activate``, ``deactivate`` or ``cleanup``.

        Args:
            node: fully qualified name.
            alive: called while waiting; raises when the node's process has ended.

        Returns:
            Whether the node made the transition, or is where it leads to.

        Raises:
            NodeSilent: it did not answer within ``timeout_s`` of steady time.
        """
        deadline = time.monotonic() + timeout_s
        request = ChangeState.Request()
        request.transition.id, state = _TRANSITIONS[transition]
        words = f"{node} did not answer to {transition!r}"
        if self._ask(ChangeState, node, "change_state", request, deadline, alive, words).success:
            return True
        # The answer may be to a second request, the first of which was heard.
        answer = self._ask(GetState, node, "get_state", GetState.Request(), deadline, alive, words)
        return bool(answer.current_state.id == state)

    def _ask(
        self,
        kind: type,
        node: str,
        service: str,
        request: object,
        deadline: float,
        alive: Callable[[], None],
        problem: str,
    ) -> Any:
        """Call a service, again and again, until there is an answer; return it."""
        if (node, kind) not in self._clients:
            self._clients[node, kind] = self._node.create_client(kind, f"{node}/{service}")
        client = self._clients[node, kind]
        _wait(client.service_is_ready, deadline, alive, f"{node} offers no lifecycle service")
        futures: list[Any] = []
        again = 0.0

        def answered() -> bool:
            nonlocal again
            if time.monotonic() >= again:
                again = time.monotonic() + _AGAIN_S
                futures.append(client.call_async(request))
            return any(future.done() for future in futures)

        _wait(answered, deadline, alive, problem)
        return next(future.result() for future in futures if future.done())


def _wait(
    done: Callable[[], bool], deadline: float, alive: Callable[[], None], problem: str
) -> None:
    while not done():
        alive()
        if time.monotonic() > deadline:
            raise NodeSilent(problem)
        time.sleep(_PERIOD_S)
