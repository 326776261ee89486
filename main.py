"""Muster's one entry: settings -> store -> recorder -> hub -> jobs -> pages, and the command line.

`python main.py --help` names the commands. This file only puts the parts together and takes them
apart again, in order; what they do is theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import getpass
import logging
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

from fastapi import FastAPI

from domain import people, school
from domain.clock import SystemClock
from domain.demo import DEMO_PASSWORD, RunningClass, ensure_today, seed
from domain.muster import Muster
from domain.settings import Settings, SettingsError, load_settings
from domain.store import Store, StoreError, open_store
from realtime.logs import configure_logging

log = logging.getLogger("muster")

#: What `make run` seeds on the first start: small enough to be there in seconds (docs/bench.md).
FIRST_START = {"students": 240, "weeks": 4, "seed": 7}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. What goes wrong is said in one plain sentence."""
    args = _parser().parse_args(arguments)
    try:
        return int(args.command(load_settings(), args) or 0)
    except (SettingsError, StoreError, _Problem, people.InvalidInput) as problem:
        print(f"muster: {problem}", file=sys.stderr)
        return 1


class _Problem(Exception):
    """Something the person who started Muster can put right."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="main.py", description="Muster: live student attendance.")
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="start the server")
    run.set_defaults(command=_run)

    seed_ = commands.add_parser("seed", help="make the demo school in an empty database")
    seed_.add_argument("--students", type=int, default=1000)
    seed_.add_argument("--weeks", type=int, default=12)
    seed_.add_argument("--seed", type=int, default=7)
    seed_.set_defaults(command=_seed)

    migrate = commands.add_parser("migrate", help="bring the database to this version")
    migrate.set_defaults(command=_migrate)

    admin = commands.add_parser("create-admin", help="make an admin who can log in; asks for the password")
    admin.add_argument("email")
    admin.add_argument("--name", default="Admin")
    admin.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    admin.set_defaults(command=_create_admin)
    return parser


def _migrate(settings: Settings, _args: argparse.Namespace) -> None:
    with contextlib.closing(_prepared(settings)):
        print("The database is up to date.")


def _seed(settings: Settings, args: argparse.Namespace) -> None:
    with contextlib.closing(_prepared(settings, found_school=False)) as store:
        report = seed(
            store, SystemClock(), students=args.students, weeks=args.weeks, seed=args.seed, progress=print
        )
        print(report)


def _create_admin(settings: Settings, args: argparse.Namespace) -> None:
    password = sys.stdin.readline().rstrip("\n") if args.password_stdin else getpass.getpass("Password: ")
    with contextlib.closing(_prepared(settings)) as store:
        store.write_now(
            lambda conn: people.make_admin(
                conn, email=args.email, name=args.name, password=password, now=SystemClock().now()
            )
        )
    print(f"{args.email} can log in now.")


def _prepared(settings: Settings, *, found_school: bool = True) -> Store:
    """The store, migrated; with a school to fill, unless a demo school is about to be made."""
    store = open_store(settings)
    try:
        store.migrate()
        now = SystemClock().now()
        if found_school and store.read_now(school.read_school) is None:
            store.write_now(
                lambda conn: school.make_school(conn, name="Our school", zone=school.local_zone(), now=now)
            )
    except BaseException:
        store.close()
        raise
    return store


def _run(settings: Settings, _args: argparse.Namespace) -> int:
    configure_logging(settings.log_format, settings.node)
    with _listen(settings) as listener:
        if settings.is_demo and not settings.database_url and not settings.sqlite_path.exists():
            _make_demo_school(settings)
        clock = SystemClock()
        with contextlib.closing(_prepared(settings, found_school=not settings.is_demo)) as store:
            if settings.is_demo and store.read_now(school.read_school) is None:
                seed(store, clock, **FIRST_START, progress=lambda text: print(f"  {text}", flush=True))
            found = store.read_now(school.read_school)
            if found is not None and found.is_demo:
                now = clock.now()
                store.write_now(lambda conn: ensure_today(conn, now))
            serve(Muster(settings, clock=clock, store=store), listener)
    return 0


def _make_demo_school(settings: Settings) -> None:
    """Seed aside and move into place when whole: a start that is broken off leaves no half school."""
    print("First start: making the demo school …", flush=True)
    aside = replace(settings, data=settings.data / "first-start")
    shutil.rmtree(aside.data, ignore_errors=True)
    with contextlib.closing(_prepared(aside, found_school=False)) as store:
        seed(store, SystemClock(), **FIRST_START, progress=lambda text: print(f"  {text}", flush=True))
    aside.sqlite_path.replace(settings.sqlite_path)  # closing has merged the write-ahead log into it
    shutil.rmtree(aside.data, ignore_errors=True)


def _listen(settings: Settings) -> socket.socket:
    """The listening socket, taken before anything slow is done. Raises _Problem when it cannot be had."""
    from realtime.server import listen

    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        raise _Problem(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            f"If another program uses the port, choose one with MUSTER_PORT=8081 make run"
        ) from error


def build(muster: Muster, listener: socket.socket | None = None) -> FastAPI:
    """Wire the parts of one process into the ASGI application; with its socket it greets when it serves.

    The parts with pages are imported here, since NiceGUI takes two seconds that `migrate` need not wait.
    """
    from notifications.schedule import Jobs
    from realtime.app import create_app
    from realtime.realtime import Realtime
    from ui.app import install

    realtime = Realtime(muster)
    jobs = Jobs(muster)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as started:
            for part in (muster, realtime, jobs):
                await part.start()
                started.push_async_callback(part.stop)
            if muster.is_demo and muster.settings.is_demo:
                running_class = RunningClass(muster)
                await running_class.start()
                started.push_async_callback(running_class.stop)
            tame_collector()
            if listener is not None:
                print(_greeting(muster, listener), flush=True)
            yield

    app = create_app(muster, realtime, lifespan=lifespan)
    install(app, muster, realtime)
    return app


def serve(muster: Muster, listener: socket.socket) -> None:
    """Serve until told to stop. Blocks."""
    from realtime.server import Server

    app = build(muster, listener)
    realtime = app.state.realtime
    Server(app, sockets=realtime.gateway, drain=realtime.drain).run(sockets=[listener])


def _greeting(muster: Muster, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host  # noqa: S104  # compared, not bound
    lines = ["", f"  Muster is running at {muster.settings.public_url or f'http://{shown}:{port}'}"]
    if muster.is_demo:
        lines += [
            "",
            f"  Demo school: every password is {DEMO_PASSWORD}",
            "    teacher1@demo.school   opens a class of 30 in two taps (teacher2 teaches it too)",
            "    teacher3@demo.school   has a class running right now: watch the students arrive",
            "    student1@demo.school   checks in with the code on the board (student1 to student30)",
            "    guardian1@demo.school  sees student1's record",
            "    admin@demo.school      sees everything: people, classes, import",
        ]
    else:
        lines += ["  Make the first admin with: .venv/bin/python main.py create-admin you@example.org"]
    return "\n".join([*lines, "", "  Ctrl-C stops it.", ""])


def tame_collector() -> None:
    """Keep garbage collection out of the way of the live screens: a full pass with a thousand clients
    stops the loop for most of a second. Frozen once, before any client is there; collected in quiet
    time by a job."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000_000)
    # The writer thread gives way to the event loop within a millisecond instead of five.
    sys.setswitchinterval(0.001)


if __name__ == "__main__":
    sys.exit(main())
