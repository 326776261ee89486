"""/student: one thing to do (check in by code), today's meetings, and the own record; all live."""

from __future__ import annotations

from datetime import timedelta

from nicegui import ui

from domain import operations, register
from domain.events import WALL, Event, student_topic
from domain.logins import LoginView
from domain.model import Kind, Via
from domain.muster import Muster
from domain.outcomes import Outcome, rejected
from domain.record import RecorderBusy
from domain.register import StudentMeeting
from realtime.hub import Hub
from ui import own_record
from ui.answers import Answer, answer_for, clock_time
from ui.forms import button
from ui.fresh import Fresh

#: How far back the own record reaches at first, and how many rows a phone is sent.
RECORD_DAYS = 400
FIRST_ROWS = 30


class StudentPage:
    """One student's open page."""

    def __init__(self, muster: Muster, hub: Hub, login: LoginView, address: str) -> None:
        self._muster = muster
        self._login = login
        self._address = address
        self._meetings: list[StudentMeeting] = []
        self._shown = FIRST_ROWS
        self._fresh = Fresh(hub, self._refresh, concerns=self._concerns)

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        self._fresh.follow([student_topic(self._login.person_id), WALL])
        await self._read()
        with ui.element("section").classes("m-card mp-check-in").props('aria-labelledby="check-in-title"'):
            ui.html("Check in", tag="h1", sanitize=False).props('id="check-in-title"')
            self._lead = ui.label(self._lead_text()).classes("mp-soft")
            with ui.element("div").classes("mp-code-row"):
                self._code = (
                    ui.input("Six-digit code")
                    .props(
                        'outlined inputmode=numeric autocomplete=one-time-code maxlength=12 enterkeyhint=go data-testid="code-input"'
                    )
                    .classes("mp-code")
                    .on("keydown.enter", self._check_in)
                )
                self._submit = button("Check in", self._check_in, testid="checkin-submit").classes("mp-big")
            self._answer = ui.element("div").props("role=status aria-live=polite").classes("mp-answer")
            ui.label("Or scan the QR code on the board with your phone's camera.").classes("mp-soft mp-small")
        with ui.element("section").classes("m-card mp-card").props('aria-labelledby="today-title"'):
            ui.html("Today", tag="h2", sanitize=False).props('id="today-title"')
            self._today = ui.html(self._today_html(), sanitize=False)
        with ui.element("section").classes("m-card mp-card").props('aria-labelledby="record-title"'):
            ui.html("My record", tag="h2", sanitize=False).props('id="record-title"')
            self._rate = ui.html(own_record.rate_html(self._meetings), sanitize=False)
            self._record = ui.html(self._record_html(), sanitize=False)
            self._more = button("Show older meetings", self._show_older, kind="quiet")
            self._more.set_visibility(self._has_older())

    async def _check_in(self) -> None:
        digits = "".join(c for c in self._code.value or "" if c.isdigit())
        if len(digits) != 6:
            self._code.error = "The code has six digits. It is on the board in your classroom."
            return
        self._submit.disable()
        try:
            outcome = await self._record_code(digits)
        finally:
            self._submit.enable()
        answer = answer_for(outcome, self._zone(outcome))
        self._show(answer)
        if answer.tone != "bad":
            self._code.value = ""

    async def _record_code(self, digits: str) -> Outcome:
        operation = operations.make(
            Kind.CHECK_IN,
            captured_at=self._muster.clock.now(),
            clock_offset_ms=0,  # the moment is our own clock's
            student_id=self._login.person_id,
            via=Via.CODE.value,
            proof=digits,
        )
        try:
            (outcome,) = await self._muster.recorder.record(
                [operation], self._login.author, address=self._address
            )
        except RecorderBusy:
            return rejected(operation.id, "busy")
        return outcome

    def _show(self, answer: Answer) -> None:
        self._answer.clear()
        with self._answer:
            box = ui.element("div").classes(f"mp-result mp-{answer.tone}")
            box.props(
                f'data-testid="checkin-result" data-outcome="{answer.outcome}" data-code="{answer.code or ""}" '
                f'data-status="{answer.status or ""}"'
            )
            with box:
                ui.label(answer.sign).classes("mp-sign").props("aria-hidden=true")
                with ui.element("div"):
                    ui.label(answer.title).classes("mp-result-title")
                    ui.label(answer.text)

    async def _show_older(self) -> None:
        self._shown += 100
        self._update()

    async def _refresh(self) -> None:
        await self._read()
        self._update()

    def _update(self) -> None:
        self._lead.text = self._lead_text()
        self._today.content = self._today_html()
        self._rate.content = own_record.rate_html(self._meetings)
        self._record.content = self._record_html()
        self._more.set_visibility(self._has_older())

    async def _read(self) -> None:
        now, person_id = self._muster.clock.now(), self._login.person_id
        begin = now - timedelta(days=RECORD_DAYS)
        self._meetings = await self._muster.store.read(
            lambda conn: register.record_of_student(conn, person_id, now, begin=begin)
        )

    def _concerns(self, event: Event) -> bool:
        """Of the wall, only the own sections."""
        return event.topic != WALL or event.data.get("section_id") in {m.section_id for m in self._meetings}

    def _todays(self) -> list[StudentMeeting]:
        now = self._muster.clock.now()
        return [m for m in self._meetings if own_record.is_of_day(m, now)]

    def _past(self) -> list[StudentMeeting]:
        now = self._muster.clock.now()
        return [m for m in self._meetings if m.scheduled_start <= now]

    def _today_html(self) -> str:
        return own_record.today_html(
            self._todays(), self._muster.clock.now(), empty="You have no classes today."
        )

    def _record_html(self) -> str:
        return own_record.record_html(self._past()[: self._shown], self._muster.clock.now())

    def _has_older(self) -> bool:
        return len(self._past()) > self._shown

    def _lead_text(self) -> str:
        open_now = [m for m in self._todays() if m.state.value == "open"]
        unmarked = [m for m in open_now if m.status is None]
        if unmarked:
            return f"{unmarked[0].section_title} is open. Type the code from the board."
        if open_now:
            return f"You are recorded in {open_now[0].section_title}."
        now = self._muster.clock.now()
        ahead = sorted(
            (m for m in self._todays() if m.state.value == "scheduled" and m.scheduled_end > now),
            key=lambda m: m.scheduled_start,
        )
        if ahead:
            return f"Next: {ahead[0].section_title} at {clock_time(ahead[0].scheduled_start, ahead[0].zone)}."
        return "None of your classes is open right now."

    def _zone(self, outcome: Outcome) -> str:
        meeting_id = (outcome.record or {}).get("meeting_id")
        zones = {m.meeting_id: m.zone for m in self._meetings}
        return zones.get(meeting_id or "", next(iter(zones.values()), "UTC"))
