"""Passwords: what may be one, how it is kept, and what the time of checking tells."""

from __future__ import annotations

import asyncio
import threading
from typing import Literal

import pytest
from argon2 import Parameters, PasswordHasher, extract_parameters

from domain import passwords
from domain.inputs import InvalidInput
from domain.passwords import (
    MAX_CHARACTERS,
    HashingThreads,
    clean_password,
    hash_password,
    needs_rehash,
    verify_password,
)


def test_a_password_is_kept_as_argon2id_with_owasp_parameters() -> None:
    parameters = extract_parameters(hash_password("a quiet morning"))

    assert (parameters.type.name, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        "ID",
        19 * 1024,
        2,
        1,
    )


def test_the_right_password_verifies_and_a_wrong_one_does_not() -> None:
    stored = hash_password("a quiet morning")

    assert verify_password(stored, "a quiet morning")
    assert not verify_password(stored, "a quiet Morning")


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("a quiet morning") != hash_password("a quiet morning")


def test_a_password_typed_in_another_unicode_form_is_the_same_password() -> None:
    stored = hash_password("cafe\u0301 au lait")

    assert verify_password(stored, "caf\u00e9 au lait")


@pytest.mark.parametrize("stored", ["", "plain text", "$argon2id$broken", "$2b$12$abcdefghijklmnopqrstuv"])
def test_a_hash_that_cannot_be_read_verifies_nothing(stored: str) -> None:
    assert not verify_password(stored, "a quiet morning")


@pytest.mark.parametrize("password", ["", "x" * 100_000, "\ud800" * 10, "null\0byte"])
def test_anything_may_be_tried_as_a_password(password: str) -> None:
    assert not verify_password(hash_password("a quiet morning"), password)


def test_a_hash_of_other_parameters_is_to_be_renewed() -> None:
    outdated = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash("a quiet morning")

    assert needs_rehash(outdated)
    assert not needs_rehash(hash_password("a quiet morning"))


def test_checking_a_missing_account_does_the_same_work_as_checking_one_that_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = hash_password("a quiet morning")
    checked: list[Parameters] = []

    class Recording(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            checked.append(extract_parameters(str(hash)))
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "_HASHER", Recording())

    assert not verify_password(stored, "a wrong password")
    assert not verify_password(None, "a wrong password")
    assert len(checked) == 2
    assert checked[0] == checked[1]


@pytest.mark.parametrize(
    "password",
    [
        "muster-demo",
        "correct horse",
        "ääääßüöo",
        "密码密码文字文字",
        "only lower case letters",
        "🐙🦑🐟🐠🐡🦐🦞🦀",
    ],
)
def test_any_long_enough_password_may_be_used_without_rules_of_composition(password: str) -> None:
    assert clean_password(password) == password


@pytest.mark.parametrize(
    "password",
    ["", "short 7", "12345678", "Password1", "aaaaaaaa", "abababab", "qwertyuiop", "87654321", "abcdefgh"],
)
def test_a_password_that_is_short_or_tried_first_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        clean_password(password, field="new")

    assert refused.value.field == "new"


@pytest.mark.parametrize("password", ["ada.lovelace@demo.school", "Ada.Lovelace", "lovelace"])
def test_the_own_name_or_email_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput):
        clean_password(password, about=("ada.lovelace@demo.school", "Ada Lovelace"))


def test_a_password_may_be_long_but_not_endless() -> None:
    clean_password("correct horse " * 14)

    with pytest.raises(InvalidInput):
        clean_password("x1y2" * MAX_CHARACTERS)


async def test_hashing_leaves_the_event_loop_free() -> None:
    hashing = HashingThreads(1)
    threads: set[int] = set()

    stored = await asyncio.gather(*(hashing.hash("a quiet morning") for _ in range(3)))
    await hashing.run(lambda: threads.add(threading.get_ident()))

    assert len(set(stored)) == 3
    assert threads.isdisjoint({threading.get_ident()})
    assert hashing.waiting == 0
    hashing.close()
