"""Importing people and classes: a dry run that lists everything, then one transaction that does just that.

Two forms of file become one plan: a spreadsheet's CSV (roster_table.py) and a OneRoster 1.1 or 1.2
zip (roster_oneroster.py). ``apply_import`` refuses when the people or classes of the school have
changed since the plan was made, so what is done is what was shown. No password is read: imported
people cannot log in until one is set. Attendance is never touched.

Planning 60,000 rows takes seconds, but on a reader; applying them holds the writer for one or two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from domain import events
from domain.access import Author
from domain.clock import local_date
from domain.events import Draft
from domain.inputs import InvalidInput
from domain.lists import chunks
from domain.model import Login, School, table
from domain.roster_csv import Findings, Place, Problem, Severity
from domain.roster_drafts import (
    COLUMNS,
    TABLES,
    Action,
    Change,
    Counts,
    Drafts,
    FieldChange,
    Values,
    describe,
    load_drafts,
)
from domain.roster_enrolments import Enrolments, compare_guardians, end_missing
from domain.roster_entries import Roster, Thing
from domain.roster_oneroster import read_oneroster
from domain.roster_plan import People, Sections, person_label
from domain.roster_table import read_table
from domain.roster_zip import looks_like_zip
from domain.standings import require_admin

__all__ = [
    "Action", "Change", "Counts", "FieldChange", "ImportPlan", "ImportRefused", "ImportResult",
    "Problem", "Severity", "Thing", "apply_import", "plan_import",
]  # fmt: skip

MAX_UPLOAD_BYTES = 10_000_000
MAX_LISTED_CHANGES = 20_000
_LOGINS, _SCHOOL = table(Login), table(School)


class ImportRefused(InvalidInput):
    """The plan cannot be applied as it is; the message says why and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__("file", message)
        self.code = code  # roster_unreadable | roster_has_errors | roster_stale


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do, and everything that is wrong with its file."""

    filename: str
    form: str  # "table" | "oneroster" | "" when the file cannot be read
    made_at: datetime
    problems: tuple[Problem, ...]  # in the order of files and lines
    error_count: int
    warning_count: int
    changes: tuple[Change, ...]
    counts: dict[Thing, Counts]
    fingerprint: str  # the same for the same file and the same people and classes in the school
    drafts: dict[Thing, Drafts] | None = field(repr=False, default=None)

    @property
    def is_readable(self) -> bool:
        """Whether there is anything that could be applied."""
        return self.drafts is not None

    @property
    def has_errors(self) -> bool:
        """Whether rows would be left out."""
        return self.error_count > 0

    @property
    def is_empty(self) -> bool:
        """Whether the school is already as the file says."""
        return not any(c.create or c.update or c.deactivate for c in self.counts.values())


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did. ``ended_logins`` are for Logins to tell those who watch them, after the commit."""

    counts: dict[Thing, Counts]
    skipped_count: int  # errors whose rows were left out
    ended_logins: tuple[str, ...]


def plan_import(conn: Connection, author: Author, data: bytes, *, filename: str, now: datetime) -> ImportPlan:
    """Read a file and compare it with the school; writes nothing. Raises Denied for anybody but an admin.

    Whatever the bytes are, the answer is a plan: one with problems and without changes at worst.
    """
    require_admin(conn, author, now)
    zone = _zone(conn)
    findings = Findings()
    name = _file_name(filename)
    roster = _read(name, data, zone, now, findings)
    drafts = _compare(conn, roster, findings, zone, now) if roster is not None else None
    changes: Iterable[Change] = _changes(drafts, zone, now) if drafts is not None else ()
    return ImportPlan(
        filename=name,
        form=roster.form if roster is not None else "",
        made_at=now,
        problems=_sorted(findings, name),
        error_count=findings.error_count,
        warning_count=findings.warning_count,
        changes=tuple(islice(changes, MAX_LISTED_CHANGES)),
        counts={thing: drafts[thing].counts() if drafts is not None else Counts() for thing in Thing},
        fingerprint=hashlib.sha256(data + _state(drafts or {}).encode()).hexdigest(),
        drafts=drafts,
    )


def apply_import(
    conn: Connection, author: Author, plan: ImportPlan, *, now: datetime, skip_bad_rows: bool = False
) -> ImportResult:
    """Do what the plan says, in the transaction of ``conn``.

    Raises Denied; ImportRefused when the file cannot be read, has errors (unless ``skip_bad_rows``
    leaves those rows out), the people or classes have changed since, or the plan is of another day.
    """
    require_admin(conn, author, now)
    if plan.drafts is None:
        raise ImportRefused(
            "roster_unreadable", "This file cannot be imported. The list of problems says why."
        )
    if plan.has_errors and not skip_bad_rows:
        raise ImportRefused(
            "roster_has_errors",
            f"{plan.error_count} errors: correct the file, or choose to leave those rows out.",
        )
    zone = _zone(conn)
    is_of_today = local_date(now, zone) == local_date(plan.made_at, zone)
    if not is_of_today or _state({thing: load_drafts(conn, thing) for thing in Thing}) != _state(plan.drafts):
        raise ImportRefused(
            "roster_stale",
            "The school has changed since this plan was made. Look at the new plan, then import.",
        )
    ended = _write(conn, plan.drafts, now)
    if not plan.is_empty:
        events.append(conn, [Draft(events.WALL, events.ROSTER_CHANGED, now, {"section_id": None})])
    return ImportResult(plan.counts, plan.error_count, ended)


