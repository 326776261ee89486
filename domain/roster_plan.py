"""Comparing a roster with the school: whom it means, what it would change, what does not fit.

People are recognised by source id, then by e-mail; sections by source id, then by code. Admins are
left as they are, since a roster file must neither make nor lock out an admin. Enrolments and what is
missing from a complete file are compared in roster_enrolments.py.
"""

from __future__ import annotations

from datetime import datetime

from domain.ids import new_id
from domain.model import EnrolmentRole, Role
from domain.roster_csv import Findings
from domain.roster_drafts import Drafts, Values
from domain.roster_entries import PersonEntry, Roster, SectionEntry


class People:
    """Whom the entries mean, and their rows as they would be."""

    def __init__(self, drafts: Drafts, enrolments: Drafts, guardianships: Drafts, now: datetime) -> None:
        self.drafts = drafts
        self.ids: dict[str, str] = {}  # person id by entry key
        self.refused: set[str] = set()  # keys of entries that an error keeps out
        self._now = now
        self._keys_by_email: dict[str, str] = {}
        self._by_source = {row["source_id"]: key for key, row in drafts.before.items() if row["source_id"]}
        self._by_email = {row["email"]: key for key, row in drafts.before.items() if row["email"]}
        self._held: dict[str, set[str]] = {}
        for row in enrolments.before.values():
            if row["ends_at"] is None or row["ends_at"] > now:
                self._held.setdefault(row["person_id"], set()).add(row["role"])
        self._guardians = {row["guardian_id"] for row in guardianships.before.values()}

    def compare(self, roster: Roster, findings: Findings) -> None:
        """Draft every person of the roster."""
        meant = self._matched(roster, findings)
        self._keys_by_email = {entry.email: key for key, (entry, _) in meant.items() if entry.email}
        self._refuse_taken_emails(meant, findings)
        for key, (entry, known_id) in meant.items():
            if known_id is not None:
                self.ids[key] = known_id
                self._update(entry, known_id, findings)
            elif entry.is_active is False:
                self.refused.add(key)  # somebody who is gone and never was here
            else:
                self.ids[key] = new_id(self._now)
                self.drafts.set(self.ids[key], entry.place, **_values(entry, entry.role, is_active=True))

    def find(self, key: str) -> str | None:
        """The person of an entry's key or e-mail, or one of the school by source id or e-mail."""
        told = self.ids.get(key) or self.ids.get(self._keys_by_email.get(key, ""))
        return told or self._by_source.get(key) or self._by_email.get(key)

    def role(self, person_id: str) -> Role:
        """The role as it would be."""
        return Role(self.drafts.row(person_id)["role"])

    def name(self, person_id: str) -> str:
        """The name as it would be."""
        return person_label(self.drafts.row(person_id))

    def _matched(self, roster: Roster, findings: Findings) -> dict[str, tuple[PersonEntry, str | None]]:
        meant: dict[str, tuple[PersonEntry, str | None]] = {}
        lines: dict[str, PersonEntry] = {}
        for key, entry in roster.people.items():
            known_id = self._known(entry)
            if known_id is not None and (other := lines.get(known_id)) is not None:
                self.refused.add(key)
                findings.error(
                    entry.place,
                    "source_id",
                    f"{entry.name} and {other.name} (line {other.place.line}) are one person in the school.",
                    "Keep one of the two rows.",
                )
                continue
            if known_id is not None:
                lines[known_id] = entry
                if not self._fits(entry, known_id, findings):
                    self.refused.add(key)
                    continue
            meant[key] = entry, known_id
        return meant

    def _known(self, entry: PersonEntry) -> str | None:
        if entry.source_id and (known_id := self._by_source.get(entry.source_id)):
            return known_id
        known_id = self._by_email.get(entry.email or "")
        if known_id is None or (entry.source_id and self.drafts.before[known_id]["source_id"]):
            return None
        return known_id

    def _refuse_taken_emails(
        self, meant: dict[str, tuple[PersonEntry, str | None]], findings: Findings
    ) -> None:
        """Two people must not end up with one address; people of one file may swap theirs."""
        while True:
            claims = [
                (k, e, known) for k, (e, known) in meant.items() if e.email and not self._is_admin(known)
            ]
            leaving = {known_id for _, _, known_id in claims}
            owners = {email: owner for email, owner in self._by_email.items() if owner not in leaving}
            taken = [
                (key, owners[entry.email or ""])
                for key, entry, known_id in claims
                if owners.get(entry.email or "", known_id) != known_id
            ]
            if not taken:
                return
            for key, owner in taken:
                entry, _ = meant.pop(key)
                self.refused.add(key)
                row = self.drafts.before[owner]
                findings.error(
                    entry.place,
                    "email",
                    f"The e-mail {entry.email} belongs to {person_label(row)}"
                    f" (source id {row['source_id'] or 'none'}) already.",
                    "Correct the e-mail, or that person's source id on the people page if they are the same.",
                )

    def _is_admin(self, known_id: str | None) -> bool:
        return known_id is not None and self.drafts.before[known_id]["role"] == Role.ADMIN

    def _fits(self, entry: PersonEntry, known_id: str, findings: Findings) -> bool:
        row = self.drafts.before[known_id]
        if self._is_admin(known_id):
            return True
        if not row["is_active"] and entry.is_active is None:
            findings.error(
                entry.place,
                "",
                f"{person_label(row)} is deactivated in the school.",
                "Reactivate them on the people page, or take the row out.",
            )
            return False
        role = _merged(Role(row["role"]), entry.role)
        if not self._may_become(known_id, Role(row["role"]), role):
            findings.error(
                entry.place,
                "role",
                f"{person_label(row)} is a {row['role']} in the school; the file says {role}.",
                "End their enrolments and guardianships first, or correct the role.",
            )
            return False
        return True

    def _update(self, entry: PersonEntry, known_id: str, findings: Findings) -> None:
        row = self.drafts.before[known_id]
        is_active = row["is_active"] if entry.is_active is None else entry.is_active
        values = _values(entry, _merged(Role(row["role"]), entry.role), is_active=is_active)
        values["email"] = entry.email or row["email"]
        values["source_id"] = row["source_id"] or entry.source_id
        if self._is_admin(known_id):
            self.drafts.set(known_id, entry.place)
            if {**values, "role": row["role"]} != row:
                findings.warn(
                    entry.place,
                    "",
                    f"{person_label(row)} is an admin; an import does not change admins.",
                    "Change them on the people page.",
                )
            return
        if row["given_name"] != entry.given_name and row["family_name"] != entry.family_name:
            findings.warn(
                entry.place,
                "",
                f"{person_label(row)} would be renamed {entry.name}.",
                "Make sure that both are the same person; a source id must not be given to somebody else.",
            )
        if row["is_active"] and not is_active:
            self.drafts.end(known_id, entry.place, **values)
        else:
            self.drafts.set(known_id, entry.place, **values)

    def _may_become(self, person_id: str, before: Role, after: Role) -> bool:
        held = self._held.get(person_id, set())
        if before is after or not (held or person_id in self._guardians):
            return True
        if after is Role.STUDENT:
            return False
        return EnrolmentRole.STUDENT not in held and (after is Role.TEACHER or not held)


