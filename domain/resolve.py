"""The fold: a set of accepted operations -> the record of one student in one meeting. Pure.

Any order of arrival, any duplication, any split into batches gives the same record, because nothing
here looks at arrival except where a device's clock is known to be wrong (protocol §2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from domain.access import Authority
from domain.clock import minutes_late
from domain.model import AfterCutoff, Kind, Status, Via

#: In these a student was there, so that a check-in no earlier than the mark adds nothing to it.
_HERE = frozenset({Status.PRESENT, Status.LATE, Status.REMOTE, Status.LEFT_EARLY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One accepted operation as the fold sees it."""

    id: str
    kind: Kind
    authority: Authority
    effective_at: datetime  # the proven slot's instant, else captured_at, never after the first receipt
    author_id: str | None = None
    student_id: str | None = None  # None: about the meeting
    device_id: str | None = None
    device_seq: int | None = None
    seen_seq: int | None = None
    seq: int = 0  # the event on meeting:<id> that told of it: what seen_seq is compared with
    reverts: str | None = None
    is_skewed: bool = False
    status: Status | None = None
    code: str | None = None
    minutes_late: int | None = None
    late_after_min: int | None = None  # open_meeting
    remark: str | None = None
    via: Via | None = None
    is_final: bool = False
    roster: frozenset[str] = frozenset()  # close_meeting: who was enrolled at the time


@dataclass(frozen=True, slots=True)
class Timing:
    """The lateness rules that govern one meeting."""

    scheduled_start: datetime
    late_after_min: int = 5
    cutoff_min: int | None = 30
    after_cutoff: AfterCutoff = AfterCutoff.ABSENT

    @property
    def late_after(self) -> datetime:
        """The last instant that is still present: the grace is inclusive."""
        return self.scheduled_start + timedelta(minutes=self.late_after_min)

    @property
    def cutoff(self) -> datetime | None:
        """The last instant at which a check-in still counts as attendance; None for no such limit."""
        return None if self.cutoff_min is None else self.scheduled_start + timedelta(minutes=self.cutoff_min)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The record: one student's attendance in one meeting."""

    status: Status | None
    code: str | None = None
    minutes_late: int | None = None
    remark: str = ""
    source: str = ""  # qr | link | code | tap | teacher | admin | system
    author_id: str | None = None
    operation_id: str | None = None
    effective_at: datetime | None = None
    is_contested: bool = False
    is_unverified: bool = False
    is_skewed: bool = False
    proposal: dict[str, Any] | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class MeetingFacts:
    """What the operations about the meeting itself come to."""

    opened_at: datetime | None = None
    opened_by: str | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    late_after_min: int | None = None
    taken_by: Entry | None = None  # the first final close by staff: the register was taken


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Sorted by (effective_at, device, device_seq, id); no device goes back behind its own earlier operation."""
    kept = list(entries)
    by_device: dict[str, list[Entry]] = {}
    for entry in kept:
        if entry.device_id is not None and entry.device_seq is not None:
            by_device.setdefault(entry.device_id, []).append(entry)
    raised: dict[str, datetime] = {}
    for own in by_device.values():
        if len(own) > 1:
            own.sort(key=lambda e: (e.device_seq, e.id))
            latest = own[0].effective_at
            for entry in own:
                latest = max(latest, entry.effective_at)
                if latest != entry.effective_at:
                    raised[entry.id] = latest
    if raised:
        kept = [replace(e, effective_at=raised[e.id]) if e.id in raised else e for e in kept]
    kept.sort(key=_sort_key)
    return kept


def _sort_key(entry: Entry) -> tuple[datetime, str, int, str]:
    return (entry.effective_at, entry.device_id or "", entry.device_seq or 0, entry.id)


def taken_out(entries: Sequence[Entry]) -> set[str]:
    """The ids that reverts take out of the fold. A revert that is itself taken out does nothing."""
    reverts: dict[str, list[str]] = {}
    for entry in sorted((e for e in entries if e.kind is Kind.REVERT), key=lambda e: e.id):
        if entry.reverts is not None:
            reverts.setdefault(entry.reverts, []).append(entry.id)
    if not reverts:
        return set()
    known: dict[str, bool] = {}

    def is_out(identifier: str) -> bool:
        if identifier not in known:
            known[identifier] = True  # stands only against a chain that bites its own tail
            known[identifier] = any(not is_out(revert) for revert in reverts.get(identifier, ()))
        return known[identifier]

    return {entry.id for entry in sorted(entries, key=lambda e: e.id) if is_out(entry.id)}


def resolve_meeting(entries: Iterable[Entry]) -> MeetingFacts:
    """Fold the operations about a meeting (student_id None) into when it was open."""
    ordered = in_order(entries)
    out = taken_out(ordered)
    facts = MeetingFacts()
    for entry in ordered:
        if entry.id in out:
            continue
        if entry.kind is Kind.OPEN_MEETING and facts.opened_at is None:
            facts = replace(
                facts,
                opened_at=entry.effective_at,
                opened_by=entry.author_id,
                late_after_min=entry.late_after_min,
            )
        elif entry.kind is Kind.CLOSE_MEETING:
            if facts.closed_at is None:
                facts = replace(facts, closed_at=entry.effective_at, closed_by=entry.author_id)
            if entry.is_final and facts.taken_by is None and entry.authority >= Authority.STAFF:
                facts = replace(facts, taken_by=entry)
        elif entry.kind is Kind.REOPEN_MEETING:
            facts = replace(facts, closed_at=None, closed_by=None)
    return facts


def resolve(student_id: str, entries: Iterable[Entry], timing: Timing) -> Resolved | None:
    """The record of one student: None for unmarked.

    ``entries`` are the operations on this student plus those about the meeting; order does not
    matter. ``version`` counts the operations on this student, so it grows with each.
    """
    ordered = in_order(entries)
    out = taken_out(ordered)
    active = [e for e in ordered if e.id not in out]
    standing, unproven = _standing(student_id, active)
    if standing is None and unproven is None:
        return None
    version = sum(1 for e in ordered if e.student_id is not None)
    if standing is None:
        assert unproven is not None
        return Resolved(
            status=None,
            source=unproven.via or "",
            author_id=unproven.author_id,
            operation_id=unproven.id,
            effective_at=unproven.effective_at,
            is_unverified=True,
            is_skewed=unproven.is_skewed,
            version=version,
        )
    status, minutes = judged(standing, timing)
    rival = _rival(standing, status, active, timing)
    return Resolved(
        status=status,
        code=standing.code,
        minutes_late=minutes,
        remark=standing.remark or "",
        source=_source(standing),
        author_id=standing.author_id,
        operation_id=standing.id,
        effective_at=standing.effective_at,
        is_contested=rival is not None,
        is_unverified=unproven is not None and _weight(standing) is Authority.SYSTEM,
        is_skewed=standing.is_skewed,
        proposal=None if rival is None else _proposal(rival, timing),
        version=version,
    )


def _standing(student_id: str, active: Sequence[Entry]) -> tuple[Entry | None, Entry | None]:
    """The operation that stands, and the first check-in without valid proof."""
    standing: Entry | None = None
    unproven: Entry | None = None
    for entry in active:
        if entry.kind is Kind.CLOSE_MEETING:
            if entry.is_final and standing is None and student_id in entry.roster:
                standing = entry
        elif entry.kind is Kind.REOPEN_MEETING:
            if standing is not None and standing.kind is Kind.CLOSE_MEETING:
                standing = None
        elif entry.kind is Kind.CHECK_IN:
            if entry.authority is Authority.UNPROVEN:
                unproven = unproven or entry
            elif standing is None or entry.authority > _weight(standing):
                standing = entry  # of several check-ins the first stands: one arrives once
        elif entry.kind is Kind.MARK and (standing is None or entry.authority >= _weight(standing)):
            standing = entry
    return standing, unproven


def _weight(entry: Entry) -> Authority:
    """Whoever closed the meeting, the absences that this gives are the system's word (rule 8)."""
    return Authority.SYSTEM if entry.kind is Kind.CLOSE_MEETING else entry.authority


