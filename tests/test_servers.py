"""The servers that other tests stand on, and the shipped nginx.conf before two small nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import pytest
import pytest_asyncio
import redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.server_programs import postgres_folders, redis_binaries
from tests.servers import Nginx, NotOurs, Postgres, Redis, free_port
from tests.waiting import until


async def fetch(url: str, statement: str) -> Any:
    """The first value that a PostgreSQL answers."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def binary_name(path: Path) -> str:
    return "-".join(path.parts[-3:])


# --- PostgreSQL


@pytest.mark.parametrize("binaries", list(postgres_folders()), ids=binary_name)
async def test_what_was_committed_outlives_a_restart_and_a_crash_of_postgres(binaries: Path) -> None:
    with Postgres(binaries=binaries) as postgres:
        url = postgres.create_database()
        await fetch(url, "CREATE TABLE said (word text)")

        await fetch(url, "INSERT INTO said VALUES ('before the restart')")
        postgres.restart()
        await fetch(url, "INSERT INTO said VALUES ('before the crash')")
        postgres.kill9()
        with pytest.raises(ConnectionRefusedError):
            await fetch(url, "SELECT 1")
        postgres.start()

        assert await fetch(url, "SELECT count(*) FROM said") == 2
    assert not postgres.folder.exists()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres


async def test_a_database_can_be_copied_with_what_is_in_it(postgres: Postgres) -> None:
    template = postgres.create_database("template")
    await fetch(template, "CREATE TABLE said AS SELECT 'lower(Ä) is ' || lower('Ä') AS word")

    copy = postgres.create_database("copy", like=template)

    assert await fetch(copy, "SELECT word FROM said") == "lower(Ä) is ä"
    postgres.drop_database(copy)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await fetch(copy, "SELECT 1")


