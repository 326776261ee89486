"""Rooms of python-socketio, the library below NiceGUI's pages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import socketio  # type: ignore[import-untyped]  # no types in 5.18
from fastapi import FastAPI

from tests.bench.peers.flow import flow, payload, serve

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])


async def connect(sid: str, environ: dict[str, Any]) -> None:
    """A member of the room as long as the connection lasts."""
    room = parse_qs(environ["QUERY_STRING"]).get("room", ["0"])[0]
    await server.enter_room(sid, room)


async def subscribe(sid: str, _: object = None) -> None:
    """The client asks, as a message to it must not come before the answer to its CONNECT."""
    await server.emit("subscribed", to=sid)


async def send(room: int, n: int, t: int, size: int) -> None:
    """To everybody in the room."""
    await server.emit("m", json.loads(payload(n, t, size)), room=str(room))


server.on("connect", connect)
server.on("subscribe", subscribe)
app = FastAPI()
app.add_route("/flow", flow(send), methods=["POST"])

if __name__ == "__main__":
    serve(socketio.ASGIApp(server, other_asgi_app=app))
