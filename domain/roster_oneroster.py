"""A OneRoster 1.1 or 1.2 CSV zip (IMS Global): users, roles, classes, courses, enrollments, manifest.

Columns are found by name, since exporters differ in order. What attendance does not need is not
read: no password, birth date, phone or demographics. Nothing of the zip is ever written to disk.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date

from domain.model import EnrolmentRole, Role
from domain.roster_csv import Findings, Place, Row, Sheet, column_key, read_sheet
from domain.roster_entries import (
    Cells,
    EnrolmentEntry,
    GuardianEntry,
    PersonEntry,
    Roster,
    SectionEntry,
    Thing,
)
from domain.roster_zip import unzip

_FILES: dict[str, tuple[str, ...]] = {
    "manifest.csv": ("propertyName", "value"),
    "users.csv": (
        *("sourcedId", "status", "enabledUser", "role", "givenName", "familyName", "email"),
        *("agentSourcedIds", "preferredGivenName", "preferredFamilyName"),
    ),
    "roles.csv": ("sourcedId", "status", "userSourcedId", "role", "beginDate", "endDate"),
    "courses.csv": ("sourcedId", "status", "title", "courseCode"),
    "classes.csv": ("sourcedId", "status", "title", "classCode", "courseSourcedId", "location"),
    "enrollments.csv": (
        *("sourcedId", "status", "classSourcedId", "userSourcedId", "role", "primary"),
        *("beginDate", "endDate"),
    ),
}
_NEEDED = ("users.csv", "classes.csv", "enrollments.csv")
_REQUIRED = {
    "manifest.csv": ("propertyName", "value"),
    "users.csv": ("sourcedId", "givenName", "familyName"),
    "roles.csv": ("userSourcedId", "role"),
    "courses.csv": ("sourcedId", "title"),
    "classes.csv": ("sourcedId", "title"),
    "enrollments.csv": ("sourcedId", "classSourcedId", "userSourcedId", "role"),
}
_GUARDIAN_WORDS = {"guardian", "parent", "relative"}
_UNUSED_WORDS = {
    *("administrator", "aide", "counselor", "principal", "proctor"),
    *("districtadministrator", "siteadministrator", "systemadministrator"),
}
_ORDER = (Role.TEACHER, Role.STUDENT, Role.GUARDIAN)  # which role a person with several has in the school
_EXPORT_HINT = "Correct it in the roster system and export again."


@dataclass(slots=True)
class _Reading:
    """What the reading of one zip knows so far."""

    findings: Findings
    sheets: dict[str, Sheet]
    complete: frozenset[str]
    roster: Roster = field(default_factory=lambda: Roster("oneroster"))
    roles: dict[str, set[str]] = field(default_factory=dict)  # OneRoster's words by user
    unused: set[str] = field(default_factory=set)  # users whose role Muster has no use for

    def rows(self, name: str) -> list[Row]:
        sheet = self.sheets.get(name)
        return [] if sheet is None else sheet.rows

    def names_missing(self, name: str) -> bool:
        """Whether the file says, by its absence, that something is gone: bulk, and read to the end."""
        sheet = self.sheets.get(name)
        return name in self.complete and sheet is not None and sheet.is_whole


def read_oneroster(file: str, data: bytes, now_on: date, findings: Findings) -> Roster | None:
    """The roster in a OneRoster zip, or None when it is none. ``now_on``: today in the school's zone."""
    contents = unzip(file, data, _FILES, _NEEDED, findings)
    if contents is None:
        return None
    sheets: dict[str, Sheet] = {}
    for name, content in contents.items():
        known = {column_key(column): column for column in _FILES[name]}
        required = [(column,) for column in _REQUIRED[name]]
        sheet = read_sheet(
            name, content, known=known, required=required, are_unknown_reported=False, findings=findings
        )
        if sheet is not None:
            sheets[name] = sheet
    missing = [name for name in _NEEDED if name not in contents]
    for name in missing:
        findings.error(
            Place(name), "", f"The zip has no {name}.", "Export users, classes and enrollments together."
        )
    for name in ("users.csv", "classes.csv"):
        if name in sheets and not sheets[name].rows and sheets[name].is_whole:
            findings.error(
                Place(name), "", f"{name} has a header and no rows.", "Export again with all data."
            )
            return None
    if missing or not all(name in sheets for name in _NEEDED):
        return None
    reading = _Reading(findings, sheets, _complete(sheets, findings))
    _read_roles(reading, now_on)
    _read_users(reading)
    _read_classes(reading)
    _read_enrollments(reading)
    reading.roster.complete = frozenset(_complete_things(reading))
    return reading.roster


def _complete_things(reading: _Reading) -> set[Thing]:
    things: set[Thing] = set()
    for name, thing in (
        ("users.csv", Thing.PERSON),
        ("classes.csv", Thing.SECTION),
        ("enrollments.csv", Thing.ENROLMENT),
    ):
        if reading.names_missing(name):
            things.add(thing)
        elif name in reading.complete:
            reading.findings.warn(
                Place(name),
                "",
                "Some rows could not be read, so nothing that is missing from this file is taken out.",
                "Correct the rows and import again.",
            )
    if Thing.PERSON in things and reading.roster.guardians:
        things.add(Thing.GUARDIANSHIP)
    return things


