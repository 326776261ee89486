"""Reading tables that other programs wrote: any encoding, any delimiter, and every problem by its line.

Nothing here raises for what a file holds. What cannot be read is a Problem with the line that a text
editor shows, and reading goes on behind it, so that one look at the list is enough.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from domain.inputs import shown

MAX_ROWS = 250_000
MAX_LINES = 1_000_000
MAX_LISTED = 20_000  # problems kept in full; the rest is counted
_MAX_COLUMNS = 500
_DELIMITERS = ",;\t|"
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_MAGIC = {
    b"PK\x03\x04": "a zip or Excel file (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip file",
}
_SAVE_AS = "Save it as “CSV UTF-8” in the spreadsheet program and upload that."
_MOST_CONTROLS = 0.02  # of the characters; random bytes have 0.1, a text with a few stray ones far less


class Severity(StrEnum):
    """An error keeps its row out of the import; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Place:
    """A row of an uploaded file. ``line`` is where it begins, as an editor counts; None: the file itself."""

    file: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in an uploaded file, where, and what to do about it."""

    file: str
    line: int | None
    column: str  # "" when it is about the whole row or file
    severity: Severity
    message: str
    hint: str


@dataclass(slots=True)
class Findings:
    """The problems found so far. Errors and warnings are counted in full even where the list is cut."""

    problems: list[Problem] = field(default_factory=list)
    error_count: int = 0
    warning_count: int = 0

    def error(self, place: Place, column: str, message: str, hint: str) -> None:
        """Note what keeps a row, or a file, out."""
        self.error_count += 1
        self._add(Problem(place.file, place.line, column, Severity.ERROR, message, hint))

    def warn(self, place: Place, column: str, message: str, hint: str) -> None:
        """Note what is worth a look and keeps nothing out."""
        self.warning_count += 1
        self._add(Problem(place.file, place.line, column, Severity.WARNING, message, hint))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) < MAX_LISTED:
            self.problems.append(problem)

    @property
    def unlisted_count(self) -> int:
        """How many problems are counted but not in the list."""
        return self.error_count + self.warning_count - len(self.problems)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands and its cells by column; spaces at the ends are gone."""

    place: Place
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


@dataclass(slots=True)
class Sheet:
    """A table as it was read. ``is_whole``: no row was lost, so what is not in it is really missing."""

    file: str
    columns: frozenset[str] = frozenset()
    rows: list[Row] = field(default_factory=list)
    is_whole: bool = True


def column_key(name: str) -> str:
    """The spelling under which a column is looked up: case, spaces and dashes do not matter."""
    return re.sub(r"[\s\-]+", "_", name.strip().strip("\ufeff").lower())


def read_sheet(
    file: str,
    data: bytes,
    *,
    known: Mapping[str, str],
    required: Collection[Collection[str]],
    are_unknown_reported: bool,
    findings: Findings,
) -> Sheet | None:
    """The table in a file, or None when there is nothing to read (the findings say why).

    ``known`` gives the name of a column for each spelling (``column_key``) of it; other columns are
    left out. Of each group in ``required`` one column must be there. The delimiter is the one that
    gives the most known columns.
    """
    text = _decode(file, data, findings)
    if text is None:
        return None
    if text.count("\n") + text.count("\r") > 2 * MAX_LINES:
        message = f"The file has more than {MAX_LINES:,} lines."
        findings.error(Place(file), "", message, "Split the file.")
        return None
    lines = list(io.StringIO(text, newline=""))  # ends lines at LF, CRLF and CR, like editors and csv do
    start, delimiter = _delimiter(lines, known)
    records = _records(lines, start, delimiter)
    header_at, header = next(((at, cells) for at, cells in records if not _is_blank(cells)), (1, None))
    if header is None:
        message = "The file is empty." if not text.strip() else "The file has no row that can be read."
        findings.error(Place(file), "", message, f"Its first line names the columns: {_names(known)}.")
        return None
    place = Place(file, header_at)
    columns = _columns(place, header, known, are_unknown_reported, findings)
    if columns is None:
        return None
    missing = [group for group in required if not set(group) & set(columns.values())]
    if missing:
        wanted = ", ".join(" or ".join(group) for group in missing)
        findings.error(
            place,
            "",
            f"The header has no column {wanted}.",
            f"Known columns are {_names(known)}; any order will do.",
        )
        return None
    width = len(header) if isinstance(header, list) else 0
    return _rows(file, records, columns, width, delimiter, findings)


