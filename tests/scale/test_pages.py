"""Live pages of two processes behind the balancer, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.scale.conftest import Cluster, Meeting, Node
from tests.ui.conftest import DESKTOP
from tests.ui.conftest import browser as browser
from tests.waiting import until_now

OpenOn = Callable[[Node, str, Meeting], Page]


@pytest.fixture
def open_on(cluster: Cluster, browser: Browser) -> Iterator[OpenOn]:
    """``open_on(node, who, meeting)``: somebody's page of a meeting, through the balancer, served by a process."""
    contexts: list[BrowserContext] = []

    def make(node: Node, who: str, meeting: Meeting) -> Page:
        context = browser.new_context(base_url=cluster.nginx.url, viewport=DESKTOP)  # type: ignore[arg-type]  # a TypedDict
        contexts.append(context)
        cookies = {"muster_login": cluster.token(who), "muster_node": node.name}
        context.add_cookies([{"name": n, "value": v, "url": cluster.nginx.url} for n, v in cookies.items()])
        page = context.new_page()
        page.goto(f"/meeting/{meeting.id}")
        page.wait_for_selector("[data-testid=connection-state][data-state=live]")
        return page

    yield make
    for context in contexts:
        context.close()


def node_of(page: Page) -> str:
    """Which process the page says it came from."""
    return next(str(c.get("value")) for c in page.context.cookies() if c.get("name") == "muster_node")


def test_a_mark_on_one_process_shows_on_the_page_of_the_other(cluster: Cluster, open_on: OpenOn) -> None:
    meeting = cluster.open_meeting()
    desk, colleague = open_on(cluster.a, "teacher1", meeting), open_on(cluster.b, "teacher2", meeting)
    marked = meeting.marking(0)

    cluster.call("POST", "/operations", json={"operations": [marked]}, node=cluster.a)

    for page in (desk, colleague):
        row = page.get_by_test_id(f"roster-row-{marked['student_id']}")
        expect(row).to_have_attribute("data-status", "present")
    assert (node_of(desk), node_of(colleague)) == ("a", "b")


def test_who_has_the_page_open_is_told_to_sockets_on_the_other_process(
    cluster: Cluster, open_on: OpenOn
) -> None:
    meeting = cluster.open_meeting()
    open_on(cluster.a, "teacher1", meeting)
    token = cluster.token("teacher2")
    headers = {"Authorization": f"Bearer {token}"}
    address = cluster.b.url.replace("http", "ws", 1) + "/ws"

    with connect(address, additional_headers=headers, subprotocols=[Subprotocol("muster.v1")]) as socket:
        socket.send(orjson.dumps({"type": "subscribe", "id": 1, "topics": {meeting.topic: None}}).decode())
        here: set[str] = set()
        while not {"teacher", "co_teacher"} <= here:
            frame = orjson.loads(socket.recv(timeout=30))
            here |= {entry["role"] for entry in frame.get("presence", []) + frame.get("joined", [])}


def test_when_a_process_is_killed_its_page_goes_on_on_the_other(cluster: Cluster, open_on: OpenOn) -> None:
    meeting = cluster.open_meeting()
    page = open_on(cluster.a, "teacher1", meeting)

    cluster.a.kill()

    until_now(lambda: node_of(page) == "b")
    page.wait_for_selector("[data-testid=connection-state][data-state=live]")
    marked = meeting.marking(1)
    cluster.call("POST", "/operations", json={"operations": [marked]}, node=cluster.b)
    row = page.get_by_test_id(f"roster-row-{marked['student_id']}")
    expect(row).to_have_attribute("data-status", "present")


def test_a_log_out_on_one_process_ends_the_page_on_the_other(cluster: Cluster, open_on: OpenOn) -> None:
    meeting = cluster.open_meeting()
    page = open_on(cluster.b, "teacher2", meeting)

    cluster.call("POST", "/logout", who="teacher2", node=cluster.a)

    page.wait_for_url("**/login?notice=ended")
    cluster.forget_token("teacher2")
