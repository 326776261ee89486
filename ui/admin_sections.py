"""/admin/sections: the list of classes, and a form for a new one."""

from __future__ import annotations

from functools import partial

from markupsafe import Markup
from nicegui import ui

from domain import sections
from domain.inputs import InvalidInput
from domain.lists import PAGE
from domain.logins import LoginView
from domain.muster import Muster
from domain.sections import SectionSummary
from ui.forms import Form, button, card, heading


class SectionsPage:
    """The list, with a search that waits until the typing pauses."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._offset = 0

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        with ui.element("div").classes("mp-head-row"):
            heading("Classes")
            button("Add a class", lambda: ui.navigate.to("/admin/sections/new"), testid="add-section")
        with ui.element("div").classes("mp-filters").props("role=search"):
            self._search = ui.input("Search by code, title or room").props(
                'outlined type=search debounce=250 clearable data-testid="search"'
            )
            self._inactive = ui.checkbox("Also those no longer in use")
        self._count = (
            ui.label("").classes("mp-soft").props('role=status aria-live=polite data-testid="count"')
        )
        self._list = ui.html("", sanitize=False)
        with ui.element("div").classes("mp-pager"):
            self._back = button("Previous", partial(self._turn, -PAGE), kind="quiet")
            self._on = button("Next", partial(self._turn, PAGE), kind="quiet")
        for field in (self._search, self._inactive):
            field.on_value_change(self._start_over)
        await self._show()

    async def _start_over(self) -> None:
        self._offset = 0
        await self._show()

    async def _turn(self, by: int) -> None:
        self._offset = max(0, self._offset + by)
        await self._show()

    async def _show(self) -> None:
        now, search, author = self._muster.clock.now(), str(self._search.value or ""), self._login.author
        is_active, offset = None if self._inactive.value else True, self._offset
        try:
            found = await self._muster.store.read(
                lambda conn: sections.list_sections(
                    conn, author, now=now, search=search, is_active=is_active, offset=offset
                )
            )
        except InvalidInput as error:
            self._search.error = error.message
            return
        last = min(found.total, offset + len(found.items))
        self._count.text = (
            f"{offset + 1}–{last} of {found.total} classes" if found.items else "No class matches."
        )
        self._list.content = str(
            Markup('<ul class="mp-running">{}</ul>').format(Markup("").join(map(_row, found.items)))
        )
        self._back.set_visibility(offset > 0)
        self._on.set_visibility(last < found.total)


class NewSectionPage:
    """A form for a new class."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        heading("Add a class", over="Classes")
        with card():
            form = Form()
            form.input("code", "Code", hint="Short and unique to people, such as 9B-MATH")
            form.input("title", "Title")
            form.input("room", "Room")
            form.submit("Add", self._add)

    async def _add(self, form: Form) -> None:
        now, author = self._muster.clock.now(), self._login.author
        code, title, room = form.text("code"), form.text("title"), form.text("room")
        section = await self._muster.store.write(
            lambda conn: sections.create_section(conn, author, now=now, code=code, title=title, room=room)
        )
        ui.navigate.to(f"/admin/sections/{section.id}")


def _row(summary: SectionSummary) -> Markup:
    section = summary.section
    staff = ", ".join(name for _id, name, _role in summary.staff) or "no teacher"
    return Markup(
        '<li data-testid="section-{}"><a href="/admin/sections/{}"><span class="mr-what"><b>{}</b><small>{}</small></span>'
        '<span class="mp-tag">{}</span></a></li>'
    ).format(
        section.id,
        section.id,
        section.title,
        " · ".join(part for part in (section.code, section.room, staff) if part),
        f"{summary.student_count} students" if section.is_active else "Not in use",
    )
