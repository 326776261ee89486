"""/account: the own name and language, the password, and where one is logged in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from nicegui import background_tasks, ui

from domain import people, school
from domain.access import Denied
from domain.inputs import InvalidInput
from domain.logins import LoginEntry, LoginRefused, LoginView
from domain.muster import Muster
from ui.answers import rate_limited
from ui.forms import Form, button, card, heading, note, when

_LANGUAGES = {
    "en": "English",
    "de": "Deutsch",
    "fr": "Français",
    "es": "Español",
    "tr": "Türkçe",
    "ar": "العربية",
    "uk": "Українська",
}


class AccountPage:
    """One person's open account page."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._zone = "UTC"

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        person = await self._muster.store.read(lambda conn: people.find_person(conn, self._login.person_id))
        found = await self._muster.store.read(school.read_school)
        self._zone = found.zone if found else "UTC"
        if person is None:
            return
        heading("My account")
        with card("You"):
            ui.label(person.name).classes("mp-strong")
            note(person.email or "No e-mail")
            note("A name or e-mail is corrected by an admin of the school.")
            form = Form()
            form.select(
                "language",
                "Language",
                _LANGUAGES | {person.language: _LANGUAGES.get(person.language, person.language)},
                person.language,
            )
            note("Muster's own words are in English for now; your choice is kept for messages to you.")
            form.submit("Save language", self._save_language)
        with card("Password"):
            note("Changing it logs you out everywhere else.")
            form = Form()
            form.password("old", "Present password", autocomplete="current-password")
            form.password("new", "New password", autocomplete="new-password", hint="At least 8 characters")
            form.submit("Change password", self._change_password)
        with card("Where you are logged in"):
            note("Ending a log-in takes effect on that device at once.")
            self._list = ui.element("ul").classes("mp-logins").props('data-testid="logins"')
            self._end_others = button("End all others", self._end_all_others, kind="quiet")
        client = ui.context.client
        stop = self._muster.logins.on_revoked(lambda ended: self._on_revoked(ended))
        client.on_delete(stop)
        self._client = client
        await self._show_logins()

    async def _save_language(self, form: Form) -> None:
        language = form.text("language")
        author = self._login.author
        await self._muster.store.write(lambda conn: people.choose_language(conn, author, language))
        form.done("Saved.")

    async def _change_password(self, form: Form) -> None:
        try:
            await self._muster.logins.change_password(
                self._login.person_id, form.text("old"), form.text("new"), self._login.login_id
            )
        except LoginRefused as refused:
            is_limit = refused.code == "rate_limited"
            raise InvalidInput(
                "old", rate_limited(refused.retry_after) if is_limit else "This is not your present password."
            ) from refused
        form.clear()
        form.done("Your password is changed. All other log-ins have ended.")

    def _on_revoked(self, ended: Sequence[str]) -> None:
        if self._login.login_id not in ended and not self._client.is_deleted:
            background_tasks.create(self._show_logins(), name="list of log-ins")

    async def _show_logins(self) -> None:
        entries = await self._muster.logins.logins_of(self._login.person_id, self._login.login_id)
        with self._client:
            self._list.clear()
            with self._list:
                for entry in entries:
                    self._show_login(entry)
            self._end_others.set_visibility(len(entries) > 1)

    def _show_login(self, entry: LoginEntry) -> None:
        with (
            ui.element("li")
            .classes("mp-login")
            .props(f'data-testid="login-{entry.id}" data-current="{str(entry.is_current).lower()}"')
        ):
            with ui.element("div"):
                ui.label(entry.device or "Unknown device").classes("mp-strong")
                note(f"Since {self._when(entry.created_at)}, last seen {self._when(entry.seen_at)}")
            if entry.is_current:
                ui.label("This device").classes("mp-tag")
            else:
                name = f"End the log-in on {entry.device or 'unknown device'}"
                button("End", partial(self._end, entry.id), kind="quiet", label=name)

    async def _end(self, login_id: str) -> None:
        try:
            await self._muster.logins.revoke(login_id, self._login.author)
        except Denied as denied:
            ui.notify(str(denied), type="negative")
        await self._show_logins()

    async def _end_all_others(self) -> None:
        author = self._login.author
        await self._muster.logins.revoke_all(
            author.person_id or "", except_login_id=self._login.login_id, by=author
        )
        await self._show_logins()

    def _when(self, at: datetime) -> str:
        return when(at, self._zone, self._muster.clock.now())
