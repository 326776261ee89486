"""Check-in through HTTP, end to end: 1,000 students within two seconds, server on one core, this client on the other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from domain.ids import new_id
from tests.bench.machine import pin, spread

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 2.0


async def measure() -> list[tuple[str, str]]:
    """Latency of each check-in and how late the server's loop was meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs yet
            [sys.executable, "-m", "tests.bench.server", folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        facts = json.loads(server.stdout.readline())
        pin(1)
        try:
            return await _run(facts)
        finally:
            server.terminate()
            server.wait(timeout=20)


async def _run(facts: dict[str, Any]) -> list[tuple[str, str]]:
    base = f"http://127.0.0.1:{facts['port']}"
    teacher = {"Authorization": f"Bearer {facts['tokens'].pop(facts['teacher'])}"}
    async with httpx.AsyncClient(base_url=base, headers=teacher, timeout=30) as http:
        while True:  # until it serves; the kernel holds the connection meanwhile
            if (await http.get("/readyz")).status_code == 200:
                break
        codes = (await http.get(f"/api/v1/meetings/{facts['meeting']}/codes")).json()
        proof = codes["qr_url"].rpartition("/j/")[2]
        connections = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", facts["port"]) for _ in facts["tokens"])
        )
        await http.get("/bench/late")
        begin = time.perf_counter()
        count = len(connections)
        waits = await asyncio.gather(
            *(
                _check_in(connection, token, facts["meeting"], proof, begin + WITHIN_S * place / count)
                for place, (connection, token) in enumerate(
                    zip(connections, facts["tokens"].values(), strict=True)
                )
            )
        )
        late = (await http.get("/bench/late")).json()
        roster = (await http.get(f"/api/v1/meetings/{facts['meeting']}")).json()["roster"]
        for _reader, writer in connections:
            writer.close()
    assert [row["status"] for row in roster] == ["present"] * count
    return [
        (f"check-in through HTTP, {count:,} students within {WITHIN_S:.0f} s, all durable", spread(waits)),
        ("… how late the server's event loop was meanwhile", spread(late)),
    ]


async def _check_in(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    token: str,
    meeting_id: str,
    proof: str,
    at: float,
) -> float:
    """One check-in on a connection of its own; milliseconds from sending to the whole answer."""
    reader, writer = connection
    await asyncio.sleep(max(0, at - time.perf_counter()))
    operation = {
        "id": new_id(), "kind": "check_in", "meeting_id": meeting_id, "via": "qr", "proof": proof, "clock_offset_ms": 0,
    }  # fmt: skip
    body = orjson.dumps({"operations": [operation]})
    head = (
        f"POST /api/v1/operations HTTP/1.1\r\nHost: muster\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sent = time.perf_counter()
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    outcome = orjson.loads(await reader.readexactly(length))["outcomes"][0]
    assert outcome["outcome"] == "accepted", outcome
    return (time.perf_counter() - sent) * 1000
