"""Log-in sessions: made by e-mail and password, shown by a random token, ended at once when revoked.

Only the SHA-256 of a token is stored: whoever reads the database cannot log in with it. Whoever
holds a page or a socket for a login listens with ``on_revoked`` and ends it.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

from sqlalchemy import Connection

from domain import login_rows, people
from domain.access import Author
from domain.clock import Clock
from domain.devices import device_name
from domain.inputs import fold_email
from domain.login_finder import LoginFinder
from domain.login_rows import Account, hash_token
from domain.login_rows import LoginEntry as LoginEntry
from domain.login_rows import LoginView as LoginView
from domain.passwords import HashingThreads, clean_password, hash_password, needs_rehash, verify_password
from domain.people import Change, PersonChanges, PersonView
from domain.store import Store
from domain.throttle import (
    LOGIN_FAILURES,
    LOGIN_FAILURES_FROM_ADDRESS,
    LOGIN_FAILURES_OF_ACCOUNT,
    Rule,
    Throttle,
    address_key,
)

MAX_WAITING = 2_000  # log-ins in line for hashing: a whole school at once, about a minute of one core
_HASHES_PER_S = 40  # 25 ms a hash
_KNOWN_PLACES = 50_000  # about 8 MB

log = logging.getLogger("muster.logins")


class LoginRefused(Exception):
    """Nobody was logged in. The hint never tells whether there is such an account."""

    def __init__(self, code: str, hint: str, retry_after: float | None = None) -> None:
        super().__init__(hint)
        self.code = code  # invalid_credentials | rate_limited
        self.hint = hint
        self.retry_after = retry_after  # seconds, with rate_limited


@dataclass(frozen=True, slots=True)
class Granted:
    """A new login. This is the only time its token is known."""

    token: str
    login: LoginView
    person: PersonView


class Logins:
    """All log-ins of this process. Belongs to the event loop; hashing and the database run in threads."""

    def __init__(
        self, store: Store, clock: Clock, throttle: Throttle, *, hashing: HashingThreads | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._throttle = throttle
        self._hashing = hashing or HashingThreads()
        self._finder = LoginFinder(store, clock)
        self._known_places: OrderedDict[str, None] = OrderedDict()
        self._watchers: list[Callable[[Sequence[str]], None]] = []

    # --- Logging in ---

    async def log_in(self, email: str, password: str, *, address: str, device: str = "") -> Granted:
        """Log somebody in. Raises LoginRefused. ``device`` is the User-Agent; only its names are kept.

        Tries are counted inside the few hashing threads and only failures stay counted, so neither a
        thousand right passwords at once nor a thousand parallel guesses get round the limits.
        """
        email, place = fold_email(email), address_key(address)
        claims = self._claims(email, place)
        wait = self._throttle.peek_all(claims)
        if self._hashing.waiting >= MAX_WAITING:
            wait = max(wait or 0, self._hashing.waiting / _HASHES_PER_S)
        if wait is not None:
            raise _rate_limited(wait)
        account = await self._store.read(lambda conn: login_rows.find_account(conn, email))
        account, fresh_hash = await self._try(claims, account, password)
        token = secrets.token_urlsafe(32)
        granted = await self._store.write(
            lambda conn: self._grant(conn, account, fresh_hash, token=token, device=device)
        )
        self._know_place(email, place)
        return granted

    def _claims(self, email: str, place: str) -> list[tuple[Rule, str]]:
        pair = f"{email}|{place}"
        claims = [(rule, pair) for rule in LOGIN_FAILURES]
        # Where somebody has logged in before, strangers' failures elsewhere, or a neighbour's on
        # other accounts behind the same address, do not lock them out.
        if pair not in self._known_places:
            claims += [(LOGIN_FAILURES_OF_ACCOUNT, email), (LOGIN_FAILURES_FROM_ADDRESS, place)]
        return claims

    async def _try(
        self, claims: Sequence[tuple[Rule, str]], account: Account | None, password: str
    ) -> tuple[Account, str]:
        """One try with a password; the account and the hash to keep, or LoginRefused."""

        def attempt() -> tuple[Account, str]:
            wait = self._throttle.take_all(claims)
            if wait is not None:
                raise _rate_limited(wait)
            stored = account.password_hash if account else None
            if not verify_password(stored, password) or account is None or stored is None:
                raise _invalid_credentials()
            for rule, key in claims:
                self._throttle.give_back(rule, key)
            for rule, key in claims[: len(LOGIN_FAILURES)]:
                self._throttle.forget(rule, key)
            return account, hash_password(password) if needs_rehash(stored) else stored

        return await self._hashing.run(attempt)

    def _grant(
        self, conn: Connection, account: Account, fresh_hash: str, *, token: str, device: str
    ) -> Granted:
        now = self._clock.now()
        person = people.find_person(conn, account.person_id)
        if person is None or not login_rows.replace_hash(conn, account, fresh_hash):
            raise _invalid_credentials()  # deactivated, or given another password, in this very moment
        login = login_rows.insert_login(
            conn, person, token_hash=hash_token(token), device=device_name(device), now=now
        )
        return Granted(token, login, person)

    def _know_place(self, email: str, place: str) -> None:
        pair = f"{email}|{place}"
        self._known_places[pair] = None
        self._known_places.move_to_end(pair)
        if len(self._known_places) > _KNOWN_PLACES:
            self._known_places.popitem(last=False)

    async def find(self, token: str | None) -> LoginView | None:
        """Whose token this is, or None when it is nobody's (any more). Being found puts off expiry.

        Quick enough for every request: remembered for seconds, and many callers share one statement.
        """
        return await self._finder.find(token)

    # --- Ending ---

    def on_revoked(self, callback: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        """Call back on the event loop with the ids of log-ins that ended; returns how to stop that."""
        self._watchers.append(callback)

        def stop() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return stop

    def tell_ended(self, login_ids: Iterable[str]) -> None:
        """Forget these log-ins and tell all who watch: for writes that ended some, after their commit."""
        ended = frozenset(login_ids)
        if not ended:
            return
        self._finder.forget(lambda view: view.login_id in ended)
        for watcher in list(self._watchers):
            try:
                watcher(sorted(ended))
            except Exception:  # one watcher's fault is not the others'
                log.exception("a watcher of ended log-ins failed")

    async def revoke(self, login_id: str, by: Author) -> None:
        """End one login: one's own (logging out), or as an admin anybody's. Raises Denied."""
        now = self._clock.now()
        self.tell_ended(await self._store.write(lambda conn: login_rows.revoke(conn, login_id, by, now)))

    async def revoke_all(self, person_id: str, except_login_id: str | None = None, *, by: Author) -> None:
        """End all log-ins of a person but one: one's own, or as an admin anybody's. Raises Denied."""
        now = self._clock.now()
        ended = await self._store.write(
            lambda conn: login_rows.revoke_all(conn, person_id, by, now, except_login_id)
        )
        self.tell_ended(ended)

    async def logins_of(self, person_id: str, current_login_id: str | None = None) -> list[LoginEntry]:
        """The log-ins of a person that still hold, the last used first."""
        now = self._clock.now()
        return await self._store.read(
            lambda conn: login_rows.logins_of(conn, person_id, current_login_id, now)
        )

    async def purge_expired(self) -> int:
        """Delete log-ins that are over, tell who watches them, return how many; to be run about hourly."""
        await self._finder.save_seen()
        now = self._clock.now()
        expired, deleted = await self._store.write(lambda conn: login_rows.purge(conn, now))
        self.tell_ended(expired)
        return deleted

    async def save_seen(self) -> None:
        """Write when log-ins were last used; happens by itself some seconds after a use."""
        await self._finder.save_seen()

    async def close(self) -> None:
        """Write what is left and stop the threads. Before the store is closed."""
        await self._finder.close()
        self._hashing.close()

    # --- What changes people and with that their log-ins ---

    async def change_password(self, person_id: str, old: str, new: str, keep_login_id: str | None) -> None:
        """Change one's own password; all other log-ins end.

        Raises LoginRefused for a wrong old password, InvalidInput (field ``new``) for a weak new one.
        """
        person = await self._store.read(lambda conn: people.find_person(conn, person_id))
        account = await self._store.read(lambda conn: login_rows.account_of(conn, person_id))
        clean_password(new, about=_about(person), field="new")
        claims = [(rule, f"change|{person_id}") for rule in LOGIN_FAILURES]
        account, _ = await self._try(claims, account, old)
        new_hash = await self._hashing.hash(new)
        now = self._clock.now()

        def work(conn: Connection) -> tuple[str, ...]:
            if not login_rows.replace_hash(conn, account, new_hash):
                raise _invalid_credentials()  # changed by somebody else in this very moment
            return people.end_logins(conn, person_id, now=now, except_login_id=keep_login_id)

        self.tell_ended(await self._store.write(work))

    async def set_password(self, author: Author, person_id: str, new: str) -> PersonView:
        """As an admin, give somebody a password; all their log-ins end. Raises Denied, InvalidInput."""
        now = self._clock.now()

        def person_for_admin(conn: Connection) -> PersonView | None:
            people.require_admin(conn, author, now)
            return people.find_person(conn, person_id)

        about = _about(await self._store.read(person_for_admin))
        new_hash = await self.hash_new_password(new, about=about)
        return await self._change(
            lambda conn: people.set_password_hash(conn, author, person_id, new_hash, now=now)
        )

    async def hash_new_password(self, password: str, *, about: Iterable[str] = ()) -> str:
        """The hash of a password, for ``people.create_person``. Raises InvalidInput for a weak one."""
        return await self._hashing.hash(clean_password(password, about=about))

    async def update_person(
        self, author: Author, person_id: str, **changes: Unpack[PersonChanges]
    ) -> PersonView:
        """``people.update_person``, felt at once: another role ends the log-ins and what hangs on them."""
        now = self._clock.now()
        return await self._change(
            lambda conn: people.update_person(conn, author, person_id, now=now, **changes)
        )

    async def deactivate_person(self, author: Author, person_id: str) -> PersonView:
        """``people.deactivate_person``, felt at once: the person is out everywhere."""
        now = self._clock.now()
        return await self._change(lambda conn: people.deactivate_person(conn, author, person_id, now=now))

    async def _change(self, work: Callable[[Connection], Change]) -> PersonView:
        change = await self._store.write(work)
        self._finder.forget(lambda view: view.person_id == change.person.id)
        self.tell_ended(change.ended_logins)
        return change.person


def _about(person: PersonView | None) -> tuple[str, ...]:
    return (person.email or "", person.given_name, person.family_name, person.name) if person else ()


def _invalid_credentials() -> LoginRefused:
    return LoginRefused("invalid_credentials", "E-mail or password is wrong. Check both and try again.")


def _rate_limited(retry_after: float) -> LoginRefused:
    wait = f"{retry_after:.0f} seconds" if retry_after < 90 else f"{retry_after / 60:.0f} minutes"
    return LoginRefused("rate_limited", f"Too many tries. Wait {wait}, then try again.", retry_after)
