"""/admin/import: upload a file, look at what it would do and at every problem by line, then apply it."""

from __future__ import annotations

from markupsafe import Markup
from nicegui import events, ui
from sqlalchemy import Connection

from domain import roster_import
from domain.logins import LoginView
from domain.muster import Muster
from domain.roster_import import Action, Change, Counts, ImportPlan, ImportRefused, Problem, Severity, Thing
from domain.roster_table import COLUMNS
from ui.forms import button, card, heading, note

PROBLEMS_SHOWN = 300
CHANGES_SHOWN = 200
_THINGS = {
    Thing.PERSON: "People",
    Thing.SECTION: "Classes",
    Thing.ENROLMENT: "Enrolments",
    Thing.GUARDIANSHIP: "Guardians",
}


class ImportPage:
    """One admin's import. The plan lives with this page and is forgotten with it."""

    def __init__(self, muster: Muster, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._plan: ImportPlan | None = None
        self._problems_shown = PROBLEMS_SHOWN

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        heading("Import people and classes")
        with card("1. Choose a file"):
            note(
                "A CSV from a spreadsheet, or a OneRoster 1.1 or 1.2 zip. Nothing is changed before you have seen what it would do."
            )
            upload = (
                ui.upload(
                    auto_upload=True,
                    max_file_size=roster_import.MAX_UPLOAD_BYTES + 1_000_000,
                    on_upload=self._uploaded,
                    on_rejected=self._refused,
                )
                .props(
                    'accept=".csv,.zip,text/csv,application/zip" data-testid="import-file" aria-hidden=true'
                )
                .classes("m-out-of-sight")
            )
            choose = button("Choose a file", testid="import-choose")
            choose.on("click", js_handler=f"() => getElement({upload.id}).$refs.qRef.pickFiles()")
            self._told_file = ui.label("CSV or zip, at most 10 MB").classes("mp-soft").props("role=status")
            with ui.expansion("Which columns can a CSV have?").classes("mp-more"):
                ui.label("One row for each person and class. The first row names the columns, in any order:")
                ui.html(
                    str(
                        Markup('<p class="mp-columns">{}</p>').format(
                            Markup(" ").join(Markup("<code>{}</code>").format(c) for c in COLUMNS)
                        )
                    ),
                    sanitize=False,
                )
                note(
                    "role is student, teacher, co_teacher, substitute or guardian; dates are written 2026-09-07. A CSV adds and changes, it never takes anybody out."
                )
        self._result = (
            ui.element("div")
            .classes("mp-stack")
            .props('role=status aria-live=polite data-testid="import-result"')
        )

    async def _uploaded(self, event: events.UploadEventArguments) -> None:
        data, name = await event.file.read(), event.file.name
        now, author = self._muster.clock.now(), self._login.author
        self._problems_shown = PROBLEMS_SHOWN
        self._plan = await self._muster.store.read(
            lambda conn: roster_import.plan_import(conn, author, data, filename=name, now=now)
        )
        event.sender.run_method("reset")
        self._show(self._plan)

    def _refused(self) -> None:
        self._told_file.text = "That file is not a CSV or zip of at most 10 MB. Nothing was read."

    def _show(self, plan: ImportPlan) -> None:
        self._result.clear()
        with self._result:
            with card(f"2. What {plan.filename} would do", testid="import-plan"):
                ui.label(_verdict(plan)).classes("mp-strong").props('data-testid="import-verdict"')
                if plan.is_readable:
                    ui.html(_counts_html(plan.counts), sanitize=False)
                    if plan.changes:
                        with ui.expansion(f"See each change ({len(plan.changes)})").classes("mp-more"):
                            ui.html(_changes_html(plan.changes), sanitize=False)
            if plan.problems:
                with card(f"Problems ({plan.error_count + plan.warning_count})", testid="import-problems"):
                    note(
                        "An error leaves its row out; a warning leaves nothing out. Correct the file and upload it again, or go on without those rows."
                    )
                    self._problems = ui.html(
                        _problems_html(plan.problems[: self._problems_shown]), sanitize=False
                    )
                    if len(plan.problems) > self._problems_shown:
                        button("Show all problems", self._show_all_problems, kind="quiet")
            if plan.is_readable and not plan.is_empty:
                with card("3. Apply"):
                    self._skip = None
                    if plan.has_errors:
                        self._skip = ui.checkbox(
                            f"Leave out the rows with errors ({plan.error_count})"
                        ).props('data-testid="import-skip"')
                    self._apply = button("Apply the import", self._apply_plan, testid="import-apply")
                    self._told = ui.label("").classes("mp-told mp-failed").props("role=alert")

    def _show_all_problems(self) -> None:
        assert self._plan is not None
        self._problems_shown = len(self._plan.problems)
        self._problems.content = _problems_html(self._plan.problems)

    async def _apply_plan(self) -> None:
        plan, author, now = self._plan, self._login.author, self._muster.clock.now()
        if plan is None:
            return
        skip = bool(self._skip and self._skip.value)
        self._apply.disable()

        def work(conn: Connection) -> roster_import.ImportResult:
            return roster_import.apply_import(conn, author, plan, now=now, skip_bad_rows=skip)

        try:
            result = await self._muster.store.write(work)
        except ImportRefused as refused:
            self._told.text = refused.message
            self._apply.enable()
            return
        self._muster.logins.tell_ended(result.ended_logins)
        self._plan = None
        self._result.clear()
        with self._result, card("Done", testid="import-done"):
            ui.label("The import is applied.").classes("mp-strong")
            ui.html(_counts_html(result.counts), sanitize=False)
            if result.skipped_count:
                note(f"{result.skipped_count} errors: their rows were left out.")
            note("Imported people cannot log in until a password is set for them.")
            ui.link("See the people", "/admin/people")
            ui.link("See the classes", "/admin/sections")


def _verdict(plan: ImportPlan) -> str:
    if not plan.is_readable:
        return "This file cannot be read. The list below says why."
    words = []
    if plan.has_errors:
        words.append(
            f"{plan.error_count} {'row has an error' if plan.error_count == 1 else 'errors were found'}."
        )
    if plan.is_empty:
        words.append("The school is already as this file says: there is nothing to do.")
    elif not plan.has_errors:
        words.append("No errors. This is what would change:")
    else:
        words.append("Without the rows with errors this would change:")
    return " ".join(words)


def _counts_html(counts: dict[Thing, Counts]) -> str:
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>').format(
            _THINGS[thing], c.create, c.update, c.deactivate, c.unchanged
        )
        for thing, c in counts.items()
    )
    return str(
        Markup(
            '<table class="mp-counts"><thead><tr><th scope="col"><span class="m-out-of-sight">What</span></th><th scope="col">New</th>'
            '<th scope="col">Changed</th><th scope="col">Ended</th><th scope="col">Same</th></tr></thead><tbody>{}</tbody></table>'
        ).format(rows)
    )


