"""A student's meetings and record as the student and the guardians see them: small lists, one element each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

from domain.clock import local_date
from domain.model import MeetingState
from domain.register import StudentMeeting, rate_of
from ui.answers import clock_time
from ui.theme import chip_html

_SOURCES = {
    "qr": "QR code",
    "link": "link",
    "code": "code",
    "tap": "tap",
    "teacher": "teacher",
    "admin": "admin",
    "system": "at closing",
}

_NOT_MARKED = Markup('<span class="mr-note">Not marked</span>')
_NOT_TAKEN = Markup('<span class="mr-note">Not taken</span>')
_NOTES = {
    MeetingState.OPEN: Markup('<span class="mr-open">Open now</span>'),
    MeetingState.CLOSING: Markup('<span class="mr-note">Closing</span>'),
    MeetingState.CANCELLED: Markup('<span class="mr-note">Cancelled</span>'),
    MeetingState.SCHEDULED: Markup('<span class="mr-note">Not open yet</span>'),
}


def today_html(meetings: Sequence[StudentMeeting], now: datetime, *, empty: str) -> str:
    """Today's meetings in order of time, each with the own status or what is to be expected."""
    if not meetings:
        return str(Markup('<p class="mr-empty">{}</p>').format(empty))
    ordered = sorted(meetings, key=lambda m: (m.scheduled_start, m.section_code))
    return str(
        Markup('<ul class="mr-today">{}</ul>').format(Markup("").join(_today_row(m, now) for m in ordered))
    )


def record_html(meetings: Sequence[StudentMeeting], now: datetime) -> str:
    """What is recorded, newest first: date, class, status, source."""
    if not meetings:
        return '<p class="mr-empty">Nothing is recorded yet.</p>'
    body = Markup("").join(_record_row(m, now) for m in meetings)
    head = Markup(
        '<table class="mr-record"><caption class="m-out-of-sight">{} meetings, newest first</caption>'
        '<thead><tr><th scope="col">Date</th><th scope="col">Class</th><th scope="col">Status</th>'
        '<th scope="col" class="mr-source">Recorded by</th></tr></thead>'
    ).format(len(meetings))
    return str(head + Markup("<tbody>") + body + Markup("</tbody></table>"))


def rate_html(meetings: Sequence[StudentMeeting]) -> str:
    """The share of meetings attended, never without what it is a share of."""
    rate = rate_of(meetings)
    if rate.value is None:
        return '<p class="mr-rate"><span>No meeting counts yet.</span></p>'
    late = sum(1 for m in meetings if m.status == "late")
    return str(
        Markup(
            '<p class="mr-rate"><strong>{}</strong><span>{} of {} counted meetings attended{}</span></p>'
            '<progress class="mr-bar" max="{}" value="{}" aria-hidden="true"></progress>'
        ).format(
            f"{rate.value:.0%}",
            rate.attended,
            rate.possible,
            f", {late} of them late" if late else "",
            rate.possible,
            rate.attended,
        )
    )


def is_of_day(meeting: StudentMeeting, now: datetime) -> bool:
    """Whether a meeting is on today's date in its own zone."""
    return local_date(meeting.scheduled_start, meeting.zone) == local_date(now, meeting.zone)


def _today_row(m: StudentMeeting, now: datetime) -> Markup:
    row = Markup(
        '<li class="mr-meeting" data-testid="today-{}" data-status="{}" data-state="{}"><span class="mr-time">{}'
        '<small>{}</small></span><span class="mr-what"><b>{}</b><small>{}</small></span><span class="mr-status">{}</span></li>'
    )
    where = " · ".join(part for part in (m.section_code, m.room) if part)
    return row.format(
        m.meeting_id,
        m.status or "unmarked",
        m.state.value,
        clock_time(m.scheduled_start, m.zone),
        clock_time(m.scheduled_end, m.zone),
        m.section_title,
        where,
        _status(m, now),
    )


def _status(m: StudentMeeting, now: datetime) -> Markup:
    if m.unverified and m.status is None:
        return Markup('<span class="mr-note">Waiting for the teacher</span>')
    if m.status is not None:
        chip = Markup(chip_html(m.status, minutes_late=m.minutes_late))  # noqa: S704  # escaped there
        note = Markup('<small class="mr-note">to be decided</small>') if m.contested else Markup("")
        return chip + note
    if m.state is MeetingState.SCHEDULED and m.scheduled_end <= now:
        return _NOT_TAKEN
    return _NOTES.get(m.state, _NOT_MARKED)


def _record_row(m: StudentMeeting, now: datetime) -> Markup:
    day = m.scheduled_start.astimezone(ZoneInfo(m.zone))
    source = _SOURCES.get(m.source, m.source)
    if m.effective_at is not None and m.source in ("qr", "link", "code", "tap"):
        source = f"{source}, {clock_time(m.effective_at, m.zone)}"
    return Markup(
        '<tr data-testid="record-{}" data-status="{}"><td class="mr-date"><time datetime="{}">{}</time><small>{}</small></td>'
        '<td class="mr-class">{}<small>{}</small></td><td class="mr-status">{}</td><td class="mr-source">{}</td></tr>'
    ).format(
        m.meeting_id,
        m.status or "unmarked",
        day.isoformat(),
        f"{day:%a} {day.day} {day:%b}",
        clock_time(m.scheduled_start, m.zone),
        m.section_title,
        m.section_code,
        _status(m, now),
        source,
    )
