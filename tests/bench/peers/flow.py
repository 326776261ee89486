"""`POST /flow`: benchmark messages at a steady rate, and how a peer written in Python serves it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from tests.bench.machine import pin

LEAD_S = 0.2  # so that who asked for the flow can get back to receiving
TIMER_NS = 2_000_000  # timers have whole milliseconds

Send = Callable[[int, int, int, int], Awaitable[None]]  # room, n, t and size of a message, to all in the room


def payload(n: int, t: int, size: int) -> str:
    """A message of `size` bytes."""
    text = f'{{"n":{n},"t":{t},"pad":""}}'
    return f'{text[:-2]}{"x" * (size - len(text))}"}}'


def stamp(due_ns: int) -> int:
    """The time, or when the message was due where the server was too busy to send it then.

    A server that falls behind would else look fast by sending late.
    """
    now = time.monotonic_ns()
    return due_ns if now - due_ns > TIMER_NS else now


def flow(send: Send) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint: `rate` messages a second for `seconds` to each of so many `rooms`, which take turns."""
    tasks: set[asyncio.Task[None]] = set()  # they end with their messages, or with the process

    async def run(room: int, begin_ns: int, step_ns: int, count: int, size: int) -> None:
        for k in range(count):
            due_ns = begin_ns + k * step_ns
            # Even when late, one turn of the loop: it is there that uvloop writes what was sent.
            await asyncio.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            await send(room, k + 1, stamp(due_ns), size)

    async def post(request: Request) -> Response:
        asked = request.query_params
        rate, seconds = float(asked.get("rate", 10)), float(asked.get("seconds", 5))
        rooms, size = int(asked.get("rooms", 1)), int(asked.get("bytes", 200))
        step_ns, count = int(1e9 / rate), round(rate * seconds)
        begin_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
        for room in range(rooms):
            task = asyncio.create_task(run(room, begin_ns + room * step_ns // rooms, step_ns, count, size))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return JSONResponse({"messages": count})

    return post


def serve(app: ASGIApp) -> None:
    """On core 0 and a free port, until ended; prints one line of JSON: the port and the process."""
    pin(0)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    config = uvicorn.Config(
        app, loop="uvloop", ws="websockets-sansio", ws_per_message_deflate=False, log_config=None,
        access_log=False, backlog=2048, timeout_graceful_shutdown=2,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])
