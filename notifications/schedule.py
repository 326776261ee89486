"""What Muster does by the clock: closes meetings left open, lays out the timetable, clears old log-ins away.

Of several processes the leader does it. Every job is idempotent, so a missed run is made up for by the next one and a doubled run changes nothing.
APScheduler only says when; what "now" is, the jobs ask the injected clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from domain.access import SYSTEM
from domain.closing import due_closes
from domain.muster import Muster
from domain.schedule import materialise

log = logging.getLogger("muster.schedule")

CLOSE_EVERY = timedelta(seconds=15)
LAY_OUT_EVERY = timedelta(hours=1)
PURGE_LOGINS_EVERY = timedelta(hours=1)
STOP_WITHIN_S = 10.0
#: Meetings closed in one transaction. Each writes a record for every absentee, and check-ins wait meanwhile.
CLOSES_AT_ONCE = 20


class Jobs:
    """The jobs of one process. The owner starts it after the recorder and stops it before."""

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._running: set[asyncio.Task[object]] = set()
        self._refused: set[str] = set()

    async def start(self) -> None:
        """Lay out the timetable, then run every job at its interval."""
        await self._watched("lay-out", self.lay_out)
        self._add("auto-close", self.close_overdue, CLOSE_EVERY)
        self._add("lay-out", self.lay_out, LAY_OUT_EVERY)
        self._add("purge-logins", self.purge_logins, PURGE_LOGINS_EVERY)
        self._scheduler.start()

    async def stop(self) -> None:
        """Start no job any more and let those that run come to their end, for ten seconds at most."""
        if not self._scheduler.running:
            return
        self._scheduler.pause()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_WITHIN_S)
            if late:
                log.warning(
                    "%d scheduled jobs did not end within %.0f s and are cut off", len(late), STOP_WITHIN_S
                )
        self._scheduler.shutdown(wait=False)

    @property
    def job_ids(self) -> list[str]:
        """The names of the jobs that will run."""
        return sorted(job.id for job in self._scheduler.get_jobs())

    async def close_overdue(self) -> int:
        """Close the meetings that were left open too long, unmarked students absent. Returns how many."""
        muster = self._muster
        now = muster.clock.now()
        due = await muster.store.read(lambda conn: due_closes(conn, now))
        closed = 0
        for start in range(0, len(due), CLOSES_AT_ONCE):
            for outcome in await muster.recorder.record(due[start : start + CLOSES_AT_ONCE], SYSTEM):
                closed += outcome.outcome == "accepted"
                if outcome.outcome == "rejected" and outcome.id not in self._refused:
                    self._refused.add(str(outcome.id))  # it will be due again in 15 s: say it once
                    facts = {"operation_id": outcome.id, "code": outcome.code}
                    log.error(
                        "the automatic close %s was rejected: %s", outcome.id, outcome.code, extra=facts
                    )
        if closed:
            log.info("closed %d meetings that were left open", closed)
        return closed

    async def lay_out(self) -> int:
        """Lay the series out some weeks ahead and tell of the new meetings. Returns how many."""
        muster = self._muster
        now = muster.clock.now()
        told = await muster.store.write(lambda conn: materialise(conn, now))
        if told:
            log.info("laid out %d meetings", len(told))
        return len(told)

    async def purge_logins(self) -> int:
        """Delete the log-ins that are over. Returns how many."""
        return await self._muster.logins.purge_expired()

    def _add(self, name: str, job: Callable[[], Awaitable[object]], every: timedelta) -> None:
        self._scheduler.add_job(
            self._watched,
            IntervalTrigger(seconds=int(every.total_seconds()), timezone=UTC),
            args=(name, job),
            id=name,
            replace_existing=True,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,  # however late, once: the jobs are idempotent
        )

    async def _watched(self, name: str, job: Callable[[], Awaitable[object]]) -> None:
        if not self._muster.leadership.is_leader:
            return
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await job()
        except Exception:  # the rim of the task: the traceback is kept, the next run tries again
            log.exception("the job %s failed; it runs again at its next time", name)
        finally:
            self._running.discard(task)
