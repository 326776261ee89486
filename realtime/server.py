"""uvicorn as Muster runs it: sockets that can be written to directly, and a goodbye before the end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from realtime.wire import PATH, RawProtocol

#: How long open requests may take to end, once everybody was told to go.
GRACE_S = 5


class Server(uvicorn.Server):
    """A server that, told to stop, first lets its clients go, then closes, then returns to its caller."""

    def __init__(self, app: ASGIApp, *, sockets: ASGIApp, drain: Callable[[], Awaitable[None]]) -> None:
        """``sockets`` serves the gateway's path, without the layers of ``app``, which each connection would keep."""

        def front(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            is_ours = scope["type"] == "websocket" and scope["path"] == PATH
            return (sockets if is_ours else app)(scope, receive, send)

        super().__init__(
            uvicorn.Config(
                front,
                interface="asgi3",
                ws=RawProtocol,
                ws_per_message_deflate=False,  # of NiceGUI's bridge: halves a client's memory; /ws has its own
                ws_ping_interval=None,  # NiceGUI pings itself; the system notices dead peers (listen())
                timeout_graceful_shutdown=GRACE_S,  # else a silent socket holds the process for ever
                log_config=None,
                access_log=False,
                backlog=2048,
                server_header=False,
            )
        )
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Readiness goes down, sockets are told when to come back, then uvicorn closes what is left."""
        await self._drain()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again: the caller closes the database."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections find out within half a minute that their peer is gone.

    Raises OSError when it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # inherited by what it accepts (Linux)
        for option, value in (
            ("TCP_KEEPIDLE", 25),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 40_000),
        ):
            if hasattr(socket, option):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
