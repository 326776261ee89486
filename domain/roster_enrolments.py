"""Comparing who is in which section, whose guardian is whose, and what a complete file leaves out.

One person has one place in a section at a time. Nothing is deleted but the permission of somebody
who is no longer a guardian; enrolments are ended, and marks are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from domain.access import STAFF_ROLES
from domain.clock import day_bounds, local_date
from domain.ids import new_id
from domain.model import EnrolmentRole, Role
from domain.people import MAY_TEACH
from domain.roster_csv import Findings, Place
from domain.roster_drafts import Drafts, Values
from domain.roster_entries import EnrolmentEntry, Roster, Thing
from domain.roster_plan import People, Sections

_FOREVER = datetime.max.replace(tzinfo=UTC)
_SOON = timedelta(
    milliseconds=1
)  # an enrolment that never began lasts this long: it is kept, with its source id
_MANY = 0.3  # of the people who were imported; to lose more in one import is rather a wrong export


@dataclass(slots=True)
class _Span:
    """A person's place in one section for some time, as it would be."""

    begins_at: datetime
    ends_at: datetime | None
    role: str
    told: str  # where it comes from, for messages

    def overlaps(self, other: _Span) -> bool:
        return self.begins_at < (other.ends_at or _FOREVER) and other.begins_at < (self.ends_at or _FOREVER)

    def contains(self, other: _Span) -> bool:
        return self.begins_at <= other.begins_at and (self.ends_at or _FOREVER) >= (other.ends_at or _FOREVER)


@dataclass(slots=True, eq=False)
class _Pair:
    """An entry of the file, the enrolment that it means (None: a new one) and the interval that it tells."""

    entry: EnrolmentEntry
    begins_at: datetime | None
    ends_at: datetime | None
    known_id: str | None = None


