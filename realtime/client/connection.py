"""One WebSocket to a Muster server, kept for as long as the block lasts; conversation.py knows what is said."""

from __future__ import annotations

import asyncio
import logging
import random as random_numbers
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Literal, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from realtime.client.backoff import LONGEST_S, Backoff
from realtime.client.conversation import Conversation
from realtime.client.device import Clock, Device, system_clock
from realtime.client.errors import ClientError, Closed, LoginEnded, Refused, RoleLost, Unreachable
from realtime.client.http import post_operations, seconds, socket_url
from realtime.client.outbox import Outcome
from realtime.client.topic import Topic
from realtime.client.view import Frame, Position

log = logging.getLogger("muster.client")

State: TypeAlias = Literal["connecting", "live", "reconnecting", "ended"]

SUBPROTOCOL = Subprotocol("muster.v1")
#: Close codes after which nobody may come back with this login.
_REPLACED = 4409
_FINAL: dict[int, type[LoginEnded] | type[RoleLost]] = {4401: LoginEnded, 4403: RoleLost}
#: For connecting, and for the server's first word.
OPEN_TIMEOUT_S = 10.0
#: A connection that lived this long was a good one: the next wait is short again.
STABLE_S = 10.0
#: Heartbeats that may fail to come before the connection counts as dead.
_SILENT_HEARTBEATS = 3
#: Connections in vain before waiting operations go by HTTP: something on the way may block sockets.
_ATTEMPTS_BEFORE_HTTP = 3
#: A snapshot of a large class, or 1,000 events, in one frame.
_MAX_RECEIVED = 16 * 1024 * 1024


