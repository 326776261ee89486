"""docs/realtime.md says what the code does: every frame, code, limit, number, metric, event and example."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import json
import re
import tokenize
from collections import defaultdict
from dataclasses import fields, replace
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection

from domain import access, events, people, schedule, sections
from domain.access import Author
from domain.clock import format_instant
from domain.events import Event, meeting_topic, student_topic
from domain.ids import new_id
from domain.model import EnrolmentRole
from domain.muster import Muster
from domain.operations import parse
from domain.outcomes import rejected
from domain.watching import INBOX, MEETING, STUDENT, grants, inbox_topic
from realtime import protocol
from realtime.gateway import canonical
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.protocol import Close, Code, outgoing, read_frame
from realtime.realtime import Realtime
from realtime.snapshots import digest, snapshot_of
from realtime.vitals import THRESHOLDS
from tests.factories import NOW, AClass
from tests.realtime.conftest import As, email_of
from tests.realtime.documents import Part, Row, anchor, anchors, code, codes, number, read
from tests.realtime.sockets import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "realtime.md"
PARTS = read(REFERENCE)
#: An event that only processes tell each other is documented in a sentence, not in a table.
INTERNAL = {events.LOGINS_ENDED, events.GUARDIANS_CHANGED}


# -- links


def test_every_link_leads_somewhere() -> None:
    text = REFERENCE.read_text()

    assert set(anchors(text)) <= {anchor(title) for title in PARTS}
    for name, place in re.findall(r"\]\((\w+\.md)(?:#([^)]+))?\)", text):
        titles = {anchor(title) for title in read(ROOT / "docs" / name)}
        assert not place or place in titles, f"{name}#{place}"


# -- frames


def title_of(model: type[BaseModel]) -> str:
    """A frame is called by its type, a part of one by its name."""
    frame_type = model.model_fields.get("type")
    if frame_type is None:
        return model.__name__
    name: str = frame_type.annotation.__args__[0]  # type: ignore[union-attr]  # a Literal
    return name


MODELS = {
    title_of(model): model
    for model in vars(protocol).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and not model.__name__.startswith("_")
    if model is not BaseModel
}
FROM_CLIENT = {name for name, model in MODELS.items() if model.model_config.get("strict")}
BOUNDS = {"minimum", "maximum", "minLength", "maxLength", "minProperties", "maxProperties", "pattern"}


def bounds_of(schema: Any) -> set[str]:
    """The numbers and patterns in a field's JSON schema, as the document writes them."""
    if isinstance(schema, list):
        return set().union(*(bounds_of(part) for part in schema))
    if not isinstance(schema, dict):
        return set()
    own = {"2^53" if schema[key] == 2**53 else str(schema[key]) for key in BOUNDS & schema.keys()}
    return own.union(*(bounds_of(part) for part in schema.values()))


def there(name: str, field: Any) -> str:
    if name not in FROM_CLIENT:
        return "always" if field.is_required() else "sometimes"
    if field.is_required():
        return "required"
    return f"`{json.dumps(field.get_default(call_default_factory=True))}`"


def test_every_frame_is_documented_and_no_other() -> None:
    documented = {title for title, part in PARTS.items() if any("type" in rows[0] for rows in part.tables)}

    assert documented - {"Metrics"} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_fields_of_a_frame_are_documented(name: str) -> None:
    column = "if left out" if name in FROM_CLIENT else "there"
    model = MODELS[name]
    own = {field.alias or key: field for key, field in model.model_fields.items() if key != "type"}

    rows = PARTS[name].table("field", "type", column)

    assert {code(row["field"]): row[column] for row in rows} == {
        key: there(name, field) for key, field in own.items()
    }
    schema = model.model_json_schema()["properties"]
    for row in rows:
        bounds = bounds_of(schema[code(row["field"])])
        assert bounds <= {*re.findall(r"\d+(?:\^\d+)?", row["type"]), *codes(row["type"])}, row
        assert row["what"], row


@pytest.mark.parametrize(
    "name", sorted(name for name, model in MODELS.items() if "type" in model.model_fields)
)
def test_the_example_of_a_frame_is_one(name: str) -> None:
    frame = json.loads(PARTS[name].example("json"))

    assert frame["type"] == name
    if name in FROM_CLIENT:
        read_frame(frame)
        known = {field.alias or key for key, field in MODELS[name].model_fields.items()}
        assert set(frame) <= known, "the server would ignore a field of this example"
    else:
        outgoing.validate_python(frame)


