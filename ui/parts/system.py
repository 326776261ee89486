"""What the system page shows, as one element, and its small charts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from nicegui import ui

_HEIGHT, _STEP = 24, 2


class LiveHtml(ui.element, component="system.js"):
    """HTML that is replaced as a whole by the server and piecemeal in the browser: what stays the same is
    left alone, so that a reader keeps the place and only what has changed is announced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._props["html"] = html

    def show(self, html: str) -> None:
        """Show this; the same again is not sent."""
        if html != self._props["html"]:
            self._props["html"] = html
            self.update()


def chart(values: Sequence[float], places: int) -> Markup:
    """Bars from the bottom, the newest at the right; room for ``places`` of them. For the eye alone."""
    top = max(values, default=0.0) or 1.0
    x = (places - len(values)) * _STEP
    path = [f"M{x} {_HEIGHT}"]
    height = 0
    for value in values:
        # Something is never shown as nothing.
        new = max(1, round(value / top * (_HEIGHT - 1))) if value > 0 else 0
        if new != height:
            path.append(f"V{_HEIGHT - new}")
            height = new
        x += _STEP
        path.append(f"H{x}")
    path.append(f"V{_HEIGHT}Z")
    return Markup(
        '<svg class="s-chart" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true"><path d="{}"/></svg>'
    ).format(places * _STEP, _HEIGHT, "".join(path))