def _complete(sheets: dict[str, Sheet], findings: Findings) -> frozenset[str]:
    """The files that the manifest calls bulk: what is not in them is gone."""
    manifest = sheets.get("manifest.csv")
    if manifest is None:
        findings.warn(
            Place("manifest.csv"),
            "",
            "The zip has no manifest.csv that can be read, so nobody who is missing from it is taken out.",
            "Export it as OneRoster “bulk” to take those out who have left.",
        )
        return frozenset()
    told = {row["propertyName"].lower(): row for row in manifest.rows}
    version = told.get("oneroster.version")
    if version is not None and not re.fullmatch(
        r"1\.[12](\.\d+)?", version["value"].lower().removeprefix("v")
    ):
        findings.warn(
            version.place,
            "value",
            f"OneRoster {version['value'][:20]!r} is not known; read as 1.2.",
            "Export 1.1 or 1.2.",
        )
    bulk = set()
    for name in _NEEDED:
        row = told.get(f"file.{name.removesuffix('.csv')}")
        if row is not None and row["value"].lower() == "bulk":
            bulk.add(name)
    return frozenset(bulk)


def _read_roles(reading: _Reading, now_on: date) -> None:
    for row in reading.rows("roles.csv"):
        cells = Cells(row, reading.findings)
        user, word = cells.source_id("userSourcedId"), row["role"].lower()
        begin, end = cells.date("beginDate"), cells.date("endDate")
        if not cells.is_good or user is None or _is_deleted(row):
            continue
        if (begin is None or begin <= now_on) and (end is None or end >= now_on):
            reading.roles.setdefault(user, set()).add(word)
    has_roles = "roles.csv" in reading.sheets
    users = reading.sheets["users.csv"]
    if not has_roles and "role" not in users.columns:
        reading.findings.error(
            Place("users.csv"),
            "role",
            "There is neither a roles.csv (OneRoster 1.2) nor a column role in users.csv (1.1).",
            "Export roles too; the roles of enrollments are taken for now.",
        )


def _read_users(reading: _Reading) -> None:
    roster, findings = reading.roster, reading.findings
    enrolled: dict[str, set[str]] = {}
    for row in reading.rows("enrollments.csv"):
        enrolled.setdefault(row["userSourcedId"], set()).add(row["role"].lower())
    emails: dict[str, PersonEntry] = {}
    agents: list[tuple[Row, str, list[str]]] = []
    roles_of: dict[str, set[Role]] = {}
    for row in reading.rows("users.csv"):
        cells = Cells(row, findings)
        source_id = _key(reading, "users.csv", Thing.PERSON, cells, roster.people)
        given = cells.name("preferredGivenName") or cells.name("givenName")
        family = cells.name("preferredFamilyName") or cells.name("familyName")
        email = cells.email("email")
        if cells.is_good and not (given or family):
            cells.wrong("givenName", "The user has no name.", _EXPORT_HINT)
        is_active = row["enabledUser"].lower() not in ("false", "0") and not _is_deleted(row)
        roles = _roles(reading, cells, source_id, enrolled) if cells.is_good else set()
        if email is not None and (other := emails.get(email)) is not None and cells.is_good:
            cells.wrong(
                "email",
                f"The e-mail {email} is that of {other.name} (line {other.place.line}) already.",
                "Give each person an address of their own, or leave it empty.",
            )
        if source_id is None or not cells.is_good or not roles:
            continue
        role = next(role for role in _ORDER if role in roles)
        entry = PersonEntry(
            row.place, source_id, source_id, role, given or family, family if given else "", email, is_active
        )
        roster.people[source_id] = entry
        roles_of[source_id] = roles
        if email is not None:
            emails[email] = entry
        agents.append((row, source_id, _list(row["agentSourcedIds"])))
    for row, one, others in agents:
        for agent in others:
            _relate(reading, row, one, agent, roles_of)


def _relate(reading: _Reading, row: Row, one: str, other: str, roles_of: dict[str, set[Role]]) -> None:
    """agentSourcedIds may stand with the student or with the guardian, or with both."""
    place, ones, others = row.place, roles_of[one], roles_of.get(other)
    if others is None:
        # not in this file: perhaps in the school; roster_enrolments.py looks, and tells if not
        pair = (other, one) if Role.STUDENT in ones else (one, other)
        if other not in reading.unused:
            reading.roster.guardians.append(GuardianEntry(place, "agentSourcedIds", *pair))
    elif Role.STUDENT in ones and Role.GUARDIAN in others:
        reading.roster.guardians.append(GuardianEntry(place, "agentSourcedIds", other, one))
    elif Role.GUARDIAN in ones and Role.STUDENT in others:
        reading.roster.guardians.append(GuardianEntry(place, "agentSourcedIds", one, other))
    else:
        reading.findings.warn(
            place,
            "agentSourcedIds",
            f"{other[:60]!r} is not a guardian of a student; the relation is ignored.",
            "Give the user the role guardian, parent or relative if they are one.",
        )