def _read(name: str, data: bytes, zone: str, now: datetime, findings: Findings) -> Roster | None:
    if len(data) > MAX_UPLOAD_BYTES:
        findings.error(
            Place(name),
            "",
            f"The file has {len(data) / 1e6:.1f} MB; at most {MAX_UPLOAD_BYTES // 1_000_000} MB are read.",
            "Split the file, or import one school at a time.",
        )
        return None
    if looks_like_zip(data):
        return read_oneroster(name, data, local_date(now, zone), findings)
    return read_table(name, data, findings)


def _compare(
    conn: Connection, roster: Roster, findings: Findings, zone: str, now: datetime
) -> dict[Thing, Drafts]:
    drafts = {thing: load_drafts(conn, thing) for thing in Thing}
    people = People(drafts[Thing.PERSON], drafts[Thing.ENROLMENT], drafts[Thing.GUARDIANSHIP], now)
    sections = Sections(drafts[Thing.SECTION], zone, now)
    enrolments = Enrolments(drafts[Thing.ENROLMENT], people, sections, zone, now)
    people.compare(roster, findings)
    sections.compare(roster, findings)
    enrolments.compare(roster, findings)
    compare_guardians(roster, people, drafts[Thing.GUARDIANSHIP], findings)
    end_missing(roster, people, sections, enrolments, findings)
    return drafts


def _changes(drafts: dict[Thing, Drafts], zone: str, now: datetime) -> Iterator[Change]:
    people, sections = drafts[Thing.PERSON], drafts[Thing.SECTION]

    def enrolment(row: Values) -> str:
        return f"{person_label(people.row(row['person_id']))} in {sections.row(row['section_id'])['code']}"

    def guardianship(row: Values) -> str:
        return (
            f"{person_label(people.row(row['guardian_id']))} of {person_label(people.row(row['student_id']))}"
        )

    labels: dict[Thing, Callable[[Values], str]] = {
        Thing.PERSON: person_label,
        Thing.SECTION: lambda row: f"{row['code']} {row['title']}",
        Thing.ENROLMENT: enrolment,
        Thing.GUARDIANSHIP: guardianship,
    }
    return (change for thing in Thing for change in describe(drafts[thing], labels[thing], zone, now))


def _write(conn: Connection, drafts: dict[Thing, Drafts], now: datetime) -> tuple[str, ...]:
    people = drafts[Thing.PERSON]
    changed = people.changed()
    moving = [row["id"] for row in changed if row["email"] != people.before[row["id"]]["email"]]
    for ids in chunks(moving):  # first all let go, so that two may swap their addresses
        conn.execute(
            update(TABLES[Thing.PERSON]).where(TABLES[Thing.PERSON].c.id.in_(ids)).values(email=None)
        )
    for thing in (Thing.PERSON, Thing.SECTION, Thing.ENROLMENT):
        target, columns = TABLES[thing], COLUMNS[thing]
        if rows := drafts[thing].changed():
            statement = update(target).where(target.c.id == bindparam("key"))
            conn.execute(
                statement.values({name: bindparam(f"new_{name}") for name in columns}),
                [{"key": row["id"], **{f"new_{name}": row[name] for name in columns}} for row in rows],
            )
        if rows := drafts[thing].created():
            extra = {"created_at": now, "language": "en"} if thing is Thing.PERSON else {}
            conn.execute(insert(target), [row | extra for row in rows])
    _write_guardianships(conn, drafts[Thing.GUARDIANSHIP])
    locked_out = [
        row["id"]
        for row in changed
        if not row["is_active"] or row["role"] != people.before[row["id"]]["role"]
    ]
    return _end_logins(conn, locked_out, now)


def _write_guardianships(conn: Connection, drafts: Drafts) -> None:
    target = TABLES[Thing.GUARDIANSHIP]
    if created := drafts.created():
        conn.execute(
            insert(target), [{name: row[name] for name in COLUMNS[Thing.GUARDIANSHIP]} for row in created]
        )
    for identifier in drafts.ended:
        row = drafts.before[identifier]
        pair = (target.c.guardian_id == row["guardian_id"]) & (target.c.student_id == row["student_id"])
        conn.execute(delete(target).where(pair))


def _end_logins(conn: Connection, person_ids: Sequence[str], now: datetime) -> tuple[str, ...]:
    ended: list[str] = []
    for ids in chunks(person_ids):
        open_ones = _LOGINS.c.person_id.in_(ids) & _LOGINS.c.revoked_at.is_(None)
        ended += conn.execute(select(_LOGINS.c.id).where(open_ones)).scalars()
        conn.execute(update(_LOGINS).where(open_ones).values(revoked_at=now))
    events.tell_logins_ended(conn, ended, now)
    return tuple(ended)


def _sorted(findings: Findings, file: str) -> tuple[Problem, ...]:
    problems = sorted(findings.problems, key=lambda p: (p.file, p.line or 0))
    if findings.unlisted_count:
        more = f"{findings.unlisted_count:,} more problems are not listed."
        problems.append(
            Problem(file, None, "", Severity.WARNING, more, "Correct those above and look again.")
        )
    return tuple(problems)


def _state(drafts: dict[Thing, Drafts]) -> str:
    """What the school was when these were loaded."""
    return " ".join(drafts[thing].digest for thing in sorted(drafts))


def _zone(conn: Connection) -> str:
    return str(conn.execute(select(_SCHOOL.c.zone)).scalar_one())


def _file_name(filename: str) -> str:
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in name if c.isprintable())[:120] or "upload"