def judged(entry: Entry, timing: Timing) -> tuple[Status, int | None]:
    """What an operation gives by itself: its status, and minutes late."""
    if entry.kind is Kind.CLOSE_MEETING:
        return Status.ABSENT, None
    if entry.kind is Kind.CHECK_IN:
        if entry.effective_at <= timing.late_after:
            return Status.PRESENT, None
        minutes = minutes_late(entry.effective_at, timing.scheduled_start)
        if (
            timing.cutoff is not None
            and entry.effective_at > timing.cutoff
            and timing.after_cutoff is AfterCutoff.ABSENT
        ):
            return Status.ABSENT, minutes
        return Status.LATE, minutes
    assert entry.status is not None
    if entry.status is Status.LATE and entry.minutes_late is None:
        return Status.LATE, max(1, minutes_late(entry.effective_at, timing.scheduled_start))
    return entry.status, entry.minutes_late


def has_seen(one: Entry, other: Entry) -> bool:
    """Whether the author of ``one`` knew of ``other`` when making it."""
    if one.author_id == other.author_id:
        return True
    return one.seen_seq is not None and one.seen_seq >= other.seq


def _rival(standing: Entry, status: Status, active: Sequence[Entry], timing: Timing) -> Entry | None:
    """The operation that makes the record contested: it disagrees with a mark whose author had not seen it."""
    if standing.kind is not Kind.MARK:
        return None
    for entry in active:
        if entry.id == standing.id or has_seen(standing, entry):
            continue
        if entry.kind is Kind.CHECK_IN and entry.authority is Authority.PROVEN:
            claimed, _minutes = judged(entry, timing)
            is_settled = status in _HERE and (
                entry.effective_at >= standing.effective_at or status is Status.LEFT_EARLY
            )
            if claimed is not status and claimed is not Status.ABSENT and not is_settled:
                return entry
        elif (
            entry.kind is Kind.MARK
            and entry.authority is standing.authority
            and not has_seen(entry, standing)
            and (judged(entry, timing) != judged(standing, timing) or entry.code != standing.code)
        ):
            return entry
    return None


def _proposal(rival: Entry, timing: Timing) -> dict[str, Any]:
    status, minutes = judged(rival, timing)
    return {
        "operation_id": rival.id,
        "kind": rival.kind.value,
        "status": status.value,
        "minutes_late": minutes,
        "author_id": rival.author_id,
        "source": _source(rival),
        "effective_at": rival.effective_at,
    }


def _source(entry: Entry) -> str:
    if entry.kind is Kind.CHECK_IN:
        return entry.via.value if entry.via is not None else ""
    return {Authority.SYSTEM: "system", Authority.ADMIN: "admin"}.get(_weight(entry), "teacher")