def _roles(
    reading: _Reading, cells: Cells, source_id: str | None, enrolled: dict[str, set[str]]
) -> set[Role]:
    """A user's roles in Muster; empty when there is none, which is told unless it is of no use here."""
    source_id = source_id or ""
    words = (
        reading.roles.get(source_id) or {cells.row["role"].lower()} - {""} or enrolled.get(source_id, set())
    )
    roles: set[Role] = set()
    for word in words:
        if word == "student":
            roles.add(Role.STUDENT)
        elif word == "teacher":
            roles.add(Role.TEACHER)
        elif word in _GUARDIAN_WORDS:
            roles.add(Role.GUARDIAN)
    if Role.STUDENT in roles and len(roles) > 1:
        cells.wrong(
            "role",
            "The user is a student and also a teacher or guardian.",
            "Give the second role an account of its own.",
        )
        return set()
    if not roles:
        unknown = sorted(words - _UNUSED_WORDS)
        if not words or unknown:
            what = f"The role {unknown[0][:40]!r} is not known." if unknown else "The user has no role."
            cells.wrong("role", what, _EXPORT_HINT)
        else:
            reading.unused.add(source_id)
            cells.doubt(
                "role",
                f"Users with the role {min(words)} are not imported.",
                "Add the person on the people page if they need Muster.",
            )
    return roles


def _read_classes(reading: _Reading) -> None:
    roster, findings = reading.roster, reading.findings
    courses: dict[str, str] = {}
    for row in reading.rows("courses.csv"):
        cells = Cells(row, findings)
        if (course := cells.source_id("sourcedId")) and (title := cells.text("title", 200)):
            courses[course] = title
    for row in reading.rows("classes.csv"):
        cells = Cells(row, findings)
        source_id = _key(reading, "classes.csv", Thing.SECTION, cells, roster.sections)
        title = cells.text("title", 200) or courses.get(row["courseSourcedId"], "")
        code = cells.text("classCode", 40) or (source_id or "")[:40]
        room = cells.text("location", 80)
        if source_id is not None and cells.is_good:
            roster.sections[source_id] = SectionEntry(
                row.place, source_id, source_id, code, title or code, room, not _is_deleted(row)
            )


def _read_enrollments(reading: _Reading) -> None:
    roster, findings = reading.roster, reading.findings
    entries: dict[str, EnrolmentEntry] = {}
    for row in reading.rows("enrollments.csv"):
        cells = Cells(row, findings)
        source_id = _key(reading, "enrollments.csv", Thing.ENROLMENT, cells, entries)
        person, section = cells.source_id("userSourcedId"), cells.source_id("classSourcedId")
        begin_on, end_on = cells.date("beginDate"), cells.date("endDate")
        for column, value in (("userSourcedId", person), ("classSourcedId", section)):
            if cells.is_good and value is None:
                cells.wrong(column, f"{column} is empty.", _EXPORT_HINT)
        if begin_on and end_on and end_on < begin_on:
            cells.wrong("endDate", f"endDate {end_on} is before beginDate {begin_on}.", _EXPORT_HINT)
        role = _enrolment_role(cells)
        if not cells.is_good or role is None or source_id is None or person is None or section is None:
            continue
        if person in reading.unused:
            continue
        entries[source_id] = EnrolmentEntry(
            row.place, source_id, person, section, role, begin_on, end_on, not _is_deleted(row)
        )
    roster.enrolments = list(entries.values())


def _enrolment_role(cells: Cells) -> EnrolmentRole | None:
    word = cells.row["role"].lower()
    if word == "student":
        return EnrolmentRole.STUDENT
    if word == "teacher":
        is_second = cells.row["primary"].lower() in ("false", "0")
        return EnrolmentRole.CO_TEACHER if is_second else EnrolmentRole.TEACHER
    if word in _UNUSED_WORDS:
        cells.doubt(
            "role",
            f"Enrolments as {word} are not imported.",
            "Make the person a co-teacher if they take registers.",
        )
    else:
        what = f"The role {word[:40]!r} is not known." if word else "The enrolment has no role."
        cells.wrong("role", what, "OneRoster knows student, teacher, proctor and administrator.")
    return None


def _key(reading: _Reading, name: str, thing: Thing, cells: Cells, taken: Collection[str]) -> str | None:
    """The row's sourcedId; a second row with the same one is an error."""
    source_id = cells.source_id("sourcedId")
    if source_id is None:
        reading.sheets[name].is_whole = False  # whose row this is cannot be known
        if cells.is_good:
            cells.wrong("sourcedId", "sourcedId is empty.", _EXPORT_HINT)
        return None
    reading.roster.named[thing].add(source_id)
    if source_id in taken:
        cells.wrong(
            "sourcedId",
            f"The sourcedId {source_id[:60]!r} is there twice; the first row is taken.",
            _EXPORT_HINT,
        )
    return source_id


def _is_deleted(row: Row) -> bool:
    return row["status"].lower() == "tobedeleted"


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
