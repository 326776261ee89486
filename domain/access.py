"""Who may do and see what: one pure place, deny by default.

A decision is a function of the author's standing towards one section at one instant. Standings are
loaded by the callers (people.load_standings); nothing here reads a database, a page or a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from domain.model import EnrolmentRole, Kind

STAFF_ROLES = frozenset({EnrolmentRole.TEACHER, EnrolmentRole.CO_TEACHER, EnrolmentRole.SUBSTITUTE})


class Authority(IntEnum):
    """Whose word counts more in the fold, low to high (protocol §2, rule 1)."""

    SYSTEM = 0
    UNPROVEN = 1
    PROVEN = 2
    STAFF = 3
    ADMIN = 4


class Denied(PermissionError):
    """The author may not do or see this. Says nothing of whether the thing exists."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Author:
    """Who acts. ``login_id`` is checked to be still valid in the transaction that records the act."""

    person_id: str | None
    login_id: str | None = None

    @property
    def is_system(self) -> bool:
        """Muster itself: scheduled closing."""
        return self.person_id is None


SYSTEM = Author(person_id=None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person is towards one section at one instant. The default is nobody."""

    person_id: str | None = None
    is_active: bool = False
    is_admin: bool = False
    staff_role: EnrolmentRole | None = None
    is_student: bool = False

    @property
    def is_staff(self) -> bool:
        """Teaches this section now: teacher, co-teacher, or substitute inside the granted time."""
        return self.is_active and self.staff_role in STAFF_ROLES


NOBODY = Standing()


def may_run_meeting(standing: Standing) -> bool:
    """Open, close, reopen, mark, revert, and see the codes."""
    return standing.is_active and (standing.is_admin or standing.is_staff)


def may_see_meeting(standing: Standing) -> bool:
    """See the whole roster of a meeting. Students and guardians never may."""
    return may_run_meeting(standing)


def may_see_student(
    *, viewer_id: str, student_id: str, is_admin: bool, is_guardian_of: bool, teaches: bool
) -> bool:
    """See one student's record: the student, a guardian, staff of a shared section (its meetings), an admin."""
    return viewer_id == student_id or is_admin or is_guardian_of or teaches


def may_change_timetable(standing: Standing) -> bool:
    """Add, move, cancel and restore this section's meetings. A substitute runs meetings but plans none."""
    is_planner = standing.staff_role in (EnrolmentRole.TEACHER, EnrolmentRole.CO_TEACHER)
    return standing.is_active and (standing.is_admin or is_planner)


def may_administer(standing: Standing) -> bool:
    """People, classes, imports, policy."""
    return standing.is_active and standing.is_admin


def authority_for(kind: Kind, standing: Standing, *, is_system: bool, is_own: bool) -> Authority | None:
    """The authority with which this author may make an operation of this kind, or None: may not.

    ``is_own``: the operation's student is the author. A check-in's authority is raised to PROVEN by
    its proof, elsewhere.
    """
    if is_system:
        return Authority.SYSTEM if kind is Kind.CLOSE_MEETING else None
    if not standing.is_active:
        return None
    if kind is Kind.CHECK_IN:
        return Authority.UNPROVEN if is_own else None
    if standing.is_admin:
        return Authority.ADMIN
    return Authority.STAFF if standing.is_staff else None


def may_revert(*, own: Authority, target: Authority) -> bool:
    """Staff take out what staff and students said; what an admin said, only an admin takes out."""
    return own >= Authority.STAFF and own >= target


def setter_of(standing: Standing) -> str:
    """The word an attendance code lists in ``set_by`` for this person."""
    if standing.is_admin:
        return "admin"
    return "staff" if standing.is_staff else "student"
