"""Fan-out to 1,000 and 5,000 WebSocket connections: latency, loss, CPU and memory of a server.

`python -m tests.bench.fanout` measures every peer in every scenario, the server on core 0 and the
swarm on core 1; `--quick` is a self test with 200 connections, `--only NAME` picks servers or
scenarios, `--markdown` prints the table for the documents.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.machine import describe, percentile, pin
from tests.bench.swarm import Swarm

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).resolve().parent / "peers"
PACKAGES = ROOT / "build" / "peers"
START_S, SETTLE_S, GRACE_S = 20.0, 0.3, 3.0
SPARE_FILES = 200  # beside the connections


@dataclass(frozen=True, slots=True)
class Scenario:
    """So many connections, spread over the rooms, each room with so many messages a second."""

    name: str
    connections: int
    rate: float
    seconds: float = 5.0
    bytes: int = 200
    rooms: int = 1

    @property
    def messages(self) -> int:
        """That each connection is to receive."""
        return round(self.rate * self.seconds)


SCENARIOS = (
    Scenario("1k", 1000, 10),
    Scenario("5k", 5000, 10),
    Scenario("rooms", 1000, 1, rooms=25),
    Scenario("burst", 1000, 100),
)
QUICK = (Scenario("quick", 200, 10, seconds=2), Scenario("quick rooms", 200, 5, seconds=2, rooms=5))


@dataclass(frozen=True, slots=True)
class Seat:
    """One connection of a scenario."""

    i: int
    room: int
    facts: Mapping[str, Any]  # the line of JSON the server printed


def ask_for_flow(scenario: Scenario, facts: Mapping[str, Any]) -> None:
    """Have the server send: `POST /flow`, which answers before the first message."""
    asked = (
        f"rate={scenario.rate:g}&bytes={scenario.bytes}&seconds={scenario.seconds:g}&rooms={scenario.rooms}"
    )
    connection = http.client.HTTPConnection("127.0.0.1", facts["port"], timeout=START_S)
    try:
        connection.request("POST", f"/flow?{asked}")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"POST /flow must succeed, got {answer.status} {body[:200]!r}")


@dataclass(frozen=True, slots=True)
class Target:
    """A server under test. What it prints first is a line of JSON with its `port` and `pid`."""

    name: str
    argv: Callable[[Scenario], Sequence[str]]
    path: Callable[[Seat], str] = lambda seat: f"/ws?room={seat.room}"
    subprotocol: str | None = None
    headers: Callable[[Seat], Mapping[str, str]] = lambda seat: {}
    first_frames: Callable[[Seat], Sequence[str]] = lambda seat: ()
    is_ready: Callable[[bytes], bool] = lambda payload: b'"subscribed"' in payload
    engine_io: bool = False
    room: Callable[[int, Scenario], int] = lambda i, scenario: i % scenario.rooms
    start_flow: Callable[[Scenario, Mapping[str, Any]], None] = ask_for_flow
    cap_s: float = 60.0  # to connect them all


@dataclass(frozen=True, slots=True)
class Result:
    """What one server did in one scenario."""

    target: str
    scenario: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    received: int
    expected: int
    lost: int
    late: int  # not come within the time of the scenario and GRACE_S
    duplicated: int
    out_of_order: int
    dropped: int
    deliveries_per_s: float
    cpu_percent: float
    cpu_us_per_delivery: float
    connect_s: float
    kib_per_connection: float
    client_cpu_percent: float
    failures: Mapping[str, int]  # to connect


def peers() -> Iterator[Target]:
    """Every peer this machine can run; says which it leaves out."""

    def python(name: str) -> Callable[[Scenario], Sequence[str]]:
        return lambda scenario: [sys.executable, "-m", f"tests.bench.peers.{name}"]

    def node(name: str) -> Callable[[Scenario], Sequence[str]]:
        return lambda scenario: ["node", str(PEERS / name)]

    def socket_io(name: str, argv: Callable[[Scenario], Sequence[str]]) -> Target:
        return Target(
            name,
            argv,
            path=lambda seat: f"/socket.io/?EIO=4&transport=websocket&room={seat.room}",
            first_frames=lambda seat: ['42["subscribe"]'],
            engine_io=True,
        )

    yield Target("fastapi, plain loop", python("plain_fastapi"))
    yield socket_io("python-socketio", python("python_socketio_peer"))
    if problem := install_packages():
        print(f"left out: node ws, node socket.io ({problem})", file=sys.stderr)
        return
    yield Target("node ws", node("ws.mjs"))
    yield socket_io("node socket.io", node("socketio.mjs"))


def install_packages() -> str | None:
    """What the peers in JavaScript need, into build/peers, if it is not there; why not, if it cannot be."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    wanted, stamp = (PEERS / "package.json").read_bytes(), PACKAGES / "installed.json"
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return None
    PACKAGES.mkdir(parents=True, exist_ok=True)
    (PACKAGES / "package.json").write_bytes(wanted)
    options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(
            ["npm", "install", *options, "--prefix", str(PACKAGES)],
            check=True, cwd=PACKAGES, stdout=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
        return f"npm install failed: {problem}"
    stamp.write_bytes(wanted)
    return None


def measure(target: Target, scenario: Scenario) -> Result:
    """Start the server, let all come in, let it send, and end it. Keeps this process on core 1."""
    with started(target, scenario) as facts:
        pid = int(facts["pid"])
        with swarm_of(target, scenario, facts) as first:  # what is loaded only then is not a connection's
            if failures := first.connect(1, timeout_s=target.cap_s).failures:
                raise RuntimeError(f"{target.name}: the first connection was not ready: {failures}")
        time.sleep(SETTLE_S)
        rss_before = _rss_kib(pid)
        with swarm_of(target, scenario, facts) as swarm:
            connected = swarm.connect(scenario.connections, timeout_s=target.cap_s)
            time.sleep(SETTLE_S)
            rss_after, cpu_before = _rss_kib(pid), _cpu_s(pid)
            target.start_flow(scenario, facts)
            report = swarm.receive(scenario.seconds + GRACE_S, expected=scenario.messages)
            cpu_s = _cpu_s(pid) - cpu_before
    span_s = max(report.span_s, scenario.seconds)
    latencies = report.latencies_ms or [float("nan")]
    return Result(
        target=target.name,
        scenario=scenario.name,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        max_ms=max(latencies),
        received=report.received,
        expected=scenario.messages * connected.ready,
        lost=report.lost,
        late=report.outstanding,
        duplicated=report.duplicated,
        out_of_order=report.out_of_order,
        dropped=report.dropped,
        deliveries_per_s=report.received / span_s,
        cpu_percent=100 * cpu_s / span_s,
        cpu_us_per_delivery=1e6 * cpu_s / max(1, report.received),
        connect_s=connected.seconds,
        kib_per_connection=(rss_after - rss_before) / max(1, connected.ready),
        client_cpu_percent=report.client_cpu_percent,
        failures=connected.failures,
    )


def swarm_of(target: Target, scenario: Scenario, facts: Mapping[str, Any]) -> Swarm:
    """The clients of a scenario, not connected yet."""

    def seat(i: int) -> Seat:
        return Seat(i, target.room(i, scenario), facts)

    return Swarm(
        "127.0.0.1",
        int(facts["port"]),
        lambda i: target.path(seat(i)),
        subprotocol=target.subprotocol,
        headers=lambda i: target.headers(seat(i)),
        first_frames=lambda i: target.first_frames(seat(i)),
        is_ready=target.is_ready,
        engine_io=target.engine_io,
    )


@contextmanager
def started(target: Target, scenario: Scenario, *, is_pinned: bool = True) -> Iterator[Mapping[str, Any]]:
    """The server as a process on core 0, this one on core 1, and what it said; ended afterwards."""
    if is_pinned:
        pin(0)  # inherited with all its threads, whatever language it is written in
    server = subprocess.Popen(target.argv(scenario), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if is_pinned:
        pin(1)
    assert server.stdout is not None
    try:
        if not select.select([server.stdout], [], [], START_S)[0]:
            raise RuntimeError(f"{target.name} must say its port within {START_S:g} s, and did not")
        if not (line := server.stdout.readline()):
            raise RuntimeError(f"{target.name} must say its port, and ended with {server.wait(START_S)}")
        yield json.loads(line)
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def _cpu_s(pid: int) -> float:
    """Processor time of a process and its threads so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc(5)


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no VmRSS: it has ended")


def raise_file_limit() -> int:
    """To the most that is allowed, for this process and the servers it starts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


COLUMNS: Mapping[str, Callable[[Result], str]] = {
    "server": lambda r: r.target,
    "scenario": lambda r: r.scenario,
    "p50/p99/max ms": lambda r: f"{r.p50_ms:.1f}/{r.p99_ms:.1f}/{r.max_ms:.1f}",
    "deliveries": lambda r: f"{r.received:,} of {r.expected:,}",
    "lost": lambda r: f"{r.lost}",
    "late": lambda r: f"{r.late}",
    "doubled": lambda r: f"{r.duplicated}",
    "disorder": lambda r: f"{r.out_of_order}",
    "per s": lambda r: f"{r.deliveries_per_s:,.0f}",
    "CPU %": lambda r: f"{r.cpu_percent:.0f}",
    "µs each": lambda r: f"{r.cpu_us_per_delivery:.1f}",
    "connect s": lambda r: f"{r.connect_s:.2f}",
    "KiB/conn": lambda r: f"{r.kib_per_connection:.0f}",
    "client CPU %": lambda r: f"{r.client_cpu_percent:.0f}",
}


def table(results: Sequence[Result], *, is_markdown: bool = False) -> str:
    """A line for each result."""
    rows = [[*COLUMNS], *([show(r) for show in COLUMNS.values()] for r in results)]
    if is_markdown:
        rows.insert(1, ["-"] * len(COLUMNS))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def run(targets: Sequence[Target], scenarios: Sequence[Scenario]) -> list[Result]:
    """One after the other, as two cores are enough for one at a time; says what goes wrong as it goes."""
    limit = raise_file_limit()
    results: list[Result] = []
    for scenario in scenarios:
        if scenario.connections + SPARE_FILES > limit:
            print(f"left out: {scenario.name} (ulimit -Hn is {limit})", file=sys.stderr)
            continue
        for target in targets:
            try:
                result = measure(target, scenario)
            except (OSError, RuntimeError, ValueError) as problem:
                print(f"no figures: {target.name}, {scenario.name}: {problem!r}", file=sys.stderr)
                continue
            results.append(result)
            if result.failures:
                print(f"not connected: {target.name}, {scenario.name}: {result.failures}", file=sys.stderr)
    return results


def is_flawless(result: Result) -> bool:
    """Everybody came in and received everything once, in order and in time."""
    flaws = (result.lost, result.late, result.duplicated, result.out_of_order, result.dropped)
    return not result.failures and not any(flaws) and result.received == result.expected > 0


def main(arguments: Sequence[str] | None = None) -> int:
    """From the command line. `--quick` fails where a peer is not flawless."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fanout", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="self test: every peer, 200 connections, 2 s")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="of a server or a scenario; repeatable"
    )
    parser.add_argument("--markdown", action="store_true", help="a table for the documents")
    asked = parser.parse_args(arguments)

    from tests.bench.gateway import target as muster  # which says in this module's words what it is

    targets, scenarios = [muster(), *peers()], list(QUICK if asked.quick else SCENARIOS)
    if asked.only:
        known = {t.name for t in targets} | {s.name for s in scenarios}
        if unknown := set(asked.only) - known:
            parser.error(f"--only must be of {', '.join(sorted(known))}; got {', '.join(sorted(unknown))}")
        targets = [t for t in targets if t.name in asked.only] or targets
        scenarios = [s for s in scenarios if s.name in asked.only] or scenarios
    results = run(targets, scenarios)
    print(table(results, is_markdown=asked.markdown))
    print(f"\nMeasured on {describe()}; server and client on one core each.")
    if asked.quick:
        return 0 if len(results) == len(targets) * len(scenarios) and all(map(is_flawless, results)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