class Enrolments:
    """Which enrolments the entries mean, and their rows as they would be."""

    def __init__(self, drafts: Drafts, people: People, sections: Sections, zone: str, now: datetime) -> None:
        self.drafts = drafts
        self._people, self._sections = people, sections
        self._zone, self._now = zone, now
        self._today = day_bounds(local_date(now, zone), zone)[0]
        self._by_source = {row["source_id"]: key for key, row in drafts.before.items() if row["source_id"]}

    def compare(self, roster: Roster, findings: Findings) -> None:
        """Draft every enrolment of the roster."""
        groups: dict[tuple[str, str], list[_Pair]] = {}
        for entry in roster.enrolments:
            if (pair := self._resolved(entry, roster, findings)) is not None:
                groups.setdefault(pair, []).append(
                    _Pair(entry, _begin(entry.begin_on, self._zone), _end(entry.end_on, self._zone))
                )
        known: dict[tuple[str, str], list[str]] = {}
        for key, row in self.drafts.before.items():
            known.setdefault((row["person_id"], row["section_id"]), []).append(key)
        replaced = roster.named[Thing.ENROLMENT] if Thing.ENROLMENT in roster.complete else None
        for (person_id, section_id), pairs in groups.items():
            ids = known.get((person_id, section_id), [])
            pairs = [pair for pair in pairs if not self._is_reused(pair.entry, ids, findings)]
            self._match(pairs, ids, replaced)
            self._place(person_id, section_id, pairs, ids, findings)

    def _resolved(self, entry: EnrolmentEntry, roster: Roster, findings: Findings) -> tuple[str, str] | None:
        """The ids of person and section; None for an orphan, which is told unless its own row was refused."""
        person_id, section_id = self._people.find(entry.person_key), self._sections.find(entry.section_key)
        if entry.person_key in self._people.refused or entry.section_key in self._sections.refused:
            return None
        is_table = roster.form == "table"
        if person_id is None:
            findings.error(
                entry.place,
                "source_id" if is_table else "userSourcedId",
                f"There is no usable user {entry.person_key!r} in users.csv or in the school.",
                "Export the user too, correct the user's row, or take this row out.",
            )
        if section_id is None:
            findings.error(
                entry.place,
                "section_code" if is_table else "classSourcedId",
                f"There is no usable class {entry.section_key!r} in classes.csv or in the school.",
                "Export the class too, correct the class's row, or take this row out.",
            )
        if person_id is None or section_id is None:
            return None
        role = self._people.role(person_id)
        is_staff = entry.role in STAFF_ROLES
        if (is_staff and role not in MAY_TEACH) or (not is_staff and role is not Role.STUDENT):
            findings.error(
                entry.place,
                "role",
                f"{self._people.name(person_id)} is a {role} of the school, not a {entry.role} of classes.",
                "Correct the role in this row or the person's role.",
            )
            return None
        return person_id, section_id

    def _is_reused(self, entry: EnrolmentEntry, ids: list[str], findings: Findings) -> bool:
        known_id = self._by_source.get(entry.source_id or "")
        if known_id is None or known_id in ids:
            return False
        findings.error(
            entry.place,
            "sourcedId",
            f"The enrolment {entry.source_id!r} is of another person or class in the school.",
            "A sourcedId must not be used again for something else; export with a new one.",
        )
        return True

    def _match(self, pairs: list[_Pair], ids: list[str], replaced: set[str] | None) -> None:
        """Find the enrolment each entry means: by source id, by begin, as the current one, by overlap."""
        rows = self.drafts.before
        free = dict.fromkeys(ids)
        for pair in pairs:
            if (known_id := self._by_source.get(pair.entry.source_id or "")) is not None:
                pair.known_id = known_id
                free.pop(known_id, None)

        def same_begin(pair: _Pair, row: Values) -> bool:
            return pair.begins_at is not None and pair.begins_at == row["begins_at"]

        def current(pair: _Pair, row: Values) -> bool:
            is_over = row["ends_at"] is not None and row["ends_at"] <= self._now
            return pair.begins_at is None and (not is_over or row["ends_at"] == pair.ends_at)

        def overlapping(pair: _Pair, row: Values) -> bool:
            told = _Span(pair.begins_at or self._today, pair.ends_at, "", "")
            return told.overlaps(_Span(row["begins_at"], row["ends_at"], "", ""))

        for rule in (same_begin, current, overlapping):
            for pair in pairs:
                if pair.known_id is not None:
                    continue
                for known_id in free:
                    source = rows[known_id]["source_id"]
                    is_open_to = source is None or pair.entry.source_id is None
                    if (is_open_to or (replaced is not None and source not in replaced)) and rule(
                        pair, rows[known_id]
                    ):
                        pair.known_id = known_id
                        del free[known_id]
                        break

    def _place(
        self, person_id: str, section_id: str, pairs: list[_Pair], ids: list[str], findings: Findings
    ) -> None:
        """Draft the entries that find their place; one that does not leaves its enrolment as it was."""
        for pair in pairs:
            if not pair.entry.is_active and pair.known_id is not None:
                self.end(pair.known_id, pair.entry.place)
        pairs = [pair for pair in pairs if pair.entry.is_active]
        pairs.sort(key=lambda pair: pair.known_id is None)  # what is there keeps its place before what is new
        placed: list[tuple[_Pair, _Span]] = []
        refused: list[_Pair] = []
        while len(placed) + len(refused) < len(pairs):
            meant = {pair.known_id for pair in pairs if pair not in refused}
            spans = [self._span(known_id) for known_id in ids if known_id not in meant]
            placed = []
            for pair in pairs:
                if pair in refused:
                    continue
                span = self._told(pair)
                if self._fits(pair.entry, span, spans, person_id, section_id, findings):
                    placed.append((pair, span))
                    spans.append(span)
                else:
                    refused.append(pair)
                    if pair.known_id is not None:
                        break  # its enrolment stays, which the others must heed: once more
        for pair in refused:
            if pair.known_id is not None:
                self.drafts.set(pair.known_id, pair.entry.place)
        for pair, span in placed:
            row = self.drafts.before.get(pair.known_id or "")
            self.drafts.set(
                pair.known_id or new_id(self._now),
                pair.entry.place,
                source_id=pair.entry.source_id or (row["source_id"] if row else None),
                section_id=section_id,
                person_id=person_id,
                role=span.role,
                begins_at=span.begins_at,
                ends_at=span.ends_at,
            )

    def _told(self, pair: _Pair) -> _Span:
        """The place that an entry tells of; without any date a current enrolment keeps its own."""
        entry, row = pair.entry, self.drafts.before.get(pair.known_id or "")
        is_end_kept = row is not None and not (entry.begin_on or entry.end_on or entry.source_id)
        return _Span(
            pair.begins_at or (row["begins_at"] if row else self._today),
            row["ends_at"] if row is not None and is_end_kept else pair.ends_at,
            entry.role.value,
            f"line {entry.place.line}",
        )

    def _fits(
        self,
        entry: EnrolmentEntry,
        span: _Span,
        spans: list[_Span],
        person_id: str,
        section_id: str,
        findings: Findings,
    ) -> bool:
        name, code = self._people.name(person_id), self._sections.code(section_id)
        if span.ends_at is not None and span.ends_at <= span.begins_at:
            findings.error(
                entry.place,
                "end_on" if entry.source_id is None else "endDate",
                f"{name} would leave {code} before joining it: the enrolment begins on"
                f" {local_date(span.begins_at, self._zone)}.",
                "Write the date of the beginning too, or correct the end.",
            )
            return False
        if entry.role is EnrolmentRole.SUBSTITUTE and span.ends_at is None:
            findings.error(entry.place, "end_on", "A substitute needs an end.", "Write the last day.")
            return False
        other = next((other for other in spans if span.overlaps(other)), None)
        if other is None:
            return True
        if other.role == span.role and other.contains(span):
            findings.warn(
                entry.place,
                "",
                f"{name} is in {code} as {other.role} all that time already ({other.told}); row ignored.",
                "Take the row out.",
            )
        else:
            findings.error(
                entry.place,
                "",
                f"{name} is in {code} for part of that time already, as {other.role} ({other.told}).",
                "One person has one place in a class at a time: correct the dates or the role.",
            )
        return False

    def _span(self, identifier: str) -> _Span:
        row = self.drafts.row(identifier)
        return _Span(row["begins_at"], row["ends_at"], row["role"], "in the school")

    def end(self, identifier: str, place: Place) -> None:
        """Draft the end of an enrolment, now; one that is over stays as it is."""
        row = self.drafts.row(identifier)
        if row["ends_at"] is None or row["ends_at"] > max(self._now, row["begins_at"] + _SOON):
            ends_at = max(self._now, row["begins_at"] + _SOON)
            self.drafts.end(identifier, place, ends_at=ends_at)
        else:
            self.drafts.set(identifier, place)