async def test_a_lent_postgres_is_not_stopped_and_is_left_as_it_was(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", postgres.url.replace("+asyncpg", ""))

    with Postgres() as lent:
        url = lent.create_database()
        assert await fetch(url, "SELECT 1") == 1
        for stop in (lent.stop, lent.restart, lent.kill9):
            with pytest.raises(NotOurs, match="TEST_DATABASE_URL names one that is not ours to stop"):
                stop()

    assert postgres.is_running
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await fetch(url, "SELECT 1")


# --- Redis


@pytest.mark.parametrize("binary", list(redis_binaries()), ids=binary_name)
def test_redis_keeps_its_stream_over_a_restart_and_a_crash_but_not_without_its_data(binary: Path) -> None:
    with Redis(binary=binary) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
        client.xadd("muster", {"at": "start"})

        server.restart()
        client.xadd("muster", {"at": "before the crash"})
        server.kill9()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        kept = client.xlen("muster")
        server.stop()
        server.start(keep_data=False)

        assert (kept, client.xlen("muster")) == (2, 0)
    assert not server.folder.exists()


def test_a_lent_redis_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    with Redis() as server:
        monkeypatch.setenv("TEST_REDIS_URL", server.url)

        with Redis() as lent:
            for stop in (lent.stop, lent.restart, lent.kill9):
                with pytest.raises(NotOurs, match="TEST_REDIS_URL names one that is not ours to stop"):
                    stop()

        with redis.Redis.from_url(lent.url) as client:
            assert client.ping()


# --- nginx


class Node:
    """Says its name to whoever asks, echoes on a socket, and dies in the middle of /dies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.seen: list[tuple[str, dict[str, str]]] = []  # "POST /path", headers

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            await reader.readexactly(int(headers.get("content-length", 0)))
            asked = head[0].rpartition(" ")[0]
            self.seen.append((asked, headers))
            if "/dies" not in asked:
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        except asyncio.IncompleteReadError:  # a look whether somebody listens
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node]]:
    async with Node("a") as a, Node("b") as b:
        yield a, b


@pytest.fixture
def nginx(nodes: tuple[Node, Node]) -> Iterator[Nginx]:
    with Nginx({node.name: node.port for node in nodes}) as nginx:
        yield nginx


@pytest_asyncio.fixture
async def http(nginx: Nginx) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=nginx.url) as http:
        yield http


def of_node(name: str) -> dict[str, str]:
    return {"Cookie": f"muster_node={name}"}


async def test_a_browser_stays_with_the_node_its_cookie_names(http: httpx.AsyncClient) -> None:
    answers = [await http.get("/", headers=of_node(name)) for name in "aabba"]

    assert [answer.text for answer in answers] == list("aabba")


async def test_who_has_no_cookie_is_spread_over_the_nodes(http: httpx.AsyncClient) -> None:
    unknown = [await http.get("/", headers=of_node("gone")) for _ in range(4)]
    new = [await http.get("/") for _ in range(4)]

    assert {answer.text for answer in unknown} == {answer.text for answer in new} == {"a", "b"}


async def test_while_a_node_is_away_the_other_takes_its_browsers_and_then_gives_them_back(
    http: httpx.AsyncClient, nodes: tuple[Node, Node]
) -> None:
    a, _b = nodes
    await a.__aexit__()
    away = [await http.request(method, "/", headers=of_node("a")) for method in ("GET", "POST", "GET")]
    await a.__aenter__()

    async def is_back() -> bool:  # nginx.conf says 3 s, nginx counts in whole ones
        return (await http.get("/", headers=of_node("a"))).text == "a"

    assert [answer.text for answer in away] == ["b", "b", "b"]
    assert await until(is_back)


async def test_what_a_dying_node_has_received_is_asked_again_only_if_it_changes_nothing(
    http: httpx.AsyncClient, nodes: tuple[Node, Node]
) -> None:
    posted = await http.post("/dies", headers=of_node("a"), content=b"an operation")
    gotten = await http.get("/dies", headers=of_node("b"))

    assert (posted.status_code, gotten.status_code) == (502, 502)
    assert [[asked for asked, _headers in node.seen] for node in nodes] == [
        ["POST /dies", "GET /dies"],
        ["GET /dies"],
    ]


async def test_nodes_learn_the_address_nginx_sees_and_not_the_one_a_client_claims(
    http: httpx.AsyncClient, nodes: tuple[Node, Node], nginx: Nginx
) -> None:
    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Upgrade": "h2c"}
    await http.get("/", headers=of_node("a") | claims)

    _asked, headers = nodes[0].seen[-1]
    told = {name: headers.get(name) for name in ("host", "x-forwarded-for", "x-forwarded-proto", "upgrade")}
    assert told == {
        "host": f"127.0.0.1:{nginx.port}",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "upgrade": None,
    }


async def test_only_private_addresses_see_the_metrics(nodes: tuple[Node, Node]) -> None:
    site = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-Ip;"
    ports = {node.name: node.port for node in nodes}
    with Nginx(ports, site=site) as nginx:
        async with httpx.AsyncClient() as http:
            statuses = [
                (await http.get(nginx.url + path, headers={"X-Real-Ip": address})).status_code
                for path in ("/metrics", "/%6Detrics", "//metrics/")
                for address in ("192.168.1.7", "203.0.113.9")
            ]

    assert statuses == [200, 403] * 3


@pytest.mark.parametrize("path", ["/ws", "/_nicegui_ws/socket.io/"])
async def test_sockets_pass_through_to_the_node_of_the_cookie(path: str) -> None:
    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(f"a heard {message!r}")

    async with serve(echo, "127.0.0.1", 0) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        with Nginx({"a": port, "b": free_port()}) as nginx:
            address = nginx.url.replace("http", "ws") + path
            async with connect(address, additional_headers=of_node("a")) as socket:
                await socket.send("good morning")

                assert await socket.recv() == "a heard 'good morning'"


async def test_nginx_stops_and_starts_again_on_the_same_port(http: httpx.AsyncClient, nginx: Nginx) -> None:
    nginx.stop()
    with pytest.raises(httpx.ConnectError):
        await http.get("/")
    nginx.start()

    assert (await http.get("/", headers=of_node("b"))).text == "b"
    nginx.kill9()
    nginx.start()
    assert (await http.get("/", headers=of_node("b"))).text == "b"
