"""An admin looks at how the process is doing, while a class is taken."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import httpx
from playwright.sync_api import expect

from realtime.vitals import THRESHOLDS, Look
from tests.factories import NOW, ZONE
from tests.looks import a_look
from tests.ui.conftest import DemoServer, LiveClass, PageAs
from ui.admin_system import Health, health_html, spans_of

#: A machine that is busy with other tests may be late.
WELL = re.compile(r"All is well|One thing is wrong\s*The event loop is late")
#: The numbers that the page says: pages and clients that are connected, operations since the start.
CONNECTIONS = (
    "parseInt(document.querySelector('[data-testid=system-connections]').innerText.replaceAll(',', ''))"
)
OPERATIONS = "parseInt(document.querySelector('tr:has([data-testid=system-operations]) small').innerText.replaceAll(',', ''))"


def a_health(*looks: Look, **values: Any) -> Health:
    """What the page of the only process shows."""
    alone = {"node": "main", "nodes": {}, "is_shared": False, "is_leader": True}
    return Health(**{"looks": looks, "alerts": (), "zone": ZONE, **alone, **values})


def words(html: str) -> str:
    """The text of a page, without its elements."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_an_admin_sees_pages_come_and_operations_counted_without_doing_anything(
    page_as: PageAs, live_class: LiveClass
) -> None:
    page = page_as("admin", "/admin")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="System").click()
    expect(page.get_by_role("heading", name="System", level=1)).to_be_visible()
    expect(page.get_by_test_id("system-summary")).to_have_role("status")
    expect(page.get_by_test_id("system-summary")).to_contain_text(WELL)
    connections, operations = page.evaluate(CONNECTIONS), page.evaluate(OPERATIONS)

    page_as("teacher1", live_class.path)
    live_class.check_in(11)
    live_class.check_in(12)

    page.wait_for_function(f"{CONNECTIONS} > {connections}")
    page.wait_for_function(f"{OPERATIONS} >= {operations + 2}")
    expect(page.get_by_role("table", name="Parts").get_by_role("row", name="Database")).to_contain_text(
        "answers"
    )
    expect(page.get_by_role("table", name="Processes").get_by_role("row", name="main")).to_contain_text(
        "this one"
    )
    expect(page.get_by_role("table", name="Speed").get_by_role("row", name="Commit")).to_contain_text("ms")


def test_what_stays_the_same_stays_in_the_page_so_that_only_news_are_announced(page_as: PageAs) -> None:
    page = page_as("admin", "/admin/system")
    summary = page.get_by_test_id("system-summary")
    expect(summary).to_contain_text(WELL)
    said = summary.inner_text()
    page.evaluate(
        """() => {
            window.announced = 0;
            const status = document.querySelector("[data-testid=system-summary]");
            new MutationObserver(() => window.announced++).observe(
                status, {subtree: true, childList: true, characterData: true, attributes: true});
            window.cell = document.querySelector("[data-testid=system-lag]");
        }"""
    )
    footer = page.get_by_text("looked at")
    before = footer.inner_text()

    expect(footer).not_to_have_text(before)
    shown = footer.inner_text()
    expect(footer).not_to_have_text(shown)

    assert page.evaluate("window.announced") == 0 or summary.inner_text() != said
    assert page.evaluate("window.cell === document.querySelector('[data-testid=system-lag]')")


def test_nobody_but_an_admin_gets_the_page(server: DemoServer, page_as: PageAs) -> None:
    page = page_as("teacher1", "/admin/system")

    expect(page).to_have_url(f"{server.url}/teacher")
    expect(page.get_by_role("link", name="System")).to_have_count(0)
    answer = httpx.get(f"{server.url}/admin/system")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fadmin%2Fsystem")


def test_a_phone_shows_it_all_without_scrolling_sideways(page_as: PageAs) -> None:
    page = page_as("admin", "/admin/system", phone=True)
    expect(page.get_by_test_id("system-connections")).to_be_visible()

    for width in (390, 320):  # 320 is 1280 at 400 % (WCAG 2.2, 1.4.10)
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# --- What it says when, without a browser ---


def test_before_the_first_look_it_says_so() -> None:
    assert words(health_html(a_health())) == "… Looking The first figures come within a second."


def test_what_is_wrong_is_said_with_since_when_and_what_to_do() -> None:
    alerts = [(threshold, NOW - timedelta(minutes=7)) for threshold in THRESHOLDS]
    look = a_look(has_database=False, is_recording=False, is_bus_healthy=False, has_redis=False)

    html = health_html(a_health(look, alerts=alerts, is_shared=True))

    assert f"{len(THRESHOLDS)} things are wrong" in html and "All is well" not in html
    for threshold in THRESHOLDS:
        assert f'data-testid="system-alert-{threshold.name}"' in html
        assert f"{threshold.text} {threshold.remedy} Since today 9:53." in words(html)
    for state in ("does not answer", "stopped", "not followed", "away"):
        assert state in words(html)


def test_other_processes_are_told_with_the_time_since_they_were_heard_of() -> None:
    html = health_html(a_health(a_look(has_redis=True), is_shared=True, nodes={"b": 1.2, "<i>": 14.6}))

    assert "main this one &lt;i&gt; 15 s ago b 1 s ago" in words(html)


def test_numbers_have_units_and_large_ones_are_readable() -> None:
    slow = tuple(float(place == 13) for place in range(14))
    quick = tuple(2.0 * (place > 1) for place in range(14))
    looks = (
        a_look(fan_out=(0.0,) * 14, commits=(0.0,) * 14, loop_lag_ms=3.25),
        a_look(writes=4512.4, operations=0.5, operation_count=12_345, fan_out=slow, commits=quick),
    )

    told = words(health_html(a_health(*looks)))

    assert "Writes to clients 4,512 /s" in told
    assert "Operations 12,345 since the start 0.5 /s" in told
    assert "Loop lag how late work is begun 1 ms peak 3.2 ms" in told
    assert "over 2.5 s over 2.5 s" in told and "1 ms 1 ms" in told


def test_speed_is_that_of_the_last_five_minutes_and_none_where_nothing_was_done() -> None:
    long_ago = tuple(float(place == 13) for place in range(14))

    told = words(health_html(a_health(a_look(fan_out=long_ago), a_look(fan_out=long_ago))))

    assert "Fan-out from an event to its last write none lately" in told


def test_a_chart_is_one_element_with_a_bar_for_five_seconds_and_keeps_its_bars() -> None:
    looks = [a_look(at=NOW + timedelta(seconds=second), operations=float(second)) for second in range(300)]

    before, after = spans_of(looks[:299]), spans_of(looks)

    assert len(after) == 60 and after[:-1] == before[:-1]
    assert (before[-1], after[-1]) == (looks[295:299], looks[295:])
    assert health_html(a_health(*looks)).count("<path") == 6
