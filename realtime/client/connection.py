"""One WebSocket to a Muster server, kept for as long as the block lasts (protocol §5).

Nothing is queued for sending: what has to be sent follows from the topics, the outbox and what has been
asked on this connection. So a reconnect is only to forget what was asked.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_numbers
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, Literal, TypeAlias

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from realtime.client.backoff import Backoff
from realtime.client.device import Clock, Device, system_clock
from realtime.client.errors import (
    ClientError,
    Closed,
    LoginEnded,
    Refused,
    RoleLost,
    Unreachable,
)
from realtime.client.http import post_operations, seconds, socket_url
from realtime.client.outbox import MAX_FRAME, Outbox, Outcome
from realtime.client.topic import Head, Topic
from realtime.client.view import Frame, Position

log = logging.getLogger("muster.client")

State: TypeAlias = Literal["connecting", "live", "reconnecting", "ended"]

SUBPROTOCOL = Subprotocol("muster.v1")
#: Close codes after which nobody may come back with this login.
_FINAL: dict[int, type[LoginEnded] | type[RoleLost]] = {4401: LoginEnded, 4403: RoleLost}
#: For connecting, and for the server's first word.
OPEN_TIMEOUT_S = 10.0
#: For the answer to a question; without one the connection is given up and the question asked on the next.
ANSWER_TIMEOUT_S = 30.0
#: A connection that lived this long was a good one: the next wait is short again.
STABLE_S = 10.0
#: Refusals that pass: wait, then ask the same again.
_PASSING = ("rate_limited", "unavailable", "busy")
#: … and for how long, if they do not say.
_RETRY_S = 1.0
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
        self._outbox = Outbox(self._device)
        self._topics: dict[str, Topic] = {}
        self._state: State = "connecting"
        self._listeners: list[Callable[[State], None]] = []
        self._hello: Frame | None = None
        self._error: ClientError | None = None
        self._backoff = Backoff(random)
        self._wake = asyncio.Event()
        self._ids = count(1)
        self._task: asyncio.Task[None] | None = None
        self._attempts_in_vain = 0
        self._return_at = 0.0
        self._batch_not_before = 0.0
        # Of this connection: what has been asked, and what is owed.
        self._batch_request: int | None = None
        self._batch_asked_at = 0.0
        self._left: set[str] = set()
        self._owes_seen = False

    @property
    def state(self) -> State:
        """connecting, live, reconnecting or ended."""
        return self._state

    @property
    def hello(self) -> Frame | None:
        """The server's last greeting: user, limits, heartbeat_s."""
        return self._hello

    @property
    def user(self) -> dict[str, Any] | None:
        """Who is logged in, once connected."""
        return self._hello.get("user") if self._hello else None

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
        await asyncio.gather(self._task, return_exceptions=True)
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
        if name in self._topics:
            raise ValueError(f"{name} is subscribed already; give its updates to both who want them.")
        topic = Topic(name, since=since, random=self._random, need=self._wake.set)
        self._topics[name] = topic
        self._left.discard(name)
        self._wake.set()
        try:
            await topic.joined()
            yield topic
        finally:
            topic.fail(Closed())
            if self._topics.get(name) is topic:
                del self._topics[name]
                self._left.add(name)
                self._wake.set()

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
        answer = self._outbox.add(operations)
        self._wake.set()
        return await asyncio.wait_for(answer, timeout)

    # The connection

    async def _run(self) -> None:
        try:
            while True:
                await self._connect()
                self._disconnect()
                wait_s = self._backoff.next_s()
                if self._attempts_in_vain >= _ATTEMPTS_BEFORE_HTTP:
                    await self._post_waiting()
                await asyncio.sleep(max(wait_s, self._return_at - self._now()))
        except (LoginEnded, RoleLost) as error:
            self._end(error)
        except Exception as error:  # the rim: whoever waits must hear of it
            log.exception("the client failed")
            self._end(ClientError("internal", f"The client failed: {error!r}.", hint="Report it."))

    async def _connect(self) -> None:
        """One connection from its beginning to its end. Raises LoginEnded, RoleLost."""
        self._return_at = 0.0
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
            self._return_after(seconds(error.response.headers.get("Retry-After")))
            log.info("no connection: the server answered %s", status)
        except (OSError, InvalidHandshake) as error:  # TimeoutError is an OSError
            log.info("no connection: %r", error)
        else:
            if final := _FINAL.get(socket.close_code or 0):
                raise final

    async def _read(self, socket: ClientConnection) -> None:
        """Take frames until the connection ends or falls silent."""
        began_at = self._now()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S) as patience:
                while True:
                    self._take(await socket.recv(decode=False))
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
            while not self._is_unanswered():
                self._wake.clear()
                while frame := self._next_frame():
                    await socket.send(frame, text=True)
                try:
                    async with asyncio.timeout_at(self._next_due()):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            log.info("connection given up: no answer")
            await socket.close()
        except ConnectionClosed:
            return  # the reader sees it too

    def _disconnect(self) -> None:
        self._set_state("reconnecting")
        self._outbox.give_back()
        self._batch_request = None
        self._left.clear()
        self._owes_seen = False
        for topic in self._topics.values():
            topic.disconnect()

    def _end(self, error: ClientError) -> None:
        """For good: tell everybody who waits."""
        if self._error:
            return
        self._error = error
        self._outbox.close(error)
        for topic in self._topics.values():
            topic.fail(error)
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
        heartbeat_s = seconds((self._hello or {}).get("heartbeat_s")) or OPEN_TIMEOUT_S
        return heartbeat_s * _SILENT_HEARTBEATS

    def _return_after(self, wait_s: float | None) -> None:
        """Do not come back before ``wait_s`` from now."""
        if wait_s is not None:
            self._return_at = max(self._return_at, self._now() + wait_s)

    async def _ask_for_login(self) -> None:
        """Raise LoginEnded if the login does not hold; nothing if it does or nobody can say."""
        with suppress(Refused, Unreachable):
            await post_operations(self._base_url, self._token, [])

    async def _post_waiting(self) -> None:
        """Send a batch by HTTP while no socket can be had."""
        if not self._outbox.has_waiting or self._now() < self._batch_not_before:
            return
        batch = self._outbox.next_batch()
        try:
            answer = await post_operations(self._base_url, self._token, batch)
        except Unreachable as error:
            self._outbox.give_back()
            self._return_after(error.retry_after_s)
        except Refused as error:
            self._refuse_batch(error)
        else:
            self._finish_batch(answer)

    # What has to be sent

    def _next_frame(self) -> bytes | None:
        if self._state != "live":
            return None
        return self._subscribe() or self._unsubscribe() or self._operations() or self._seen()

    def _next_due(self) -> float | None:
        """When something has to be sent, or an answer should have come; None for never."""
        if self._state != "live":
            return None
        dues = [topic.not_before for topic in self._topics.values() if topic.wants_asking]
        dues += [asked_at + ANSWER_TIMEOUT_S for asked_at in self._open_questions()]
        if self._outbox.has_waiting and not self._outbox.is_in_flight:
            dues.append(self._batch_not_before)
        return min(dues, default=None)

    def _open_questions(self) -> list[float]:
        """When each was asked."""
        asked = [topic.asked_at for topic in self._topics.values() if topic.request is not None]
        return asked if self._batch_request is None else [*asked, self._batch_asked_at]

    def _is_unanswered(self) -> bool:
        return min(self._open_questions(), default=self._now()) + ANSWER_TIMEOUT_S <= self._now()

    def _subscribe(self) -> bytes | None:
        now = self._now()
        due = [topic for topic in self._topics.values() if topic.wants_asking and topic.not_before <= now]
        alone = [topic for topic in due if topic.is_asked_alone]
        due = alone[:1] or due
        if not due:
            return None
        request = next(self._ids)
        while True:
            asked = {
                topic.name: topic.position and {"epoch": topic.position.epoch, "seq": topic.position.seq}
                for topic in due
            }
            frame = orjson.dumps({"type": "subscribe", "id": request, "topics": asked})
            if len(frame) <= MAX_FRAME or len(due) == 1:
                break
            due = due[: len(due) // 2]  # the others follow in the next frame
        for topic in due:
            topic.request, topic.asked_at = request, now
        return frame

    def _unsubscribe(self) -> bytes | None:
        if not self._left:
            return None
        return orjson.dumps({"type": "unsubscribe", "id": next(self._ids), "topic": self._left.pop()})

    def _operations(self) -> bytes | None:
        outbox = self._outbox
        if outbox.is_in_flight or not outbox.has_waiting or self._now() < self._batch_not_before:
            return None
        self._batch_request, self._batch_asked_at = next(self._ids), self._now()
        operations = b",".join(outbox.next_batch())
        return b'{"type":"operations","id":%d,"operations":[%b]}' % (self._batch_request, operations)

    def _seen(self) -> bytes | None:
        """What the readers know and what still waits here: staff see it as staleness."""
        if not self._owes_seen:
            return None
        self._owes_seen = False
        topics = {topic.name: topic.seq for topic in self._topics.values()}
        frame = orjson.dumps({"type": "seen", "topics": topics, "unsent": len(self._outbox)})
        return frame if len(frame) <= MAX_FRAME else None

    # What comes

    def _take(self, raw: bytes) -> None:
        """One frame. What is unknown is let be; what cannot be read shows as a gap, and is asked for again."""
        try:
            frame = orjson.loads(raw)
            if isinstance(frame, dict) and (take := self._takers.get(str(frame.get("type")))):
                take(self, frame)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("a frame could not be read: %r", error)

    def _take_hello(self, frame: Frame) -> None:
        self._hello = frame
        self._attempts_in_vain = 0
        self._learn_time(frame)
        self._set_state("live")
        self._wake.set()

    def _take_subscribed(self, frame: Frame) -> None:
        if topic := self._topics.get(str(frame["topic"])):
            topic.take_answer(frame, self._now())

    def _take_unsubscribed(self, frame: Frame) -> None:
        """Without an id it is not our wish: the right to the topic has ended."""
        if frame.get("id") is None and (topic := self._topics.pop(str(frame["topic"]), None)):
            code = str(frame.get("code") or "forbidden")
            topic.fail(Refused(code, f"{topic.name} may not be watched any more."))

    def _take_event(self, frame: Frame) -> None:
        if topic := self._topics.get(str(frame["topic"])):
            topic.take_event(frame, self._now())

    def _take_presence(self, frame: Frame) -> None:
        if topic := self._topics.get(str(frame["topic"])):
            topic.take_presence(frame)

    def _take_heartbeat(self, frame: Frame) -> None:
        self._learn_time(frame)
        for name, (seq, *digest) in (frame.get("heads") or {}).items():
            if topic := self._topics.get(name):
                topic.take_head(Head(int(seq), digest[0] if digest else None), self._now())
        self._owes_seen = bool(self._topics or len(self._outbox))
        self._wake.set()

    def _take_outcomes(self, frame: Frame) -> None:
        if self._batch_request is not None and frame.get("id") == self._batch_request:
            self._finish_batch(frame)

    def _finish_batch(self, answer: Frame) -> None:
        outcomes = answer["outcomes"]
        if not isinstance(outcomes, list):
            raise TypeError(f"outcomes are a list, got {type(outcomes).__name__}")
        self._batch_request = None
        self._learn_time(answer)
        self._outbox.take(outcomes)
        self._wake.set()

    def _take_bye(self, frame: Frame) -> None:
        self._return_after(seconds(frame["retry_ms"] / 1000))

    def _take_error(self, frame: Frame) -> None:
        """A question was refused; without an id it is about the connection, or the frame was not read."""
        request, wait_s = frame.get("id"), seconds(frame.get("retry_after"))
        refused = Refused(
            str(frame.get("code")),
            str(frame.get("message") or frame.get("code")),
            hint=str(frame.get("hint") or ""),
            retry_after_s=wait_s,
        )
        if request is None:
            self._return_after(wait_s)
            if refused.code in _PASSING:  # it does not say which frame was not taken: ask everything again
                for question in {topic.request for topic in self._topics.values()} - {None}:
                    self._refuse_topics(question, None, refused)
                request = self._batch_request
        if request is not None and request == self._batch_request:
            self._refuse_batch(refused)
        elif request is not None:
            self._refuse_topics(request, frame.get("topic"), refused)

    def _refuse_topics(self, request: object, name: object, refused: Refused) -> None:
        """A subscription was refused: the one that is named, or else whichever are open of that question."""
        asked = [topic for topic in self._topics.values() if topic.request == request]
        if isinstance(name, str):
            asked = [topic for topic in asked if topic.name == name]
        for topic in asked:
            topic.request = None
            if refused.code in _PASSING:
                topic.not_before = self._now() + (refused.retry_after_s or _RETRY_S)
            elif len(asked) > 1:  # it does not say which
                topic.is_asked_alone = True
            else:
                del self._topics[topic.name]
                topic.fail(refused)
        self._wake.set()

    def _refuse_batch(self, refused: Refused) -> None:
        self._batch_request = None
        if refused.code in _PASSING:
            self._outbox.give_back()
            self._batch_not_before = self._now() + (refused.retry_after_s or _RETRY_S)
        else:
            self._outbox.refuse(refused)
        self._wake.set()

    def _learn_time(self, frame: Frame) -> None:
        if isinstance(server_time := frame.get("server_time"), str):
            self._device.learn(server_time)

    _takers: ClassVar[dict[str, Callable[[MusterClient, Frame], None]]] = {
        "hello": _take_hello,
        "subscribed": _take_subscribed,
        "unsubscribed": _take_unsubscribed,
        "event": _take_event,
        "presence": _take_presence,
        "heartbeat": _take_heartbeat,
        "outcomes": _take_outcomes,
        "error": _take_error,
        "bye": _take_bye,
    }
