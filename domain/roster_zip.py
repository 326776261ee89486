"""Opening an uploaded zip without trusting it: sizes are counted, not believed; nothing goes to disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import PurePosixPath

from domain.roster_csv import Findings, Place

MAX_FILES = 100
MAX_UNPACKED_BYTES = 32_000_000  # of the files that are read, in all; 60,000 rows are 8 MB
# RuntimeError: encrypted, or packed in a way zipfile does not know.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)


def looks_like_zip(data: bytes) -> bool:
    """Whether an upload is a zip that should hold OneRoster files."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06")) and b"xl/workbook.xml" not in data


def unzip(
    file: str, data: bytes, files: Collection[str], needed: Collection[str], findings: Findings
) -> dict[str, bytes] | None:
    """The wanted files by lower-case name, or None when there is nothing to read. Never touches the disk."""
    place = Place(file)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _members(place, archive, files, needed, findings)
    except _UNREADABLE as error:
        reason = "it is encrypted" if "encrypted" in str(error) else "it is damaged or of an unknown kind"
        findings.error(
            place, "", f"The zip cannot be read: {reason}.", "Export it again, without a password."
        )
        return None


def _members(
    place: Place,
    archive: zipfile.ZipFile,
    files: Collection[str],
    needed: Collection[str],
    findings: Findings,
) -> dict[str, bytes] | None:
    entries = [
        info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(entries) > MAX_FILES:
        findings.error(
            place, "", f"The zip holds {len(entries)} files, more than {MAX_FILES}.", "Export again."
        )
        return None
    wanted = [(PurePosixPath(info.filename.replace("\\", "/")), info) for info in entries]
    wanted = [(path, info) for path, info in wanted if path.name.lower() in files]
    if not wanted:
        findings.error(
            place,
            "",
            "The zip holds none of OneRoster's files.",
            f"It needs {', '.join(needed)} at its root.",
        )
        return None
    if any(path.parent != PurePosixPath(".") for path, _ in wanted):
        findings.warn(
            place, "", "The files stand in a folder of the zip.", "OneRoster wants them at its root."
        )
    contents: dict[str, bytes] = {}
    left = MAX_UNPACKED_BYTES
    for path, info in wanted:
        name = path.name.lower()
        if name in contents:
            findings.error(place, "", f"The zip holds {name} twice.", "Export again.")
            return None
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{name} is packed in a way that is not read here")
        with archive.open(info) as member:
            contents[name] = member.read(left + 1)  # what it says of its size is not believed
        left -= len(contents[name])
        if left < 0:
            findings.error(
                place,
                "",
                f"The zip unpacks to more than {MAX_UNPACKED_BYTES // 1_000_000} MB.",
                "Import one school at a time.",
            )
            return None
    return contents