class MusterClient:
    """Subscriptions and operations over one connection that comes back by itself.

    ``last_device_seq`` is the number of the last operation made on ``device_id``, for devices that
    outlive the process. ``clock`` gives aware UTC, ``random`` numbers from 0 to 1 for the jitter.
    Everything happens on the event loop that enters the block; it is not for several threads.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        device_id: str | None = None,
        last_device_seq: int = 0,
        clock: Clock = system_clock,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._base_url, self._url, self._token = base_url, socket_url(base_url), token
        self._random = random
        self._device = Device(device_id, last_seq=last_device_seq, clock=clock)
        self._wake = asyncio.Event()
        self._talk = Conversation(self._device, self._wake.set)
        self._state: State = "connecting"
        self._listeners: list[Callable[[State], None]] = []
        self._error: ClientError | None = None
        self._backoff = Backoff(random)
        self._attempts_in_vain = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """connecting, live, reconnecting or ended."""
        return self._state

    @property
    def hello(self) -> Frame | None:
        """The server's last greeting: user, limits, heartbeat_s."""
        return self._talk.hello

    @property
    def user(self) -> dict[str, Any] | None:
        """Who is logged in, once connected."""
        return self.hello.get("user") if self.hello else None

    @property
    def device_id(self) -> str:
        """The device that operations are said to be made on."""
        return self._device.id

    @property
    def device_seq(self) -> int:
        """The number of the last operation made: give it as ``last_device_seq`` next time."""
        return self._device.last_seq

    @property
    def clock_offset_s(self) -> float | None:
        """How far the server's clock is ahead of this device's; None before the first hello."""
        return None if self._device.offset is None else self._device.offset.total_seconds()

    def on_state(self, listener: Callable[[State], None]) -> Callable[[], None]:
        """Call ``listener`` on each change of state, until the returned function is called."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    async def __aenter__(self) -> MusterClient:
        if self._task is not None:
            raise RuntimeError("A MusterClient is entered once; make another one.")
        self._task = asyncio.create_task(self._run(), name="muster-client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None, "entered before"
        self._task.cancel()
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            self._end(Closed())

    async def until_live(self) -> None:
        """Wait for the connection. Raises LoginEnded, RoleLost or Closed."""
        if self._state == "live":
            return
        live: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hear(state: State) -> None:
            if not live.done() and state in ("live", "ended"):
                live.set_result(None)

        end = self.on_state(hear)
        try:
            if self._error is None:
                await live
        finally:
            end()
        if self._error:
            raise self._error

    @asynccontextmanager
    async def subscribe(self, name: str, *, since: Position | None = None) -> AsyncIterator[Topic]:
        """A topic such as "meeting:<id>", once the server has answered; from ``since`` if it still can.

        Raises Refused, LoginEnded, RoleLost, Closed; ValueError for a topic that is subscribed already.
        """
        name = name.lower()  # as the server writes ids in its answers
        if self._error:
            raise self._error
        if name in self._talk.topics:
            raise ValueError(f"{name} is subscribed already; give its updates to both who want them.")
        topic = Topic(name, since=since, random=self._random, need=self._wake.set)
        self._talk.join(topic)
        try:
            await topic.joined()
            yield topic
        finally:
            topic.fail(Closed())
            self._talk.leave(topic)

    async def send(
        self,
        operations: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the whole call's, and it withdraws what waits
    ) -> list[Outcome]:
        """Record operations; one outcome each, in order, however often the connection breaks meanwhile.

        Fills in what is missing of id, captured_at, clock_offset_ms, device_id and device_seq. Raises
        TimeoutError after ``timeout`` seconds (what has been sent may be recorded all the same: send it
        again with the same ids), Refused, LoginEnded, RoleLost, Closed, or ClientError too_large or
        outbox_full.
        """
        if self._error:
            raise self._error
        answer = self._talk.outbox.add(operations)
        self._wake.set()
        return await asyncio.wait_for(answer, timeout)

    # The connection

    async def _run(self) -> None:
        try:
            while True:
                await self._connect()
                self._talk.disconnect()
                self._set_state("reconnecting")
                wait_s = self._backoff.next_s()
                if self._attempts_in_vain >= _ATTEMPTS_BEFORE_HTTP:
                    await self._post_waiting()
                await asyncio.sleep(max(wait_s, self._talk.return_at - self._now()))
        except (LoginEnded, RoleLost) as error:
            self._end(error)
        except Exception as error:  # the rim: whoever waits must hear of it
            log.exception("the client failed")
            self._end(ClientError("internal", f"The client failed: {error!r}.", hint="Report it."))

    async def _connect(self) -> None:
        """One connection from its beginning to its end. Raises LoginEnded, RoleLost."""
        self._talk.return_at = 0.0
        self._attempts_in_vain += 1
        try:
            async with (
                connect(
                    self._url,
                    subprotocols=[SUBPROTOCOL],
                    additional_headers={"Authorization": f"Bearer {self._token}"},
                    compression=None,  # frames are small, and memory per connection counts
                    max_size=_MAX_RECEIVED,
                    open_timeout=OPEN_TIMEOUT_S,
                    close_timeout=1,
                ) as socket,
                asyncio.TaskGroup() as tasks,
            ):
                writer = tasks.create_task(self._write(socket))
                await self._read(socket)
                writer.cancel()
        except InvalidStatus as error:
            status = error.response.status_code
            if status == 401:
                raise LoginEnded from error
            if status == 403:  # also what a server says that closes before it has accepted
                await self._ask_for_login()
            self._talk.return_after(seconds(error.response.headers.get("Retry-After")))
            log.info("no connection: the server answered %s", status)
        except (OSError, InvalidHandshake) as error:  # TimeoutError is an OSError
            log.info("no connection: %r", error)
        else:
            if final := _FINAL.get(socket.close_code or 0):
                raise final
            if socket.close_code == _REPLACED:
                self._talk.return_after(LONGEST_S)  # else the person's clients push each other out in turn

    async def _read(self, socket: ClientConnection) -> None:
        """Take frames until the connection ends or falls silent."""
        began_at = self._now()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S) as patience:
                while True:
                    self._talk.take(await socket.recv(decode=False))
                    if self._talk.is_live:
                        self._attempts_in_vain = 0
                        self._set_state("live")
                    patience.reschedule(self._now() + self._silence_s())
        except ConnectionClosed:
            log.info("connection closed: %s %s", socket.close_code, socket.close_reason)
        except TimeoutError:
            log.info("connection given up: the server is silent")
        if self._state == "live" and self._now() - began_at >= STABLE_S:
            self._backoff.reset()

    async def _write(self, socket: ClientConnection) -> None:
        """Send what has to be sent, whenever that changes."""
        try:
            while not self._talk.is_unanswered():
                self._wake.clear()
                while frame := self._talk.next_frame():
                    await socket.send(frame, text=True)
                try:
                    async with asyncio.timeout_at(self._talk.next_due()):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            log.info("connection given up: no answer")
            await socket.close()
        except ConnectionClosed:
            return  # the reader sees it too

    def _end(self, error: ClientError) -> None:
        """For good: tell everybody who waits."""
        if self._error:
            return
        self._error = error
        self._talk.end(error)
        self._set_state("ended")

    def _set_state(self, state: State) -> None:
        if state == self._state:
            return
        self._state = state
        for listener in tuple(self._listeners):
            try:
                listener(state)
            except Exception:  # one bad listener never hurts the connection
                log.exception("a listener to the client's state failed")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _silence_s(self) -> float:
        heartbeat_s = seconds((self.hello or {}).get("heartbeat_s")) or OPEN_TIMEOUT_S
        return heartbeat_s * _SILENT_HEARTBEATS

    async def _ask_for_login(self) -> None:
        """Raise LoginEnded if the login does not hold; nothing if it does or nobody can say."""
        with suppress(Refused, Unreachable):
            await post_operations(self._base_url, self._token, [])

    async def _post_waiting(self) -> None:
        """Send a batch by HTTP while no socket can be had."""
        if not self._talk.outbox.has_waiting or self._now() < self._talk.batch_not_before:
            return
        batch = self._talk.outbox.next_batch()
        try:
            answer = await post_operations(self._base_url, self._token, batch)
        except Unreachable as error:
            self._talk.outbox.give_back()
            self._talk.return_after(error.retry_after_s)
        except Refused as error:
            self._talk.refuse_batch(error)
        else:
            self._talk.finish_batch(answer)
