"""muster-client: a topic's events without gaps, operations without losses, over a line that breaks.

Needs websockets and orjson and nothing else of this tree; docs/client.md shows how to use it.
"""

from realtime.client.connection import MusterClient, State
from realtime.client.errors import ClientError, Closed, LoginEnded, Refused, RoleLost, Unreachable
from realtime.client.http import log_in
from realtime.client.topic import Head, Topic
from realtime.client.view import Event, Position, Presence, Snapshot, Update

__all__ = [
    "ClientError",
    "Closed",
    "Event",
    "Head",
    "LoginEnded",
    "MusterClient",
    "Position",
    "Presence",
    "Refused",
    "RoleLost",
    "Snapshot",
    "State",
    "Topic",
    "Unreachable",
    "Update",
    "log_in",
]
