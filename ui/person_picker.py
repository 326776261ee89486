"""Find a person by typing a part of the name, and do one thing with whom was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from domain import people
from domain.inputs import InvalidInput
from domain.logins import LoginView
from domain.model import Role
from domain.muster import Muster
from domain.people import PersonView
from ui.forms import button, note

MOST = 6  # shown at once; more means the search is too wide


class PersonPicker:
    """A search field and under it the people found, each with a button."""

    def __init__(
        self,
        muster: Muster,
        login: LoginView,
        *,
        label: str,
        role: Role,
        action: str,
        chosen: Callable[[PersonView], Awaitable[None]],
        testid: str,
    ) -> None:
        self._muster = muster
        self._login = login
        self._role = role
        self._action = action
        self._chosen = chosen
        self._search = (
            ui.input(label)
            .props(f'outlined type=search debounce=250 clearable data-testid="{testid}"')
            .classes("mp-field")
        )
        self._found = ui.element("div").classes("mp-found").props("role=status aria-live=polite")
        self._search.on_value_change(self._show)

    def fail(self, text: str) -> None:
        """Say beside the field what is wrong."""
        self._search.error = text

    async def _show(self) -> None:
        search, now, author = (
            str(self._search.value or "").strip(),
            self._muster.clock.now(),
            self._login.author,
        )
        self._found.clear()
        if len(search) < 2:
            return
        try:
            page = await self._muster.store.read(
                lambda conn: people.list_people(
                    conn, author, now=now, search=search, role=self._role, is_active=True, limit=MOST
                )
            )
        except InvalidInput as error:
            self._search.error = error.message
            return
        if search != str(self._search.value or "").strip():
            return  # typed on meanwhile: a later answer is on its way
        self._found.clear()
        with self._found:
            for person in page.items:
                with ui.element("div").classes("mp-line"):
                    with ui.element("span").classes("mr-what"):
                        ui.label(person.name).classes("mp-strong")
                        note(person.email or "no e-mail")
                    name = f"{self._action} {person.name}"
                    button(self._action, partial(self._choose, person), kind="quiet", label=name)
            if page.total > MOST:
                note(f"and {page.total - MOST} more: type more of the name")
            if not page.items:
                note(f"No {self._role.value} matches.")

    async def _choose(self, person: PersonView) -> None:
        try:
            await self._chosen(person)
        except InvalidInput as error:
            self.fail(error.message)
