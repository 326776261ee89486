"""/admin/system: how this process is doing, told once a second while the page is open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from math import inf
from zoneinfo import ZoneInfo

from markupsafe import Markup
from nicegui import ui

from domain import school
from domain.muster import Muster
from domain.store import StoreError
from realtime.metrics import Buckets, quantile
from realtime.vitals import KEPT, Look, Threshold, Vitals
from ui.forms import heading, when
from ui.parts.system import LiveHtml, chart

#: Looks that one bar of a chart stands for, seconds.
_BAR_S = 5
_BARS = KEPT // _BAR_S


@dataclass(frozen=True, slots=True)
class Health:
    """Everything that the page shows, at one moment."""

    node: str
    nodes: dict[str, float]  # others, and the seconds since they were heard of
    looks: Sequence[Look]  # oldest first
    alerts: Sequence[tuple[Threshold, datetime]]
    is_shared: bool  # several processes may use this database
    is_leader: bool
    zone: str


class SystemPage:
    """One admin's open page."""

    def __init__(self, muster: Muster, vitals: Vitals) -> None:
        self._muster, self._vitals = muster, vitals
        self._zone = "UTC"

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        with contextlib.suppress(StoreError):  # the page is for such moments, too
            found = await self._muster.store.read(school.read_school)
            self._zone = found.zone if found else "UTC"
        heading("System")
        shown, client = LiveHtml(health_html(self._health())), ui.context.client

        def looked() -> None:
            if client.has_socket_connection:  # a page that has lost its socket may come back to it
                shown.show(health_html(self._health()))

        client.on_delete(self._vitals.watch(looked))

    def _health(self) -> Health:
        return Health(
            node=self._muster.settings.node,
            nodes=self._vitals.nodes,
            looks=tuple(self._vitals.looks),
            alerts=self._vitals.alerts,
            is_shared=self._muster.store.is_shared,
            is_leader=self._muster.leadership.is_leader,
            zone=self._zone,
        )


def health_html(health: Health) -> str:
    """The page below its heading. Only the summary is announced, and only when its words change."""
    if not health.looks:
        return str(_summary("wait", "…", "Looking", Markup("<p>The first figures come within a second.</p>")))
    return str(
        Markup(
            '{}<div class="s-columns"><div>{}{}</div><div>{}{}</div></div><p class="m-soft m-small">{}</p>'
        ).format(
            summary_html(health),
            _traffic(health),
            _speed(health),
            _parts(health),
            _processes(health),
            _said_at(health),
        )
    )


def summary_html(health: Health) -> Markup:
    """Whether all is well, else what is wrong, since when, and what to do about it."""
    if not health.alerts:
        return _summary("good", "✓", "All is well", Markup("<p>There is nothing to do.</p>"))
    now = health.looks[-1].at
    count = len(health.alerts)
    alerts = Markup("").join(
        Markup(
            '<li data-testid="system-alert-{}"><strong>{}</strong> <span>{}</span> <small>Since {}.</small></li>'
        ).format(threshold.name, threshold.text, threshold.remedy, when(since, health.zone, now))
        for threshold, since in health.alerts
    )
    title = "One thing is wrong" if count == 1 else f"{count} things are wrong"
    return _summary("bad", "!", title, Markup("<ul>{}</ul>").format(alerts))


def _summary(tone: str, sign: str, title: str, rest: Markup) -> Markup:
    return Markup(
        '<section class="m-card s-summary s-{}" role="status" aria-live="polite" aria-atomic="true" '
        'aria-label="Summary" data-testid="system-summary"><span class="s-sign" aria-hidden="true">{}</span>'
        "<div><h2>{}</h2>{}</div></section>"
    ).format(tone, sign, title, rest)


# -- traffic: now, and the last five minutes


def _traffic(health: Health) -> Markup:
    last = health.looks[-1]
    spans = spans_of(health.looks)
    clients = f"{_count(last.pages, 'page')}, {_count(last.connections, 'client')}"
    rows = (
        ("connections", "Connections", clients, "", lambda look: float(look.pages + look.connections)),
        (
            "operations",
            "Operations",
            f"{last.operation_count:,} since the start",
            "/s",
            lambda look: look.operations,
        ),
        ("frames", "Frames in", "from clients", "/s", lambda look: look.frames_in),
        ("writes", "Writes", "to clients", "/s", lambda look: look.writes),
        ("queue", "Queue", "waiting to be written or sent", "", lambda look: float(look.queue_depth)),
        ("lag", "Loop lag", "how late work is begun", "ms", lambda look: look.loop_lag_ms),
    )
    return _card(
        "Traffic",
        ("Now", "Last 5 min"),
        Markup("").join(_traffic_row(spans, *row) for row in rows),
        name="s-traffic",
    )


