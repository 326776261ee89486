"""What a tutorial teaches: a set of sockets, and a loop that sends to one after the other."""

from __future__ import annotations

from collections import defaultdict

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from tests.bench.peers.flow import flow, payload, serve

app = FastAPI()
rooms: defaultdict[int, set[WebSocket]] = defaultdict(set)


@app.websocket("/ws")
async def join(ws: WebSocket, room: int = 0) -> None:
    """A member of the room as long as the connection lasts."""
    await ws.accept()
    rooms[room].add(ws)
    try:
        await ws.send_text('{"type":"subscribed"}')
        while True:
            await ws.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        rooms[room].discard(ws)


async def send(room: int, n: int, t: int, size: int) -> None:
    """To everybody in the room."""
    text = payload(n, t, size)
    for ws in [*rooms[room]]:
        await ws.send_text(text)


app.add_route("/flow", flow(send), methods=["POST"])

if __name__ == "__main__":
    serve(app)
