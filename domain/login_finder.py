"""From a token to whose login it is: on the path of every request, so remembered and asked in bulk.

What was found is remembered for three seconds. A login that ends in this process is forgotten at
once (``forget``); one that another process ends, within those seconds. The write path of attendance
relies on neither: it checks the login in its own transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from domain.clock import Clock
from domain.login_rows import LoginView, find_logins, hash_token, lifetime, save_seen
from domain.store import Store

FRESH_FOR = timedelta(seconds=3)
MAX_CACHED = 10_000  # about 5 MB
SEEN_EVERY = timedelta(minutes=5)  # how exact seen_at is: a write for each request would load the one writer
SAVE_AFTER_S = 5.0  # what was seen is gathered this long and written in one transaction
_BATCH = 400
_MAX_TOKEN = 100

log = logging.getLogger("muster.logins")


class LoginFinder:
    """Finds log-ins by token and keeps those in use from expiring. Belongs to the event loop."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: OrderedDict[str, tuple[LoginView, datetime]] = OrderedDict()  # (view, fresh until)
        self._forgotten_count = 0
        self._wanted: dict[str, asyncio.Future[LoginView | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._seen: dict[str, tuple[datetime, datetime]] = {}  # login id: (seen at, expires at)
        self._saving: asyncio.Task[None] | None = None

    async def find(self, token: str | None) -> LoginView | None:
        """Whose token this is, or None when it is nobody's (any more)."""
        if not token or len(token) > _MAX_TOKEN or not token.isascii():
            return None
        token_hash = hash_token(token)
        view, fresh_until = self._cache.get(token_hash, (None, None))
        if view is None or fresh_until is None or fresh_until <= self._clock.now():
            view = await self._ask(token_hash)
        if view is None or view.expires_at <= self._clock.now():
            return None
        return self._see(token_hash, view)

    def forget(self, is_meant: Callable[[LoginView], bool]) -> None:
        """Forget log-ins at once, also those that are being read at this moment."""
        self._forgotten_count += 1
        for token_hash in [key for key, (view, _) in self._cache.items() if is_meant(view)]:
            del self._cache[token_hash]

    async def save_seen(self) -> None:
        """Write when log-ins were last used; happens by itself some seconds after a use."""
        seen, self._seen = self._seen, {}
        if seen:
            await self._store.write(lambda conn: save_seen(conn, seen))

    async def close(self) -> None:
        """Answer whoever still waits and write what is left."""
        if self._saving is not None:
            self._saving.cancel()
        await asyncio.gather(
            *(task for task in (self._asking, self._saving) if task is not None), return_exceptions=True
        )
        await self.save_seen()

    async def _ask(self, token_hash: str) -> LoginView | None:
        if token_hash not in self._wanted:
            self._wanted[token_hash] = asyncio.get_running_loop().create_future()
        answer = self._wanted[token_hash]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_all())
        return await asyncio.shield(answer)

    async def _ask_for_all(self) -> None:
        """While one statement runs, what is wanted next gathers, and then goes together."""
        while self._wanted:
            batch = {key: self._wanted.pop(key) for key in list(self._wanted)[:_BATCH]}
            forgotten_count = self._forgotten_count
            try:
                read = partial(find_logins, token_hashes=list(batch), now=self._clock.now())
                views = await self._store.read(read)
            except Exception as error:  # the rim of this task: each caller gets the error
                for answer in batch.values():
                    answer.set_exception(error)
                    answer.exception()  # seen, also when the caller has gone
                continue
            for token_hash, answer in batch.items():
                view = views.get(token_hash)
                if view is not None and forgotten_count == self._forgotten_count:
                    self._keep(token_hash, view)
                answer.set_result(view)

    def _keep(self, token_hash: str, view: LoginView) -> None:
        self._cache[token_hash] = (view, self._clock.now() + FRESH_FOR)
        self._cache.move_to_end(token_hash)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    def _see(self, token_hash: str, view: LoginView) -> LoginView:
        now = self._clock.now()
        if now - view.seen_at < SEEN_EVERY:
            return view
        view = replace(view, seen_at=now, expires_at=now + lifetime(view.role))
        self._seen[view.login_id] = (view.seen_at, view.expires_at)
        if token_hash in self._cache:
            self._cache[token_hash] = (view, self._cache[token_hash][1])
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_soon())
        return view

    async def _save_soon(self) -> None:
        await asyncio.sleep(SAVE_AFTER_S)
        try:
            await self.save_seen()
        except Exception:  # the rim of this task: the next use of these log-ins tries again
            log.exception("could not save when log-ins were last used")
