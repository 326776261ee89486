"""`make screenshots`: every page of every role, phone and desktop, light and dark, into build/screenshots/."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from domain.ids import new_id
from tests.browser import LAUNCH_ARGS, install_browser
from tests.ui.conftest import DESKTOP, PASSWORD, PHONE, ROOT, DemoServer

OUT = ROOT / "build" / "screenshots"
#: Who looks at which page; {meeting} is an open class of teacher1, {section} and {person} some of the school.
PAGES: tuple[tuple[str, str | None, str], ...] = (
    ("login", None, "/login"),
    ("teacher", "teacher3", "/teacher"),
    ("meeting", "teacher1", "/meeting/{meeting}"),
    ("projector", "teacher1", "/meeting/{meeting}/projector"),
    ("student", "student5", "/student"),
    ("check-in", "student6", "/j/{token}"),
    ("guardian", "guardian1", "/guardian"),
    ("account", "student1", "/account"),
    ("admin", "admin", "/admin"),
    ("admin-people", "admin", "/admin/people"),
    ("admin-person", "admin", "/admin/people/{person}"),
    ("admin-sections", "admin", "/admin/sections"),
    ("admin-section", "admin", "/admin/sections/{section}"),
    ("admin-import", "admin", "/admin/import"),
    ("admin-policy", "admin", "/admin/policy"),
    ("admin-system", "admin", "/admin/system"),
)


class Scene:
    """A class that is half taken: arrivals, a late one, a failed try, one to decide."""

    def __init__(self, server: DemoServer, *, is_empty: bool = False) -> None:
        self._tokens: dict[str, str] = {}
        self._http = httpx.Client(base_url=f"{server.url}/api/v1", timeout=30)
        self.section = self._get("teacher1", "/sections")["sections"][0]["id"]
        self.meeting = new_id()
        self.record("teacher1", "open_meeting", section_id=self.section)
        if not is_empty:
            self._fill()

    def _fill(self) -> None:
        roster = self._get("teacher1", f"/meetings/{self.meeting}")["roster"]
        self.person = self._get("student9", "/me")["user"]["id"]
        self.record("teacher1", "mark", student_id=self.person, status="absent")
        for number in range(7, 24):
            self.check_in(f"student{number}")
        for row, status in zip(roster[:3], ("late", "excused", "remote"), strict=True):
            self.record("teacher1", "mark", student_id=row["student_id"], status=status, seen_seq=10_000)
        self.record("student24", "check_in", via="code", proof="000000")

    @property
    def token(self) -> str:
        """What the QR on the board ends in right now."""
        codes = self._get("teacher1", f"/meetings/{self.meeting}/codes")
        return str(codes["qr_url"]).rpartition("/j/")[2]

    def events(self) -> list[dict[str, Any]]:
        """Everything that has happened in this class."""
        found: list[dict[str, Any]] = self._get("teacher1", f"/meetings/{self.meeting}/events")["events"]
        return found

    def check_in(self, who: str) -> None:
        self.record(who, "check_in", via="qr", proof=self.token)

    def record(self, who: str, kind: str, **fields: Any) -> None:
        operation = {"id": new_id(), "kind": kind, "meeting_id": self.meeting, "clock_offset_ms": 0, **fields}
        answer = self._http.post("/operations", json={"operations": [operation]}, headers=self._headers(who))
        answer.raise_for_status()

    def _get(self, who: str, path: str) -> Any:
        answer = self._http.get(path, headers=self._headers(who))
        answer.raise_for_status()
        return answer.json()

    def _headers(self, who: str) -> dict[str, str]:
        if who not in self._tokens:
            body = {"email": f"{who}@demo.school", "password": PASSWORD}
            self._tokens[who] = self._http.post("/login", json=body).json()["token"]
            self._http.cookies.clear()
        return {"Authorization": f"Bearer {self._tokens[who]}"}


def photograph(browser: Browser, server: DemoServer, scene: Scene) -> None:
    """Each page four times."""
    for size_name, size in (("phone", PHONE), ("desktop", DESKTOP)):
        for scheme in ("light", "dark"):
            for name, who, path in PAGES:
                context = browser.new_context(
                    base_url=server.url,
                    viewport=size,  # type: ignore[arg-type]  # a TypedDict in Playwright
                    color_scheme=scheme,
                    is_mobile=size_name == "phone",
                    has_touch=size_name == "phone",
                    locale="en-GB",
                )
                if who is not None:
                    body = {"email": f"{who}@demo.school", "password": PASSWORD}
                    context.request.post("/api/v1/login", data=body)
                page = context.new_page()
                page.goto(path.format(**_places(scene, path)))
                _settle(page)
                page.screenshot(path=OUT / f"{name}-{size_name}-{scheme}.png", full_page=name != "meeting")
                context.close()
    print(f"{len(PAGES) * 4} screenshots in {OUT.relative_to(ROOT)}")


def _places(scene: Scene, path: str) -> dict[str, str]:
    places = {"meeting": scene.meeting, "section": scene.section, "person": scene.person}
    return places | ({"token": scene.token} if "{token}" in path else {})


def _settle(page: Page) -> None:
    """Until the page is live, where it is one that can be, and its fonts are there."""
    if page.locator("[data-testid=connection-state]").count():
        page.wait_for_selector("[data-testid=connection-state][data-state=live]")
    page.evaluate("document.fonts.ready")


def main() -> int:
    """Start a demo school of its own and photograph it."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        server = DemoServer(Path(folder), students=120, weeks=3)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=install_browser(), args=LAUNCH_ARGS)
                photograph(browser, server, Scene(server))
                browser.close()
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
