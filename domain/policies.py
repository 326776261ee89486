"""The rules of lateness and closing: which version governs a meeting, and what it says of it.

Versions are never edited. A meeting is governed by the newest version that was valid at its
scheduled start, its section's own before the school's. A version's ``valid_from`` is never in the
past when it is added, so a change of policy works forward only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection, func, insert, or_, select

from domain import access
from domain.clock import format_instant, to_millisecond
from domain.ids import new_id
from domain.inputs import InvalidInput, shown
from domain.model import AfterCutoff, Meeting, MeetingState, Policy, Section, table

_POLICIES, _SECTIONS, _MEETINGS = table(Policy), table(Section), table(Meeting)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

#: What holds while a school has said nothing. It has no row; its id is empty.
DEFAULTS = Policy(id="", version=0, valid_from=_BEGINNING, created_at=_BEGINNING)

#: The least and the most of each rule, in the unit of its name.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "opens_before_min": (0, 240),
    "late_after_min": (0, 240),
    "cutoff_min": (0, 1440),
    "closing_grace_s": (0, 600),
    "auto_close_after_min": (1, 1440),
    "lock_after_days": (0, 365),
}
RULES = (*BOUNDS, "after_cutoff")


class MeetingFacts(Protocol):
    """The facts of a meeting that the rules look at; a Meeting has them, and so has its row."""

    @property
    def scheduled_start(self) -> datetime: ...
    @property
    def late_after_min(self) -> int | None: ...
    @property
    def cancelled_at(self) -> datetime | None: ...
    @property
    def opened_at(self) -> datetime | None: ...
    @property
    def closed_at(self) -> datetime | None: ...


def state_of(meeting: MeetingFacts, policy: Policy, now: datetime) -> MeetingState:
    """Where a meeting stands at an instant."""
    if meeting.cancelled_at is not None:
        return MeetingState.CANCELLED
    if meeting.closed_at is None:
        return MeetingState.SCHEDULED if meeting.opened_at is None else MeetingState.OPEN
    if now < meeting.closed_at + timedelta(seconds=policy.closing_grace_s):
        return MeetingState.CLOSING
    if now >= meeting.closed_at + timedelta(days=policy.lock_after_days):
        return MeetingState.LOCKED
    return MeetingState.CLOSED


def opens_at(meeting: MeetingFacts, policy: Policy) -> datetime:
    """The first instant at which a check-in is taken."""
    return meeting.scheduled_start - timedelta(minutes=policy.opens_before_min)


def late_after_min(meeting: MeetingFacts, policy: Policy) -> int:
    """Minutes of grace after the start, inclusive: the meeting's own, else the policy's."""
    return policy.late_after_min if meeting.late_after_min is None else meeting.late_after_min


def policy_at(policies: Iterable[Policy], section_id: str | None, start: datetime) -> Policy:
    """The policy that governs a meeting of this section with this scheduled start.

    A section's own policy beats the school's; then the latest ``valid_from`` not after the start;
    then the higher version. DEFAULTS if there is none. ``section_id`` None asks for the school's.
    """
    valid = [p for p in policies if p.valid_from <= start and p.section_id in (None, section_id)]
    return max(valid, key=lambda p: (p.section_id is not None, p.valid_from, p.version), default=DEFAULTS)


def load_policies(conn: Connection, section_ids: Collection[str] = ()) -> list[Policy]:
    """Every version of the school's policy and of the policies of these sections."""
    query = select(_POLICIES).where(
        or_(_POLICIES.c.section_id.is_(None), _POLICIES.c.section_id.in_(list(section_ids)))
    )
    return [Policy(**row) for row in conn.execute(query).mappings()]


