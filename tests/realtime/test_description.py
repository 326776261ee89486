"""The OpenAPI description is whole and true. conftest.py holds every answer of every test to it as well."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from domain.model import Kind
from domain.operations import Operation, parse
from realtime import health
from realtime.api import meetings, operations, session, shapes, transfer
from tests.realtime.conftest import As


def refs(node: Any) -> set[str]:
    """Every reference inside a description."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(refs, node.values()))
    return set().union(*map(refs, node)) if isinstance(node, list) else set()


async def test_the_description_is_there_for_everybody(client_as: As) -> None:
    answer = await (await client_as(None)).get("/api/openapi.json")

    document = answer.json()
    assert document["info"]["title"] == "Muster"
    assert document["openapi"].startswith("3.")


def test_every_name_in_the_description_is_explained(app: FastAPI) -> None:
    document = app.openapi()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    assert refs(document) <= known
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_call_says_what_it_does_gives_and_how_it_fails(app: FastAPI) -> None:
    for path, calls in app.openapi()["paths"].items():
        for method, call in calls.items():
            where = f"{method} {path}"
            assert call["summary"] and call["description"], where
            [(_, good)] = [item for item in call["responses"].items() if item[0].startswith("2")]
            assert good.get("content") or "204" in call["responses"], where
            for content in good.get("content", {}).values():
                assert content["schema"], where
            if path.startswith("/api/") and path != "/api/v1/login":
                assert "401" in call["responses"], where
            else:
                assert call["security"] == [], where
            for status, answer in call["responses"].items():
                if status.startswith("4"):
                    [media_type] = answer["content"]
                    assert (media_type, bool(answer["description"])) == ("application/problem+json", True)


def test_the_kinds_and_fields_of_operations_are_those_that_are_read() -> None:
    schema = shapes.Operations.model_json_schema()["$defs"]
    kinds = {name: part for name, part in schema.items() if "kind" in part.get("properties", {})}

    assert {part["properties"]["kind"]["const"] for part in kinds.values()} == set(Kind)
    told = {field for part in kinds.values() for field in part["properties"]}
    assert told == set(Operation.__dataclass_fields__)


def examples(app: FastAPI) -> dict[str, Any]:
    body = app.openapi()["paths"]["/api/v1/operations"]["post"]["requestBody"]["content"]
    return {name: example["value"] for name, example in body["application/json"]["examples"].items()}


def test_every_example_of_operations_can_be_read(app: FastAPI) -> None:
    for name, example in examples(app).items():
        shapes.Operations.model_validate(example)
        for operation in example["operations"]:
            assert parse(operation).kind, name


async def test_the_examples_can_be_sent_as_they_stand(app: FastAPI, client_as: As) -> None:
    client = await client_as("teacher")

    for example in examples(app).values():
        answer = await client.post("/api/v1/operations", json=example)
        assert [outcome["code"] for outcome in answer.json()["outcomes"]] != ["invalid"]
    for name in ("Outcomes", "Codes", "ProblemDetails"):
        [example] = app.openapi()["components"]["schemas"][name]["examples"]
        getattr(shapes, name).model_validate_json(json.dumps(example))


async def test_an_answer_that_was_not_told_of_would_be_noticed(client_as: As) -> None:
    client = await client_as(None)
    [hook] = client.event_hooks["response"]
    request = httpx.Request("GET", "http://muster.test/healthz")

    await hook(httpx.Response(200, json={"status": "ok"}, request=request))
    for strange in (
        httpx.Response(404, json={}, request=request),
        httpx.Response(200, json={"status": "ok", "secret": 1}, request=request),
    ):
        with pytest.raises((AssertionError, ValueError)):
            await hook(strange)


def test_no_call_takes_the_way_through_a_thread_for_what_it_depends_on() -> None:
    def needs(dependant: Dependant) -> Iterator[Dependant]:
        for inner in dependant.dependencies:
            yield inner
            yield from needs(inner)

    for part in (health, meetings, operations, session, transfer):
        for route in part.router.routes:
            assert isinstance(route, APIRoute)
            for inner in needs(route.dependant):
                assert inspect.iscoroutinefunction(inner.call), (route.path, inner.call)
