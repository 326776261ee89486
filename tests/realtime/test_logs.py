"""Log lines: facts that help to find a fault, and nothing about a person."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy import insert, select, text

from domain.ids import new_id
from domain.model import Person, table
from domain.muster import Muster
from realtime.logs import JsonLines, Lines, configure_logging
from tests.factories import AClass
from tests.realtime.conftest import log_in
from tests.realtime.sockets import PASSWORD, Served

SOMEBODY = {"given_name": "Zoë", "family_name": "Ångström", "email": "zoe@test.school"}


def line_of(record: logging.LogRecord, node: str = "main") -> dict[str, Any]:
    line: dict[str, Any] = json.loads(JsonLines(node).format(record))
    return line


def test_a_line_carries_the_facts_that_were_given_and_the_process_it_came_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    operation_id = new_id()
    facts = {"operation_id": operation_id, "connection": 7, "code": 4429, "email": "zoe@test.school"}
    logging.getLogger("muster.test").error("operation %s", operation_id, extra=facts)

    line = line_of(caplog.records[0], node="b")

    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "error",
        "logger": "muster.test",
        "node": "b",
        "message": f"operation {operation_id}",
        "operation_id": operation_id,
        "connection": 7,
        "code": 4429,
    }


def test_a_line_without_facts_has_no_empty_ones(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("muster.test").warning("something")

    assert set(line_of(caplog.records[0])) == {"at", "level", "logger", "node", "message"}


@pytest.mark.parametrize(("log_format", "expected"), [("json", '"node":"b"'), ("text", " WARNING ")])
def test_the_whole_process_logs_in_the_form_that_was_set(
    log_format: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, muster = logging.getLogger(), logging.getLogger("muster")
    kept = root.handlers[:], root.level, muster.level, logging.getLogger("apscheduler").level
    try:
        configure_logging(log_format, "b")
        muster.warning("told")
        muster.info("a request")
    finally:
        root.handlers[:] = kept[0]
        root.setLevel(kept[1])
        muster.setLevel(kept[2])
        logging.getLogger("apscheduler").setLevel(kept[3])

    lines = capsys.readouterr().err.splitlines()
    assert expected in lines[0] and "told" in lines[0]
    assert len(lines) == (2 if log_format == "json" else 1)  # requests are for machines


@pytest.mark.both_databases
@pytest.mark.parametrize("formatter", [JsonLines(), Lines()])
async def test_what_a_database_says_of_a_person_is_not_logged(
    muster: Muster, klass: AClass, formatter: logging.Formatter, caplog: pytest.LogCaptureFixture
) -> None:
    def twice(conn: Any) -> None:
        row = conn.execute(select(table(Person)).where(table(Person).c.email.is_not(None))).mappings().first()
        conn.execute(
            insert(table(Person)).values(dict(row) | SOMEBODY | {"email": row["email"], "id": new_id()})
        )

    with pytest.raises(Exception) as error:  # noqa: PT011  # each database has its own
        await muster.store.write(twice)
    logging.getLogger("muster.test").error("it failed", exc_info=error.value)

    line = formatter.format(caplog.records[-1])
    assert "IntegrityError" in line
    for personal in ("Zoë", "Ångström", "Zo\\u00eb", "test.school"):
        assert personal not in line


def test_what_somebody_sent_is_not_logged_with_the_reason_why_it_was_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Body(BaseModel):
        given_name: int

    try:
        Body.model_validate(SOMEBODY)
    except ValidationError:
        logging.getLogger("muster.test").exception("refused, says zoe@test.school")

    line = line_of(caplog.records[0])
    assert "ValidationError" in line["traceback"]
    assert "Zoë" not in str(line) and "zoe" not in str(line)
    assert line["message"] == "refused, says (e-mail)"


async def test_an_operation_that_cannot_be_recorded_is_logged_under_its_id(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("domain.record.record_batch", explode)
    marking = served.marking()
    async with served.socket("teacher") as socket:
        await socket.send({"type": "operations", "id": 1, "operations": [marking]})
        answer = await socket.get("outcomes")

    assert answer["outcomes"][0]["code"] == "internal"
    lines = [line_of(record) for record in caplog.records if record.name.startswith("muster")]
    [line] = [line for line in lines if "operation_id" in line]
    assert line["operation_id"] == marking["id"]
    assert "RuntimeError: broken" in line["traceback"]


async def test_a_class_is_taken_and_no_line_tells_who_was_there(
    served: Served, muster: Muster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muster")
    async with httpx.AsyncClient(base_url=served.base) as client:
        await log_in(client, "teacher")
        token = client.cookies["muster_login"]
        await client.get(f"/api/v1/meetings/{served.klass.meeting_id}?name=Ada")
        client.cookies.clear()
        wrong = {"email": "student@test.school", "password": "not this one"}
        assert (await client.post("/api/v1/login", json=wrong)).status_code == 401
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        await socket.send({"type": "operations", "id": 2, "operations": [served.marking()]})
        await socket.get("outcomes")
        await socket.send({"type": "nonsense", "name": "Ada"})
        await socket.get("error")

    lines = "\n".join(JsonLines().format(r) for r in caplog.records if r.name.startswith("muster"))
    assert "/api/v1/login" in lines
    personal = [
        token,
        await served.token("teacher"),
        PASSWORD,
        "not this one",
        "test.school",
        "127.0.0.1",
        "Ada",
    ]
    rows = muster.store.read_now(
        lambda conn: conn.execute(text("SELECT id, given_name, family_name FROM people")).all()
    )
    personal += [str(value) for row in rows for value in row if value]
    assert [value for value in personal if value in lines] == []
