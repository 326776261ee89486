"""What was acknowledged survives kill -9, once and whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy import select

from domain import events, operations
from domain.events import meeting_topic, student_topic
from domain.model import OperationRow, RecordRow, table
from domain.operations import parse
from domain.record import Submission, record_batch
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW, a_class

ROOT = Path(__file__).resolve().parents[2]


def test_kill_minus_nine_in_the_middle_of_a_thousand_check_ins(store: Store, settings: Settings) -> None:
    klass = a_class(store, students=1000)
    work = [
        (
            klass.teacher.person_id,
            operations.make("open_meeting", meeting_id=klass.meeting_id, captured_at=NOW),
        )
    ]
    work += [
        (
            student,
            operations.make(
                "check_in", meeting_id=klass.meeting_id, via="qr", proof=klass.qr(NOW), captured_at=NOW
            ),
        )
        for student in klass.students
    ]
    store.close()
    (settings.data / "work.json").write_text(json.dumps([(author, op.as_dict()) for author, op in work]))

    acknowledged = _run_and_kill(settings.data, after=300)

    reopened = open_store(settings)
    reopened.migrate()
    kept, topics = reopened.read_now(
        lambda conn: (conn.execute(select(table(OperationRow))).all(), _told(conn, klass.meeting_id))
    )
    ids = [row.id for row in kept]
    assert len(acknowledged) >= 300
    assert acknowledged <= set(ids) and len(ids) == len(set(ids)) < 1001
    assert topics == [
        row.id for row in sorted(kept, key=lambda row: row.seq)
    ]  # each told once, in order, no gap
    students = {row.student_id for row in kept if row.student_id}
    assert _recorded(reopened) == students  # none half: each operation has its record …
    for student in students:  # … and its line on the student's own topic
        assert reopened.read_now(lambda conn, s=student: events.head(conn, student_topic(s))) == 1  # type: ignore[misc]

    from domain.access import Author

    again = [Submission(parse(op.as_dict()), Author(author), NOW) for author, op in work]
    outcomes = reopened.write_now(lambda conn: record_batch(conn, again, now=NOW)).outcomes
    assert {o.id for o in outcomes if o.outcome == "duplicate"} == set(ids)
    assert _recorded(reopened) == set(klass.students)
    reopened.close()


def _run_and_kill(folder: Path, *, after: int) -> set[str]:
    """Start the writer, kill it when it has acknowledged that many, return every id it acknowledged."""
    writer = subprocess.Popen(  # our own script
        [sys.executable, "-m", "tests.domain.crash_writer", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(after)]
    writer.kill()
    lines += writer.stdout.read().splitlines(keepends=True)
    writer.stdout.close()
    assert writer.wait() == -9
    return {line.split()[0] for line in lines if line.endswith("\n") and line.split()[1] == "accepted"}


def _told(conn: object, meeting_id: str) -> list[str | None]:
    return [e.operation_id for e in events.read_after(conn, meeting_topic(meeting_id), 0, limit=5000)]  # type: ignore[arg-type]


def _recorded(store: Store) -> set[str]:
    return {
        row.student_id for row in store.read_now(lambda conn: conn.execute(select(table(RecordRow))).all())
    }