class Sections:
    """Which sections the entries mean, and their rows as they would be."""

    def __init__(self, drafts: Drafts, zone: str, now: datetime) -> None:
        self.drafts = drafts
        self.ids: dict[str, str] = {}
        self.refused: set[str] = set()
        self._zone, self._now = zone, now
        self._meant: set[str] = set()
        self._by_source = {row["source_id"]: key for key, row in drafts.before.items() if row["source_id"]}
        self._by_code: dict[str, list[str]] = {}
        for key, row in drafts.before.items():
            self._by_code.setdefault(row["code"], []).append(key)

    def compare(self, roster: Roster, findings: Findings) -> None:
        """Draft every section of the roster."""
        for key, entry in roster.sections.items():
            known_id = self._by_source.get(entry.source_id or "")
            if known_id is None and (known_id := self._by_its_code(entry, findings)) is None:
                if key in self.refused or not entry.is_active:
                    continue
                self.ids[key] = new_id(self._now)
                if entry.title is None:
                    findings.warn(
                        entry.place,
                        "section_title",
                        f"The new class {entry.code} has no title; its code is taken.",
                        "Write a section_title in one of its rows.",
                    )
                self.drafts.set(
                    self.ids[key],
                    entry.place,
                    source_id=entry.source_id,
                    code=entry.code,
                    title=entry.title or entry.code,
                    room=entry.room or "",
                    zone=self._zone,
                    is_active=True,
                )
            else:
                self.ids[key] = known_id
                self._meant.add(known_id)
                self._update(entry, known_id)

    def find(self, key: str) -> str | None:
        """The section of an entry's key, or one of the school by source id."""
        return self.ids.get(key) or self._by_source.get(key)

    def code(self, section_id: str) -> str:
        """The code as it would be."""
        return str(self.drafts.row(section_id)["code"])

    def _by_its_code(self, entry: SectionEntry, findings: Findings) -> str | None:
        rows = self.drafts.before
        found = [key for key in self._by_code.get(entry.code, ()) if key not in self._meant]
        if entry.source_id is not None:
            found = [key for key in found if rows[key]["source_id"] is None and rows[key]["is_active"]]
            return found[0] if len(found) == 1 else None
        active = [key for key in found if rows[key]["is_active"]]
        if len(active) == 1:
            return active[0]
        if found:
            self.refused.add(entry.key)
            what = "is no longer in use" if not active else f"is the code of {len(active)} classes"
            findings.error(
                entry.place,
                "section_code",
                f"{entry.code} {what}.",
                "Correct the code, or the classes on the classes page.",
            )
        return None

    def _update(self, entry: SectionEntry, known_id: str) -> None:
        row = self.drafts.before[known_id]
        values: Values = {"code": entry.code, "source_id": row["source_id"] or entry.source_id}
        if entry.title is not None:
            values["title"] = entry.title
        if entry.room is not None:
            values["room"] = entry.room
        if entry.source_id is not None:
            values["is_active"] = entry.is_active
        if row["is_active"] and not entry.is_active:
            self.drafts.end(known_id, entry.place, **values)
        else:
            self.drafts.set(known_id, entry.place, **values)


def person_label(row: Values) -> str:
    """How a person is named in messages: the name, and the e-mail or source id that tells namesakes apart."""
    name = f"{row['given_name']} {row['family_name']}".strip()
    known_by = row["email"] or row["source_id"]
    return f"{name} ({known_by})" if known_by else name


def _merged(before: Role, told: Role) -> Role:
    """A teacher who is a guardian too is a teacher of the school."""
    return Role.TEACHER if {before, told} == {Role.TEACHER, Role.GUARDIAN} else told


def _values(entry: PersonEntry, role: Role, *, is_active: bool) -> Values:
    return {
        "source_id": entry.source_id,
        "role": role.value,
        "given_name": entry.given_name,
        "family_name": entry.family_name,
        "email": entry.email,
        "is_active": is_active,
    }
