"""A process to be killed: checks a thousand students in and prints each operation's id once it is answered."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from domain.access import Author
from domain.clock import ManualClock
from domain.muster import Muster
from domain.operations import parse
from domain.settings import Settings
from tests.factories import NOW


async def main(folder: Path) -> None:
    work = json.loads((folder / "work.json").read_text())
    muster = Muster(Settings(data=folder), clock=ManualClock(NOW))
    await muster.start()

    async def one(author: str, raw: dict[str, object]) -> None:
        (outcome,) = await muster.recorder.record([parse(raw)], Author(author))
        print(outcome.id, outcome.outcome.value, flush=True)

    for start in range(0, len(work), 20):
        await asyncio.gather(*(one(author, raw) for author, raw in work[start : start + 20]))
    await muster.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
