"""The look: tokens, the frame's style, and how a status is shown. Colours are never alone: letter and shape go with them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from markupsafe import escape

_HERE = Path(__file__).resolve().parent
TOKENS = (_HERE / "style" / "tokens.css").read_text(encoding="utf-8")
_LIVE = (
    "style/frame.css",
    "templates/pages.css",
    "style/meeting.css",
    "style/projector.css",
    "style/system.css",
)

#: Letter and word of each status; None is unmarked.
STATUS_WORDS: dict[str | None, tuple[str, str]] = {
    "present": ("P", "Present"),
    "late": ("L", "Late"),
    "absent": ("A", "Absent"),
    "excused": ("E", "Excused"),
    "remote": ("R", "Remote"),
    "left_early": ("X", "Left early"),
    None: ("–", "Not marked"),
}


@cache
def live_style() -> str:
    """The style sheet of the live pages."""
    return TOKENS + "".join((_HERE / name).read_text(encoding="utf-8") for name in _LIVE)


@cache
def live_style_url() -> str:
    """Its address; it changes with its contents, so browsers may keep it for ever."""
    return f"/ui/muster.css?{hashlib.sha256(live_style().encode()).hexdigest()[:12]}"


def chip_html(status: str | None, *, minutes_late: int | None = None) -> str:
    """A status as a chip: letter, word and, when late, the minutes. Safe HTML."""
    letter, word = STATUS_WORDS[status]
    name = status or "unmarked"
    more = f" {minutes_late} min" if status == "late" and minutes_late else ""
    return (
        f'<span class="m-chip m-{escape(name)}"><b aria-hidden="true">{letter}</b>{escape(word)}{more}</span>'
    )