def _traffic_row(
    spans: Sequence[Sequence[Look]],
    name: str,
    title: str,
    what: str,
    unit: str,
    read: Callable[[Look], float],
) -> Markup:
    bars = [max(map(read, span)) for span in spans]
    return Markup(
        '<tr>{}<td class="s-now" data-testid="system-{}">{}</td><td>{}<small>peak {}</small></td></tr>'
    ).format(
        _what(title, what),
        name,
        _value(read(spans[-1][-1]), unit),
        chart(bars, _BARS),
        _value(max(bars), unit),
    )


def spans_of(looks: Sequence[Look]) -> list[list[Look]]:
    """The looks of each five seconds by the clock: a chart's bars move on and never change their height."""
    spans = groupby(looks, key=lambda look: int(look.at.timestamp()) // _BAR_S)
    return [list(span) for _, span in spans][-_BARS:]


def _value(value: float, unit: str) -> Markup:
    shown = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    return Markup("<b>{}</b>{}").format(shown, Markup(" <span>{}</span>").format(unit) if unit else "")


# -- how quick, what it rests on, who else there is


def _speed(health: Health) -> Markup:
    first, last = health.looks[0], health.looks[-1]
    rows = _speed_row("Fan-out", "from an event to its last write", first.fan_out, last.fan_out)
    rows += _speed_row("Commit", "until operations are durable", first.commits, last.commits)
    note = "Of the last five minutes: half took at most p50, 99 of 100 at most p99."
    return _card("Speed", ("p50", "p99"), rows, note)


def _speed_row(title: str, what: str, before: Buckets, now: Buckets) -> Markup:
    half, most = (quantile(now, share, since=before) for share in (0.5, 0.99))
    if half is None or most is None:
        cells = Markup('<td colspan="2" class="m-soft">none lately</td>')
    else:
        cells = Markup("<td>{}</td><td>{}</td>").format(_bound(half), _bound(most))
    return Markup("<tr>{}{}</tr>").format(_what(title, what), cells)


def _bound(seconds: float) -> Markup:
    if seconds == inf:
        return Markup("over 2.5 <span>s</span>")
    return Markup("{} <span>ms</span>").format(f"{seconds * 1000:,g}")


def _parts(health: Health) -> Markup:
    last = health.looks[-1]
    database = "PostgreSQL" if health.is_shared else "SQLite"
    log = f"{last.bus_gaps:,} gaps filled by reading it" if health.is_shared else "all is written here"
    redis = {True: ("connected", True), False: ("away", False), None: ("not used", None)}[last.has_redis]
    rows = (
        ("Database", database, "answers" if last.has_database else "does not answer", last.has_database),
        ("Recorder", "writes operations", "running" if last.is_recording else "stopped", last.is_recording),
        ("Event log", log, "followed" if last.is_bus_healthy else "not followed", last.is_bus_healthy),
        ("Redis", "the fast way between processes", *redis),
        (
            "Timed work",
            "closing, laying out, clearing away",
            "runs here" if health.is_leader else "runs elsewhere",
            None,
        ),
    )
    cells = Markup("").join(
        Markup("<tr>{}<td>{}</td></tr>").format(_what(title, what), _state(word, is_good))
        for title, what, word, is_good in rows
    )
    return _card("Parts", ("State",), cells)


def _state(word: str, is_good: bool | None) -> Markup:
    tone = {True: "s-good", False: "s-bad", None: "s-plain"}[is_good]
    return Markup('<span class="s-state {}">{}</span>').format(tone, word)


def _processes(health: Health) -> Markup:
    rows = [_process(health.node, "this one")]
    rows += [_process(name, f"{seconds:.0f} s ago") for name, seconds in sorted(health.nodes.items())]
    note = ""
    if not health.nodes:
        note = "No other process is heard of."
        if not health.is_shared:
            note = "No others: SQLite is for one process."
        elif health.looks[-1].has_redis is None:
            note = "Others would be heard of through Redis, which is not used."
    return _card("Processes", ("Heard of",), Markup("").join(rows), note)


def _process(name: str, heard: str) -> Markup:
    return Markup('<tr><th scope="row" data-testid="system-node-{}">{}</th><td>{}</td></tr>').format(
        name, name, heard
    )


# -- shared


def _card(title: str, heads: Sequence[str], rows: Markup, note: str = "", *, name: str = "") -> Markup:
    """A table under its title; ``heads`` are those of the columns after the first."""
    shown = Markup("").join(Markup('<th scope="col">{}</th>').format(head) for head in heads)
    return Markup(
        '<section class="m-card mp-card"><h2>{}</h2><table class="s-table {}" aria-label="{}">'
        "<thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>{}</section>"
    ).format(
        title,
        name,
        title,
        shown,
        rows,
        Markup('<p class="m-soft m-small">{}</p>').format(note) if note else "",
    )


def _what(title: str, what: str) -> Markup:
    return Markup('<th scope="row">{}<small>{}</small></th>').format(title, what)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _said_at(health: Health) -> str:
    at = health.looks[-1].at.astimezone(ZoneInfo(health.zone))
    return f"Process {health.node}, looked at {at:%H:%M:%S}. Figures are of this process alone."
