"""The admin's spreadsheet: one table, one row for each person and section, columns by name.

A person may be repeated; rows of one person (same source id, or same e-mail) must agree. A file like
this adds and changes; it never takes anybody out, since it need not be the whole school.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from domain.inputs import fold_email
from domain.model import EnrolmentRole, Role
from domain.roster_csv import Findings, Place, Row, Sheet, read_sheet
from domain.roster_entries import Cells, EnrolmentEntry, GuardianEntry, PersonEntry, Roster, SectionEntry

COLUMNS = (
    "role",
    "given_name",
    "family_name",
    "email",
    "source_id",
    "section_code",
    "section_title",
    "begin_on",
    "end_on",
    "guardian_of",
)
_ALIASES = {
    "first_name": "given_name",
    "givenname": "given_name",
    "last_name": "family_name",
    "surname": "family_name",
    "familyname": "family_name",
    "e_mail": "email",
    "mail": "email",
    "sourcedid": "source_id",
}
_ROLES: dict[str, tuple[Role, EnrolmentRole | None]] = {
    "student": (Role.STUDENT, EnrolmentRole.STUDENT),
    "teacher": (Role.TEACHER, EnrolmentRole.TEACHER),
    "co_teacher": (Role.TEACHER, EnrolmentRole.CO_TEACHER),
    "coteacher": (Role.TEACHER, EnrolmentRole.CO_TEACHER),
    "substitute": (Role.TEACHER, EnrolmentRole.SUBSTITUTE),
    "guardian": (Role.GUARDIAN, None),
    "parent": (Role.GUARDIAN, None),
}
_ROLE_HINT = "Write student, teacher, co_teacher, substitute or guardian."


@dataclass(slots=True)
class _Line:
    """A row that is good in itself, before rows are put together to people."""

    place: Place
    role: Role
    enrolment_role: EnrolmentRole | None
    person: PersonEntry
    section: SectionEntry | None
    enrolment: EnrolmentEntry | None
    students: list[str] = field(default_factory=list)


def read_table(file: str, data: bytes, findings: Findings) -> Roster | None:
    """The roster in a spreadsheet's CSV, or None when it cannot be read as a table."""
    sheet = read_sheet(
        file,
        data,
        known={name: name for name in COLUMNS} | _ALIASES,
        required=[("role",), ("given_name", "family_name"), ("source_id", "email")],
        are_unknown_reported=True,
        findings=findings,
    )
    if sheet is None:
        return None
    if not sheet.rows and not findings.error_count:
        findings.error(
            Place(file), "", "The file has a header and no rows.", "Add one row for each person and class."
        )
        return None
    return _put_together(sheet, findings)


def _put_together(sheet: Sheet, findings: Findings) -> Roster:
    lines = [line for row in sheet.rows if (line := _line(row, findings)) is not None]
    by_email = {line.person.email: line.person.source_id for line in lines if line.person.source_id}
    roster = Roster("table")
    claimed: dict[str, PersonEntry] = {}
    for line in lines:
        entry = line.person
        entry.source_id = entry.source_id or by_email.get(entry.email)
        entry.key = entry.source_id or entry.email or ""
        if not _merge(roster, claimed, entry, findings):
            continue
        if line.section is not None and line.enrolment is not None:
            line.enrolment.person_key = entry.key
            _keep_section(roster, line.section, findings)
            roster.enrolments.append(line.enrolment)
        roster.guardians += [
            GuardianEntry(line.place, "guardian_of", entry.key, key) for key in line.students
        ]
    return roster


def _merge(roster: Roster, claimed: dict[str, PersonEntry], entry: PersonEntry, findings: Findings) -> bool:
    """Put a row's person to the people; False when the row contradicts an earlier one."""
    known = roster.people.get(entry.key)
    if known is None:
        if entry.email and (other := claimed.get(entry.email)):
            findings.error(
                entry.place,
                "email",
                f"The e-mail {entry.email} is that of {other.name} (line {other.place.line}) already.",
                "Give each person an address of their own, or leave it empty.",
            )
            return False
        roster.people[entry.key] = entry
        if entry.email:
            claimed[entry.email] = entry
        return True
    by = "source_id" if entry.source_id else "e-mail"
    if (entry.given_name, entry.family_name) != (known.given_name, known.family_name):
        findings.error(
            entry.place,
            "source_id" if entry.source_id else "email",
            f"{entry.name} has the same {by} as {known.name} in line {known.place.line}.",
            "Write the name alike in all rows of a person, and give two persons two keys.",
        )
        return False
    if entry.email and known.email and entry.email != known.email:
        findings.error(
            entry.place,
            "email",
            f"{entry.name} has another e-mail in line {known.place.line}: {known.email}.",
            "Write the same e-mail in all rows of a person.",
        )
        return False
    if {entry.role, known.role} >= {Role.STUDENT} and entry.role is not known.role:
        findings.error(
            entry.place,
            "role",
            f"{entry.name} is a {known.role} in line {known.place.line} and a {entry.role} here.",
            "A student cannot be staff or a guardian too; give the second role an account of its own.",
        )
        return False
    if entry.email and not known.email:
        if other := claimed.get(entry.email):
            findings.error(
                entry.place,
                "email",
                f"The e-mail {entry.email} is that of {other.name} (line {other.place.line}) already.",
                "Give each person an address of their own, or leave it empty.",
            )
            return False
        known.email = entry.email
        claimed[entry.email] = known
    if entry.role is Role.TEACHER:  # a teacher who is also a guardian is a teacher of the school
        known.role = Role.TEACHER
    return True


