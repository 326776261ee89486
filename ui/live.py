"""One meeting as everybody in this process sees it: a snapshot at seq n and the events after it.

The first viewer makes the view model, the last one drops it. Each event becomes one small patch that
all viewers get; a viewer that has missed something gets the snapshot again. Nothing here polls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicegui import background_tasks
from sqlalchemy import Connection

from domain import events, proofs, register
from domain.events import Event, meeting_topic
from domain.model import MeetingState
from domain.muster import Muster
from domain.register import MeetingKey, MeetingView, RosterRow
from realtime.hub import Hub
from ui import feed
from ui.parts.register import shaped

log = logging.getLogger("muster.ui")

Show = Callable[[dict[str, Any]], None]
ShowCodes = Callable[[dict[str, Any]], None]
#: Lines of the feed that a new viewer gets.
FEED_LINES = 40


@dataclass(eq=False, slots=True)
class Viewer:
    """One open page. ``show`` is given patches: {seq, from, rows, feed} or {facts} or {snapshot…}."""

    show: Show = lambda patch: None  # until the page is built: it begins with a snapshot


@dataclass(slots=True)
class _Pending:
    """Events of one turn of the loop, told as one patch."""

    first: int
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    feed: list[dict[str, Any]] = field(default_factory=list)


class LiveMeeting:
    """The shared view model of one meeting."""

    def __init__(self, muster: Muster, hub: Hub, meeting_id: str) -> None:
        self.meeting_id = meeting_id
        self._muster = muster
        self._viewers: set[Viewer] = set()
        self._view: MeetingView | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._feed: deque[dict[str, Any]] = deque(maxlen=FEED_LINES)
        self._seq = 0
        self._early: list[Event] | None = []  # events that came before the snapshot was read
        self._pending: _Pending | None = None
        self._key: MeetingKey | None = None
        self._loading: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._is_stale = False
        self._timer: asyncio.TimerHandle | None = None
        self._code_watchers: list[tuple[str, ShowCodes]] = []
        self._ticking: asyncio.Task[None] | None = None
        self._ends = [
            hub.watch(meeting_topic(meeting_id), self._on_event),
            hub.watch(events.WALL, self._on_wall),
        ]

    @property
    def view(self) -> MeetingView:
        """The meeting's facts as last read."""
        assert self._view is not None
        return self._view

    @property
    def viewer_count(self) -> int:
        """How many pages show this meeting."""
        return len(self._viewers)

    @property
    def seq(self) -> int:
        """The number of the last event that is in here."""
        return self._seq

    def name_of(self, person_id: str | None) -> str:
        """Somebody's name, as far as it is known here."""
        return self._names.get(person_id or "", "")

    def row(self, student_id: str) -> dict[str, Any] | None:
        """One student's row as it is shown."""
        return self._rows.get(student_id)

    async def ready(self) -> None:
        """Read the snapshot, once, whoever asks first."""
        if self._view is None:
            if self._loading is None:
                self._loading = background_tasks.create(self._load(), name="load a live meeting")
            await asyncio.shield(self._loading)

    def add(self, viewer: Viewer) -> None:
        """Send patches to this viewer from now on."""
        self._viewers.add(viewer)

    def remove(self, viewer: Viewer) -> None:
        """Send it nothing more."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Leave the hub and stop the clock."""
        for end in self._ends:
            end()
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._ticking, self._reloading):
            if task is not None:
                task.cancel()

    def snapshot(self) -> dict[str, Any]:
        """Everything, for a page that begins or has missed something."""
        return {
            "seq": self._seq,
            "facts": feed.facts(self.view),
            "rows": list(self._rows.values()),
            "feed": list(self._feed),
        }

    async def refresh_facts(self) -> None:
        """Read the meeting's own facts again (its state also changes with the clock) and show them."""
        now = self._muster.clock.now()
        view = await self._muster.store.read(lambda conn: register.read_meeting(conn, self.meeting_id, now))
        if view is None or view.seq < self.view.seq:  # a later reading was faster
            return
        self._view = view
        self._names |= {member.person_id: member.name for member in view.staff}
        self._tell({"facts": feed.facts(view)})
        self._await_end_of_closing()

    def _await_end_of_closing(self) -> None:
        """Closing becomes closed by the clock alone: look again when it has."""
        until = self.view.closing_until
        if self.view.state is MeetingState.CLOSING and until is not None:
            wait = (until - self._muster.clock.now()).total_seconds() + 0.05
            self._timer = asyncio.get_running_loop().call_later(max(0.05, wait), self._closing_is_over)

    def _closing_is_over(self) -> None:
        background_tasks.create(self.refresh_facts(), name="facts of a live meeting")

    # -- codes

    def add_codes(self, base_url: str, show: ShowCodes) -> Callable[[], None]:
        """Have the codes of each step shown from now on; returns how to stop that."""
        watcher = (base_url, show)
        self._code_watchers.append(watcher)
        if self._ticking is None:
            self._ticking = background_tasks.create(self._tick(), name="codes of a live meeting")

        def end() -> None:
            if watcher in self._code_watchers:
                self._code_watchers.remove(watcher)
            if not self._code_watchers and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

        return end

    def codes(self, base_url: str) -> dict[str, Any]:
        """What to show right now."""
        assert self._key is not None
        now = self._muster.clock.now()
        shown = proofs.current_codes(self._key.secret, self.meeting_id, self._key.link_token, now, base_url)
        host = base_url.partition("://")[2]
        return shaped(shown, now_ms=int(now.timestamp() * 1000), host=host)

    def link(self, base_url: str) -> str | None:
        """The shareable link; None while it is switched off."""
        assert self._key is not None
        token = self._key.link_token
        return None if token is None else f"{base_url}/j/{proofs.link_proof(self.meeting_id, token)}"

    async def _tick(self) -> None:
        while True:
            shown: dict[str, dict[str, Any]] = {}
            for base_url, show in tuple(self._code_watchers):
                if base_url not in shown:
                    shown[base_url] = self.codes(base_url)
                show(shown[base_url])
            now = self._muster.clock.now().timestamp()
            await asyncio.sleep(proofs.QR_STEP_S - now % proofs.QR_STEP_S + 0.005)

    async def _load(self) -> None:
        now = self._muster.clock.now()

        def work(conn: Connection) -> tuple[MeetingView | None, list[Event], dict[str, str]]:
            view = register.read_meeting(conn, self.meeting_id, now)
            self._key = register.find_meeting(conn, self.meeting_id, now)
            if view is None:
                return None, [], {}
            recent = events.read_after(
                conn, meeting_topic(self.meeting_id), max(0, view.seq - FEED_LINES), FEED_LINES
            )
            people = {row.author_id for row in view.roster} | feed.people_in(recent)
            return view, recent, register.names(conn, people)

        view, recent, names = await self._muster.store.read(work)
        if view is None:
            raise LookupError(self.meeting_id)
        self._names = names | {row.student_id: row.name for row in view.roster}
        self._names |= {member.person_id: member.name for member in view.staff}
        self._view, self._seq = view, view.seq
        self._rows = {row.student_id: self._shaped(row) for row in view.roster}
        self._feed.clear()
        for event in recent:
            self._feed.extend(feed.lines(event, self.name_of, view))
        early, self._early = self._early or [], None
        for event in early:
            self._on_event(event)
        self._await_end_of_closing()

    def _on_wall(self, event: Event) -> None:
        """Somebody came into the class or left it: the roster is another one."""
        if event.name != events.ROSTER_CHANGED or self._view is None:
            return
        if event.data["section_id"] in (None, self._view.section_id):
            self._reload()

    def _on_event(self, event: Event) -> None:
        if self._early is not None:
            self._early.append(event)
            return
        if event.seq <= self._seq:
            return
        if event.seq != self._seq + 1:  # cannot happen in one process; the log knows what is missing
            self._reload()
            return
        self._seq = event.seq
        if self._pending is None:
            self._pending = _Pending(first=event.seq)
            asyncio.get_running_loop().call_soon(self._flush)
        student_id = event.data.get("student_id")
        if event.name.startswith("record.") and student_id in self._rows:
            row = self._rows[student_id] | feed.row_changes(event.data, self.name_of)
            self._rows[student_id] = self._pending.rows[student_id] = row
        for line in feed.lines(event, self.name_of, self.view):
            self._feed.append(line)
            self._pending.feed.append(line)
        unknown = {p for p in feed.people_in([event]) if p not in self._names}
        if unknown:
            background_tasks.create(self._learn_names(unknown, event), name="names for a feed")
        if event.name.startswith("meeting.") or (student_id and student_id not in self._rows):
            background_tasks.create(self.refresh_facts(), name="facts of a live meeting")

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._tell(
                {
                    "from": pending.first,
                    "seq": self._seq,
                    "rows": list(pending.rows.values()),
                    "feed": pending.feed,
                }
            )

    async def _learn_names(self, unknown: set[str], event: Event) -> None:
        self._names |= await self._muster.store.read(lambda conn: register.names(conn, unknown))
        lines = list(feed.lines(event, self.name_of, self.view))
        for line in lines:
            for place, old in enumerate(self._feed):
                if old["id"] == line["id"]:
                    self._feed[place] = line
        self._tell({"feed": lines})

    def _reload(self) -> None:
        """Read everything again, one reading after the other: an older one never comes last."""
        self._is_stale = True
        if self._reloading is None or self._reloading.done():
            self._reloading = background_tasks.create(self._catch_up(), name="reload a live meeting")

    async def _catch_up(self) -> None:
        while self._is_stale:
            self._is_stale = False
            self._early = []
            try:
                await self._load()
            except Exception:  # the pages show what they have; the next event tries again
                log.exception("meeting %s could not be read again", self.meeting_id)
                self._early = None
                return
            self._tell({"snapshot": self.snapshot()})

    def _tell(self, patch: dict[str, Any]) -> None:
        for viewer in tuple(self._viewers):
            try:
                viewer.show(patch)
            except Exception:  # one page's fault is not the others'
                log.exception("a page could not be told of meeting %s", self.meeting_id)

    def _shaped(self, row: RosterRow) -> dict[str, Any]:
        return feed.row(row, self.name_of)


class LiveMeetings:
    """The view models of this process, each for as long as somebody looks."""

    def __init__(self, muster: Muster, hub: Hub) -> None:
        self._muster, self._hub = muster, hub
        self._open: dict[str, LiveMeeting] = {}

    async def join(self, meeting_id: str, viewer: Viewer) -> LiveMeeting:
        """Show a meeting on a page. Raises LookupError if there is none. Pair with ``leave``."""
        live = self._open.get(meeting_id)
        if live is None:
            live = self._open[meeting_id] = LiveMeeting(self._muster, self._hub, meeting_id)
        live.add(viewer)
        try:
            await live.ready()
        except BaseException:
            self.leave(live, viewer)
            raise
        return live

    def leave(self, live: LiveMeeting, viewer: Viewer) -> None:
        """A page is gone; with the last one the view model goes too."""
        live.remove(viewer)
        if live.viewer_count == 0 and self._open.get(live.meeting_id) is live:
            del self._open[live.meeting_id]
            live.close()

    @property
    def open_ids(self) -> Sequence[str]:
        """The meetings that are shown somewhere."""
        return tuple(self._open)
