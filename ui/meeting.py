"""/meeting/<id>: the live register of one class, for its staff. Every act goes through record()."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nicegui import background_tasks, ui
from nicegui.events import GenericEventArguments
from sqlalchemy import Connection

from domain import register, standings
from domain.access import may_see_meeting
from domain.clock import format_instant
from domain.events import meeting_topic
from domain.hints import HINTS
from domain.ids import new_id, parse_id
from domain.logins import LoginView
from domain.model import Kind, MeetingState
from domain.muster import Muster
from domain.operations import InvalidOperation, Operation, parse
from domain.outcomes import Outcome, Verdict
from domain.record import RecorderBusy
from domain.watching import Grant, grants
from realtime.presence import Presence
from ui.frame import Visit
from ui.live import LiveMeeting, LiveMeetings, Viewer
from ui.parts.register import CodesPanel, Register
from ui.theme import STATUS_WORDS

#: Undo reaches this far back on one page.
MAX_UNDO = 50


@dataclass(frozen=True, slots=True)
class _Act:
    """Something this page did, that undo takes back."""

    label: str
    operation_ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """What the page names it by."""
        return self.operation_ids[0]


async def may_see(muster: Muster, login: LoginView, meeting_id: str) -> bool:
    """Whether there is such a meeting and this person is of its staff."""
    now = muster.clock.now()

    def work(conn: Connection) -> bool:
        key = register.find_meeting(conn, meeting_id, now)
        return key is not None and may_see_meeting(
            standings.load_standing(conn, login.person_id, key.section_id, now)
        )

    return parse_id(meeting_id) is not None and await muster.store.read(work)


async def end_unless_staff(
    visit: Visit, meeting_id: str, shown: ui.element, leave: Callable[[], None]
) -> None:
    """Take away what a page shows of a meeting if its teacher is none of the class any more."""
    if shown.is_deleted or await may_see(visit.muster, visit.login, meeting_id):
        return
    leave()
    with shown.client:
        shown.delete()
        ui.navigate.reload()  # to what is said of a class that is not one's own


class MeetingPage:
    """One open page of one meeting."""

    def __init__(self, visit: Visit, lives: LiveMeetings, presence: Presence, meeting_id: str) -> None:
        self._visit = visit
        self._presence = presence
        self._role = self._client_id = ""  # as what this person is present in the meeting, and where
        self._muster = visit.muster
        self._lives = lives
        self._meeting_id = meeting_id
        self._viewer = Viewer()
        self._undo: list[_Act] = []
        self._end_codes: Any = None
        self._register: Register
        self._live: LiveMeeting

    async def build(self) -> None:
        """Show it; call once, inside the page's frame."""
        grant = await self._grant()
        if grant is None:
            not_here()
            return
        self._role = grant.role
        self._live = await self._lives.join(self._meeting_id, self._viewer)
        client = ui.context.client
        self._client_id = client.id
        client.on_delete(self._leave)
        self._presence.join(
            meeting_topic(self._meeting_id), self._visit.login.person_id, self._role, client.id
        )
        self._register = Register(self._live.snapshot(), self._live.view.zone)
        self._viewer.show = self._show
        self._register.on("act", self._act)
        self._register.on("resync", self._resync)
        with self._register:
            self._codes_card = ui.element("section").classes("m-card r-codes")
            self._codes_card.props('aria-label="Codes to check in"')
        self._sync_codes()

    async def _grant(self) -> Grant | None:
        """The right to see this meeting, as the sockets' gateway asks for it; None: no such meeting, or not theirs."""
        if parse_id(self._meeting_id) is None:
            return None
        pair, now = (self._visit.login.person_id, meeting_topic(self._meeting_id)), self._muster.clock.now()
        return (await self._muster.store.read(lambda conn: grants(conn, [pair], now)))[pair]

    def _leave(self) -> None:
        self._stop_codes()
        self._presence.leave(
            meeting_topic(self._meeting_id),
            self._visit.login.person_id,
            self._role,
            self._client_id,
            at_once=True,
        )
        self._lives.leave(self._live, self._viewer)

    # -- from the meeting to the page

    def _show(self, patch: dict[str, Any]) -> None:
        self._register.apply(patch)
        if "facts" in patch or "snapshot" in patch:
            self._sync_codes()
        if "snapshot" in patch:  # somebody came or went: it may be this teacher who went
            check = end_unless_staff(self._visit, self._meeting_id, self._register, self._leave)
            background_tasks.create(check, name="may this page still be shown")

    def _resync(self, event: GenericEventArguments) -> None:
        if event.args.get("seq") != self._live.seq:
            self._register.apply({"snapshot": self._live.snapshot()})
        self._show_undo()  # whatever the page was waiting for may have been lost on the way
        self._register.synced()

    def _sync_codes(self) -> None:
        """Codes are there exactly while the class is open."""
        is_open = self._live.view.state is MeetingState.OPEN
        self._codes_card.set_visibility(is_open)
        if is_open and self._end_codes is None:
            codes = self._live.codes(self._visit.base_url)
            with self._codes_card, CodesPanel(codes) as panel:
                link = self._live.link(self._visit.base_url)
                if link is not None:
                    ui.html(
                        f'<details class="c-link"><summary>Link to share</summary><input readonly value="{link}" '
                        'aria-label="Link to check in" onfocus="this.select()" data-testid="link"></details>',
                        sanitize=False,
                    )
            self._end_codes = self._live.add_codes(self._visit.base_url, panel.show)
        elif not is_open and self._end_codes is not None:
            self._stop_codes()
            self._codes_card.clear()

    def _stop_codes(self) -> None:
        if self._end_codes is not None:
            self._end_codes()
            self._end_codes = None

    # -- from the page to the record

    async def _act(self, event: GenericEventArguments) -> None:
        asked: dict[str, Any] = event.args
        if asked.get("type") == "undo":
            await self._take_back(asked.get("last"))
            return
        raw = self._operations(asked)
        outcomes = await self._record(raw)
        accepted = tuple(o.id for o in outcomes if o.outcome is Verdict.ACCEPTED and o.id)
        refused = next((o for o in outcomes if o.outcome is Verdict.REJECTED), None)
        if refused is not None:
            self._register.say(refused.hint or "", is_error=True)
        elif outcomes:
            self._register.say(self._done(asked, len(accepted)))
        if accepted and asked.get("type") in ("mark", "close"):
            del self._undo[: -MAX_UNDO + 1]
            self._undo.append(_Act(self._label(asked), accepted))
            self._show_undo()

    async def _take_back(self, last: Any) -> None:
        """Take back the act that the page named: a second click that still names it does nothing."""
        if not self._undo or self._undo[-1].id != last:
            self._show_undo()
            return
        act = self._undo.pop()
        outcomes = await self._record(
            [{"id": new_id(), "kind": Kind.REVERT.value, "reverts": done} for done in act.operation_ids]
        )
        if not outcomes:  # too busy: it can be tried again
            self._undo.append(act)
        self._show_undo()
        refused = next((o for o in outcomes if o.outcome is Verdict.REJECTED), None)
        if refused is not None:
            self._register.say(refused.hint or "", is_error=True)
        elif outcomes:
            self._register.say(f"Taken back: {act.label}.")

    def _operations(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """What the page asks for, as raw operations; whatever does not fit is answered as invalid."""
        common = {"seen_seq": asked.get("seen")}
        if asked.get("type") == "mark":
            items = asked.get("items")
            return [
                {
                    **common,
                    "kind": Kind.MARK.value,
                    "id": item.get("id"),
                    "student_id": item.get("student"),
                    "status": asked.get("status"),
                    "minutes_late": asked.get("minutes"),
                }
                for item in (items if isinstance(items, list) else [])
                if isinstance(item, dict)
            ]
        kind = {"open": Kind.OPEN_MEETING, "close": Kind.CLOSE_MEETING, "reopen": Kind.REOPEN_MEETING}
        word = asked.get("type")
        return [
            {
                **common,
                "kind": kind[word].value if word in kind else word,
                "id": asked.get("id"),
                "remark": asked.get("reason"),
            }
        ]

    async def _record(self, raw: list[dict[str, Any]]) -> list[Outcome]:
        now = format_instant(self._muster.clock.now())
        filled = [
            item | {"meeting_id": self._meeting_id, "captured_at": now, "clock_offset_ms": 0} for item in raw
        ]
        try:
            return await self._muster.recorder.record(
                [_parsed(item) for item in filled], self._visit.login.author, address=self._visit.address
            )
        except RecorderBusy:
            self._register.say(HINTS["busy"], is_error=True)
            return []

    def _show_undo(self) -> None:
        last = self._undo[-1] if self._undo else None
        self._register.undoable(last.id if last else None, last.label if last else "")

    def _label(self, asked: dict[str, Any]) -> str:
        if asked.get("type") == "close":
            return "close"
        word = STATUS_WORDS[asked["status"]][1].lower()
        items = asked["items"]
        if len(items) > 1 or asked.get("bulk"):
            return f"{len(items)} {word}"
        return f"{self._live.name_of(items[0]['student'])} {word}"

    def _done(self, asked: dict[str, Any], count: int) -> str:
        if asked.get("type") == "mark" and asked.get("bulk"):
            return f"{count} marked {STATUS_WORDS[asked['status']][1].lower()}."
        return {
            "open": "The class is open.",
            "close": "The class is closed.",
            "reopen": "The class is open again.",
        }.get(asked["type"], f"{self._label(asked)}." if asked.get("type") == "mark" else "")


def not_here() -> None:
    """What is said of a class that does not exist and of one that is somebody else's."""
    with ui.element("section").classes("m-card"):
        ui.html("<h1>This class is not here</h1>", sanitize=False)
        ui.label("There is no such class, or you do not teach it.").classes("m-soft")
        ui.html(
            '<p style="margin-top:1rem"><a class="m-primary" href="/">To my classes</a></p>', sanitize=False
        )


def _parsed(raw: dict[str, Any]) -> Operation | InvalidOperation:
    try:
        return parse(raw)
    except InvalidOperation as invalid:
        return invalid