def test_examples_of_operations_and_outcomes_are_some() -> None:
    operations = json.loads(PARTS["operations"].example("json"))["operations"]
    outcomes = json.loads(PARTS["outcomes"].example("json"))["outcomes"]

    assert [parse(operation).id for operation in operations] == [outcome["id"] for outcome in outcomes]
    for outcome in outcomes:
        assert outcome == rejected(outcome["id"], outcome["code"]).as_dict()


def test_the_hello_tells_the_limits_as_they_are() -> None:
    told = json.loads(PARTS["hello"].example("json"))
    limits = Limits()

    assert (told["protocol"], told["heartbeat_s"]) == (protocol.PROTOCOL, protocol.HEARTBEAT_S)
    assert told["limits"] == {
        "frame_bytes": protocol.MAX_FRAME,
        "topics": limits.topics,
        "operations_per_frame": protocol.MAX_OPERATIONS,
        "operations_per_s": limits.operations_per_s,
        "frames_per_s": limits.frames_per_s,
        "connections_per_person": limits.connections_per_person,
    }


def test_every_example_is_checked() -> None:
    titles = {part.title for part in PARTS.values() for language, _ in part.examples if language == "json"}

    assert titles == {n for n, m in MODELS.items() if "type" in m.model_fields} | set(SNAPSHOTS)


# -- error and close codes


def comments(kind: type) -> dict[str, str]:
    """What stands behind each member of a class, on its line."""
    lines = io.StringIO(inspect.getsource(kind)).readline
    found: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(lines):
        if token.type == tokenize.NAME and not token.line[: token.start[1]].strip():
            name = token.string
        elif token.type == tokenize.COMMENT and token.line.split("#")[0].strip():
            found[name] = token.string.removeprefix("#").strip()
    return found


@pytest.mark.parametrize(("kind", "title"), [(Code, "Errors"), (Close, "Closing")])
def test_every_code_is_documented_as_it_is_meant(kind: type[Enum], title: str) -> None:
    rows = {row["code"].strip("`"): row for row in PARTS[title].table("code", "means")}

    assert set(rows) == {str(member.value) for member in kind}
    for member in kind:
        row = rows[str(member.value)]
        assert row["means"].startswith(comments(kind).get(member.name, "")), member
        assert row["means"] and row["what a client should do"], member


# -- limits and numbers


def test_every_limit_is_documented_with_its_default() -> None:
    rows = {code(row["limit"]): row for row in PARTS["Limits"].table("limit", "default")}
    defaults, meant = Limits(), comments(Limits)

    assert {name: number(row["default"]) for name, row in rows.items()} == {
        field.name: getattr(defaults, field.name) for field in fields(Limits)
    }
    for name, row in rows.items():
        assert row["what"] and row["what"].startswith(meant.get(name, "")), name


def test_the_numbers_are_those_of_the_code() -> None:
    for row in PARTS["Limits"].table("number", "value"):
        module, _, name = code(row["number"]).partition(".")

        assert number(row["value"]) == getattr(importlib.import_module(f"realtime.{module}"), name), row


# -- metrics, alerts, health


def shown(metrics: Metrics) -> dict[str, tuple[str, frozenset[str], str]]:
    """Type, labels and text of each metric, as Prometheus is told; those that have labels were counted once."""
    metrics.frame_in("ping")
    metrics.joined("events")
    metrics.closed(Close.TOO_SLOW)
    metrics.error(Code.FORBIDDEN)
    metrics.limited("frame")
    found = {}
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue
        assert family.samples, f"{family.name} has labels: let it be counted here once"
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels, family.documentation)
    return found


def of_pages() -> dict[str, tuple[str, frozenset[str], str]]:
    """The gauges that the pages add, as their source has them: they start too slowly for this."""
    source = "".join(path.read_text() for path in (ROOT / "ui").glob("*.py"))
    gauges = re.findall(r'\.gauge\(\s*"(\w+)",\s*"([^"]+)"', source)
    return {name: ("gauge", frozenset(), text) for name, text in gauges}


