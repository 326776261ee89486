"""Passwords: Argon2id, a few honest rules, and never on the event loop.

Parameters: OWASP Password Storage Cheat Sheet, "Argon2id with a minimum configuration of 19 MiB of
memory, an iteration count of 2, and 1 degree of parallelism". Rules: NIST SP 800-63B §5.1.1.2: length
and a list of known bad ones count, made-up compositions of character classes do not.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from domain.inputs import InvalidInput

MIN_CHARACTERS = 8
MAX_CHARACTERS = 200  # NIST wants at least 64 allowed; a bound keeps a megabyte from being hashed
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

# Those of the most common leaked passwords that are long enough to pass the length rule, folded.
_COMMON = frozenset(
    """
    password password1 password12 password123 passw0rd p@ssw0rd p@ssword 12345678 123456789 1234567890
    12341234 11223344 87654321 987654321 0123456789 1q2w3e4r 1q2w3e4r5t 1qaz2wsx qwertyui qwertyuiop
    qwerty12 qwerty123 qwertz123 asdfghjk asdfghjkl zxcvbnm1 iloveyou iloveyou1 sunshine princess football
    baseball superman batman123 trustno1 whatever welcome1 welcome123 letmein1 letmein123 abcd1234 abc12345
    a1b2c3d4 admin123 admin1234 administrator changeme changeme1 starwars computer internet dragon123
    monkey123 michelle jennifer passwort passwort1 passwort123 motdepasse contraseña school123 student1
    student123 teacher1 teacher123 attendance muster123 mustermuster
    """.split()  # noqa: SIM905  # seventy quoted words are harder to read
)
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
)

T = TypeVar("T")


def clean_password(password: str, *, about: Iterable[str] = (), field: str = "password") -> str:
    """A new password that may be used, as it came. ``about``: the account's own e-mail and names.

    Raises InvalidInput naming ``field``.
    """
    text = _normal(password)
    if text is None or len(text) > MAX_CHARACTERS:
        raise InvalidInput(field, f"Use at most {MAX_CHARACTERS} ordinary characters.")
    if len(text) < MIN_CHARACTERS:
        raise InvalidInput(
            field, f"Use at least {MIN_CHARACTERS} characters. A few words in a row are easy to remember."
        )
    folded = text.casefold()
    if (
        folded in _COMMON
        or len(set(folded)) < 3
        or any(folded in run or folded in run[::-1] for run in _RUNS)
    ):
        raise InvalidInput(field, "This password is one of the first that are tried. Choose another one.")
    own = {part.casefold() for word in about for part in (word, word.split("@")[0], *word.split())}
    if folded in own:
        raise InvalidInput(field, "Do not use your name or e-mail as the password.")
    return password


def hash_password(password: str) -> str:
    """The hash to store, with its parameters and salt inside. Takes some 20 ms: not for the event loop."""
    text = _normal(password)
    if text is None or len(text) > MAX_CHARACTERS:
        raise InvalidInput("password", f"Use at most {MAX_CHARACTERS} ordinary characters.")
    return _HASHER.hash(text)


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether this is the password. Without a hash it is not, and finding out takes just as long."""
    text = _normal(password)
    if text is None or len(text) > MAX_CHARACTERS:
        return False  # nobody's password; says nothing about the account
    try:
        return _HASHER.verify(password_hash or _dummy_hash(), text) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    try:
        return _HASHER.check_needs_rehash(password_hash)
    except InvalidHashError:
        return True


class HashingThreads:
    """The few threads on which passwords are hashed (argon2 releases the GIL).

    One core is left to the event loop, and each hash holds 19 MiB, so the threads are few; whoever
    comes while they are busy waits in line.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or max(1, min(4, (os.cpu_count() or 2) - 1))
        self.waiting = 0
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="muster-hash")

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a hashing thread."""
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.waiting -= 1

    async def hash(self, password: str) -> str:
        """``hash_password`` off the event loop."""
        return await self.run(lambda: hash_password(password))

    def close(self) -> None:
        """Finish what is running."""
        self._executor.shutdown(wait=True, cancel_futures=True)


@cache
def _dummy_hash() -> str:
    return _HASHER.hash(secrets.token_hex(16))


def _normal(password: str) -> str | None:
    """NFKC (NIST SP 800-63B §5.1.1.2), so that the same keys give the same password on every keyboard."""
    if len(password) > MAX_CHARACTERS * 4:
        return None
    text = unicodedata.normalize("NFKC", password)
    return None if any("\ud800" <= c <= "\udfff" for c in text) else text
