"""Forms and cards of the quiet pages: a label on every field, an error beside the field it is about."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import escape
from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement

from domain.access import Denied
from domain.clock import local_date
from domain.inputs import InvalidInput

_KINDS = {"primary": "m-primary", "quiet": "m-quiet", "danger": "m-primary m-danger"}
Submit = Callable[["Form"], Awaitable[None]]


class Form:
    """Some fields and their submit button. What the domain refuses is shown where it was typed."""

    def __init__(self) -> None:
        self._fields: dict[str, ValidationElement[Any]] = {}
        self._button: ui.button | None = None
        self._told: ui.label | None = None

    def input(
        self,
        name: str,
        label: str,
        value: str | None = "",
        *,
        hint: str = "",
        kind: str = "text",
        autocomplete: str = "off",
    ) -> ui.input:
        """One line of text; ``kind`` is the HTML type (text, email, search, date, time, number)."""
        field = ui.input(label, value=value or "").props(
            f'outlined type={kind} autocomplete={autocomplete} data-testid="field-{name}"'
        )
        if kind in ("date", "time"):
            field.props("stack-label")
        return self._add(name, field, hint)

    def password(self, name: str, label: str, *, autocomplete: str, hint: str = "") -> ui.input:
        """A password, with a button that shows it."""
        field = ui.input(label, password=True, password_toggle_button=True)
        field.props(f'outlined autocomplete={autocomplete} data-testid="field-{name}"')
        return self._add(name, field, hint)

    def select(
        self, name: str, label: str, options: Mapping[str, str], value: str | None, **more: Any
    ) -> ui.select:
        """One of some words."""
        field = ui.select(dict(options), label=label, value=value, **more)
        field.props(f'outlined options-dense data-testid="field-{name}"')
        self._fields[name] = field
        return field.classes("mp-field")

    def submit(self, text: str, handler: Submit, *, kind: str = "primary") -> ui.button:
        """The button, and under it the place where success is told."""

        async def send() -> None:
            await self._send(handler)

        self._button = button(text, send, kind=kind)
        self._told = ui.label("").classes("mp-told").props("role=status aria-live=polite")
        for field in self._fields.values():
            if isinstance(field, ui.input):
                field.on("keydown.enter", send)
        return self._button

    def __contains__(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._fields

    def value(self, name: str) -> Any:
        """What a field holds."""
        return self._fields[name].value

    def text(self, name: str) -> str:
        """What a field holds, as text; empty for nothing."""
        return str(self._fields[name].value or "")

    def number(self, name: str) -> int:
        """A whole number. Raises InvalidInput for anything else."""
        try:
            return int(self.text(name).strip())
        except ValueError:
            raise InvalidInput(name, "This must be a whole number.") from None

    def day(self, name: str) -> date:
        """A date. Raises InvalidInput for anything else."""
        try:
            return date.fromisoformat(self.text(name))
        except ValueError:
            raise InvalidInput(name, "Choose a date.") from None

    def clear(self) -> None:
        """Empty all fields of text."""
        for field in self._fields.values():
            if isinstance(field, ui.input):
                field.value = ""

    def done(self, text: str) -> None:
        """Say that it worked."""
        self._tell(text, is_error=False)

    def fail(self, text: str, name: str | None = None) -> None:
        """Say what is wrong: beside a field if it is one of this form's, else under the button."""
        field = self._fields.get(name or "")
        if field is None:
            self._tell(text, is_error=True)
            return
        field.error = text
        field.run_method("focus")

    async def _send(self, handler: Submit) -> None:
        if self._button is None or not self._button.enabled:
            return
        for field in self._fields.values():
            field.error = None
        self._tell("", is_error=False)
        self._button.disable()
        try:
            await handler(self)
        except InvalidInput as error:
            self.fail(error.message, error.field)
        except Denied as error:
            self.fail(_sentence(str(error)))
        finally:
            if not self._button.is_deleted:  # the handler may have built the page anew
                self._button.enable()

    def _tell(self, text: str, *, is_error: bool) -> None:
        if self._told is not None and not self._told.is_deleted:
            self._told.text = text
            self._told.classes(add="mp-failed" if is_error else "", remove="" if is_error else "mp-failed")

    def _add(self, name: str, field: ui.input, hint: str) -> ui.input:
        if hint:
            field.props["hint"] = hint
        self._fields[name] = field
        return field.classes("mp-field")


