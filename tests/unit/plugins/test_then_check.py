"""What is wrong with `then:` is said with its place before anything is called."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import orchestratord_then
import pytest

from orchestratord.config.load import load
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import ConfigError
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host

GET = """
    path: /users/{{ params.id }}
    params: {id: {type: string, required: true}, limit: {type: integer, default: 50}}
"""
LIST = """
    path: /users
    params: {page: {type: integer}}
    then:
      - call: crm/get
        each: body.records
        params:
          id: item.Id
"""
PLACE = "apis/crm/endpoints/list.yaml"


class Folder:
    """A config folder with the API `crm`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = Host()
        self.host.register(HttpPlugin(), "http")
        self.host.register(orchestratord_then, "then")
        self.write("api", "base_url: https://crm.test\n", "apis/crm/api.yaml")
        self.write("get", GET)

    def write(self, name: str, text: str, file: str = "") -> None:
        path = self.path / (file or f"apis/crm/endpoints/{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def load(self) -> Config:
        return load(self.path, self.host)

    def errors(self) -> list[str]:
        try:
            self.load()
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_good(folder: Folder) -> None:
    folder.write("list", LIST)
    (entry,) = folder.load().endpoints["crm/list"][orchestratord_then.THEN]
    assert (entry.call, entry.limit, entry.when) == ("crm/get", None, None)
    assert entry.params["id"].expression.source == "item.Id"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("crm/get", "crm/gett", "5:5: then.0.call: there is no endpoint 'crm/gett', did you mean"),
        ("crm/get", "get", "5:5: then.0.call: 'get' does not fit the pattern"),
        ("each:", "eech:", "6:5: then.0.eech: unknown key, did you mean 'each'?"),
        (
            "id: item",
            "idd: item",
            "8:7: then.0.params.idd: there is no such parameter, did you mean 'id'? (of crm/get)",
        ),
        ("id: item.Id", "limit: 5", "7:5: then.0.params.id: is required (of crm/get)"),
        (
            "id: item.Id",
            "id: item.Id\n      limit: 1.5",
            "9:7: then.0.params.limit: expected a whole number, not 1.5 (of crm/get)",
        ),
        ("item.Id", "7", '8:7: then.0.params.id: expected a text, not 7 (of crm/get)'),
        ("item.Id", "item..Id", "8:7: then.0.params.id: is not JMESPath: unexpected '.'"),
        ("item.Id", "upper(item.Id)", "8:7: then.0.params.id: is not JMESPath: there is no funct"),
        ("item.Id", '"{{ item.Id }}"', "8:7: then.0.params.id: is no template; write JMESPath"),
        ("item.Id", "[item.Id]", "8:7: then.0.params.id: write one expression that makes it"),
        ("item.Id", "itm.Id", "8:7: then.0.params.id: 'itm' is not known here, did you mean"),
        (
            "item.Id",
            "all",
            "8:7: then.0.params.id: 'all' is not known here; known are body, headers, item, "
            "params, status_code, task, text; a text has quotes of its own: \"'all'\"",
        ),
        ("body.rec", "boddy.rec", "6:5: then.0.each: 'boddy' is not known here, did you mean 'bod"),
        ("body.rec", "item.rec", "6:5: then.0.each: 'item' is known only in `params` and `when`"),
        ("    each: body.records\n", "", "7:7: then.0.params.id: 'item' is known only in"),
        ("each: body.records", "limit: 0", "6:5: then.0.limit: must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_errors_have_their_place(folder: Folder, old: str, new: str, error: str) -> None:
    text = dedent(LIST)
    assert old in text
    folder.write("list", text.replace(old, new))
    errors = folder.errors()
    assert any(said.startswith(f"{PLACE}:{error}") for said in errors), errors


def test_a_secret_is_not_stored(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hunter22")
    folder.write("list", LIST.replace("item.Id", "${secret:KEY}"))
    assert folder.errors()[0].startswith(
        f"{PLACE}:8:7: then.0.params.id: a secret here would be stored in the database"
    )


def test_of_an_endpoint_that_is_wrong_itself_only_that_is_said(folder: Folder) -> None:
    folder.write("list", LIST)
    folder.write("get", "path: /users\ntimeout: soon\n")
    (error,) = folder.errors()
    assert "timeout: 'soon' is not a duration" in error


# -- circles -------------------------------------------------------------------------------------


def calls(name: str, limit: str = "") -> str:
    return f"path: /x\nthen:\n  - {{call: crm/{name}, when: body.more{limit}}}\n"


def test_pages_need_a_limit(folder: Folder) -> None:
    folder.write("list", calls("list"))
    assert folder.errors() == [
        f"{PLACE}:3:6: then.0.call: goes round without end: crm/list → crm/list; give one of "
        "these calls a `limit`"
    ]
    folder.write("list", calls("list", ", limit: 100"))
    assert folder.errors() == []


def test_a_circle_over_several_endpoints(folder: Folder) -> None:
    folder.write("a", calls("b"))
    folder.write("b", calls("c"))
    folder.write("c", calls("a"))
    folder.write("beside", calls("a"))
    first, second, third = folder.errors()
    assert first.endswith("crm/a → crm/b → crm/c → crm/a; give one of these calls a `limit`")
    assert second.startswith("apis/crm/endpoints/b.yaml:3:6: then.0.call: goes round without end")
    assert "crm/c → crm/a → crm/b → crm/c" in third
    folder.write("b", calls("c", ", limit: 3"))
    assert folder.errors() == []


def test_what_tests_expect_is_looked_for(folder: Folder) -> None:
    test = "\ntests: [{answer: {status_code: 200}, expect: {calls: [crm/gett]}}]\n"
    folder.write("list", dedent(LIST) + test)
    (error,) = folder.errors()
    assert "tests.0.expect.calls.0.call: there is no endpoint 'crm/gett', did you mean" in error


def test_what_a_failure_and_the_end_of_a_run_can_name(folder: Folder) -> None:
    folder.write(
        "list",
        """
        path: /users
        then:
          - {call: crm/get, on: failure, params: {id: reason, limit: end}}
          - {call: crm/get, on: run_end, when: body.next, params: {id: run_id}}
          - {call: crm/get, on: sometimes, params: {id: body.id}}
        """,
    )
    assert [error.partition(": ")[2] for error in folder.errors()] == [
        "then.2.on: unknown value 'sometimes'; known are failure, run_end, success"
    ]
    folder.write("list", (folder.path / PLACE).read_text().replace("sometimes", "success"))
    first, second = folder.errors()
    assert "then.0.params.limit: 'end' is not known here" in first
    assert "then.1.when: the end of a run has no body" in second


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("at: item.due", ""),
        ("delay: 5m", ""),
        ("at: due_at", "then.0.at: 'due_at' is not known here"),
        ("at: body.due, delay: 5m", "then.0: give delay or at"),
        ("delay: soon", "then.0.delay: 'soon' is not a duration"),
    ],
)
def test_when_a_call_is_due(folder: Folder, keys: str, says: str) -> None:
    entry = f"{{call: crm/get, each: body.records, params: {{id: item.Id}}, {keys}}}"
    folder.write("list", f"path: /users\nthen: [{entry}]\n")
    found = folder.errors()
    assert (says in found[0]) if says else not found


@pytest.mark.parametrize("keys", ["at: body.due", "delay: 5m"])
def test_no_ordered_call_is_due_later(folder: Folder, keys: str) -> None:
    folder.write("get", f"{dedent(GET)}partition: {{by: '{{{{ params.id }}}}', ordered: true}}\n")
    folder.write(
        "list", f"path: /users\nthen: [{{call: crm/get, params: {{id: body.id}}, {keys}}}]\n"
    )
    (found,) = folder.errors()
    assert f"then.0.{keys.partition(':')[0]}: the calls of crm/get are ordered" in found
