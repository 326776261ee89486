"""Reading our own Markdown: headings with the tables, examples and links under them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

Row = dict[str, str]
_FENCE = "```"


@dataclass(slots=True)
class Part:
    """What stands under one heading, up to the next."""

    title: str
    tables: list[list[Row]] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)  # (language, text)

    def table(self, *columns: str) -> list[Row]:
        """The one table whose columns begin with these."""
        found = [rows for rows in self.tables if tuple(rows[0])[: len(columns)] == columns]
        assert len(found) == 1, f"{self.title}: {len(found)} tables begin with {columns}"
        return found[0]

    def example(self, language: str) -> str:
        """The one example in a language."""
        found = [text for written, text in self.examples if written == language]
        assert len(found) == 1, f"{self.title}: {len(found)} examples in {language}"
        return found[0]


def read(path: Path) -> dict[str, Part]:
    """The parts of a document by their headings, which must not repeat."""
    parts = {"": Part("")}
    part, fence, table = parts[""], None, list[str]()
    example: list[str] = []
    for line in [*path.read_text().splitlines(), ""]:
        if fence is not None:
            if line == _FENCE:
                part.examples.append((fence, "\n".join(example)))
                fence = None
            else:
                example.append(line)
            continue
        if line.startswith("|"):
            table.append(line)
            continue
        if table:
            part.tables.append(_rows(table))
            table = []
        if heading := re.fullmatch(r"#+ (.+)", line):
            part = Part(heading[1])
            assert part.title not in parts, f"two headings {part.title!r}"
            parts[part.title] = part
        elif line.startswith(_FENCE):
            fence, example = line.removeprefix(_FENCE), []
    assert fence is None, "an example that does not end"
    return parts


def codes(cell: str) -> list[str]:
    """What is set as code in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def code(cell: str) -> str:
    """The one thing that is set as code in a cell, and all there is in it."""
    assert len(codes(cell)) == 1 and cell == f"`{codes(cell)[0]}`", cell
    return codes(cell)[0]


def anchors(text: str) -> list[str]:
    """The parts of its own document that a text links to."""
    return re.findall(r"\]\(#([^)]+)\)", text)


def anchor(title: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def number(cell: str) -> float:
    """A number as people write it: 12,000."""
    return float(cell.replace(",", ""))


def _rows(lines: list[str]) -> list[Row]:
    columns, _, *rows = (_cells(line) for line in lines)
    assert rows, f"an empty table: {lines[0]}"
    for cells in rows:
        assert len(cells) == len(columns), f"not of {len(columns)} columns: {cells}"
    return [dict(zip(columns, cells, strict=True)) for cells in rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
