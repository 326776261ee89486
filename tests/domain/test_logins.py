"""Log-ins: who gets in, what a token is worth, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from sqlalchemy import Connection, select, update

from domain import people
from domain.access import SYSTEM, Author, Denied
from domain.clock import ManualClock
from domain.inputs import InvalidInput
from domain.login_rows import ADMIN_LIFETIME, LIFETIME
from domain.logins import Granted, LoginRefused, Logins
from domain.model import Login, Person, Role, table
from domain.passwords import hash_password
from domain.people import PersonView
from domain.store import Store, Work
from domain.throttle import Throttle
from tests.factories import a_person

pytestmark = pytest.mark.both_databases

LOGINS, PEOPLE = table(Login), table(Person)
PASSWORD = "a quiet morning"
STORED = hash_password(PASSWORD)
HOME, SCHOOL = "192.0.2.1", "198.51.100.1"


@pytest_asyncio.fixture
async def logins(store: Store, clock: ManualClock) -> AsyncIterator[Logins]:
    logins = Logins(store, clock, Throttle(clock))
    yield logins
    await logins.close()


def an_account(store: Store, email: str = "ada@demo.school", role: Role = Role.STUDENT, **values: Any) -> str:
    """A person who can log in with PASSWORD; returns the id."""
    values = {"password_hash": STORED} | values
    return store.write_now(lambda conn: a_person(conn, role, email=email, **values))


async def fail(
    logins: Logins, email: str = "ada@demo.school", *, address: str = HOME, times: int = 1
) -> list[LoginRefused]:
    """Try wrong passwords; the refusals."""
    refusals = []
    for _ in range(times):
        with pytest.raises(LoginRefused) as refused:
            await logins.log_in(email, "a wrong password", address=address)
        refusals.append(refused.value)
    return refusals


def count_calls(store: Store, method: str, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A list that grows with each transaction."""
    calls: list[None] = []
    run = getattr(store, method)

    def counted(work: Work[Any]) -> Any:
        calls.append(None)
        return run(work)

    monkeypatch.setattr(store, method, counted)
    return calls


# --- Logging in ---


async def test_the_right_password_gives_a_token_that_is_found(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    person_id = an_account(store, name="Ada", family_name="Lovelace", language="de")

    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME, device="Phone")
    found = await logins.find(granted.token)

    assert found is not None
    assert (found.person_id, found.role, found.name, found.language) == (
        person_id,
        Role.STUDENT,
        "Ada Lovelace",
        "de",
    )
    assert found.expires_at == clock.now() + LIFETIME
    assert found.author == Author(person_id, granted.login.login_id)
    assert granted.person.id == person_id


async def test_the_email_is_found_whatever_its_case_and_space(logins: Logins, store: Store) -> None:
    an_account(store)

    assert await logins.log_in("  ADA@Demo.School ", PASSWORD, address=HOME)


async def test_only_a_hash_of_the_token_is_stored(logins: Logins, store: Store) -> None:
    an_account(store)

    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    row = store.read_now(lambda conn: conn.execute(select(LOGINS)).mappings().one())

    assert len(granted.token) == 43
    assert row["token_hash"] == hashlib.sha256(granted.token.encode()).hexdigest()
    assert granted.token not in str(dict(row))


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@demo.school", "a wrong password"),
        ("nobody@demo.school", PASSWORD),
        ("", ""),
        ("ada@demo.school", ""),
        ("ada@demo.school", PASSWORD + " "),
        ("x" * 100_000, "y" * 100_000),
        ("\ud800@demo.school", "\udfff"),
        ("a\0da@demo.school", "\0"),
        ("' OR 1=1 --", "' OR 1=1 --"),
    ],
)
async def test_any_wrong_pair_gets_the_same_answer(
    logins: Logins, store: Store, email: str, password: str
) -> None:
    an_account(store)

    with pytest.raises(LoginRefused) as refused:
        await logins.log_in(email, password, address=HOME)

    assert refused.value.code == "invalid_credentials"
    assert refused.value.hint == "E-mail or password is wrong. Check both and try again."


