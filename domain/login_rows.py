"""What is stored of log-ins, and the statements that read and write it. logins.py says when."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from domain import events, people
from domain.access import Author, Denied
from domain.ids import new_id
from domain.model import Login, Person, Role, table
from domain.people import PersonView

# Sliding: a student's own phone stays logged in over a holiday and can still send what it kept offline.
LIFETIME = timedelta(days=30)
# An admin can change everything, often from a shared office machine: half a day without use ends it.
ADMIN_LIFETIME = timedelta(hours=12)
KEEP_REVOKED = timedelta(days=7)  # rows of ended log-ins stay this long, for questions such as "was that me?"
_MAX_DEVICE = 80

_LOGINS, _PEOPLE = table(Login), table(Person)


@dataclass(frozen=True, slots=True)
class LoginView:
    """Whose login this is."""

    login_id: str
    person_id: str
    role: Role
    name: str
    language: str
    expires_at: datetime
    seen_at: datetime

    @property
    def author(self) -> Author:
        """The person as the author of what this login does."""
        return Author(self.person_id, self.login_id)


@dataclass(frozen=True, slots=True)
class LoginEntry:
    """A login as its owner sees it in the list of devices."""

    id: str
    device: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    is_current: bool


@dataclass(frozen=True, slots=True)
class Account:
    """Whom an e-mail belongs to and how the password is checked."""

    person_id: str
    password_hash: str | None


def hash_token(token: str) -> str:
    """What is stored of a token. It is random, so no salt or slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def lifetime(role: Role) -> timedelta:
    """How long a login holds without being used."""
    return ADMIN_LIFETIME if role is Role.ADMIN else LIFETIME


def find_account(conn: Connection, email: str) -> Account | None:
    """The active account of a folded e-mail address."""
    wanted = and_(_PEOPLE.c.email == email, _PEOPLE.c.is_active)
    row = conn.execute(select(_PEOPLE.c.id, _PEOPLE.c.password_hash).where(wanted)).one_or_none()
    return None if row is None else Account(row.id, row.password_hash)


def account_of(conn: Connection, person_id: str) -> Account | None:
    """The active account of a person."""
    wanted = and_(_PEOPLE.c.id == person_id, _PEOPLE.c.is_active)
    row = conn.execute(select(_PEOPLE.c.id, _PEOPLE.c.password_hash).where(wanted)).one_or_none()
    return None if row is None else Account(row.id, row.password_hash)


def replace_hash(conn: Connection, account: Account, password_hash: str | None) -> bool:
    """Store another hash; False if the account is no longer active or its password has changed since."""
    if account_of(conn, account.person_id) != account:
        return False
    if password_hash != account.password_hash:
        conn.execute(
            update(_PEOPLE).where(_PEOPLE.c.id == account.person_id).values(password_hash=password_hash)
        )
    return True


def insert_login(
    conn: Connection, person: PersonView, *, token_hash: str, device: str, now: datetime
) -> LoginView:
    """Store a new login."""
    login_id, expires_at = new_id(now), now + lifetime(person.role)
    conn.execute(
        insert(_LOGINS).values(
            id=login_id,
            person_id=person.id,
            token_hash=token_hash,
            device=device_label(device),
            created_at=now,
            seen_at=now,
            expires_at=expires_at,
        )
    )
    return LoginView(login_id, person.id, person.role, person.name, person.language, expires_at, now)


