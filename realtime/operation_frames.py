"""Operations over the socket: the same door as POST /operations, answered when they are durable."""

from __future__ import annotations

import asyncio
import logging
import time

from domain.muster import Muster
from domain.operations import InvalidOperation, Operation, parse
from domain.outcomes import Outcome
from domain.record import RecorderBusy
from realtime.connection import Connection
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.protocol import MAX_OPERATIONS, Code, Operations

log = logging.getLogger("muster.gateway")


class OperationFrames:
    """The operations frames that are being answered."""

    def __init__(self, muster: Muster, metrics: Metrics, limits: Limits) -> None:
        self._muster, self._metrics, self._limits = muster, metrics, limits
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, connection: Connection, frame: Operations) -> None:
        """Hand the operations on, in the order in which they came, or say why not."""
        count = len(frame.operations)
        if count > MAX_OPERATIONS:
            connection.refuse(
                Code.TOO_LARGE,
                f"at most {MAX_OPERATIONS} operations a frame, got {count}",
                request_id=frame.id,
            )
            return
        wait = 0.25 if connection.operation_frames >= self._limits.operation_frames else 0.0
        wait = wait or connection.operations.take(count, time.monotonic())
        if wait:
            self._metrics.limited("operation")
            connection.refuse(
                Code.RATE_LIMITED, "too many operations at once", request_id=frame.id, retry_after=wait
            )
            return
        connection.operation_frames += 1
        # Their task outlives the connection: what was handed on is written, and the client asks again.
        task = asyncio.create_task(self._answer(connection, frame), name="muster-operations")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for the answers that are due."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=5)

    async def _answer(self, connection: Connection, frame: Operations) -> None:
        try:
            outcomes: list[Outcome] = await self._muster.recorder.record(
                [_operation(item) for item in frame.operations],
                connection.login.author,
                address=connection.address,
            )
        except RecorderBusy as busy:
            connection.refuse(Code.RATE_LIMITED, str(busy), request_id=frame.id, retry_after=busy.retry_after)
        except Exception:  # the rim of the task: the client is told, and may send them again
            log.exception("operations could not be recorded", extra={"connection": connection.id})
            connection.refuse(Code.UNAVAILABLE, "this did not work", request_id=frame.id, retry_after=1.0)
        else:
            connection.send(
                {
                    "type": "outcomes",
                    "id": frame.id,
                    "outcomes": [outcome.as_dict() for outcome in outcomes],
                    "server_time": connection.server_time(),
                }
            )
        finally:
            connection.operation_frames -= 1


def _operation(item: object) -> Operation | InvalidOperation:
    try:
        return parse(item)
    except InvalidOperation as invalid:
        return invalid
