"""The bus: carries committed events to every process that shows something.

What it carries is a hint that the log has grown; the log stays the truth, and whoever may have
missed something reads it there. In one process the bus is a function call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from domain.events import Event

log = logging.getLogger("muster.bus")

Receiver = Callable[[Sequence[Event]], None]


class Bus(Protocol):
    """Publish committed events, receive everybody's, in order on each topic."""

    def publish(self, events: Sequence[Event]) -> None:
        """Pass on events that are durable. Never blocks, never raises."""
        ...

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Have events delivered on the event loop until the returned function is called."""
        ...


class MemoryBus:
    """The bus of a single process."""

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []

    def publish(self, events: Sequence[Event]) -> None:
        """Deliver at once. A receiver that fails is logged and does not keep the others from theirs."""
        for receiver in tuple(self._receivers):
            try:
                receiver(events)
            except Exception:  # the rim between rooms: the others go on
                log.exception("a receiver of events failed")

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Receive from now on; the returned function ends it."""
        self._receivers.append(receiver)

        def end() -> None:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

        return end
