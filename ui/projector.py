"""/meeting/<id>/projector: what the class sees on the wall. No names, nothing of the teacher's."""

from __future__ import annotations

from typing import Any

from markupsafe import escape
from nicegui import background_tasks, ui

from domain.model import MeetingState
from ui.frame import Visit
from ui.live import LiveMeeting, LiveMeetings, Viewer
from ui.meeting import end_unless_staff, may_see, not_here
from ui.parts.register import CodesPanel

_ATTENDED = ("present", "late", "remote", "left_early")
_WAKE_AND_FULLSCREEN = """
<script>
(() => {
  const wake = async () => { try { await navigator.wakeLock.request("screen"); } catch (e) {} };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); });
  wake();
  document.addEventListener("keydown", (e) => {
    if (e.key.toLowerCase() !== "f" || e.ctrlKey || e.metaKey || e.altKey) return;
    if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen();
  });
})();
</script>
"""


class ProjectorPage:
    """One open projector."""

    def __init__(self, visit: Visit, lives: LiveMeetings, meeting_id: str) -> None:
        self._visit, self._lives, self._meeting_id = visit, lives, meeting_id
        self._viewer = Viewer()
        self._end_codes: Any = None
        self._live: LiveMeeting

    async def build(self) -> None:
        """Show it; call once, on a bare page."""
        if not await may_see(self._visit.muster, self._visit.login, self._meeting_id):
            not_here()
            return
        self._live = await self._lives.join(self._meeting_id, self._viewer)
        ui.context.client.on_delete(self._leave)
        ui.add_body_html(_WAKE_AND_FULLSCREEN)
        view = self._live.view
        self._screen = ui.element("main").classes("p-screen")
        with self._screen:
            with ui.element("header").classes("p-head"):
                ui.html(str(escape(view.section_title)), tag="h1", sanitize=False)
                ui.label(f"Room {view.room}" if view.room else "").classes("m-soft")
                ui.html(
                    '<span class="m-state" role="status" data-testid="connection-state" data-state="reconnecting">'
                    "Connecting</span>",
                    sanitize=False,
                )
            self._place = ui.element("div").classes("p-codes")
            self._closed = ui.label("").classes("p-closed").props('role="status"')
            with ui.element("footer").classes("p-foot"):
                self._count = (
                    ui.html("", sanitize=False).classes("p-count").props('data-testid="projector-count"')
                )
                ui.label("Press F for full screen").classes("m-soft p-key")
        self._sync()
        self._viewer.show = self._show

    def _leave(self) -> None:
        if self._end_codes is not None:
            self._end_codes()
        self._lives.leave(self._live, self._viewer)

    def _show(self, patch: dict[str, Any]) -> None:
        self._sync()
        if "snapshot" in patch:
            check = end_unless_staff(self._visit, self._meeting_id, self._screen, self._leave)
            background_tasks.create(check, name="may this projector still be shown")

    def _sync(self) -> None:
        rows = self._live.snapshot()["rows"]
        here = sum(1 for row in rows if row["status"] in _ATTENDED)
        text = f"<b>{here}</b> of {len(rows)} here"
        if self._count.content != text:
            self._count.content = text
        is_open = self._live.view.state is MeetingState.OPEN
        if is_open and self._end_codes is None:
            base_url = self._visit.base_url
            with self._place:
                panel = CodesPanel(self._live.codes(base_url), is_big=True)
            self._end_codes = self._live.add_codes(base_url, panel.show)
        elif not is_open and self._end_codes is not None:
            self._end_codes()
            self._end_codes = None
            self._place.clear()
        word = (
            "Check-in is not open yet."
            if self._live.view.state is MeetingState.SCHEDULED
            else "Check-in is closed."
        )
        self._closed.text = "" if is_open else word
