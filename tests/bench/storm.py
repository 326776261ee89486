"""A storm: a thousand clients come back at once, while a hundred who stayed are sent messages."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.queues import SimpleQueue
from typing import Any

from tests.bench.fanout import Scenario, ask_for_flow, raise_file_limit, started, swarm_of
from tests.bench.gateway import target
from tests.bench.machine import pin, spread

STAYED, CAME = 100, 1000


def measure() -> list[tuple[str, str]]:
    """What those who stayed feel of it, and how soon all are back, each with log-in and subscription."""
    raise_file_limit()
    calm, stormy = Scenario("calm", STAYED + CAME, rate=10, seconds=6), target()
    spawn = multiprocessing.get_context("spawn")  # in one process the two would wait for each other
    back = spawn.SimpleQueue()
    with started(stormy, calm) as facts, swarm_of(stormy, calm, facts) as stayed:
        stayed.connect(STAYED)
        storm = spawn.Process(target=_storm, args=(dict(facts), back))
        storm.start()
        back.get()  # it is ready
        ask_for_flow(calm, facts)
        got = stayed.receive(calm.seconds + 3, expected=calm.messages)
        seconds = back.get()
        storm.join()
    return [
        (f"{CAME:,} clients come back at once: all logged in and following again after", f"{seconds:.2f} s"),
        (f"… meanwhile 10 messages/s to {STAYED} who stayed, {got.lost} lost", spread(got.latencies_ms)),
    ]


def _storm(facts: Mapping[str, Any], back: SimpleQueue[float]) -> None:
    pin(1)
    raise_file_limit()
    scenario = Scenario("storm", CAME, rate=10)
    with swarm_of(target(), scenario, facts) as coming:
        back.put(0.0)
        time.sleep(1)
        began = time.perf_counter()
        report = coming.connect(CAME, in_flight=CAME // 2)
        assert report.ready == CAME, report
        back.put(time.perf_counter() - began)
        time.sleep(2)
