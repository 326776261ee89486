"""Long lists as an admin reads them: searched by words, one page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, or_

from domain.inputs import clean_text

PAGE = 50
MAX_PAGE = 500
_MAX_WORDS = 8
_CHUNK = 400  # bound values in one statement; SQLite takes 32,766, short statements are cached better

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list and how long the whole list is."""

    items: list[T]
    total: int


def matching(search: str, *columns: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """Each word of a search must occur in one of the columns, in any case. Raises InvalidInput."""
    words = clean_text("search", search, longest=200, is_required=False).split()
    # SQLite folds the case of ASCII only, so the usual spellings of other letters are asked for by name.
    return [
        or_(
            *(
                column.icontains(spelling, autoescape=True)
                for spelling in dict.fromkeys((word, word.lower(), word.upper(), word.title()))
                for column in columns
            )
        )
        for word in words[:_MAX_WORDS]
    ]


def paged(query: Select[Any], offset: int, limit: int) -> Select[Any]:
    """One page of a query, never more than MAX_PAGE rows."""
    return query.offset(max(0, min(offset, 2**31))).limit(max(1, min(limit, MAX_PAGE)))


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ids in parts that fit into one statement."""
    return (ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK))
