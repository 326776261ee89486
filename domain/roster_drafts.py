"""The tables of an import as they are and as they would be; what differs is the change.

An import first drafts the rows it wants and only then looks at the difference, so that a row that
is already as it should be is no change, however it came to be so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from domain.model import Enrolment, Guardianship, Person, Section, table
from domain.roster_csv import Place
from domain.roster_entries import Thing

Values = dict[str, Any]

#: The columns that an import writes; a password is not among them.
COLUMNS: Mapping[Thing, tuple[str, ...]] = {
    Thing.PERSON: ("source_id", "role", "given_name", "family_name", "email", "is_active"),
    Thing.SECTION: ("source_id", "code", "title", "room", "zone", "is_active"),
    Thing.ENROLMENT: ("source_id", "section_id", "person_id", "role", "begins_at", "ends_at"),
    Thing.GUARDIANSHIP: ("guardian_id", "student_id"),
}
TABLES = {
    Thing.PERSON: table(Person),
    Thing.SECTION: table(Section),
    Thing.ENROLMENT: table(Enrolment),
    Thing.GUARDIANSHIP: table(Guardianship),
}


class Action(StrEnum):
    """What an import does to one row."""

    CREATE = "create"
    UPDATE = "update"
    DEACTIVATE = "deactivate"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field before and after, as text for people; instants in the school's zone."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an import does to one person, section, enrolment or guardianship, and the row that says so."""

    thing: Thing
    action: Action
    label: str
    file: str
    line: int | None
    fields: tuple[FieldChange, ...] = ()


@dataclass(slots=True)
class Counts:
    """How many rows of one kind an import touches."""

    create: int = 0
    update: int = 0
    deactivate: int = 0
    unchanged: int = 0


@dataclass(slots=True)
class Drafts:
    """The rows of one kind by id: as they are (``before``) and as they would be (``after``)."""

    thing: Thing
    before: dict[str, Values] = field(default_factory=dict)
    after: dict[str, Values] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    digest: str = ""  # of ``before``

    def row(self, identifier: str) -> Values:
        """A row as it would be."""
        return self.after.get(identifier) or self.before[identifier]

    def set(self, identifier: str, place: Place, **values: Any) -> None:
        """Draft a row: a new one, or new values of one that is there."""
        self.after[identifier] = {
            **self.before.get(identifier, {}),
            **self.after.get(identifier, {}),
            **values,
        }
        self.places[identifier] = place

    def end(self, identifier: str, place: Place, **values: Any) -> None:
        """As ``set``, for what takes a row out of use."""
        self.set(identifier, place, **values)
        self.ended.add(identifier)

    def created(self) -> list[Values]:
        """The rows to insert."""
        return [{"id": key, **row} for key, row in self.after.items() if key not in self.before]

    def changed(self) -> list[Values]:
        """The rows to update, whole."""
        differing = (key for key in self.after if key in self.before and self.after[key] != self.before[key])
        return [{"id": key, **self.after[key]} for key in differing]

    def counts(self) -> Counts:
        """How many rows are created, updated, taken out of use, and fine as they are."""
        created, changed = len(self.created()), self.changed()
        ended = sum(row["id"] in self.ended for row in changed)
        return Counts(created, len(changed) - ended, ended, len(self.after) - created - len(changed))


def load_drafts(conn: Connection, thing: Thing) -> Drafts:
    """The rows of one kind as they are. Guardianships have the id ``guardian student``."""
    columns = [TABLES[thing].c[name] for name in COLUMNS[thing]]
    drafts = Drafts(thing)
    keys = [TABLES[thing].c.id] if "id" in TABLES[thing].c else []
    digest = hashlib.sha256()
    for row in conn.execute(select(*keys, *columns).order_by(*TABLES[thing].primary_key)):
        digest.update(str(tuple(row)).encode())
        values = dict(row._mapping)
        identifier = values.pop("id") if keys else f"{row.guardian_id} {row.student_id}"
        drafts.before[identifier] = values
    drafts.digest = digest.hexdigest()
    return drafts


def describe(drafts: Drafts, label: Callable[[Values], str], zone: str, now: datetime) -> Iterator[Change]:
    """The differences as an admin reads them, in the order of the file."""
    for identifier, after in drafts.after.items():
        before = drafts.before.get(identifier)
        if before == after:
            continue
        place = drafts.places[identifier]
        if before is None:
            action, compared = Action.CREATE, dict.fromkeys(after)
        else:
            action, compared = (Action.DEACTIVATE if identifier in drafts.ended else Action.UPDATE), before
        fields = tuple(
            FieldChange(name, _text(compared.get(name), zone, now), _text(after[name], zone, now))
            for name in _shown(drafts.thing)
            if after[name] != compared.get(name)
        )
        yield Change(drafts.thing, action, label(after), place.file, place.line, fields)


def _shown(thing: Thing) -> Iterable[str]:
    return (name for name in COLUMNS[thing] if not name.endswith("_id") or name == "source_id")


def _text(value: object, zone: str, now: datetime) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return (
            "now"
            if value == now
            else value.astimezone(ZoneInfo(zone)).isoformat(" ", timespec="minutes")[:16]
        )
    return str(value)