def _keep_section(roster: Roster, section: SectionEntry, findings: Findings) -> None:
    known = roster.sections.setdefault(section.key, section)
    if known.title is None:
        known.title = section.title
    elif section.title is not None and section.title != known.title:
        findings.warn(
            section.place,
            "section_title",
            f"{section.code} has another title in line {known.place.line}; that one is taken: {known.title}.",
            "Write the same title in all rows of a class.",
        )


def _line(row: Row, findings: Findings) -> _Line | None:
    cells = Cells(row, findings)
    role, enrolment_role = _role(cells)
    given, family = cells.name("given_name"), cells.name("family_name")
    email, source_id = cells.email("email"), cells.source_id("source_id")
    code, title = cells.text("section_code", 40), cells.text("section_title", 200)
    begin_on, end_on = cells.date("begin_on"), cells.date("end_on")
    if cells.is_good and not (given or family):
        cells.wrong("given_name", "The row has no name.", "Write the person's name.")
    if cells.is_good and not (source_id or email):
        cells.wrong(
            "source_id",
            f"{given or family} has neither source_id nor e-mail; the next import could not recognise them.",
            "Write one of the two.",
        )
    if begin_on and end_on and end_on < begin_on:
        cells.wrong(
            "end_on", f"end_on {end_on} is before begin_on {begin_on}.", "Correct one of the two dates."
        )
    if code and enrolment_role is EnrolmentRole.SUBSTITUTE and end_on is None and cells.is_good:
        cells.wrong(
            "end_on", "A substitute needs an end.", "Write the last day on which they may run this class."
        )
    if not code and (title or begin_on or end_on) and role is not Role.GUARDIAN:
        cells.wrong(
            "section_code", "The row tells of a class but has no section_code.", "Write the class's code."
        )
    if row["guardian_of"] and role is Role.STUDENT:
        cells.wrong(
            "guardian_of",
            "guardian_of stands in a student's row.",
            "Write it in the guardian's row, with the student's source_id or e-mail in it.",
        )
    if not cells.is_good or role is None:
        return None
    if role is Role.GUARDIAN and code:
        cells.doubt("section_code", "A guardian is in no class; section_code is ignored.", "Leave it empty.")
        code = ""
    students = [_reference(part) for part in re.split(r"[;,|\r\n]", row["guardian_of"]) if part.strip()]
    if role is Role.GUARDIAN and not students:
        cells.doubt(
            "guardian_of",
            f"{given or family} is a guardian of nobody.",
            "Write the student's source_id or e-mail.",
        )
    person = PersonEntry(row.place, "", source_id, role, given or family, family if given else "", email)
    section = SectionEntry(row.place, code, None, code, title or None) if code else None
    enrolment = None
    if section is not None and enrolment_role is not None:
        enrolment = EnrolmentEntry(row.place, None, "", code, enrolment_role, begin_on, end_on)
    return _Line(row.place, role, enrolment_role, person, section, enrolment, students)


def _role(cells: Cells) -> tuple[Role | None, EnrolmentRole | None]:
    text = cells.row["role"]
    word = re.sub(r"[\s\-]+", "_", text.lower())
    if word in _ROLES:
        return _ROLES[word]
    if word in ("admin", "administrator"):
        cells.wrong(
            "role",
            "An import makes no admins.",
            "Import the person as a teacher and make them an admin on their page.",
        )
    elif not word:
        cells.wrong("role", "The row has no role.", _ROLE_HINT)
    else:
        cells.wrong("role", f"The role {text[:40]!r} is not known.", _ROLE_HINT)
    return None, None


def _reference(text: str) -> str:
    return fold_email(text) if "@" in text else text.strip()