def compare_guardians(roster: Roster, people: People, drafts: Drafts, findings: Findings) -> None:
    """Draft every guardianship of the roster, and the end of those that a complete file no longer names."""
    for entry in roster.guardians:
        guardian_id, student_id = people.find(entry.guardian_key), people.find(entry.student_key)
        if entry.guardian_key in people.refused or entry.student_key in people.refused:
            continue
        if guardian_id is None or student_id is None:
            missing = entry.student_key if student_id is None else entry.guardian_key
            findings.error(
                entry.place,
                entry.column,
                f"There is nobody with the source id or e-mail {missing[:80]!r}.",
                "Add the person to the file, or correct the source id or e-mail.",
            )
        elif (
            roster.form == "oneroster"
            and people.role(guardian_id) is Role.TEACHER
            and not (entry.guardian_key in roster.people and entry.student_key in roster.people)
        ):
            findings.warn(
                entry.place,
                entry.column,
                f"{people.name(guardian_id)} is a teacher; whether also a guardian, the file does not say.",
                "Export the guardian's row too, with the role guardian.",
            )
        elif people.role(student_id) is not Role.STUDENT or people.role(guardian_id) is Role.STUDENT:
            wrong = student_id if people.role(student_id) is not Role.STUDENT else guardian_id
            findings.error(
                entry.place,
                entry.column,
                f"{people.name(wrong)} is a {people.role(wrong)}: guardians are given to students only.",
                "Correct the source id or e-mail.",
            )
        else:
            drafts.set(
                f"{guardian_id} {student_id}", entry.place, guardian_id=guardian_id, student_id=student_id
            )
    if Thing.GUARDIANSHIP in roster.complete:
        listed = {people.ids[key] for key in roster.people if key in people.ids}
        for identifier, row in drafts.before.items():
            if (
                identifier not in drafts.after
                and row["guardian_id"] in listed
                and row["student_id"] in listed
            ):
                drafts.end(identifier, Place("users.csv"), is_over=True)


def end_missing(
    roster: Roster, people: People, sections: Sections, enrolments: Enrolments, findings: Findings
) -> None:
    """Take out of use what came from an import and is not in a complete file any more."""
    for thing, drafts, file in (
        (Thing.PERSON, people.drafts, "users.csv"),
        (Thing.SECTION, sections.drafts, "classes.csv"),
    ):
        if thing in roster.complete:
            missing = list(_missing(drafts, roster.named[thing]))
            for identifier in missing:
                drafts.end(identifier, Place(file), is_active=False)
            _warn_of_many(thing, drafts, missing, file, findings)
    leaving = {key for key in people.drafts.ended if not people.drafts.row(key)["is_active"]}
    for identifier, row in enrolments.drafts.before.items():
        if identifier in enrolments.drafts.after or row["source_id"] in roster.named[Thing.ENROLMENT]:
            continue
        is_missing = Thing.ENROLMENT in roster.complete and row["source_id"] is not None
        if is_missing or row["person_id"] in leaving:
            enrolments.end(identifier, Place("enrollments.csv"))


def _missing(drafts: Drafts, named: set[str]) -> Iterator[str]:
    for identifier, row in drafts.before.items():
        is_here = row["source_id"] is None or row["source_id"] in named or identifier in drafts.after
        if row["is_active"] and not is_here and row.get("role") != Role.ADMIN:
            yield identifier


def _warn_of_many(thing: Thing, drafts: Drafts, missing: list[str], file: str, findings: Findings) -> None:
    imported_count = sum(1 for row in drafts.before.values() if row["source_id"] and row["is_active"])
    if len(missing) > max(5, _MANY * imported_count):
        what = "people" if thing is Thing.PERSON else "classes"
        findings.warn(
            Place(file),
            "",
            f"{len(missing)} of {imported_count} imported {what} are not in this file.",
            "They would be deactivated: make sure that the export is complete.",
        )


@lru_cache(maxsize=4096)
def _begin(on: date | None, zone: str) -> datetime | None:
    return None if on is None else day_bounds(on, zone)[0]


@lru_cache(maxsize=4096)
def _end(on: date | None, zone: str) -> datetime | None:
    return None if on is None else day_bounds(on, zone)[1]
