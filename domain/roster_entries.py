"""What a roster file says, in one form whatever the file was: people, sections, enrolments, guardians.

The readers (roster_table.py, roster_oneroster.py) make entries of rows; roster_plan.py compares
them with the database. An entry is clean in itself; whether it fits the school is seen there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from domain.inputs import InvalidInput, clean_email, clean_name, clean_text, shown
from domain.model import EnrolmentRole, Role
from domain.roster_csv import Findings, Place, Row

MAX_SOURCE_ID = 120
_EARLIEST, _LATEST = 1990, 2100  # years; roster systems write 9999-12-31 for "open"
T = TypeVar("T")
_DATE_HINT = "Write the date as year-month-day: 2026-09-07."


class Thing(StrEnum):
    """What an import can change."""

    PERSON = "person"
    SECTION = "section"
    ENROLMENT = "enrolment"
    GUARDIANSHIP = "guardianship"


@dataclass(slots=True)
class PersonEntry:
    """A person. ``key`` is unique in the file; ``is_active`` None: the file does not say."""

    place: Place
    key: str
    source_id: str | None
    role: Role
    given_name: str
    family_name: str
    email: str | None
    is_active: bool | None = None

    @property
    def name(self) -> str:
        """Given and family name."""
        return f"{self.given_name} {self.family_name}".strip()


@dataclass(slots=True)
class SectionEntry:
    """A section. ``title`` and ``room`` None: the file does not say."""

    place: Place
    key: str
    source_id: str | None
    code: str
    title: str | None
    room: str | None = None
    is_active: bool = True


@dataclass(slots=True)
class EnrolmentEntry:
    """A person in a section, from the begin of ``begin_on`` to the end of ``end_on``; None: not said."""

    place: Place
    source_id: str | None
    person_key: str
    section_key: str
    role: EnrolmentRole
    begin_on: date | None
    end_on: date | None
    is_active: bool = True


@dataclass(slots=True)
class GuardianEntry:
    """A guardian of a student, each by the key of an entry, a source id or an e-mail."""

    place: Place
    column: str
    guardian_key: str
    student_key: str


@dataclass(slots=True)
class Roster:
    """Everything a file says. ``complete``: the kinds of which the file is the whole truth (bulk)."""

    form: str  # "table" | "oneroster"
    people: dict[str, PersonEntry] = field(default_factory=dict)
    sections: dict[str, SectionEntry] = field(default_factory=dict)
    enrolments: list[EnrolmentEntry] = field(default_factory=list)
    guardians: list[GuardianEntry] = field(default_factory=list)
    complete: frozenset[Thing] = frozenset()
    #: Source ids that the file names, also in rows with errors: these are not missing from it.
    named: dict[Thing, set[str]] = field(default_factory=lambda: {thing: set() for thing in Thing})


class Cells:
    """The cells of one row, cleaned; each one that is wrong becomes an error of that row."""

    def __init__(self, row: Row, findings: Findings) -> None:
        self.row = row
        self.is_good = True
        self._findings = findings

    def wrong(self, column: str, message: str, hint: str) -> None:
        """Note an error of this row."""
        self.is_good = False
        self._findings.error(self.row.place, column, message, hint)

    def doubt(self, column: str, message: str, hint: str) -> None:
        """Note a warning of this row."""
        self._findings.warn(self.row.place, column, message, hint)

    def name(self, column: str) -> str:
        """A name in any script, "" for none."""
        return self._cleaned(column, lambda: _name(column, _one_line(self.row[column]))) or ""

    def text(self, column: str, longest: int) -> str:
        """One line of text, "" for none."""
        return self._cleaned(column, lambda: _text(column, _one_line(self.row[column]), longest)) or ""

    def source_id(self, column: str) -> str | None:
        """A key of the roster system, None for none."""
        return self.text(column, MAX_SOURCE_ID) or None

    def email(self, column: str) -> str | None:
        """An e-mail address in lower case, None for none."""
        return self._cleaned(column, lambda: clean_email(self.row[column]))

    def date(self, column: str) -> date | None:
        """A local date, None for none or for an end beyond 2100."""
        text = self.row[column]
        if not text:
            return None
        on = parse_date(text)
        if on is not None and on.year > _LATEST and column.lower().startswith("end"):
            return None
        if on is None or not _EARLIEST <= on.year <= _LATEST:
            self.wrong(column, f"{column} is not a date that can be used: {shown(text)}.", _DATE_HINT)
            return None
        return on

    def _cleaned(self, column: str, clean: Callable[[], T]) -> T | None:
        try:
            return clean()
        except InvalidInput as error:
            self.wrong(column, error.message, f"Correct the cell {column} of this row.")
            return None


@lru_cache(maxsize=4096)
def parse_date(text: str) -> date | None:
    """2026-09-07 or 7.9.2026; slashes are not read, since 7/9 is July to some and September to others."""
    day, _, rest = text.partition(".")
    month, _, year = rest.partition(".")
    if len(year) == 4 and all(
        part.isascii() and part.isdigit() and len(part) <= 4 for part in (day, month, year)
    ):
        parts = int(year), int(month), int(day)
    elif len(text) == 10 and text[4] == text[7] == "-" and text.replace("-", "").isascii():
        try:
            return date.fromisoformat(text)
        except ValueError:
            return None
    else:
        return None
    try:
        return date(*parts)
    except ValueError:
        return None


def _one_line(text: str) -> str:
    """Line breaks and tabs inside a cell become spaces; control characters stay, to be refused."""
    return " ".join(text.split()) if "\n" in text or "\r" in text or "\t" in text else text


@lru_cache(maxsize=65536)
def _name(column: str, text: str) -> str:
    return clean_name(column, text, is_required=False)


@lru_cache(maxsize=65536)
def _text(column: str, text: str, longest: int) -> str:
    return clean_text(column, text, longest=longest, is_required=False)
