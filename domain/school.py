"""The one school of this database: its name, its zone, and the epoch of its event log."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, insert, select, update

from domain import access
from domain.ids import new_id
from domain.model import School, table

_SCHOOL = table(School)


def read_school(conn: Connection) -> School | None:
    """The school, or None before the first start."""
    row = conn.execute(select(_SCHOOL)).mappings().first()
    return None if row is None else School(**row)


def make_school(conn: Connection, *, name: str, zone: str, now: datetime, is_demo: bool = False) -> School:
    """Found the school, once. Raises ValueError for an unknown zone or when there is one already."""
    check_zone(zone)
    if read_school(conn) is not None:
        raise ValueError("this database has its school already")
    school = School(name=name, zone=zone, epoch=new_id(now), is_demo=is_demo, created_at=now)
    conn.execute(insert(_SCHOOL), [school.model_dump()])
    return school


def change_school(conn: Connection, standing: access.Standing, *, name: str, zone: str) -> None:
    """Rename the school or move its zone; meetings already laid out keep theirs. Raises Denied, ValueError."""
    if not access.may_administer(standing):
        raise access.Denied("Only an admin may change the school")
    check_zone(zone)
    if not name.strip():
        raise ValueError("name must not be empty")
    conn.execute(update(_SCHOOL).values(name=name.strip(), zone=zone))


def check_zone(zone: str) -> None:
    """Raises ValueError for anything but an IANA zone name such as Europe/Berlin."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"zone must be an IANA name such as Europe/Berlin, got {zone!r}") from None


def local_zone() -> str:
    """This machine's zone by name, UTC if it has none: the first guess for a new school."""
    named = os.environ.get("TZ", "")
    link = Path("/etc/localtime")
    if not named and link.is_symlink():
        named = str(link.readlink()).partition("zoneinfo/")[2]
    try:
        check_zone(named or "UTC")
    except ValueError:
        return "UTC"
    return named or "UTC"
