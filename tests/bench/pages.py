"""Pages in a real browser: how long and how many bytes until live, and how long from a commit to a colleague's screen."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from domain.clock import parse_instant
from tests.bench.machine import spread
from tests.browser import LAUNCH_ARGS, install_browser
from tests.ui.conftest import DESKTOP, PASSWORD, DemoServer
from tests.ui.screenshots import Scene

ROUNDS = 5
_WATCH = """() => {
  window.seen = {};
  new MutationObserver((changes) => { for (const c of changes) {
    const e = c.target; const now = Date.now();
    if (e.dataset && e.dataset.status === "present") window.seen[e.dataset.testid] ??= now;
  } }).observe(document.body, {subtree: true, attributes: true, attributeFilter: ["data-status"]});
}"""


def measure() -> list[tuple[str, str]]:
    """First loads, and commit to screen over several classes of thirty."""
    with tempfile.TemporaryDirectory() as folder:
        server = DemoServer(Path(folder))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=install_browser(), args=LAUNCH_ARGS)
                rows = [_load(browser, server, *page) for page in _PAGES]
                rows.append(_to_screen(browser, server))
                browser.close()
                return rows
        finally:
            server.stop()


_PAGES = (
    ("log-in", None, "/login"),
    ("teacher's day", "teacher1", "/teacher"),
    ("live meeting", "teacher1", "{meeting}"),
)


def _load(browser: Browser, server: DemoServer, name: str, who: str | None, path: str) -> tuple[str, str]:
    path = path.format(meeting=f"/meeting/{Scene(server).meeting}" if "{" in path else "")
    parts = []
    context = browser.new_context(base_url=server.url, viewport=DESKTOP)  # type: ignore[arg-type]  # a TypedDict
    if who is not None:
        context.request.post("/api/v1/login", data={"email": f"{who}@demo.school", "password": PASSWORD})
    server_ms = statistics.median(_served_ms(context, path) for _ in range(5))
    for kind in ("cold", "warm"):
        page = context.new_page()
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        sizes: list[float] = []
        network.on(
            "Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"])
        )
        started = time.perf_counter()
        page.goto(path)
        if page.locator("[data-testid=connection-state]").count():
            page.wait_for_selector("[data-testid=connection-state][data-state=live]")
        took = (time.perf_counter() - started) * 1000
        parts.append(f"{kind} {sum(sizes) / 1024:.0f} KiB, {took:.0f} ms")
        page.close()
    context.close()
    return (
        f"page {name}: built, then first load until live",
        f"built in {server_ms:.0f} ms; {'; '.join(parts)}",
    )


def _served_ms(context: Any, path: str) -> float:
    started = time.perf_counter()
    assert context.request.get(path).ok
    return (time.perf_counter() - started) * 1000


def _to_screen(browser: Browser, server: DemoServer) -> tuple[str, str]:
    """Students check in one after the other; the colleague's page notes when each row turns."""
    took: list[float] = []
    context = browser.new_context(base_url=server.url, viewport=DESKTOP)  # type: ignore[arg-type]  # a TypedDict
    context.request.post("/api/v1/login", data={"email": "teacher2@demo.school", "password": PASSWORD})
    for _ in range(ROUNDS):
        scene = Scene(server, is_empty=True)
        page = context.new_page()
        page.goto(f"/meeting/{scene.meeting}")
        page.wait_for_selector("[data-testid=connection-state][data-state=live]")
        page.evaluate(_WATCH)
        for number in range(1, 31):
            scene.check_in(f"student{number}")
        page.wait_for_function("Object.keys(window.seen).length === 30")
        took += _delays(page, scene)
        page.close()
    context.close()
    return f"commit → the colleague's screen, {len(took)} arrivals in a real browser", spread(took)


def _delays(page: Page, scene: Scene) -> list[float]:
    seen: dict[str, float] = page.evaluate("window.seen")
    committed = {
        f"roster-row-{event['data']['student_id']}": parse_instant(event["at"]).timestamp() * 1000
        for event in scene.events()
        if event["name"] == "record.changed"
    }
    return [max(0.0, at - committed[row]) for row, at in seen.items()]
