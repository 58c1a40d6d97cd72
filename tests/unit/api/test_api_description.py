"""What `/openapi.json` says: whole, true of its own examples, and what stands in docs."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from orchestratord.api.api_routes import ApiRoutes
from orchestratord.api.bodies import BulkBody
from orchestratord.api.filters import NAMES, TaskFilterBody
from orchestratord.api.openapi import openapi_document
from orchestratord.api.server.problem_json import PROBLEMS, Refusal
from orchestratord.errors import NotFound, PluginError, Unreachable
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.plugin.route import Answer, Route, described
from orchestratord.queue.daemon_health import FATAL, Code
from scripts.docs import api_reference
from tests.unit.api.control_parts import Parts

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = asyncio.run(api_reference.described())
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_docs_are_what_the_code_says(document: dict[str, Any]) -> None:
    again = "run: python -m scripts.docs"
    assert api_reference.DOCUMENT.read_text() == api_reference.written(document), again
    page = api_reference.PAGE.read_text()
    assert page == api_reference.renewed(page, document), again


def test_what_the_page_shows_is_described(document: dict[str, Any]) -> None:
    blocks = re.findall(r"```json\n(.*?)```", api_reference.PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    known = [
        (
            schema["properties"].keys(),
            jsonschema_rs.validator_for({**schema, "components": document["components"]}),
        )
        for schema in document["components"]["schemas"].values()
        if "properties" in schema
    ]
    for block in blocks:
        shown = json.loads(block)
        fitting = [keys for keys, of in known if keys >= shown.keys() and of.is_valid(shown)]
        assert fitting, block


def test_every_route_of_the_core_is_described() -> None:
    for handler in ApiRoutes.__new__(ApiRoutes).handlers().values():
        assert hasattr(handler, "__description__"), f"{handler.__qualname__} is not `described`"


def test_only_pages_are_not_described(document: dict[str, Any]) -> None:
    bare = [name for name, one in operations(document) if "default" in one["responses"]]
    assert not [name for name in bare if "/v1/" in name]
    names = [one["operationId"] for _, one in operations(document) if "operationId" in one]
    assert len(set(names)) == len(names)
    assert len(names) + len(bare) == len(list(operations(document)))


def test_examples_are_true(document: dict[str, Any]) -> None:
    answers: list[Any] = list(document["components"]["responses"].values())
    for _, operation in operations(document):
        answers += [one for one in operation["responses"].values() if "$ref" not in one]
    seen = 0
    for answer in answers:
        for content in answer.get("content", {}).values():
            schema = {**content["schema"], "components": document["components"]}
            shown = [content["example"]] if "example" in content else []
            shown += [one["value"] for one in content.get("examples", {}).values()]
            for example in shown:
                jsonschema_rs.validate(schema, example)
                seen += 1
            assert shown or content["schema"] == {"type": "string"}
    assert seen > 80
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            whole = {**schema, "additionalProperties": schema.get("additionalProperties", False)}
            jsonschema_rs.validate({**whole, "components": document["components"]}, example)


def test_all_refusals_are_problems() -> None:
    """A code that has no status would fail where it is to be answered."""
    found = {code.value for code in Code} | {FATAL}
    for path in (ROOT / "orchestratord").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "Refusal(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                found |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
    assert found <= PROBLEMS.keys()
    assert len(found) > 20


def test_an_error_that_is_raised_again_has_an_answer() -> None:
    """Its context is what it caused: a daemon that followed these for ever stood still."""
    error = PluginError("it failed")
    error.__context__ = ValueError("of a hook")
    error.__context__.__cause__ = error
    assert Refusal.of(error).code == "internal"


def test_a_problem_of_a_plugins_own() -> None:
    refusal = Refusal.of(Unreachable("it is away", "moon"))
    assert (refusal.status, refusal.code) == (503, "database_unreachable")
    refusal = Refusal.of(Unreachable("it is locked", Code.LOCKED))
    assert (refusal.status, refusal.code) == (503, "database_locked")


def test_a_filter_has_the_same_names_in_json() -> None:
    assert tuple(TaskFilterBody.__annotations__) == NAMES
    shown = BulkBody.model_json_schema()["properties"]["filter"]
    assert tuple(shown["properties"]) == NAMES


class Extra:
    """A plugin with a route that is described, and with one that is not."""

    @hookimpl
    def register_routes(self, control: Any) -> list[Route]:
        return [Route("GET", "/v1/extra/{id}", self.told), Route("GET", "/bare", self.bare)]

    @described(answers={200: dict[str, int]}, problems=[NotFound])
    async def told(self, path: Any, query: Any, body: Any) -> Answer:
        """Tell of it.

        All of it.
        """
        return Answer({"n": 1})

    async def bare(self, path: Any, query: Any, body: Any) -> Answer:
        return Answer({})


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(tmp_path)
    await parts.start(Extra())
    try:
        yield parts
    finally:
        await parts.stop()


async def test_a_plugins_route_is_described_where_it_says_so(parts: Parts) -> None:
    first, second = await asyncio.gather(*(parts.client.get("/openapi.json") for _ in range(2)))
    assert first.content == second.content
    assert first.headers["content-type"] == "application/json"
    paths = first.json()["paths"]
    told = paths["/v1/extra/{id}"]["get"]
    assert (told["summary"], told["description"]) == ("Tell of it", "All of it.")
    assert told["operationId"] == "told"
    assert told["parameters"][0]["schema"]["type"] == "integer"
    refused = told["responses"]["500"]["$ref"]
    assert refused == "#/components/responses/500.plugin_fault"
    assert paths["/bare"]["get"].keys() == {"parameters", "responses"}


async def test_a_description_that_names_no_problem(parts: Parts) -> None:
    async def handler(asked: Any) -> Answer:
        """Nothing."""
        return Answer({})

    handlers = {("GET", "/x"): described(answers={200: dict[str, Any]}, problems=["odd"])(handler)}
    with pytest.raises(ValueError, match="'odd' is no problem of the API"):
        openapi_document(handlers)


async def test_it_does_not_hold_up_the_loop(parts: Parts) -> None:
    """It is made in a thread: other requests are answered meanwhile."""
    asking = asyncio.create_task(parts.client.get("/openapi.json", timeout=60))
    answers: list[httpx.Response] = []
    while not asking.done():
        answers.append(await parts.client.get("/healthz", timeout=60))
    assert json.loads((await asking).content)["openapi"] == "3.1.0"
    assert answers
