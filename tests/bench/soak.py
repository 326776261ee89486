"""A soak: a thousand connections that come and go for twenty minutes, and what is left of them.

`python -m tests.bench.soak` runs it, the server on core 0 and the swarm on core 1; `--minutes` and
`--connections` make it shorter. Every round connects them all with log-in and subscription, sends them
messages, lets half say goodbye and drops the other half; between rounds the server is asked what it
still holds. Memory, tasks and file handles must be where they were.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.fanout import Scenario, ask_for_flow, raise_file_limit, started, swarm_of
from tests.bench.gateway import target
from tests.bench.machine import describe, percentile
from tests.waiting import until_now


@dataclass(frozen=True, slots=True)
class Held:
    """What the server holds while nobody is connected."""

    memory_mib: float
    tasks: int
    files: int
    topics: int


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak saw: what was held after each round, and what the clients got."""

    held: list[Held]
    connections: int
    received: int
    flaws: int


def soak(connections: int, minutes: float, *, rounds: int | None = None, is_pinned: bool = True) -> Soak:
    """Run rounds for so many minutes, or so many rounds."""
    raise_file_limit()
    scenario = Scenario("soak", connections, rate=10, seconds=3)
    with started(target(), scenario, is_pinned=is_pinned) as facts:
        until_now(lambda: _metrics(facts) is not None)
        held, count, received, flaws = [_settled(facts)], 0, 0, 0
        give_up_at = time.monotonic() + 60 * minutes
        number = 0
        while number < rounds if rounds is not None else time.monotonic() < give_up_at:
            number += 1
            with swarm_of(target(), scenario, facts) as clients:
                report = clients.connect(connections)
                ask_for_flow(scenario, facts)
                got = clients.receive(scenario.seconds + 5, expected=scenario.messages)
            count += report.ready
            received += got.received
            flaws += got.lost + got.duplicated + got.out_of_order + len(report.failures)
            held.append(_settled(facts))
            print(f"round {number:3}: {held[-1]}", file=sys.stderr)
    return Soak(held, count, received, flaws)


def _settled(facts: Mapping[str, Any]) -> Held:
    """What is held once all have gone."""
    until_now(lambda: (found := _metrics(facts)) is not None and found.get("muster_connections") == 0)
    found = _metrics(facts)
    assert found is not None
    return Held(
        memory_mib=round(found["process_resident_memory_bytes"] / 2**20, 1),
        tasks=int(found["muster_tasks"]),
        files=int(found["process_open_fds"]),
        topics=int(found["muster_channels"]),
    )


def _metrics(facts: Mapping[str, Any]) -> dict[str, float] | None:
    connection = http.client.HTTPConnection("127.0.0.1", facts["port"], timeout=20)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--connections", type=int, default=1000)
    asked = parser.parse_args()
    seen = soak(asked.connections, asked.minutes)
    warm, last = seen.held[len(seen.held) // 4 :], seen.held[-3:]
    print(
        f"{seen.connections:,} connections in {len(seen.held) - 1} rounds, {seen.received:,} messages, {seen.flaws} flaws"
    )
    for name in ("memory_mib", "tasks", "files", "topics"):
        values = [float(getattr(held, name)) for held in warm]
        end = percentile([float(getattr(held, name)) for held in last], 0.5)
        print(f"{name:<12} after a quarter {values[0]:g}, largest {max(values):g}, at the end {end:g}")
    print(f"Measured on {describe()}.")
    return 0 if not seen.flaws else 1


if __name__ == "__main__":
    sys.exit(main())
