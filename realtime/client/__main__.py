"""Watch a topic from a terminal: python -m realtime.client watch http://127.0.0.1:8080 wall --email …"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Sequence

import orjson

from realtime.client import ClientError, MusterClient, log_in
from realtime.client.view import Update


async def watch(base_url: str, topic: str, token: str) -> None:
    """Print a topic's updates, one JSON object a line, until interrupted."""
    async with MusterClient(base_url, token) as client, client.subscribe(topic) as updates:
        async for update in updates:
            print(_line(update), flush=True)


def _line(update: Update) -> str:
    kind = type(update).__name__.lower()
    members = {name: getattr(update, name) for name in update.__dataclass_fields__}
    return orjson.dumps({"update": kind, **members}, option=orjson.OPT_UTC_Z).decode()


async def _main(arguments: argparse.Namespace) -> None:
    token = os.environ.get("MUSTER_TOKEN", "")
    if arguments.email:
        password = await asyncio.to_thread(getpass.getpass)
        token = await log_in(arguments.base_url, arguments.email, password)
    if not token:
        raise SystemExit("Set MUSTER_TOKEN, or give --email to be asked for the password.")
    await watch(arguments.base_url, arguments.topic, token)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 if the server refused, 0 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m realtime.client", description="A client for Muster.")
    commands = parser.add_subparsers(required=True, metavar="command")
    watching = commands.add_parser("watch", help="print a topic's updates, one JSON object a line")
    watching.add_argument("base_url", help="for example http://127.0.0.1:8080")
    watching.add_argument("topic", help="meeting:<id>, student:<id>, inbox or wall")
    watching.add_argument("--email", help="log in as this person; else the token is taken from MUSTER_TOKEN")
    arguments = parser.parse_args(argv)
    try:
        asyncio.run(_main(arguments))
    except KeyboardInterrupt:
        return 0
    except (ClientError, ValueError) as error:
        print(f"{error} {getattr(error, 'hint', '')}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
