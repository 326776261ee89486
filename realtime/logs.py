"""Log lines for people or for machines; never with names, tokens, addresses or bodies.

What is logged is chosen where it happens. Here the one thing that slips through is taken out: what a
database puts into its own errors, which end up in tracebacks.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import orjson

#: Facts that a line may carry (``extra=``). A connection is its number in this process, not an address.
_OWN = ("request_id", "method", "route", "status", "ms", "operation_id", "connection", "code", "node")
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_EMAIL = re.compile(r"[^\s@'\"<>()=,;:]+@[^\s@'\"<>()=,;:]+\.\w+")
#: SQLAlchemy's values of a statement, PostgreSQL's "Key (email)=(…) already exists.", pydantic's inputs.
_VALUES = re.compile(r"(^\[parameters: |^DETAIL: |input_value=).*$", re.MULTILINE)


class Lines(logging.Formatter):
    """One line for people, a traceback after it."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The record without what is personal."""
        return _impersonal(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line; ``node`` is this process's name among several."""

    def __init__(self, node: str = "main") -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger and message, with the facts of _OWN where there are any."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "node": self._node,
            "message": _impersonal(record.getMessage()),
        }
        line |= {name: value for name in _OWN if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = _impersonal(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def configure_logging(log_format: str, node: str = "main") -> None:
    """Log to standard error: warnings of everybody, and what Muster itself has to say.

    ``log_format`` is "text" or "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(node) if log_format == "json" else Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Requests are told one by one only to machines: a person's terminal stays readable.
    logging.getLogger("muster").setLevel(logging.INFO if log_format == "json" else logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def _impersonal(text: str) -> str:
    return _EMAIL.sub("(e-mail)", _VALUES.sub(r"\1(left out)", text))