@pytest.fixture
def metrics(muster: Muster, klass: AClass, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """All metrics that there are: of a process among several, with Redis."""
    monkeypatch.setattr(muster, "settings", replace(muster.settings, redis_url="redis://127.0.0.1:1"))
    monkeypatch.setattr(muster.store, "is_shared", True)
    return Realtime(muster).metrics


async def test_every_metric_is_documented(metrics: Metrics) -> None:
    rows = {code(row["metric"]): row for row in PARTS["Metrics"].table("metric", "type", "labels")}
    found = shown(metrics) | of_pages()

    assert {name: (row["type"], frozenset(codes(row["labels"]))) for name, row in rows.items()} == {
        name: (kind, labels) for name, (kind, labels, _) in found.items()
    }
    for name, (_, _, text) in found.items():
        assert rows[name]["means"].startswith(text), name


def test_what_is_refused_as_too_much_is_documented() -> None:
    rows = {code(row["metric"]): row["means"] for row in PARTS["Metrics"].table("metric")}
    counted = {
        what
        for path in (ROOT / "realtime").glob("*.py")
        for what in re.findall(r'\.limited\("(\w+)"\)', path.read_text())
    }

    assert set(codes(rows["muster_rate_limited_total"])) == counted


def test_every_alert_is_documented() -> None:
    rows = PARTS["Alerts"].table("alert", "what it says", "what to do")

    assert [(code(row["alert"]), row["what it says"], row["what to do"]) for row in rows] == [
        (threshold.name, threshold.text, threshold.remedy) for threshold in THRESHOLDS
    ]


async def test_every_check_of_readiness_is_documented(client_as: As) -> None:
    answer = await (await client_as(None)).get("/readyz")

    rows = PARTS["Health"].table("check of `/readyz`", "true means")

    assert {code(row["check of `/readyz`"]) for row in rows} == set(answer.json()["checks"])


# -- topics


def test_every_kind_of_topic_is_documented() -> None:
    names = [code(row["topic"]) for row in PARTS["Topics"].table("topic")]

    assert set(names) == {f"{MEETING}<id>", f"{STUDENT}<id>", INBOX.rstrip(":"), events.WALL}
    for name in names:
        example = name.replace("<id>", new_id())
        assert canonical(example) == example


def test_who_may_watch_what_is_documented(muster: Muster, klass: AClass) -> None:
    who = {
        "admin": klass.admin,
        "staff of the class": klass.teachers[0],
        "the student": klass.students[0],
        "a guardian of the student": klass.guardian,
    }
    topics = {
        f"{MEETING}<id>": meeting_topic(klass.meeting_id),
        f"{STUDENT}<id>": student_topic(klass.students[0]),
        events.WALL: events.WALL,
    }
    for row in PARTS["Topics"].table("topic", *who):
        for name, person_id in who.items():
            topic = topics.get(code(row["topic"]), inbox_topic(person_id))
            pair = (person_id, topic)
            found = muster.store.read_now(lambda conn, pair=pair: grants(conn, [pair], NOW))[pair]  # type: ignore[misc]

            assert row[name] == ("no" if found is None else "own" if topic.startswith(INBOX) else "yes"), (
                row["topic"],
                name,
            )


# -- events and snapshots: everything that happens, once


@pytest.fixture
async def history(muster: Muster, klass: AClass) -> list[Event]:
    """Whatever may happen to a class, as it stands in the log."""
    meeting = {"meeting_id": klass.meeting_id}
    third = klass.students[2]
    teacher, co_teacher = klass.teacher, klass.co_teacher
    earlier = format_instant(NOW - timedelta(minutes=2))
    steps: list[tuple[Author, dict[str, Any]]] = [
        (teacher, {"kind": "open_meeting"}),
        (co_teacher, {"kind": "open_meeting", "captured_at": earlier, "clock_offset_ms": 0}),
        (klass.student(0), {"kind": "check_in", "via": "qr", "proof": klass.qr(NOW)}),
        (klass.student(1), {"kind": "check_in", "via": "code", "proof": "000000"}),
        (teacher, {"kind": "mark", "student_id": third, "status": "absent"}),
        (co_teacher, {"kind": "mark", "student_id": third, "status": "late", "minutes_late": 3}),
        (teacher, {"kind": "close_meeting"}),
        (teacher, {"kind": "reopen_meeting", "remark": "one was missing"}),
    ]
    for author, values in steps:
        await muster.recorder.record([parse({"id": new_id(), **meeting, **values})], author)
    muster.store.write_now(lambda conn: plan_and_enrol(conn, klass))
    login = (await muster.logins.log_in(email_of("teacher"), PASSWORD, address="")).login
    await muster.logins.revoke(login.login_id, login.author)
    return muster.store.read_now(lambda conn: events.read_log(conn, 0))


def plan_and_enrol(conn: Connection, klass: AClass) -> None:
    admin = Author(klass.admin)
    standing = access.Standing(klass.admin, is_active=True, is_admin=True)
    start = NOW + timedelta(days=1)
    meeting_id, _ = schedule.add_meeting(
        conn, standing, section_id=klass.section_id, start=start, end=start + timedelta(hours=1), now=NOW
    )
    schedule.move_meeting(conn, standing, meeting_id, start=start + timedelta(hours=2), now=NOW)
    schedule.cancel_meeting(conn, standing, meeting_id, reason="a storm", now=NOW)
    sections.enrol(
        conn,
        admin,
        now=NOW,
        section_id=klass.section_id,
        person_id=klass.extra["foreign student"],
        role=EnrolmentRole.STUDENT,
        begins_at=NOW,
    )
    people.remove_guardian(conn, admin, guardian_id=klass.guardian, student_id=klass.students[0], now=NOW)


def names_in_code() -> set[str]:
    """What looks like the name of an event in the files that tell of any."""
    found: set[str] = set()
    for path in (ROOT / "domain").glob("*.py"):
        source = path.read_text()
        if "Draft(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^(?!muster)[a-z_]+\.[a-z_]+$", node.value))
    return found