def add_policy(
    conn: Connection,
    standing: access.Standing,
    *,
    section_id: str | None,
    valid_from: datetime,
    now: datetime,
    **rules: int | str | None,
) -> Policy:
    """Add a version that governs the meetings that start at ``valid_from`` or later.

    ``section_id`` None means the whole school. Rules left out stay as they would have been at
    ``valid_from``. ``cutoff_min`` None: never too late. Nothing that has begun is touched:
    ``valid_from`` lies neither in the past nor before the start of a meeting opened already.

    Raises Denied for anybody but an admin, InvalidInput naming the rule, its bounds and what came.
    """
    if not access.may_administer(standing):
        raise access.Denied("Only an admin may change the attendance policy")
    if valid_from.tzinfo is None:
        raise InvalidInput("valid_from", f"valid_from needs a time zone, got {valid_from.isoformat()}")
    valid_from = to_millisecond(valid_from)
    if valid_from < now:
        raise InvalidInput(
            "valid_from",
            f"valid_from must not lie in the past: a policy works forward only "
            f"(now is {format_instant(now)}, got {format_instant(valid_from)})",
        )
    if section_id is not None and not _is_section(conn, section_id):
        raise InvalidInput("section_id", f"section_id must be one of this school, got {shown(section_id)}")
    if (begun_at := _last_opened_start(conn, section_id)) is not None and begun_at >= valid_from:
        raise InvalidInput(
            "valid_from",
            f"valid_from must be after {format_instant(begun_at)}, the start of a meeting opened already: "
            f"a policy works forward only (got {format_instant(valid_from)})",
        )
    policies = load_policies(conn, [] if section_id is None else [section_id])
    before = policy_at(policies, section_id, valid_from)
    merged = {name: getattr(before, name) for name in RULES} | check_rules(rules)
    if merged["cutoff_min"] is not None and merged["cutoff_min"] < merged["late_after_min"]:
        raise InvalidInput(
            "cutoff_min",
            f"cutoff_min must not be less than late_after_min ({merged['late_after_min']}), "
            f"got {merged['cutoff_min']}",
        )
    policy = Policy(
        id=new_id(now),
        section_id=section_id,
        version=_last_version(conn, section_id) + 1,
        valid_from=valid_from,
        created_at=now,
        created_by=standing.person_id,
        **merged,
    )
    conn.execute(insert(_POLICIES), [policy.model_dump()])
    return policy


def check_rules(rules: Mapping[str, int | str | None]) -> dict[str, int | str | None]:
    """The rules as they may be stored. Raises InvalidInput for an unknown name or a value out of bounds."""
    checked: dict[str, int | str | None] = {}
    for name, value in rules.items():
        if name == "after_cutoff":
            if value not in list(AfterCutoff):
                expected = " or ".join(AfterCutoff)
                raise InvalidInput(name, f"after_cutoff must be {expected}, got {shown(value)}")
            value = AfterCutoff(value).value
        elif name in BOUNDS:
            least, most = BOUNDS[name]
            is_open_end = value is None and name == "cutoff_min"
            is_number = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
            if not (is_open_end or is_number):
                raise InvalidInput(name, f"{name} must be {least}-{most}, got {shown(value)}")
        else:
            raise InvalidInput(name, f"a policy's rules are {', '.join(RULES)}, got {name}")
        checked[name] = value
    return checked


def _last_version(conn: Connection, section_id: str | None) -> int:
    query = select(func.max(_POLICIES.c.version)).where(
        _POLICIES.c.section_id.is_(None) if section_id is None else _POLICIES.c.section_id == section_id
    )
    return int(conn.execute(query).scalar_one() or 0)


def _is_section(conn: Connection, section_id: str) -> bool:
    return conn.execute(select(_SECTIONS.c.id).where(_SECTIONS.c.id == section_id)).first() is not None


def _last_opened_start(conn: Connection, section_id: str | None) -> datetime | None:
    """The latest scheduled start among the opened meetings that a version of this scope could govern."""
    query = select(func.max(_MEETINGS.c.scheduled_start)).where(_MEETINGS.c.opened_at.is_not(None))
    if section_id is not None:
        query = query.where(_MEETINGS.c.section_id == section_id)
    start: datetime | None = conn.execute(query).scalar_one()
    return start