def heading(text: str, *, over: str = "") -> None:
    """The one h1 of a page."""
    with ui.element("div").classes("mp-heading"):
        if over:
            ui.label(over).classes("mp-over")
        ui.html(str(escape(text)), tag="h1", sanitize=False)


@contextlib.contextmanager
def card(title: str = "", *, testid: str = "") -> Iterator[ui.element]:
    """A panel with a title of its own."""
    with ui.element("section").classes("m-card mp-card") as panel:
        if testid:
            panel.props(f'data-testid="{testid}"')
        if title:
            ui.html(str(escape(title)), tag="h2", sanitize=False)
            panel.props["aria-label"] = title
        yield panel


def button(
    text: str,
    handler: Callable[[], Any] | None = None,
    *,
    kind: str = "primary",
    testid: str = "",
    label: str = "",
) -> ui.button:
    """A button; ``kind``: primary, quiet or danger; ``label``: its full name where ``text`` alone is not one."""
    made = ui.button(text, on_click=handler, color=None).props("no-caps unelevated").classes(_KINDS[kind])
    if testid:
        made.props["data-testid"] = testid
    if label:
        made.props["aria-label"] = label
    return made


def note(text: str) -> ui.label:
    """A quiet line of explanation."""
    return ui.label(text).classes("mp-soft")


def ask(title: str, text: str, *, action: str, handler: Submit, reason: str = "") -> None:
    """A question before something that others will notice; ``reason`` is the label of a field for one.

    ``handler`` runs when it is confirmed; the dialog stays open when it raises, with the error in it.
    """

    async def confirmed(form: Form) -> None:
        await handler(form)
        dialog.close()

    with (
        ui.dialog() as dialog,
        ui.card().classes("mp-dialog").props("role=alertdialog") as panel,
    ):
        panel.props["aria-label"] = title
        ui.html(str(escape(title)), tag="h2", sanitize=False)
        ui.label(text)
        form = Form()
        if reason:
            form.input("reason", reason)
        with ui.element("div").classes("mp-dialog-actions"):
            button("Keep it as it is", dialog.close, kind="quiet")
            form.submit(action, confirmed, kind="danger")
    dialog.on("hide", dialog.delete)
    dialog.open()


def when(at: datetime, zone: str, now: datetime) -> str:
    """A past or coming instant for people: today's time, else the date with it."""
    local = at.astimezone(ZoneInfo(zone))
    time = f"{local.hour}:{local.minute:02d}"
    if local_date(at, zone) == local_date(now, zone):
        return f"today {time}"
    year = "" if local.year == now.year else f" {local.year}"
    return f"{local.day} {local:%b}{year} {time}"


def span(begins_at: datetime, ends_at: datetime | None, zone: str, now: datetime) -> str:
    """An interval for people: whole days as days, the last one included."""
    since = f"since {_edge(begins_at, zone, now)}"
    if ends_at is None:
        return since
    local = ends_at.astimezone(ZoneInfo(zone))
    is_midnight = (local.hour, local.minute) == (0, 0)
    return f"{since}, until {_edge(ends_at - timedelta(days=1) if is_midnight else ends_at, zone, now)}"


def _edge(at: datetime, zone: str, now: datetime) -> str:
    local = at.astimezone(ZoneInfo(zone))
    words = when(at, zone, now)
    if (local.hour, local.minute) == (0, 0):
        words = words.removesuffix(" 0:00")
    return words


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