def find_logins(conn: Connection, token_hashes: Sequence[str], now: datetime) -> dict[str, LoginView]:
    """The log-ins, by the hash of their token, that hold at an instant and whose person is active."""
    query = (
        select(
            _LOGINS.c.token_hash,
            _LOGINS.c.id,
            _LOGINS.c.person_id,
            _LOGINS.c.expires_at,
            _LOGINS.c.seen_at,
            _PEOPLE.c.role,
            _PEOPLE.c.given_name,
            _PEOPLE.c.family_name,
            _PEOPLE.c.language,
        )
        .join(_PEOPLE, _PEOPLE.c.id == _LOGINS.c.person_id)
        .where(
            _LOGINS.c.token_hash.in_(token_hashes),
            _LOGINS.c.revoked_at.is_(None),
            _LOGINS.c.expires_at > now,
            _PEOPLE.c.is_active,
        )
    )
    return {
        row.token_hash: LoginView(
            login_id=row.id,
            person_id=row.person_id,
            role=Role(row.role),
            name=f"{row.given_name} {row.family_name}".strip(),
            language=row.language,
            expires_at=row.expires_at,
            seen_at=row.seen_at,
        )
        for row in conn.execute(query)
    }


def save_seen(conn: Connection, seen: Mapping[str, tuple[datetime, datetime]]) -> None:
    """Store (seen at, expires at) of each login id. What has ended meanwhile stays ended."""
    alive = and_(
        _LOGINS.c.id == bindparam("login_id"),
        _LOGINS.c.revoked_at.is_(None),
        _LOGINS.c.expires_at > bindparam("seen"),
    )
    statement = (
        update(_LOGINS).where(alive).values(seen_at=bindparam("seen"), expires_at=bindparam("expires"))
    )
    conn.execute(
        statement,
        [{"login_id": login_id, "seen": at, "expires": expires} for login_id, (at, expires) in seen.items()],
    )


def logins_of(
    conn: Connection, person_id: str, current_login_id: str | None, now: datetime
) -> list[LoginEntry]:
    """The log-ins of a person that still hold, the last used first."""
    query = (
        select(_LOGINS.c.id, _LOGINS.c.device, _LOGINS.c.created_at, _LOGINS.c.seen_at, _LOGINS.c.expires_at)
        .where(_LOGINS.c.person_id == person_id, _LOGINS.c.revoked_at.is_(None), _LOGINS.c.expires_at > now)
        .order_by(_LOGINS.c.seen_at.desc(), _LOGINS.c.id.desc())
    )
    return [LoginEntry(*row, is_current=row.id == current_login_id) for row in conn.execute(query)]


def revoke(conn: Connection, login_id: str, by: Author, now: datetime) -> tuple[str, ...]:
    """End one's own login, or as an admin anybody's; returns what was ended. Raises Denied."""
    row = conn.execute(
        select(_LOGINS.c.person_id, _LOGINS.c.revoked_at).where(_LOGINS.c.id == login_id)
    ).one_or_none()
    if row is None or row.person_id != by.person_id:
        people.require_admin(conn, by, now)
    if row is None:
        raise Denied("There is no such log-in.")
    if row.revoked_at is not None:
        return ()
    conn.execute(update(_LOGINS).where(_LOGINS.c.id == login_id).values(revoked_at=now))
    events.tell_logins_ended(conn, (login_id,), now)
    return (login_id,)


def revoke_all(
    conn: Connection, person_id: str, by: Author, now: datetime, except_login_id: str | None
) -> tuple[str, ...]:
    """End all of one's own log-ins but one, or as an admin anybody's. Raises Denied."""
    if by.person_id is None or by.person_id != person_id:
        people.require_admin(conn, by, now)
    return people.end_logins(conn, person_id, now=now, except_login_id=except_login_id)


def purge(conn: Connection, now: datetime) -> tuple[tuple[str, ...], int]:
    """Delete what has expired, and what was revoked a week ago. Returns the expired ids and how many went."""
    expired = and_(_LOGINS.c.expires_at <= now, _LOGINS.c.revoked_at.is_(None))
    ids = tuple(conn.execute(select(_LOGINS.c.id).where(expired)).scalars())
    over = or_(expired, _LOGINS.c.revoked_at <= now - KEEP_REVOKED)
    return ids, conn.execute(delete(_LOGINS).where(over)).rowcount


def device_label(text: str) -> str:
    """How a device is called in the list of devices: one short line of visible characters."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text[: _MAX_DEVICE * 8])
    return " ".join(shown.split())[:_MAX_DEVICE]
