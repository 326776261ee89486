"""What people type: cleaned once at the door of the domain, or refused with a sentence that helps.

Names are kept as their owners write them. What is refused is only what cannot be shown: control
characters and the marks that turn the direction of the text around a name.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.clock import to_millisecond

MAX_NAME = 120
MAX_EMAIL = 254  # RFC 5321 §4.5.3.1.3 less the two brackets
# Embeddings, overrides and isolates (UAX #9 §2): left open they reorder the text that follows a name.
# The joiners of Persian and emoji and the plain direction marks stay allowed.
_TURNING_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_UNSHOWABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_EMAIL = re.compile(r"[^\s@()<>\[\],;:\\\"]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W_][\w-]{0,61}[^\W_]")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})?")


class InvalidInput(ValueError):
    """A field that cannot be taken as it came. ``field`` is its name, ``message`` says what to do."""

    code = "invalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def clean_text(field: str, value: str, *, longest: int, is_required: bool = True, label: str = "") -> str:
    """One line of text: NFC, no space at the ends, single spaces inside. Raises InvalidInput."""
    label = label or field.replace("_", " ").capitalize()
    text = unicodedata.normalize("NFC", value[: longest * 8]).strip()
    if any(c in _TURNING_MARKS or unicodedata.category(c) in _UNSHOWABLE for c in text):
        raise InvalidInput(field, f"{label} must not hold control characters.")
    text = " ".join(text.split())
    if text and not any(unicodedata.category(c)[0] in "LNPS" for c in text):
        raise InvalidInput(field, f"{label} must hold at least one visible character.")
    if is_required and not text:
        raise InvalidInput(field, f"{label} is required.")
    if len(text) > longest:
        raise InvalidInput(field, f"{label} must be at most {longest} characters long, got {len(text)}.")
    return text


def clean_name(field: str, value: str, *, is_required: bool = True) -> str:
    """A name of a person, 1-120 characters, in any script. Raises InvalidInput."""
    return clean_text(field, value, longest=MAX_NAME, is_required=is_required)


def fold_email(value: str) -> str:
    """The one spelling under which an address is stored and looked up. Whatever comes gives text."""
    text = value[: MAX_EMAIL * 4].encode("utf-8", "replace").decode().replace("\0", "?")
    return unicodedata.normalize("NFC", text).strip().lower()[: MAX_EMAIL + 1]


def clean_email(value: str | None) -> str | None:
    """A folded e-mail address, or None for none. Raises InvalidInput."""
    email = fold_email(value or "")
    if not email:
        return None
    if len(email) > MAX_EMAIL or not _EMAIL.fullmatch(email) or not email.isprintable():
        raise InvalidInput("email", f"E-mail must look like name@school.example, got {shown(email)}.")
    return email


def clean_language(value: str) -> str:
    """A language tag such as ``en`` or ``pt-BR``. Raises InvalidInput."""
    if not _LANGUAGE.fullmatch(value):
        raise InvalidInput("language", f"Language must be a tag such as en or pt-BR, got {shown(value)}.")
    return value


def clean_zone(value: str) -> str:
    """An IANA time zone. Raises InvalidInput."""
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            "zone", f"Time zone must be one such as Europe/Berlin, got {shown(value)}."
        ) from None
    return value


def clean_interval(begins_at: datetime, ends_at: datetime | None) -> tuple[datetime, datetime | None]:
    """A half-open interval in UTC milliseconds; no end means open. Raises InvalidInput."""
    if begins_at.tzinfo is None:
        raise InvalidInput("begins_at", "The beginning needs a time zone.")
    if ends_at is None:
        return to_millisecond(begins_at), None
    if ends_at.tzinfo is None:
        raise InvalidInput("ends_at", "The end needs a time zone.")
    begins_at, ends_at = to_millisecond(begins_at), to_millisecond(ends_at)
    if ends_at <= begins_at:
        raise InvalidInput("ends_at", "The end must be after the beginning.")
    return begins_at, ends_at


def shown(value: object) -> str:
    """A value as it is quoted in a message: never long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
