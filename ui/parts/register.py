"""The register and the codes as elements."""

from __future__ import annotations

from typing import Any

import segno
from nicegui import ui

from domain.proofs import Codes


class Register(ui.element, component="register.js"):
    """The register of one meeting. Emits ``act`` and ``resync``; see register.js."""

    def __init__(self, snapshot: dict[str, Any], zone: str) -> None:
        super().__init__()
        self._props["initial"] = snapshot
        self._props["zone"] = zone

    def apply(self, patch: dict[str, Any]) -> None:
        """Change what is shown; a patch that does not follow on it makes the page ask for a snapshot."""
        self.run_method("apply", patch)

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Tell the person something, politely."""
        self.run_method("say", {"text": text, "tone": "bad" if is_error else "good"})

    def undoable(self, last: str | None, label: str) -> None:
        """What undo would take back; None if there is nothing."""
        self.run_method("undoable", {"last": last, "label": label})

    def synced(self) -> None:
        """The page has everything: it may call itself live."""
        self.run_method("synced")


class CodesPanel(ui.element, component="codes.js"):
    """QR, digits and ring. ``show`` replaces them at each step."""

    def __init__(self, codes: dict[str, Any], *, is_big: bool = False) -> None:
        super().__init__()
        self._props["initial"] = codes
        self._props["big"] = is_big

    def show(self, codes: dict[str, Any]) -> None:
        """The codes of the next step."""
        self.run_method("show", codes)


def shaped(codes: Codes, *, now_ms: int, host: str) -> dict[str, Any]:
    """Codes as the component takes them; ``host`` is what people type into a browser."""
    qr = segno.make(codes.qr_url, error="m", micro=False)
    svg = qr.svg_inline(scale=1, border=2, dark="#000", light="#fff", omitsize=True)
    return {
        "svg": svg,
        "url": codes.qr_url,
        "code": codes.code,
        "host": host,
        "step": codes.step_s,
        "expiresMs": int(codes.expires_at.timestamp() * 1000),
        "nowMs": now_ms,
    }
