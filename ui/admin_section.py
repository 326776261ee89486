"""/admin/sections/<id>: one class with its facts, staff, students, timetable and next meetings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import TypeVar

from nicegui import ui
from sqlalchemy import Connection

from domain import register, schedule, sections
from domain.access import STAFF_ROLES, Standing
from domain.clock import day_bounds, local_date
from domain.events import Event
from domain.inputs import InvalidInput
from domain.logins import LoginView
from domain.model import EnrolmentRole, MeetingState, Role, Series
from domain.muster import Muster
from domain.people import PersonView
from domain.recurrence import Rule, parse_rule
from domain.register import MeetingSummary
from domain.sections import EnrolmentView, SectionView
from domain.standings import load_standing, require_admin
from ui.answers import clock_time
from ui.forms import Form, ask, button, card, heading, note, span
from ui.person_picker import PersonPicker

DAYS = {
    "MO": "Monday",
    "TU": "Tuesday",
    "WE": "Wednesday",
    "TH": "Thursday",
    "FR": "Friday",
    "SA": "Saturday",
    "SU": "Sunday",
}
STAFF = {
    EnrolmentRole.TEACHER.value: "Teacher",
    EnrolmentRole.CO_TEACHER.value: "Co-teacher",
    EnrolmentRole.SUBSTITUTE.value: "Substitute, for a time",
}
DAYS_AHEAD = 14
_CANCELLABLE = frozenset({MeetingState.SCHEDULED, MeetingState.OPEN})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Everything:
    section: SectionView
    enrolled: list[EnrolmentView]
    series: list[Series]
    meetings: list[MeetingSummary]


class SectionPage:
    """One class. Every change reads the whole page again: it is small and rarely changed."""

    def __init__(self, muster: Muster, login: LoginView, section_id: str) -> None:
        self._muster = muster
        self._login = login
        self._section_id = section_id

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        self._frame = ui.element("div").classes("mp-stack")
        await self._show()

    async def _show(self) -> None:
        now = self._muster.clock.now()
        found = await self._muster.store.read(lambda conn: self._read(conn, now))
        self._frame.clear()
        with self._frame:
            if found is None:
                heading("No such class", over="Classes")
                ui.link("Back to the list", "/admin/sections")
                return
            self._zone = found.section.zone
            heading(found.section.title, over=f"Classes · {found.section.code}")
            with ui.element("div").classes("mp-two"):
                with ui.element("div").classes("mp-stack"):
                    self._facts(found.section)
                    self._staff([e for e in found.enrolled if e.role in STAFF_ROLES], now)
                    self._timetable(found.series, now)
                    self._meetings(found.meetings)
                self._students([e for e in found.enrolled if e.role is EnrolmentRole.STUDENT], now)

    def _read(self, conn: Connection, now: datetime) -> _Everything | None:
        require_admin(conn, self._login.author, now)
        section = sections.find_section(conn, self._section_id)
        if section is None:
            return None
        begin, _end = day_bounds(local_date(now, section.zone), section.zone)
        return _Everything(
            section,
            sections.roster_of(conn, self._login.author, section.id, at=now, now=now),
            [s for s in schedule.series_of(conn, section.id) if _is_running(s, local_date(now, s.zone))],
            register.meetings_between(
                conn, None, begin, begin + timedelta(days=DAYS_AHEAD), now, section_id=section.id
            ),
        )

    # -- facts ----------------------------------------------------------------------------------

    def _facts(self, section: SectionView) -> None:
        with card("Class"):
            form = Form()
            form.input("code", "Code", section.code)
            form.input("title", "Title", section.title)
            form.input("room", "Room", section.room)
            form.submit("Save", self._save)

    async def _save(self, form: Form) -> None:
        code, title, room = form.text("code"), form.text("title"), form.text("room")
        await self._write(
            lambda conn, now: sections.update_section(
                conn, self._login.author, self._section_id, now=now, code=code, title=title, room=room
            )
        )
        form.done("Saved.")

    # -- people ---------------------------------------------------------------------------------

    def _staff(self, staff: Sequence[EnrolmentView], now: datetime) -> None:
        with card("Staff", testid="staff"):
            for enrolment in staff:
                self._enrolment(enrolment, now)
            if not staff:
                note("Nobody teaches this class yet.")
            form = Form()
            form.select("role", "As", STAFF, EnrolmentRole.TEACHER.value)
            form.input("begins_on", "First day", local_date(now, self._zone).isoformat(), kind="date")
            form.input("ends_on", "Last day (a substitute needs one)", kind="date")
            PersonPicker(
                self._muster,
                self._login,
                label="Find a teacher by name",
                role=Role.TEACHER,
                action="Add",
                chosen=partial(self._add_staff, form),
                testid="find-teacher",
            )

    async def _add_staff(self, form: Form, person: PersonView) -> None:
        await self._enrol(form, person, EnrolmentRole(form.value("role")))

    def _students(self, students: Sequence[EnrolmentView], now: datetime) -> None:
        with card(f"Students ({len(students)})", testid="students"):
            form = Form()
            form.input("begins_on", "First day", local_date(now, self._zone).isoformat(), kind="date")
            PersonPicker(
                self._muster,
                self._login,
                label="Add a student by name",
                role=Role.STUDENT,
                action="Add",
                chosen=partial(self._add_student, form),
                testid="find-student",
            )
            for enrolment in students:
                self._enrolment(enrolment, now)

    async def _add_student(self, form: Form, person: PersonView) -> None:
        await self._enrol(form, person, EnrolmentRole.STUDENT)

    async def _enrol(self, form: Form, person: PersonView, role: EnrolmentRole) -> None:
        begins_at, ends_at = day_bounds(form.day("begins_on"), self._zone)[0], None
        if "ends_on" in form and form.text("ends_on"):
            ends_at = day_bounds(form.day("ends_on"), self._zone)[1]
        try:
            await self._write(
                lambda conn, now: sections.enrol(
                    conn,
                    self._login.author,
                    now=now,
                    section_id=self._section_id,
                    person_id=person.id,
                    role=role,
                    begins_at=begins_at,
                    ends_at=ends_at,
                )
            )
        except InvalidInput as error:
            fields = {"begins_at": "begins_on", "ends_at": "ends_on"}
            form.fail(error.message, fields.get(error.field, error.field))
            return
        ui.notify(f"{person.name} is in the class.", type="positive")
        await self._show_in_frame()

    def _enrolment(self, enrolment: EnrolmentView, now: datetime) -> None:
        word = (
            ""
            if enrolment.role is EnrolmentRole.STUDENT
            else f"{enrolment.role.value.replace('_', '-').capitalize()}, "
        )
        with ui.element("div").classes("mp-line").props(f'data-testid="enrolment-{enrolment.person_id}"'):
            with ui.element("span").classes("mr-what"):
                ui.link(enrolment.person_name, f"/admin/people/{enrolment.person_id}")
                note(word + span(enrolment.begins_at, enrolment.ends_at, self._zone, now))
            name = f"End the enrolment of {enrolment.person_name}"
            button("End", partial(self._ask_end, enrolment), kind="quiet", label=name)

    def _ask_end(self, enrolment: EnrolmentView) -> None:
        async def confirmed(_form: Form) -> None:
            await self._write(
                lambda conn, now: sections.end_enrolment(conn, self._login.author, enrolment.id, now=now)
            )
            await self._show_in_frame()

        ask(
            f"Take {enrolment.person_name} out of the class?",
            "From now on. Registers of the time before keep them on the list.",
            action="Take out",
            handler=confirmed,
        )

    # -- timetable ------------------------------------------------------------------------------

    def _timetable(self, series: Sequence[Series], now: datetime) -> None:
        with card("Timetable", testid="timetable"):
            for one in series:
                with ui.element("div").classes("mp-line"):
                    with ui.element("span").classes("mr-what"):
                        ui.label(_in_words(one)).classes("mp-strong")
                        note(_more_words(one))
                    button(
                        "End", partial(self._ask_end_series, one), kind="quiet", label=f"End {_in_words(one)}"
                    )
            if not series:
                note("Nothing is laid out. Add when this class meets every week.")
            with ui.expansion("Add a weekly meeting").classes("mp-more"):
                form = Form()
                form.select("days", "Days", DAYS, None, multiple=True)
                form.input("local_time", "From", "09:00", kind="time")
                form.input("duration_min", "Minutes", "45", kind="number")
                form.input("starts_on", "First day", local_date(now, self._zone).isoformat(), kind="date")
                form.input("last_on", "Last day (empty: goes on)", kind="date")
                form.input("room", "Room (empty: the class's)")
                form.submit("Add to the timetable", self._add_series)

    async def _add_series(self, form: Form) -> None:
        days = [day for day in DAYS if day in (form.value("days") or [])]
        if not days:
            raise InvalidInput("days", "Choose at least one day.")
        rule = f"FREQ=WEEKLY;BYDAY={','.join(days)}"
        if form.text("last_on"):
            rule += f";UNTIL={form.day('last_on'):%Y%m%d}"
        starts_on, minutes, local_time, room = (
            form.day("starts_on"),
            form.number("duration_min"),
            form.text("local_time"),
            form.text("room"),
        )

        def work(conn: Connection, now: datetime) -> list[Event]:
            _series, told = schedule.add_series(
                conn,
                self._standing(conn, now),
                section_id=self._section_id,
                starts_on=starts_on,
                local_time=local_time,
                duration_min=minutes,
                rrule=rule,
                now=now,
                room=room or None,
            )
            return told

        await self._change_timetable(work)

    def _ask_end_series(self, series: Series) -> None:
        async def confirmed(_form: Form) -> None:
            await self._change_timetable(
                lambda conn, now: schedule.end_series(
                    conn, self._standing(conn, now), series.id, last_on=_yesterday(now, series.zone), now=now
                )
            )

        ask(
            f"End {_in_words(series)}?",
            "What was laid out from today on is cancelled, unless it has begun. What took place stays.",
            action="End it",
            handler=confirmed,
        )

    def _meetings(self, meetings: Sequence[MeetingSummary]) -> None:
        with card(f"Meetings of the next {DAYS_AHEAD} days", testid="meetings"):
            if not meetings:
                note("None.")
            for meeting in meetings:
                self._meeting(meeting)

    def _meeting(self, m: MeetingSummary) -> None:
        on = local_date(m.scheduled_start, m.zone)
        title = f"{on:%A} {on.day} {on:%B}, {clock_time(m.scheduled_start, m.zone)}–{clock_time(m.scheduled_end, m.zone)}"
        with (
            ui.element("div")
            .classes("mp-line")
            .props(f'data-testid="meeting-{m.id}" data-state="{m.state.value}"')
        ):
            with ui.element("span").classes("mr-what"):
                ui.link(title, f"/meeting/{m.id}")
                note(" · ".join(part for part in (m.state.value.capitalize(), m.room) if part))
            if m.state in _CANCELLABLE:
                button("Cancel", partial(self._ask_cancel, m, title), kind="quiet", label=f"Cancel {title}")
            elif m.state is MeetingState.CANCELLED:
                button("Restore", partial(self._restore, m.id), kind="quiet", label=f"Restore {title}")

    def _ask_cancel(self, meeting: MeetingSummary, title: str) -> None:
        async def confirmed(form: Form) -> None:
            reason = form.text("reason")
            await self._change_timetable(
                lambda conn, now: schedule.cancel_meeting(
                    conn, self._standing(conn, now), meeting.id, reason=reason, now=now
                )
            )

        ask(
            f"Cancel {title}?",
            "Students and teachers see at once that it does not take place.",
            action="Cancel the meeting",
            handler=confirmed,
            reason="Reason",
        )

    async def _restore(self, meeting_id: str) -> None:
        await self._change_timetable(
            lambda conn, now: schedule.restore_meeting(conn, self._standing(conn, now), meeting_id, now=now)
        )

    # -- parts ----------------------------------------------------------------------------------

    async def _change_timetable(self, work: Callable[[Connection, datetime], list[Event]]) -> None:
        await self._write(work)
        await self._show_in_frame()

    async def _write(self, work: Callable[[Connection, datetime], T]) -> T:
        now = self._muster.clock.now()

        def as_admin(conn: Connection) -> T:
            require_admin(conn, self._login.author, now)
            return work(conn, now)

        return await self._muster.store.write(as_admin)

    async def _show_in_frame(self) -> None:
        with self._frame:
            await self._show()

    def _standing(self, conn: Connection, now: datetime) -> Standing:
        return load_standing(conn, self._login.person_id, self._section_id, now)


def _is_running(series: Series, today: date) -> bool:
    until = parse_rule(series.rrule).until
    return series.is_active and (until is None or until >= today)


def _yesterday(now: datetime, zone: str) -> date:
    return local_date(now, zone) - timedelta(days=1)


def _in_words(series: Series) -> str:
    rule = parse_rule(series.rrule)
    names = list(DAYS.values())
    days = ", ".join(names[day] for _nth, day in rule.by_day) or names[series.starts_on.weekday()]
    return f"{days} {series.local_time}, {series.duration_min} min"


def _more_words(series: Series) -> str:
    rule: Rule = parse_rule(series.rrule)
    parts = [f"since {series.starts_on.day} {series.starts_on:%b %Y}"]
    if rule.interval > 1:
        parts.append(f"every {rule.interval} weeks")
    if rule.until:
        parts.append(f"until {rule.until.day} {rule.until:%b %Y}")
    if series.room:
        parts.append(series.room)
    return " · ".join(parts)
