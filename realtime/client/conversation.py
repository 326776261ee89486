"""What one connection is about: from what was asked and answered follows what has to be sent (protocol §5).

Without a socket of its own: frames go in and come out. Nothing is queued for sending, so a reconnect is
only to forget what was asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import ClassVar

import orjson

from realtime.client.device import Device
from realtime.client.errors import ClientError, Refused
from realtime.client.http import seconds
from realtime.client.outbox import MAX_FRAME, Outbox
from realtime.client.topic import Head, Topic
from realtime.client.view import Frame

log = logging.getLogger("muster.client")

#: For the answer to a question; without one the connection is given up and the question asked on the next.
ANSWER_TIMEOUT_S = 30.0
#: Refusals that pass: wait, then ask the same again.
_PASSING = ("rate_limited", "unavailable", "busy")
#: … and for how long, if they do not say.
_RETRY_S = 1.0


class Conversation:
    """The topics and operations of a client. ``wake`` is called when something new has to be sent."""

    def __init__(self, device: Device, wake: Callable[[], None]) -> None:
        self.topics: dict[str, Topic] = {}
        self.outbox = Outbox(device)
        #: The server's last greeting, and whether it was this connection's.
        self.hello: Frame | None = None
        self.is_live = False
        #: The loop's time before which the server does not want to be connected to, or be sent operations.
        self.return_at = 0.0
        self.batch_not_before = 0.0
        self._device = device
        self._wake = wake
        self._ids = count(1)
        # Of this connection: what has been asked, and what is owed.
        self._batch_request: int | None = None
        self._batch_asked_at = 0.0
        self._left: set[str] = set()
        self._owes_seen = False

    def join(self, topic: Topic) -> None:
        """Subscribe to a topic."""
        self.topics[topic.name] = topic
        self._left.discard(topic.name)
        self._wake()

    def leave(self, topic: Topic) -> None:
        """Unsubscribe, unless that has happened."""
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
            self._left.add(topic.name)
            self._wake()

    def disconnect(self) -> None:
        """Whatever was asked is to be asked again."""
        self.is_live = False
        self.outbox.give_back()
        self._batch_request = None
        self._left.clear()
        self._owes_seen = False
        for topic in self.topics.values():
            topic.disconnect()

    def end(self, error: ClientError) -> None:
        """For good: tell everybody who waits."""
        self.outbox.close(error)
        for topic in self.topics.values():
            topic.fail(error)

    def return_after(self, wait_s: float | None) -> None:
        """Do not come back before ``wait_s`` from now."""
        if wait_s is not None:
            self.return_at = max(self.return_at, _now() + wait_s)

    # What has to be sent

    def next_frame(self) -> bytes | None:
        """The next frame to send, if something has to be sent now."""
        if not self.is_live:
            return None
        return self._subscribe() or self._unsubscribe() or self._operations() or self._seen()

    def next_due(self) -> float | None:
        """When something has to be sent, or an answer should have come; None for never."""
        if not self.is_live:
            return None
        dues = [topic.not_before for topic in self.topics.values() if topic.wants_asking]
        dues += [asked_at + ANSWER_TIMEOUT_S for asked_at in self._open_questions()]
        if self.outbox.has_waiting and not self.outbox.is_in_flight:
            dues.append(self.batch_not_before)
        return min(dues, default=None)

    def _open_questions(self) -> list[float]:
        """When each was asked."""
        asked = [topic.asked_at for topic in self.topics.values() if topic.request is not None]
        return asked if self._batch_request is None else [*asked, self._batch_asked_at]

    def is_unanswered(self) -> bool:
        """Whether an answer is overdue."""
        return min(self._open_questions(), default=_now()) + ANSWER_TIMEOUT_S <= _now()

    def _subscribe(self) -> bytes | None:
        now = _now()
        due = [topic for topic in self.topics.values() if topic.wants_asking and topic.not_before <= now]
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
        outbox = self.outbox
        if outbox.is_in_flight or not outbox.has_waiting or _now() < self.batch_not_before:
            return None
        self._batch_request, self._batch_asked_at = next(self._ids), _now()
        operations = b",".join(outbox.next_batch())
        return b'{"type":"operations","id":%d,"operations":[%b]}' % (self._batch_request, operations)

    def _seen(self) -> bytes | None:
        """What the readers know and what still waits here: staff see it as staleness."""
        if not self._owes_seen:
            return None
        self._owes_seen = False
        topics = {topic.name: topic.seq for topic in self.topics.values()}
        frame = orjson.dumps({"type": "seen", "topics": topics, "unsent": len(self.outbox)})
        return frame if len(frame) <= MAX_FRAME else None

    # What comes

    def take(self, raw: bytes) -> None:
        """One frame. What is unknown is let be; what cannot be read shows as a gap, and is asked for again."""
        try:
            frame = orjson.loads(raw)
            if isinstance(frame, dict) and (take := self._takers.get(str(frame.get("type")))):
                take(self, frame)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("a frame could not be read: %r", error)

    def _take_hello(self, frame: Frame) -> None:
        self.hello = frame
        self._learn_time(frame)
        self.is_live = True
        self._wake()

    def _take_subscribed(self, frame: Frame) -> None:
        if topic := self.topics.get(str(frame["topic"])):
            topic.take_answer(frame, _now())

    def _take_unsubscribed(self, frame: Frame) -> None:
        """Without an id it is not our wish: the right to the topic has ended."""
        if frame.get("id") is None and (topic := self.topics.pop(str(frame["topic"]), None)):
            code = str(frame.get("code") or "forbidden")
            topic.fail(Refused(code, f"{topic.name} may not be watched any more."))

    def _take_event(self, frame: Frame) -> None:
        if topic := self.topics.get(str(frame["topic"])):
            topic.take_event(frame, _now())

    def _take_presence(self, frame: Frame) -> None:
        if topic := self.topics.get(str(frame["topic"])):
            topic.take_presence(frame)

    def _take_heartbeat(self, frame: Frame) -> None:
        self._learn_time(frame)
        for name, (seq, *digest) in (frame.get("heads") or {}).items():
            if topic := self.topics.get(name):
                topic.take_head(Head(int(seq), digest[0] if digest else None), _now())
        self._owes_seen = bool(self.topics or len(self.outbox))
        self._wake()

    def _take_outcomes(self, frame: Frame) -> None:
        if self._batch_request is not None and frame.get("id") == self._batch_request:
            self.finish_batch(frame)

    def finish_batch(self, answer: Frame) -> None:
        """The operations in flight are answered."""
        outcomes = answer["outcomes"]
        if not isinstance(outcomes, list):
            raise TypeError(f"outcomes are a list, got {type(outcomes).__name__}")
        self._batch_request = None
        self._learn_time(answer)
        self.outbox.take(outcomes)
        self._wake()

    def _take_bye(self, frame: Frame) -> None:
        self.return_after(seconds(frame["retry_ms"] / 1000))

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
            self.return_after(wait_s)
            if refused.code in _PASSING:  # it does not say which frame was not taken: ask everything again
                for question in {topic.request for topic in self.topics.values()} - {None}:
                    self._refuse_topics(question, None, refused)
                request = self._batch_request
        if request is not None and request == self._batch_request:
            self.refuse_batch(refused)
        elif request is not None:
            self._refuse_topics(request, frame.get("topic"), refused)

    def _refuse_topics(self, request: object, name: object, refused: Refused) -> None:
        """A subscription was refused: the one that is named, or else whichever are open of that question."""
        asked = [topic for topic in self.topics.values() if topic.request == request]
        if isinstance(name, str):
            asked = [topic for topic in asked if topic.name == name]
        for topic in asked:
            topic.request = None
            if refused.code in _PASSING:
                topic.not_before = _now() + (refused.retry_after_s or _RETRY_S)
            elif len(asked) > 1:  # it does not say which
                topic.is_asked_alone = True
            else:
                del self.topics[topic.name]
                topic.fail(refused)
        self._wake()

    def refuse_batch(self, refused: Refused) -> None:
        """The operations in flight were refused as a whole."""
        self._batch_request = None
        if refused.code in _PASSING:
            self.outbox.give_back()
            self.batch_not_before = _now() + (refused.retry_after_s or _RETRY_S)
        else:
            self.outbox.refuse(refused)
        self._wake()

    def _learn_time(self, frame: Frame) -> None:
        with suppress(ValueError):  # what else the frame says holds without it
            if isinstance(server_time := frame.get("server_time"), str):
                self._device.learn(server_time)

    _takers: ClassVar[dict[str, Callable[[Conversation, Frame], None]]] = {
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


def _now() -> float:
    return asyncio.get_running_loop().time()