def event_rows() -> list[Row]:
    return PARTS["Events"].table("name", "topics", "data")


def fields_of(part: Part) -> frozenset[str]:
    return frozenset(name for row in part.table("field", "what") for name in codes(row["field"]))


def test_every_event_name_in_the_code_is_documented() -> None:
    assert {code(row["name"]) for row in event_rows()} | INTERNAL == names_in_code()
    assert all(f"`{name}`" in REFERENCE.read_text() for name in INTERNAL)


async def test_events_are_told_on_the_topics_and_with_the_data_documented(history: list[Event]) -> None:
    heard: dict[str, set[str]] = defaultdict(set)
    data: dict[str, set[frozenset[str]]] = defaultdict(set)
    for event in history:
        if event.name not in INTERNAL:
            heard[event.name].add(event.topic.partition(":")[0])
            data[event.name].add(frozenset(event.data))

    by_anchor = {anchor(title): part for title, part in PARTS.items()}
    assert {code(row["name"]): set(codes(row["topics"])) for row in event_rows()} == heard
    assert {
        code(row["name"]): {fields_of(by_anchor[place]) for place in anchors(row["data"])}
        for row in event_rows()
    } == data
    assert {event.name for event in history} == names_in_code(), "the history leaves something out"


async def test_examples_of_events_have_the_data_of_their_name(history: list[Event]) -> None:
    data = {event.name: set(event.data) for event in history}
    follower = json.loads(PARTS["subscribed"].example("json"))

    for example in [json.loads(PARTS["event"].example("json")), *follower["events"]]:
        assert set(example["data"]) == data[example["name"]]


SNAPSHOTS = {
    "Snapshot of meeting:id": lambda klass: meeting_topic(klass.meeting_id),
    "Snapshot of student:id": lambda klass: student_topic(klass.students[0]),
    "Snapshot of wall": lambda klass: events.WALL,
    "Snapshot of inbox": lambda klass: inbox_topic(klass.students[0]),
}


def shape(value: Any) -> Any:
    """The fields of a document, of lists those of their first entry."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items() if key != "proposal"}
    return [shape(inner) for inner in value[:1]] if isinstance(value, list) else None


@pytest.mark.parametrize("title", SNAPSHOTS)
async def test_examples_of_snapshots_have_their_fields(
    title: str, muster: Muster, klass: AClass, history: list[Event]
) -> None:
    real = muster.store.read_now(lambda conn: snapshot_of(conn, SNAPSHOTS[title](klass), NOW))

    assert shape(json.loads(PARTS[title].example("json"))) == shape(real)


# -- the digest


def test_the_digest_in_the_document_is_computed_as_it_says() -> None:
    lines = PARTS["Digest"].example("digest")
    text = REFERENCE.read_text()
    records = []
    for line in lines.splitlines():
        student_id, status, minutes, contested = line.split(" ")
        records.append((student_id, status, None if minutes == "-" else int(minutes), contested == "true"))

    assert f"gives `{digest(reversed(records))}`" in text
    assert f"without any status `{digest([])}`" in text
    assert digest(records) in {
        head for _, head in json.loads(PARTS["heartbeat"].example("json"))["heads"].values()
    }


def test_the_protocol_names_the_same_frames_and_events() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text().partition("## 5. ")[2]
    names = text.partition("Names: ")[2].partition(". Data")[0]

    assert set(re.findall(r"[a-z_]+\.[a-z_]+", names)) == names_in_code() - INTERNAL
    told = {
        name
        for direction in ("client → server", "server → client")
        for name in text.partition(direction)[2].partition("\n")[0].split()
    }
    assert told == {name for name, model in MODELS.items() if "type" in model.model_fields}