@pytest.mark.parametrize("values", [{"is_active": False}, {"password_hash": None}])
async def test_inactive_people_and_people_without_a_password_cannot_log_in(
    logins: Logins, store: Store, values: dict[str, Any]
) -> None:
    an_account(store, **values)

    with pytest.raises(LoginRefused) as refused:
        await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    assert refused.value.code == "invalid_credentials"


async def test_an_outdated_hash_is_renewed_by_logging_in(logins: Logins, store: Store) -> None:
    outdated = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(PASSWORD)
    person_id = an_account(store, password_hash=outdated)

    await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    stored = store.read_now(
        lambda conn: conn.execute(select(PEOPLE.c.password_hash).where(PEOPLE.c.id == person_id)).scalar_one()
    )
    assert stored != outdated
    assert await logins.log_in("ada@demo.school", PASSWORD, address=HOME)


async def test_a_password_changed_while_a_login_is_being_made_ends_in_a_refusal(
    logins: Logins, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    person_id = an_account(store)
    write = store.write

    async def changed_before(work: Work[Any]) -> Any:
        def change(conn: Connection) -> None:
            conn.execute(
                update(PEOPLE)
                .where(PEOPLE.c.id == person_id)
                .values(password_hash=hash_password("other words"))
            )

        store.write_now(change)
        return await write(work)

    monkeypatch.setattr(store, "write", changed_before)

    with pytest.raises(LoginRefused):
        await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    assert store.read_now(lambda conn: conn.execute(select(LOGINS)).all()) == []


# --- Limits ---


async def test_after_five_failures_even_the_right_password_waits(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    await fail(logins, times=5)

    with pytest.raises(LoginRefused) as refused:
        await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after == 10.0
    clock.advance(seconds=10)
    assert await logins.log_in("ada@demo.school", PASSWORD, address=HOME)


async def test_logging_in_forgets_earlier_failures_of_that_account_there(
    logins: Logins, store: Store
) -> None:
    an_account(store)
    await fail(logins, times=4)
    await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    refusals = await fail(logins, times=5)

    assert [refusal.code for refusal in refusals] == ["invalid_credentials"] * 5


async def test_guesses_made_at_the_same_moment_are_counted_too(logins: Logins, store: Store) -> None:
    an_account(store)

    answers = await asyncio.gather(
        *(logins.log_in("ada@demo.school", f"guess {n}", address=HOME) for n in range(40)),
        return_exceptions=True,
    )

    codes = [answer.code for answer in answers if isinstance(answer, LoginRefused)]
    assert codes.count("invalid_credentials") == 5
    assert codes.count("rate_limited") == 35


async def test_accounts_that_do_not_exist_are_limited_in_the_same_way(logins: Logins) -> None:
    refusals = await fail(logins, "nobody@demo.school", times=6)

    assert [refusal.code for refusal in refusals] == ["invalid_credentials"] * 5 + ["rate_limited"]


async def test_a_stranger_elsewhere_cannot_lock_an_account_out(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    for _ in range(30):
        await fail(logins, address="203.0.113.66")
        clock.advance(seconds=30)

    assert await logins.log_in("ada@demo.school", PASSWORD, address=HOME)


async def test_strangers_from_everywhere_cannot_lock_an_account_out_where_it_is_at_home(
    logins: Logins, store: Store
) -> None:
    an_account(store)
    await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    for number in range(160):  # more than the account's own limit
        await fail(logins, address=f"203.0.113.{number}")

    with pytest.raises(LoginRefused) as refused:
        await logins.log_in("ada@demo.school", PASSWORD, address="192.0.2.99")

    assert refused.value.code == "rate_limited"
    assert await logins.log_in("ada@demo.school", PASSWORD, address=HOME)


@pytest.mark.parametrize("mistypes", [40])
async def test_a_school_behind_one_address_gets_in_at_once(
    logins: Logins, store: Store, mistypes: int
) -> None:
    pupils = [f"student{n}@demo.school" for n in range(1, 121)]

    def enrol_all(conn: Connection) -> None:
        for email in pupils:
            a_person(conn, email=email, password_hash=STORED)

    store.write_now(enrol_all)
    for email in pupils[:mistypes]:
        await fail(logins, email, address=SCHOOL)

    granted = await asyncio.gather(*(logins.log_in(email, PASSWORD, address=SCHOOL) for email in pupils))

    assert len({one.token for one in granted}) == len(pupils)


# --- Finding ---


@pytest.mark.parametrize("token", [None, "", "x", "ä" * 43, "A" * 43, "x" * 100_000, "\ud800"])
async def test_what_is_no_token_is_nobodys(logins: Logins, token: str | None) -> None:
    assert await logins.find(token) is None


async def test_a_login_expires_when_it_is_not_used(logins: Logins, store: Store, clock: ManualClock) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    clock.advance(days=29)
    clock.set(clock.now() + timedelta(days=1))

    assert await logins.find(granted.token) is None


async def test_a_login_in_use_does_not_expire(logins: Logins, store: Store, clock: ManualClock) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    for _ in range(5):
        clock.advance(days=20)
        assert await logins.find(granted.token)
        await logins.save_seen()

    (entry,) = await logins.logins_of(granted.person.id)
    assert entry.seen_at == clock.now()
    assert entry.expires_at == clock.now() + LIFETIME


async def test_an_admins_login_ends_after_half_a_day_without_use(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store, role=Role.ADMIN)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    assert granted.login.expires_at == clock.now() + ADMIN_LIFETIME
    clock.advance(minutes=12 * 60)
    assert await logins.find(granted.token) is None


async def test_being_seen_is_written_at_most_every_few_minutes(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    writes = count_calls(store, "write", monkeypatch)

    for _ in range(10):
        clock.advance(minutes=1)
        await logins.find(granted.token)
        await logins.save_seen()

    assert len(writes) == 2


async def test_a_login_that_is_used_again_and_again_is_read_once_in_a_while(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(seconds=5)
    reads = count_calls(store, "read", monkeypatch)

    for _ in range(50):
        assert await logins.find(granted.token)

    assert len(reads) == 1


async def test_many_who_come_at_once_share_a_statement(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_account(store)
    tokens = [(await logins.log_in("ada@demo.school", PASSWORD, address=HOME)).token for _ in range(20)]
    clock.advance(seconds=5)
    reads = count_calls(store, "read", monkeypatch)

    found = await asyncio.gather(*(logins.find(token) for token in [*tokens, *tokens, "nobody's"]))

    assert [view is not None for view in found] == [True] * 40 + [False]
    assert len(reads) <= 2


async def test_a_reader_that_fails_tells_each_caller_and_the_next_try_works(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(seconds=5)

    async def broken(work: Work[Any]) -> Any:
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", broken)
        answers = await asyncio.gather(
            *(logins.find(granted.token) for _ in range(3)), return_exceptions=True
        )

    assert [type(answer) for answer in answers] == [OSError] * 3
    assert await logins.find(granted.token)


async def test_a_caller_who_gives_up_does_not_disturb_the_others(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(seconds=5)

    impatient = asyncio.create_task(logins.find(granted.token))
    patient = asyncio.create_task(logins.find(granted.token))
    await asyncio.sleep(0)
    impatient.cancel()

    assert await patient is not None


# --- Ending ---


async def test_logging_out_ends_the_login_at_once_and_tells_who_watches(logins: Logins, store: Store) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    told: list[Sequence[str]] = []
    logins.on_revoked(told.append)

    await logins.revoke(granted.login.login_id, granted.login.author)
    await logins.revoke(granted.login.login_id, SYSTEM)

    assert await logins.find(granted.token) is None
    assert told == [[granted.login.login_id]]


async def test_a_login_revoked_while_it_is_being_read_is_not_remembered(
    logins: Logins, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(seconds=5)
    has_read, may_go_on = asyncio.Event(), asyncio.Event()
    read = store.read

    async def slow(work: Work[Any]) -> Any:
        result = await read(work)
        has_read.set()
        await may_go_on.wait()
        return result

    monkeypatch.setattr(store, "read", slow)
    reading = asyncio.create_task(logins.find(granted.token))
    await has_read.wait()
    await logins.revoke(granted.login.login_id, granted.login.author)
    may_go_on.set()
    await reading

    assert await logins.find(granted.token) is None


async def test_one_failing_watcher_does_not_keep_the_news_from_the_others(
    logins: Logins, store: Store
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    told: list[Sequence[str]] = []

    def failing(_ids: Sequence[str]) -> None:
        raise RuntimeError("a page that is gone")

    logins.on_revoked(failing)
    stop = logins.on_revoked(told.append)
    await logins.revoke(granted.login.login_id, granted.login.author)
    stop()
    logins.tell_ended(["another"])

    assert told == [[granted.login.login_id]]


async def test_nobody_but_the_owner_or_an_admin_ends_a_login(logins: Logins, store: Store) -> None:
    an_account(store)
    other = an_account(store, "bob@demo.school", Role.TEACHER)
    admin = an_account(store, "root@demo.school", Role.ADMIN)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    for by in (Author(other), Author(None), Author("unknown")):
        with pytest.raises(Denied):
            await logins.revoke(granted.login.login_id, by)
        with pytest.raises(Denied):
            await logins.revoke_all(granted.person.id, by=by)
    with pytest.raises(Denied):
        await logins.revoke("no such login", Author(other))
    assert await logins.find(granted.token)

    await logins.revoke(granted.login.login_id, Author(admin))
    assert await logins.find(granted.token) is None


async def test_the_owner_sees_the_own_devices_and_can_end_all_but_this_one(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    old = await logins.log_in(
        "ada@demo.school", PASSWORD, address=HOME, device="  Firefox\non\x00 Linux " + "x" * 999
    )
    clock.advance(minutes=1)
    current = await logins.log_in("ada@demo.school", PASSWORD, address=HOME, device="Phone")

    entries = await logins.logins_of(current.person.id, current.login.login_id)
    await logins.revoke_all(current.person.id, current.login.login_id, by=current.login.author)

    assert [(entry.device[:16], entry.is_current) for entry in entries] == [
        ("Phone", True),
        ("Firefox on Linux", False),
    ]
    assert len(entries[1].device) <= 80
    assert await logins.find(old.token) is None
    assert await logins.find(current.token)
    assert len(await logins.logins_of(current.person.id)) == 1


async def test_being_seen_does_not_bring_an_ended_login_back(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(minutes=10)
    await logins.find(granted.token)
    await logins.revoke(granted.login.login_id, granted.login.author)

    await logins.save_seen()

    assert await logins.find(granted.token) is None
    assert await logins.logins_of(granted.person.id) == []


async def test_what_is_over_is_purged_and_who_watches_is_told(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    an_account(store)
    expiring = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    clock.advance(days=25)
    revoked = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    await logins.revoke(revoked.login.login_id, revoked.login.author)
    told: list[Sequence[str]] = []
    logins.on_revoked(told.append)

    assert await logins.purge_expired() == 0
    clock.advance(days=6)
    assert await logins.purge_expired() == 1
    clock.advance(days=6)
    assert await logins.purge_expired() == 1

    assert told == [[expiring.login.login_id]]


# --- Passwords and people ---


async def test_changing_the_password_ends_all_other_logins(logins: Logins, store: Store) -> None:
    person_id = an_account(store)
    other = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    mine = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    await logins.change_password(person_id, PASSWORD, "quite other words", mine.login.login_id)

    assert await logins.find(other.token) is None
    assert await logins.find(mine.token)
    assert await logins.log_in("ada@demo.school", "quite other words", address=HOME)
    with pytest.raises(LoginRefused):
        await logins.log_in("ada@demo.school", PASSWORD, address=HOME)


async def test_changing_the_password_needs_the_old_one_and_cannot_be_guessed_at(
    logins: Logins, store: Store
) -> None:
    person_id = an_account(store)
    codes = []

    for _ in range(6):
        with pytest.raises(LoginRefused) as refused:
            await logins.change_password(person_id, "a wrong one", "quite other words", None)
        codes.append(refused.value.code)

    assert codes == ["invalid_credentials"] * 5 + ["rate_limited"]


async def test_a_weak_new_password_is_refused_by_field(logins: Logins, store: Store) -> None:
    person_id = an_account(store)

    with pytest.raises(InvalidInput) as refused:
        await logins.change_password(person_id, PASSWORD, "12345678", None)

    assert refused.value.field == "new"


async def test_an_admin_gives_a_password_and_nobody_else_does(logins: Logins, store: Store) -> None:
    person_id = an_account(store)
    admin = an_account(store, "root@demo.school", Role.ADMIN)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    with pytest.raises(Denied):
        await logins.set_password(granted.login.author, person_id, "quite other words")
    await logins.set_password(Author(admin), person_id, "quite other words")

    assert await logins.find(granted.token) is None
    assert await logins.log_in("ada@demo.school", "quite other words", address=HOME)


async def test_a_deactivated_person_is_out_at_once(logins: Logins, store: Store) -> None:
    person_id = an_account(store)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)
    told: list[Sequence[str]] = []
    logins.on_revoked(told.append)

    await logins.deactivate_person(SYSTEM, person_id)

    assert told == [[granted.login.login_id]]
    assert await logins.find(granted.token) is None


async def test_another_role_ends_the_logins_and_another_name_shows_at_once(
    logins: Logins, store: Store
) -> None:
    person_id = an_account(store, role=Role.TEACHER)
    granted = await logins.log_in("ada@demo.school", PASSWORD, address=HOME)

    await logins.update_person(SYSTEM, person_id, given_name="Augusta")
    renamed = await logins.find(granted.token)
    await logins.update_person(SYSTEM, person_id, role=Role.GUARDIAN)

    assert renamed is not None
    assert renamed.name == "Augusta Test"
    assert await logins.find(granted.token) is None


async def test_a_person_made_with_a_hashed_password_can_log_in(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    stored = await logins.hash_new_password("quite other words")
    store.write_now(
        lambda conn: people.create_person(
            conn,
            SYSTEM,
            now=clock.now(),
            role=Role.TEACHER,
            given_name="Eve",
            email="Eve@Demo.School",
            password_hash=stored,
        )
    )

    granted: Granted = await logins.log_in("eve@demo.school", "quite other words", address=HOME)

    assert granted.person.role is Role.TEACHER


async def test_the_first_admin_is_made_from_the_command_line(
    logins: Logins, store: Store, clock: ManualClock
) -> None:
    def make(email: str, password: str) -> PersonView:
        now = clock.now()
        return store.write_now(
            lambda conn: people.make_admin(conn, email=email, name="Root", password=password, now=now)
        )

    make("Root@demo.school", "quite other words")

    granted = await logins.log_in("root@demo.school", "quite other words", address=HOME)
    assert granted.person.role is Role.ADMIN
    for email, password, field in [
        ("root@demo.school", "quite other words", "email"),
        ("", "quite other words", "email"),
        ("eve@demo.school", "12345678", "password"),
    ]:
        with pytest.raises(InvalidInput) as refused:
            make(email, password)
        assert refused.value.field == field
