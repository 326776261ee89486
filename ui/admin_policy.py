"""/admin/policy: the school's attendance rules, the versions so far, and a new version."""

from __future__ import annotations

from datetime import datetime, timedelta

from markupsafe import Markup
from nicegui import ui
from sqlalchemy import Connection

from domain import policies, school
from domain.clock import day_bounds, local_date
from domain.inputs import InvalidInput
from domain.logins import LoginView
from domain.model import AfterCutoff, Policy
from domain.muster import Muster
from domain.standings import load_standing, require_admin
from ui.forms import Form, card, heading, note, when

_AFTER = {
    AfterCutoff.ABSENT.value: "is recorded as absent",
    AfterCutoff.REFUSE.value: "is refused",
}
_FIELDS = (
    ("opens_before_min", "Check-in opens, minutes before the start"),
    ("late_after_min", "Late after, minutes from the start (inclusive grace)"),
    ("cutoff_min", "Cut-off, minutes from the start (empty: none)"),
    ("closing_grace_s", "Grace after closing, seconds"),
    ("auto_close_after_min", "Closes by itself, minutes after the end"),
    ("lock_after_days", "Register is locked, days after closing"),
)


class PolicyPage:
    """The rules of the whole school. Rules of one class of its own are kept by the same function."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._zone = "UTC"

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        self._frame = ui.element("div").classes("mp-stack")
        await self._show()

    async def _show(self, told: str = "") -> None:
        now, author = self._muster.clock.now(), self._login.author

        def read(conn: Connection) -> tuple[list[Policy], str]:
            require_admin(conn, author, now)
            found = school.read_school(conn)
            return policies.load_policies(conn), found.zone if found else "UTC"

        versions, self._zone = await self._muster.store.read(read)
        current = policies.policy_at(versions, None, now)
        coming = policies.policy_at(versions, None, max([now, *(v.valid_from for v in versions)]))
        with self._frame:
            self._frame.clear()
            heading("Attendance rules")
            with card("In force today"):
                ui.html(_sentences(current), sanitize=False)
            self._form(coming, now, told)
            if versions:
                with card("Versions"):
                    note("A version is never edited: registers are judged by the rules of their day.")
                    ui.html(self._versions_html(versions, now), sanitize=False)

    def _form(self, base: Policy, now: datetime, told: str) -> None:
        tomorrow = local_date(now, self._zone) + timedelta(days=1)
        with card("A new version"):
            note(
                "It governs the meetings that start on its first day or later. Nothing that has begun is touched."
            )
            form = Form()
            form.input("valid_from", "First day", tomorrow.isoformat(), kind="date")
            for name, label in _FIELDS:
                value = getattr(base, name)
                form.input(name, label, "" if value is None else str(value), kind="number")
            form.select(
                "after_cutoff", "A check-in after the cut-off", _AFTER, AfterCutoff(base.after_cutoff).value
            )
            form.submit("Make this version", self._add)
            if told:
                form.done(told)

    async def _add(self, form: Form) -> None:
        now, author = self._muster.clock.now(), self._login.author
        first_day = form.day("valid_from")
        rules: dict[str, int | str | None] = {"after_cutoff": form.text("after_cutoff")}
        for name, _label in _FIELDS:
            rules[name] = None if name == "cutoff_min" and not form.text(name) else form.number(name)
        today = local_date(now, self._zone)
        if first_day < today:
            raise InvalidInput("valid_from", "The first day must not lie in the past.")
        valid_from = now if first_day == today else day_bounds(first_day, self._zone)[0]

        def work(conn: Connection) -> Policy:
            require_admin(conn, author, now)
            standing = load_standing(conn, author.person_id or "", "", now)
            return policies.add_policy(
                conn, standing, section_id=None, valid_from=valid_from, now=now, **rules
            )

        policy = await self._muster.store.write(work)
        await self._show(told=f"Version {policy.version} is made.")

    def _versions_html(self, versions: list[Policy], now: datetime) -> str:
        newest = sorted(versions, key=lambda p: p.version, reverse=True)
        rows = Markup("").join(
            Markup("<tr><td>{}</td><td>{}</td><td>{} min</td><td>{} min</td><td>{}</td></tr>").format(
                p.version,
                when(p.valid_from, self._zone, now),
                p.opens_before_min,
                p.late_after_min,
                "none" if p.cutoff_min is None else f"{p.cutoff_min} min",
            )
            for p in newest
        )
        return str(
            Markup(
                '<table class="mp-counts"><thead><tr><th scope="col">Version</th><th scope="col">From</th><th scope="col">Opens before</th>'
                '<th scope="col">Late after</th><th scope="col">Cut-off</th></tr></thead><tbody>{}</tbody></table>'
            ).format(rows)
        )


def _sentences(policy: Policy) -> str:
    cutoff = "There is no cut-off while the meeting is open."
    if policy.cutoff_min is not None:
        cutoff = f"A check-in more than {policy.cutoff_min} minutes after the start {_AFTER[AfterCutoff(policy.after_cutoff).value]}."
    sentences = (
        f"Check-in opens {policy.opens_before_min} minutes before the start.",
        f"Up to and including {policy.late_after_min} minutes after the start a student is present, then late.",
        cutoff,
        f"A meeting left open closes by itself {policy.auto_close_after_min} minutes after its end.",
        f"A register is locked {policy.lock_after_days} days after closing.",
    )
    return str(
        Markup('<ul class="mp-sentences">{}</ul>').format(
            Markup("").join(Markup("<li>{}</li>").format(s) for s in sentences)
        )
    )
