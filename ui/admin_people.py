"""/admin/people: the list of everybody, and one person with everything an admin may change."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from markupsafe import Markup
from nicegui import ui
from sqlalchemy import Connection

from domain import people, school, sections
from domain.inputs import InvalidInput
from domain.lists import PAGE, Page
from domain.logins import LoginView
from domain.model import Role
from domain.muster import Muster
from domain.people import PersonView
from domain.sections import EnrolmentView
from domain.standings import require_admin
from ui.forms import Form, ask, button, card, heading, note, span

ROLES = {role.value: role.value.capitalize() for role in Role}
_ANY = {"": "Every role"} | ROLES


class PeoplePage:
    """The list, with a search that waits until the typing pauses."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._offset = 0

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        with ui.element("div").classes("mp-head-row"):
            heading("People")
            button("Add a person", lambda: ui.navigate.to("/admin/people/new"), testid="add-person")
        with ui.element("div").classes("mp-filters").props("role=search"):
            self._search = ui.input("Search by name or e-mail").props(
                'outlined type=search debounce=250 clearable data-testid="search"'
            )
            self._role = ui.select(dict(_ANY), label="Role", value="").props("outlined options-dense")
            self._inactive = ui.checkbox("Also those without access")
        self._count = (
            ui.label("").classes("mp-soft").props('role=status aria-live=polite data-testid="count"')
        )
        self._list = ui.html("", sanitize=False)
        with ui.element("div").classes("mp-pager"):
            self._back = button("Previous", partial(self._turn, -PAGE), kind="quiet")
            self._on = button("Next", partial(self._turn, PAGE), kind="quiet")
        for field in (self._search, self._role, self._inactive):
            field.on_value_change(self._start_over)
        await self._show()

    async def _start_over(self) -> None:
        self._offset = 0
        await self._show()

    async def _turn(self, by: int) -> None:
        self._offset = max(0, self._offset + by)
        await self._show()

    async def _show(self) -> None:
        now, search = self._muster.clock.now(), str(self._search.value or "")
        role = Role(self._role.value) if self._role.value else None
        is_active, offset, author = None if self._inactive.value else True, self._offset, self._login.author
        try:
            found: Page[PersonView] = await self._muster.store.read(
                lambda conn: people.list_people(
                    conn, author, now=now, search=search, role=role, is_active=is_active, offset=offset
                )
            )
        except InvalidInput as error:
            self._search.error = error.message
            return
        last = min(found.total, self._offset + len(found.items))
        self._count.text = (
            f"{self._offset + 1}–{last} of {found.total} people" if found.items else "Nobody matches."
        )
        self._list.content = _people_html(found.items)
        self._back.set_visibility(self._offset > 0)
        self._on.set_visibility(last < found.total)


