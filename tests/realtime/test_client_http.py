"""The client where no socket is needed or none can be had; its command; and what it may import."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from realtime.client import LoginEnded, MusterClient, Refused, Unreachable, log_in
from realtime.client.__main__ import main
from tests.realtime.fake_gateway import NOW, PATIENCE_S, FakeGateway

ROOT = Path(__file__).resolve().parents[2]


class FakeApi:
    """Answers POST with what it is told to, and 404 where the socket should be."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: deque[tuple[int, bytes]] = deque()
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: {}
        self.base_url = ""
        self.without_socket = 404

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        status, body = self.without_socket, b"no sockets here"
        if method == "POST":
            length = re.search(r"(?i)content-length: (\d+)", head)
            assert length is not None
            document = orjson.loads(await reader.readexactly(int(length[1])))
            login = re.search(r"(?i)authorization: (.*)\r", head)
            self.posted.append((path, login[1] if login else "", document))
            status, body = (
                self.answers.popleft() if self.answers else (200, orjson.dumps(self.answer(document)))
            )
        retry = b"Retry-After: 3\r\n" if status == 429 else b""
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n" % (status, len(body)))
        writer.write(retry + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    server = await asyncio.start_server(fake.talk, "127.0.0.1", 0)
    async with server:
        fake.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield fake


def a_problem(status: int, **members: Any) -> tuple[int, bytes]:
    return status, orjson.dumps({"title": "No", "status": status, **members})


def outcomes(body: dict[str, Any]) -> dict[str, Any]:
    accepted = [{"id": operation["id"], "outcome": "accepted"} for operation in body["operations"]]
    return {"outcomes": accepted, "server_time": NOW}


async def test_logging_in_gives_a_token(api: FakeApi) -> None:
    api.answer = lambda body: {"token": f"token of {body['email']}"}

    assert await log_in(api.base_url + "/", "t@test.school", "secret") == "token of t@test.school"
    assert api.posted == [("/api/v1/login", "", {"email": "t@test.school", "password": "secret"})]


async def test_a_refused_log_in_says_why_and_when_to_try_again(api: FakeApi) -> None:
    api.answers.append(a_problem(401, code="bad_credentials", detail="Not so.", hint="Try again."))
    api.answers.append(a_problem(429, code="rate_limited", detail="Too often.", retry_after=0.5))
    api.answers.append(a_problem(429, code="rate_limited", detail="Too often."))

    errors = []
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            await log_in(api.base_url, "t@test.school", "wrong")
        errors.append((caught.value.code, str(caught.value), caught.value.hint, caught.value.retry_after_s))

    assert errors == [
        ("bad_credentials", "Not so.", "Try again.", None),
        ("rate_limited", "Too often.", "", 0.5),
        ("rate_limited", "Too often.", "", 3.0),
    ]


@pytest.mark.parametrize(
    "answer", [(200, b"{}"), (200, b"[]"), (200, b"<html>"), (404, b"<html>"), (502, b"{}"), (401, b"[]")]
)
async def test_an_answer_of_something_else_is_not_taken_for_the_server_s(
    api: FakeApi, answer: tuple[int, bytes]
) -> None:
    api.answers.append(answer)

    with pytest.raises(Unreachable):
        await log_in(api.base_url, "t@test.school", "secret")


async def test_a_server_that_is_not_there_is_unreachable(unused_tcp_port: int) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        await log_in(f"http://127.0.0.1:{unused_tcp_port}", "t@test.school", "secret")


async def test_operations_go_by_http_where_sockets_are_blocked(api: FakeApi) -> None:
    api.answer = outcomes
    api.answers.append((502, b"<html>"))
    api.answers.append(a_problem(429, code="rate_limited", detail="Too often.", retry_after=0.01))
    async with MusterClient(api.base_url, "a-token", random=lambda: 0.0) as client:
        async with asyncio.timeout(PATIENCE_S):
            (answer,) = await client.send([{"kind": "mark"}])

        assert answer["outcome"] == "accepted"
        assert client.state == "reconnecting"
    assert len(api.posted) == 3
    assert {path for path, _, _ in api.posted} == {"/api/v1/operations"}
    assert {login for _, login, _ in api.posted} == {"Bearer a-token"}
    assert {body["operations"][0]["id"] for _, _, body in api.posted} == {answer["id"]}


async def test_by_http_too_a_refusal_is_told_and_the_end_of_the_login_is_the_end(api: FakeApi) -> None:
    api.answers.append(a_problem(422, code="invalid", detail="Not like this."))
    api.answers.append(a_problem(401, code="unauthenticated", detail="Nobody."))
    async with (
        MusterClient(api.base_url, "a-token", random=lambda: 0.0) as client,
        asyncio.timeout(PATIENCE_S),
    ):
        with pytest.raises(Refused, match="Not like this"):
            await client.send([{"kind": "mark"}])
        with pytest.raises(LoginEnded):
            await client.send([{"kind": "mark"}])
        assert client.state == "ended"


async def test_a_forbidden_socket_is_the_end_only_if_the_login_does_not_hold(api: FakeApi) -> None:
    api.without_socket = 403
    api.answer = outcomes
    api.answers.extend([a_problem(403, code="forbidden"), (200, orjson.dumps(outcomes({"operations": []})))])
    api.answers.append(a_problem(401, code="unauthenticated"))
    async with (
        MusterClient(api.base_url, "a-token", random=lambda: 0.0) as client,
        asyncio.timeout(PATIENCE_S),
    ):
        with pytest.raises(LoginEnded):
            await client.until_live()
    assert len(api.posted) == 3


async def test_the_command_prints_updates_as_lines_until_the_login_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", "a-token")
    async with FakeGateway().running() as gateway:
        fake = gateway.topic("wall", values=["a"])

        running = asyncio.create_task(asyncio.to_thread(main, ["watch", gateway.base_url, "wall"]))
        await gateway.until(lambda: fake.watchers)
        await gateway.append(fake, "b")
        await gateway.close(4401)
        status = await running

    printed = capsys.readouterr()
    assert status == 1
    assert "Log in again." in printed.err
    assert [orjson.loads(line) for line in printed.out.splitlines()] == [
        {"update": "snapshot", "seq": 1, "epoch": "epoch-1", "data": {"values": ["a"]}},
        {
            "update": "event",
            "seq": 2,
            "first_seq": 2,
            "name": "record.changed",
            "at": "2026-11-23T09:00:00Z",
            "data": {"values": ["b"]},
        },
    ]


def test_the_command_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTER_TOKEN", raising=False)

    with pytest.raises(SystemExit, match="MUSTER_TOKEN"):
        main(["watch", "http://127.0.0.1:1", "wall"])


async def test_the_example_in_the_guide_runs() -> None:
    guide = (ROOT / "docs" / "client.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "docs/client.md", "exec"), namespace)
    async with FakeGateway().running() as gateway:
        fake = gateway.topic("meeting:m", values=["a"])

        async with asyncio.timeout(PATIENCE_S):
            marking = asyncio.create_task(
                namespace["mark_present"](gateway.base_url, "token", "m", ["s1", "s2"])
            )
            await gateway.until(lambda: len(gateway.log) == 2)
            await gateway.append(fake, "b", "c")
            seen = await marking

    assert [operation["student_id"] for operation in gateway.log.values()] == ["s1", "s2"]
    assert seen == 2


def test_the_client_needs_nothing_else_of_this_tree() -> None:
    look = "import sys, realtime.client.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )

    loaded = set(done.stdout.split())
    assert not loaded & {
        "domain",
        "ui",
        "notifications",
        "offline",
        "fastapi",
        "starlette",
        "nicegui",
        "pydantic",
    }
    assert {"realtime", "websockets", "orjson"} <= loaded