def _rows(
    file: str,
    records: Iterator[tuple[int, list[str] | str]],
    columns: Mapping[int, str],
    width: int,
    delimiter: str,
    findings: Findings,
) -> Sheet:
    sheet = Sheet(file, frozenset(columns.values()))
    for line, cells in records:
        place = Place(file, line)
        if isinstance(cells, str):
            sheet.is_whole = False
            findings.error(
                place, "", cells, 'Close each quotation mark; write a quotation mark in a text twice ("").'
            )
            continue
        if _is_blank(cells):
            continue
        if any(cell.strip() for cell in cells[width:]):
            sheet.is_whole = False
            findings.error(
                place,
                "",
                f"The row has {len(cells)} cells, but the header names {width}.",
                'Put a text that holds the delimiter in quotation marks: "Upper, North".',
            )
            continue
        row = {name: cells[index].strip() for index, name in columns.items() if index < len(cells)}
        swallowed = next((n for n, c in row.items() if delimiter in c and ("\n" in c or "\r" in c)), None)
        if swallowed is not None:
            sheet.is_whole = False
            findings.error(
                place,
                swallowed,
                f"{swallowed} runs over several rows: a quotation mark is opened in this row and not closed.",
                "Close the quotation mark or take it out.",
            )
            continue
        garbled = next((name for name, cell in row.items() if "\ufffd" in cell), None)
        if garbled is not None:
            sheet.is_whole = False
            findings.error(
                place,
                garbled,
                f"{garbled} holds a character that cannot be read: {shown(row[garbled])}.",
                _SAVE_AS,
            )
            continue
        if len(sheet.rows) == MAX_ROWS:
            sheet.is_whole = False
            findings.error(
                place,
                "",
                f"The file has more than {MAX_ROWS:,} rows; reading stopped here.",
                "Split the file.",
            )
            break
        sheet.rows.append(Row(place, row))
    return sheet


def _records(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line, cells) of each record, or (line, what is broken); behind that the next line begins anew."""
    position = start
    reread_count = 0

    def feed() -> Iterator[str]:
        nonlocal position
        while position < len(lines):
            position += 1
            yield lines[position - 1]

    while position < len(lines):
        reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        while True:
            begin = position
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield begin + 1, _quoting(str(error), position - begin)
                reread_count += position - begin - 1
                position = begin + 1
                break
            yield begin + 1, cells
        if reread_count > 3 * len(lines) + 1000:  # one unclosed quotation mark after another: no end in sight
            yield (
                position + 1,
                "The rest of the file cannot be read: too many quotation marks are not closed.",
            )
            return


def _quoting(error: str, line_count: int) -> str:
    if "expected after" in error:
        return "A quotation mark is followed by more text instead of the next cell."
    if line_count > 1 or "end of data" in error:
        return "A quotation mark is opened in this row and never closed."
    return "The row cannot be read as cells: one of them is too long."


def _delimiter(lines: list[str], known: Mapping[str, str]) -> tuple[int, str]:
    """Where the header begins (an Excel ``sep=`` line is stepped over) and what stands between cells."""
    start = next((i for i, line in enumerate(lines) if line.strip(' \t\r\n,;|"')), 0)
    if start < len(lines) and (told := _EXCEL_HINT.fullmatch(lines[start])) and told[1] in _DELIMITERS:
        return start + 1, told[1]

    def known_count(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader(lines[start : start + 1], delimiter=delimiter), [])
        return sum(column_key(cell) in known for cell in cells), len(cells)

    try:
        return start, max(_DELIMITERS, key=known_count)
    except csv.Error:  # one cell of more than 131,072 characters
        return start, ","


def _columns(
    place: Place,
    header: list[str] | str,
    known: Mapping[str, str],
    are_unknown_reported: bool,
    findings: Findings,
) -> dict[int, str] | None:
    """The known columns by position; None when the header cannot be used."""
    if isinstance(header, str) or len(header) > _MAX_COLUMNS:
        message = header if isinstance(header, str) else f"The header names {len(header)} columns."
        findings.error(place, "", message, f"The first line names the columns: {_names(known)}.")
        return None
    columns: dict[int, str] = {}
    is_usable = True
    for index, title in enumerate(header):
        name = known.get(column_key(title))
        if name is None:
            if title.strip() and are_unknown_reported:
                unknown = " ".join(title.split())[:60]
                findings.warn(
                    place,
                    unknown,
                    f"The column “{unknown}” is not known and is ignored.",
                    f"Known are {_names(known)}.",
                )
        elif name in columns.values():
            is_usable = False
            findings.error(place, name, f"The column {name} is there twice.", "Take one of the two out.")
        else:
            columns[index] = name
    return columns if is_usable else None


def _decode(file: str, data: bytes, findings: Findings) -> str | None:
    place = Place(file)
    if not data.strip():
        findings.error(place, "", "The file is empty.", "Upload the file again; it may have been cut off.")
        return None
    if kind := next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None):
        findings.error(place, "", f"This is {kind}, not a CSV file.", _SAVE_AS)
        return None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")
        if "\ufffd" in text and _is_windows_text(data, text):
            text = data.decode("cp1252", errors="replace")
            findings.warn(
                place,
                "",
                "The file is not UTF-8; it was read as Windows-1252 (Western European).",
                f"Look at names with accents. If they are wrong: {_SAVE_AS}",
            )
    sample = text[:200_000]
    control_count = sum(1 for c in sample if c < " " and c not in "\t\r\n")
    if control_count + sample.count("\ufffd") > max(4, _MOST_CONTROLS * len(sample)):
        findings.error(place, "", "This is not a text file.", _SAVE_AS)
        return None
    return text


def _is_windows_text(data: bytes, as_utf8: str) -> bool:
    """Whether bytes that are not UTF-8 are rather Windows-1252 than UTF-8 with a few broken characters."""
    good = sum(1 for c in as_utf8 if c > "\x7f" and c != "\ufffd")
    return as_utf8.count("\ufffd") > good and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", data)


def _is_blank(cells: list[str] | str) -> bool:
    return not isinstance(cells, str) and not any(cell.strip() for cell in cells)


def _names(known: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(known.values()))