class NewPersonPage:
    """A form for somebody new."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        heading("Add a person", over="People")
        with card():
            form = Form()
            form.input("given_name", "Given name", hint="People with a single name: put it here")
            form.input("family_name", "Family name")
            form.input("email", "E-mail", kind="email", hint="Needed for logging in")
            form.select("role", "Role", ROLES, Role.STUDENT.value)
            form.password(
                "password",
                "First password",
                autocomplete="new-password",
                hint="May stay empty: then there is no log-in yet",
            )
            form.submit("Add", self._add)

    async def _add(self, form: Form) -> None:
        now, author, password = self._muster.clock.now(), self._login.author, form.text("password")
        names = form.text("given_name"), form.text("family_name")
        email, role = form.text("email"), Role(form.value("role"))
        password_hash = None
        if password:
            if not email.strip():
                raise InvalidInput("email", "A password needs an e-mail to log in with.")
            password_hash = await self._muster.logins.hash_new_password(password, about=(email, *names))
        person = await self._muster.store.write(
            lambda conn: people.create_person(
                conn,
                author,
                now=now,
                role=role,
                given_name=names[0],
                family_name=names[1],
                email=email or None,
                password_hash=password_hash,
            )
        )
        ui.navigate.to(f"/admin/people/{person.id}")


class PersonPage:
    """One person."""

    def __init__(self, muster: Muster, login: LoginView, person_id: str) -> None:
        self._muster = muster
        self._login = login
        self._person_id = person_id
        self._zone = "UTC"

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        self._frame = ui.element("div").classes("mp-stack")
        await self._show()

    async def _show(self) -> None:
        now, person_id, author = self._muster.clock.now(), self._person_id, self._login.author

        def read(conn: Connection) -> tuple[PersonView | None, list[EnrolmentView], list[PersonView], str]:
            require_admin(conn, author, now)
            person = people.find_person(conn, person_id)
            if person is None:
                return None, [], [], "UTC"
            related = (
                people.guardians_of(conn, person_id)
                if person.role is Role.STUDENT
                else people.students_of(conn, person_id)
            )
            found = school.read_school(conn)
            return (
                person,
                sections.enrolments_of(conn, author, person_id, now=now),
                related,
                found.zone if found else "UTC",
            )

        person, enrolments, related, self._zone = await self._muster.store.read(read)
        self._frame.clear()
        with self._frame:
            if person is None:
                heading("No such person", over="People")
                ui.link("Back to the list", "/admin/people")
                return
            heading(person.name, over="People")
            if not person.is_active:
                ui.label("This person has no access at the moment.").classes("mp-banner")
            with ui.element("div").classes("mp-two"):
                with ui.element("div").classes("mp-stack"):
                    self._facts(person)
                    self._password(person)
                with ui.element("div").classes("mp-stack"):
                    self._enrolments(enrolments, now)
                    self._family(person, related)
                    self._access(person)

    def _facts(self, person: PersonView) -> None:
        with card("Name and role"):
            form = Form()
            form.input("given_name", "Given name", person.given_name)
            form.input("family_name", "Family name", person.family_name)
            form.input("email", "E-mail", person.email, kind="email")
            form.select("role", "Role", ROLES, person.role.value)
            form.input(
                "source_id",
                "Key in the roster system",
                person.source_id,
                hint="Matches this person at the next import",
            )
            note("Another role ends this person's log-ins at once.")
            form.submit("Save", self._save)

    async def _save(self, form: Form) -> None:
        await self._muster.logins.update_person(
            self._login.author,
            self._person_id,
            given_name=form.text("given_name"),
            family_name=form.text("family_name"),
            email=form.text("email") or None,
            role=Role(form.value("role")),
            source_id=form.text("source_id") or None,
        )
        form.done("Saved.")

    def _password(self, person: PersonView) -> None:
        with card("Password"):
            note(
                "Setting one ends all log-ins of this person."
                if person.has_password
                else "There is no password yet."
            )
            form = Form()
            form.password(
                "password", "New password", autocomplete="new-password", hint="At least 8 characters"
            )
            form.submit("Set password", self._set_password, kind="quiet")

    async def _set_password(self, form: Form) -> None:
        await self._muster.logins.set_password(self._login.author, self._person_id, form.text("password"))
        form.clear()
        form.done("The new password holds from now on.")

    def _enrolments(self, enrolments: list[EnrolmentView], now: datetime) -> None:
        with card("Classes"):
            if not enrolments:
                note("In no class. Add people to a class from the class's page.")
            rows = Markup("").join(
                Markup(
                    '<li><a href="/admin/sections/{}"><span class="mr-what"><b>{}</b><small>{}</small></span></a></li>'
                ).format(
                    e.section_id,
                    e.section_title,
                    f"{e.section_code} · {e.role.replace('_', ' ')} · {span(e.begins_at, e.ends_at, self._zone, now)}",
                )
                for e in enrolments
            )
            ui.html(str(Markup('<ul class="mp-running">{}</ul>').format(rows)), sanitize=False)

    def _family(self, person: PersonView, related: list[PersonView]) -> None:
        if person.role not in (Role.STUDENT, Role.GUARDIAN):
            return
        is_student = person.role is Role.STUDENT
        with card("Guardians" if is_student else "Children"):
            for other in related:
                with ui.element("div").classes("mp-line"):
                    ui.link(other.name, f"/admin/people/{other.id}")
                    button("Remove", partial(self._unlink, other), kind="quiet", label=f"Remove {other.name}")
            form = Form()
            form.input(
                "other", "E-mail of the guardian" if is_student else "E-mail of the student", kind="email"
            )
            form.submit(
                "Add guardian" if is_student else "Add child", partial(self._link, is_student), kind="quiet"
            )

    async def _link(self, is_student: bool, form: Form) -> None:
        now, author, email = self._muster.clock.now(), self._login.author, form.text("other")

        def work(conn: Connection) -> None:
            other = people.find_by_email(conn, email)
            if other is None:
                raise InvalidInput("other", "Nobody has this e-mail. Add the person first.")
            pair = (other.id, self._person_id) if is_student else (self._person_id, other.id)
            try:
                people.add_guardian(conn, author, guardian_id=pair[0], student_id=pair[1], now=now)
            except InvalidInput as error:
                raise InvalidInput("other", error.message) from error

        await self._muster.store.write(work)
        await self._show()

    async def _unlink(self, other: PersonView) -> None:
        now, author = self._muster.clock.now(), self._login.author
        is_guardian = other.role is not Role.STUDENT
        pair = (other.id, self._person_id) if is_guardian else (self._person_id, other.id)
        await self._muster.store.write(
            lambda conn: people.remove_guardian(
                conn, author, guardian_id=pair[0], student_id=pair[1], now=now
            )
        )
        await self._show()

    def _access(self, person: PersonView) -> None:
        with card("Access"):
            if person.is_active:
                note("Takes away every log-in at once. What the person did and what was recorded stays.")
                button(
                    "Take access away",
                    partial(self._ask_deactivate, person),
                    kind="danger",
                    testid="deactivate",
                )
            else:
                note("Gives access back, with the password as it was.")
                button("Give access back", self._reactivate, testid="reactivate")

    def _ask_deactivate(self, person: PersonView) -> None:
        async def confirmed(_form: Form) -> None:
            await self._muster.logins.deactivate_person(self._login.author, self._person_id)
            with self._frame:
                await self._show()

        ask(
            f"Take access away from {person.name}?",
            "Every device is logged out at once. You can give access back later.",
            action="Take access away",
            handler=confirmed,
        )

    async def _reactivate(self) -> None:
        now, author, person_id = self._muster.clock.now(), self._login.author, self._person_id
        await self._muster.store.write(
            lambda conn: people.reactivate_person(conn, author, person_id, now=now)
        )
        await self._show()


def _people_html(found: list[PersonView]) -> str:
    rows = Markup("").join(
        Markup(
            '<li data-testid="person-{}"><a href="/admin/people/{}"><span class="mr-what"><b>{}</b><small>{}</small></span>'
            '<span class="mp-tag">{}</span></a></li>'
        ).format(
            p.id,
            p.id,
            p.name,
            p.email or "no e-mail",
            p.role.value.capitalize() if p.is_active else "No access",
        )
        for p in found
    )
    return str(Markup('<ul class="mp-running">{}</ul>').format(rows))
