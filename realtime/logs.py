"""Log lines for people or for machines; never with names, tokens, addresses' queries or bodies."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

_OWN = ("request_id", "method", "route", "status", "ms")


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger and message, with the request's facts where there are any."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in _OWN if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def configure_logging(log_format: str) -> None:
    """Log to standard error: warnings of everybody, and what Muster itself has to say.

    ``log_format`` is "text" or "json".
    """
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Requests are told one by one only to machines: a person's terminal stays readable.
    logging.getLogger("muster").setLevel(logging.INFO if log_format == "json" else logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