def _changes_html(changes: tuple[Change, ...]) -> str:
    words = {Action.CREATE: "New", Action.UPDATE: "Changed", Action.DEACTIVATE: "Ended"}
    rows = Markup("").join(
        Markup('<li><span class="mp-tag">{}</span> <b>{}</b> <small>{}</small></li>').format(
            words[change.action], change.label, " · ".join(_details(change))
        )
        for change in changes[:CHANGES_SHOWN]
    )
    rest = len(changes) - CHANGES_SHOWN
    more = Markup("<li>and {} more</li>").format(rest) if rest > 0 else Markup("")
    return str(Markup('<ul class="mp-changes">{}{}</ul>').format(rows, more))


def _details(change: Change) -> list[str]:
    told = [f"line {change.line}"] if change.line else []
    for field in change.fields:
        name = field.field.replace("_", " ")
        if change.action is Action.CREATE:
            if field.after:
                told.append(f"{name} {field.after}")
        else:
            told.append(f"{name}: {field.before or 'nothing'} → {field.after or 'nothing'}")
    return told


def _problems_html(problems: tuple[Problem, ...]) -> str:
    files = {p.file for p in problems}
    rows = Markup("").join(
        Markup(
            '<li class="mp-problem" data-testid="problem" data-line="{}" data-severity="{}"><span class="mp-where">{}</span>'
            "<span><b>{}: {}</b><small>{}</small></span></li>"
        ).format(
            p.line or "",
            p.severity.value,
            _where(p, with_file=len(files) > 1),
            "Error" if p.severity is Severity.ERROR else "Warning",
            p.message,
            p.hint,
        )
        for p in problems
    )
    return str(Markup('<ul class="mp-problems">{}</ul>').format(rows))


def _where(problem: Problem, *, with_file: bool) -> str:
    parts = [problem.file] if with_file or problem.line is None else []
    if problem.line is not None:
        parts.append(f"line {problem.line}")
    if problem.column:
        parts.append(problem.column)
    return ", ".join(parts)
