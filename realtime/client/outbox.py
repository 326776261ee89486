"""Operations on their way: in order, batch after batch, until the server has answered each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from realtime.client.device import Device
from realtime.client.errors import ClientError

#: What the server takes at most (protocol §4 and §5).
MAX_BATCH = 500
MAX_FRAME = 64 * 1024
#: Room for the frame around the operations, and for what is filled in when one is sent.
_AROUND, _FILLED_IN = 96, 96
#: Operations that may wait; more are refused, for their senders to slow down.
MAX_WAITING = 50_000

Outcome = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Sending:
    """One call of send(): done when each of its operations is answered."""

    answer: asyncio.Future[list[Outcome]]
    missing: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def take(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self.missing -= 1
        if not self.missing and not self.answer.done():
            self.answer.set_result([self.outcomes[n] for n in sorted(self.outcomes)])

    def fail(self, error: ClientError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True, eq=False)
class _Waiting:
    """One operation; ``encoded`` once it has been sent, so that it is sent again letter by letter."""

    operation: dict[str, Any]
    captured: datetime | None
    sending: _Sending
    place: int
    encoded: bytes | None = None


class Outbox:
    """One batch at a time is in flight: so nothing overtakes what was sent before it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._waiting: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._most = MAX_BATCH

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    @property
    def is_in_flight(self) -> bool:
        """Whether a batch waits for its answer."""
        return bool(self._batch)

    @property
    def has_waiting(self) -> bool:
        """Whether there is something to send that somebody still waits for."""
        while self._waiting and self._waiting[0].sending.answer.done():
            self._waiting.popleft()
        return bool(self._waiting)

    def add(self, operations: Sequence[Mapping[str, Any]]) -> asyncio.Future[list[Outcome]]:
        """Queue operations; the answer has an outcome for each. Raises ClientError too_large or outbox_full.

        Cancel the answer to withdraw what has not been sent yet.
        """
        answer = asyncio.get_running_loop().create_future()
        if len(self) + len(operations) > MAX_WAITING:
            message = f"At most {MAX_WAITING} operations may wait, got {len(operations)} beside {len(self)}."
            raise ClientError("outbox_full", message, hint="Wait for answers before sending more.")
        sending, added = _Sending(answer, len(operations)), []
        for place, operation in enumerate(operations):
            whole, captured = self._device.complete(operation)
            size = len(orjson.dumps(whole)) + _FILLED_IN
            if size > MAX_FRAME - _AROUND:
                message = f"An operation must fit into a frame of {MAX_FRAME} bytes, got about {size}."
                raise ClientError("too_large", message, hint="Shorten its remark.")
            added.append(_Waiting(whole, captured, sending, place))
        self._waiting.extend(added)
        if not added:
            answer.set_result([])
        return answer

    def next_batch(self) -> list[bytes]:
        """Take what fits into one frame into flight, each operation encoded; empty if nothing waits."""
        assert not self._batch, "one batch at a time"
        room = MAX_FRAME - _AROUND
        while self.has_waiting and len(self._batch) < self._most:
            encoded = self._encoded(self._waiting[0])
            room -= len(encoded) + 1
            if room < 0 and self._batch:
                break
            self._batch.append(self._waiting.popleft())
        return [self._encoded(waiting) for waiting in self._batch]

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """The answer to the batch in flight, one outcome for each operation, in order."""
        batch, self._batch = self._batch, []
        self._most = min(MAX_BATCH, 2 * self._most)
        if len(outcomes) != len(batch):
            message = f"Expected {len(batch)} outcomes, got {len(outcomes)}."
            self._fail(batch, ClientError("bad_answer", message, hint="Send the same operations again."))
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.sending.take(waiting.place, outcome)

    def give_back(self) -> None:
        """No answer came: the batch waits again, first in line."""
        self._waiting.extendleft(reversed(self._batch))
        self._batch = []

    def refuse(self, error: ClientError) -> None:
        """The batch in flight was not even looked at: try halves of it, and tell who sent the last one."""
        if len(self._batch) > 1 and error.code in ("too_large", "bad_message"):
            self._most = len(self._batch) // 2
            self.give_back()
            return
        batch, self._batch = self._batch, []
        self._fail(batch, error)

    def close(self, error: ClientError) -> None:
        """Nothing will be sent any more: tell whoever waits."""
        self.give_back()
        self._fail(self._waiting, error)
        self._waiting.clear()

    def _encoded(self, waiting: _Waiting) -> bytes:
        if waiting.encoded is None:
            if waiting.captured is not None:
                self._device.correct(waiting.operation, waiting.captured)
            waiting.encoded = orjson.dumps(waiting.operation)
        return waiting.encoded

    @staticmethod
    def _fail(batch: Sequence[_Waiting] | deque[_Waiting], error: ClientError) -> None:
        for waiting in batch:
            waiting.sending.fail(error)
