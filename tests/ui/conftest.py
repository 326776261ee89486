"""A real server with the demo school, a real browser, and people who use both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from domain.ids import new_id
from tests.browser import LAUNCH_ARGS, install_browser

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "muster-demo"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


def demo_environment(data: Path) -> dict[str, str]:
    """What a demo server of the tests runs with; nothing of pytest's own gets into it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "NICEGUI_", "MUSTER_"))}
    return kept | {"MUSTER_DATA": str(data), "MUSTER_PORT": "0", "MUSTER_DEMO": "1", "PYTHONUNBUFFERED": "1"}


class DemoServer:
    """``main.py run`` as a process of its own, on a free port, with a small demo school."""

    def __init__(self, data: Path, *, students: int = 60, weeks: int = 1) -> None:
        self.data = data
        self._environ = demo_environment(data)
        self._log = (data / "server.log").open("w+")
        seed = [sys.executable, "main.py", "seed", "--students", str(students), "--weeks", str(weeks)]
        subprocess.run(seed, cwd=ROOT, env=self._environ, check=True, stdout=self._log, stderr=self._log)
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start, and read the address from the greeting."""
        self._process = subprocess.Popen(
            [sys.executable, "main.py", "run"],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"running at (http://\S+)", line):
                self.url = found[1].replace("localhost", "127.0.0.1")
                self._environ["MUSTER_PORT"] = self.url.rpartition(":")[2]
            if "Ctrl-C" in line:
                return
        self._log.seek(0)
        raise RuntimeError(f"the server did not start:\n{self._log.read()}")

    def stop(self) -> None:
        """Ask it to end, and wait for it."""
        self._process.terminate()
        self._process.wait(timeout=20)


@pytest.fixture(scope="session")
def server() -> Iterator[DemoServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = DemoServer(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="module")  # while it is open, no async test can run: Playwright holds the loop
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=install_browser(), args=LAUNCH_ARGS)
        yield browser
        browser.close()


@dataclass
class Api:
    """Somebody who speaks to the server without a browser."""

    client: httpx.Client
    user: dict[str, Any]

    def get(self, path: str, **query: Any) -> Any:
        answer = self.client.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def record(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send one operation, return its outcome."""
        operation = {"id": new_id(), "kind": kind, "clock_offset_ms": 0, **fields}
        answer = self.client.post("/api/v1/operations", json={"operations": [operation]})
        assert answer.status_code == 200, answer.text
        outcome: dict[str, Any] = answer.json()["outcomes"][0]
        return outcome


@pytest.fixture(scope="session")
def api_as(server: DemoServer) -> Iterator[Callable[[str], Api]]:
    known: dict[str, Api] = {}

    def make(who: str) -> Api:
        if who not in known:
            client = httpx.Client(base_url=server.url, timeout=30)
            answer = client.post("/api/v1/login", json={"email": f"{who}@demo.school", "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            client.cookies.clear()
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            known[who] = Api(client, answer.json()["user"])
        return known[who]

    yield make
    for api in known.values():
        api.client.close()


@dataclass
class LiveClass:
    """An open meeting of the class that teacher1 and teacher2 teach together."""

    id: str
    api_as: Callable[[str], Api]
    students: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/meeting/{self.id}"

    def codes(self) -> dict[str, Any]:
        codes: dict[str, Any] = self.api_as("teacher1").get(f"/meetings/{self.id}/codes")
        return codes

    def check_in(self, number: int) -> dict[str, Any]:
        """student<number> checks in with the QR code that is shown now."""
        token = self.codes()["qr_url"].rpartition("/")[2]
        return self.api_as(f"student{number}").record("check_in", meeting_id=self.id, via="qr", proof=token)

    def student(self, number: int) -> dict[str, Any]:
        """The roster row of student<number>."""
        wanted = self.api_as(f"student{number}").user["id"]
        return next(row for row in self.students if row["student_id"] == wanted)

    def statuses(self) -> dict[str, str | None]:
        """What the record says, by student."""
        roster = self.api_as("teacher1").get(f"/meetings/{self.id}")["roster"]
        return {row["student_id"]: row["status"] for row in roster}


@pytest.fixture
def live_class(api_as: Callable[[str], Api]) -> LiveClass:
    """A fresh meeting for each test, opened by teacher1."""
    teacher = api_as("teacher1")
    shared = {s["id"] for s in api_as("teacher2").get("/sections")["sections"]}
    section = next(s for s in teacher.get("/sections")["sections"] if s["id"] in shared)
    meeting_id = new_id()
    outcome = teacher.record("open_meeting", meeting_id=meeting_id, section_id=section["id"])
    assert outcome["outcome"] == "accepted", outcome
    return LiveClass(meeting_id, api_as, teacher.get(f"/meetings/{meeting_id}")["roster"])


PageAs = Callable[..., Page]


@pytest.fixture
def page_as(server: DemoServer, browser: Browser) -> Iterator[PageAs]:
    """``page_as("teacher1", "/teacher", phone=True)``: a browser of its own, logged in, on that page, live.

    Errors on a page's console fail the test at its end."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def make(who: str | None, path: str = "/", *, phone: bool = False, **options: Any) -> Page:
        context = browser.new_context(
            base_url=server.url,
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]  # a TypedDict in Playwright
            is_mobile=phone,
            has_touch=phone,
            **options,
        )
        contexts.append(context)
        if who is not None:
            body = {"email": f"{who}@demo.school", "password": PASSWORD}
            assert context.request.post("/api/v1/login", data=body).ok
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path)
        if page.locator("[data-testid=connection-state]").count():
            page.wait_for_selector("[data-testid=connection-state][data-state=live]")
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []
