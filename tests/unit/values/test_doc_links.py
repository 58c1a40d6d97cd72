"""What the daemon says leads to where the documentation explains it, and nothing is left out."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.code.size import House
from orchestratord.api.server.http_connection import Peer
from orchestratord.api.server.problem_json import PROBLEMS, Refusal
from orchestratord.cli.doctor.doctor_command import checks
from orchestratord.model.task import Reason
from orchestratord.queue.daemon_health import CLAIMS_FAILING, DATABASE, FATAL, MEMORY, STALLED, Code
from orchestratord.values import doc_links

ROOT = Path(__file__).parents[3]
LEVELS = {"warning", "error", "exception", "critical", "log"}
VAGUE = {"how", "that", "what", "when", "where", "whether", "which", "who", "whose", "why"}
SPOKEN = {"Problem", "Trouble", "fail", "refuse", "warn"}
"""Calls, beside those of loggers and exceptions, whose words reach an operator."""


class Said(NamedTuple):
    """A call of a logger: its message, where that is written there, and its keywords."""

    place: str
    text: str | None
    keywords: set[str]


@cache
def calls() -> list[tuple[str, ast.Call | ast.Raise]]:
    """What stands in the modules of the daemon and its plugins, and where."""
    return [
        (f"{module.path}:{node.lineno}", node)
        for module in House().modules("orchestratord", "plugins")
        for node in module.nodes
        if isinstance(node, ast.Call | ast.Raise)
    ]


def said(levels: Collection[str] = LEVELS) -> Iterator[Said]:
    for place, node in calls():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in levels
            and ast.unparse(node.func.value).endswith("log")
        ):
            text = node.args[node.func.attr == "log"]
            constant = text.value if isinstance(text, ast.Constant) else None
            yield Said(
                place,
                constant if isinstance(constant, str) else None,
                {keyword.arg or "" for keyword in node.keywords},
            )


def beginning(node: ast.AST) -> str:
    """The first word of a text; empty where it is no text, or begins with a value."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    text = node.value if isinstance(node, ast.Constant) else None
    return str(text).partition(" ")[0].lower() if isinstance(text, str) else ""


@cache
def titles(page: str, level: int) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


def leads_somewhere(link: str) -> bool:
    address, _, anchor = link.removeprefix(f"{doc_links.base()}/").partition("#")
    found = [title for level in (2, 3) for title in titles(address.rstrip("/"), level)]
    return anchor in {doc_links.anchor(title) for title in found}


def test_every_message_of_the_log_has_its_entry_and_every_entry_its_message() -> None:
    found = list(said())
    assert len(found) > 100
    unwritten = [one.place for one in found if one.text is None]
    assert not unwritten, "write the message where it is logged"
    known = {one.place: doc_links.heading(one.text or "") for one in found}
    unknown = [one.place for one in found if not known[one.place] and "extra" not in one.keywords]
    assert not unknown, "too few words to know it by: say more, or give `help` in `extra`"
    named = {doc_links.anchor("a plugin did something wrong")}  # given by what logs it
    entries = {doc_links.anchor(title) for title in titles("messages", 3)}
    assert {doc_links.anchor(one) for one in known.values() if one} == entries - named
    assert named <= entries
    assert len(entries) == len(titles("messages", 3)), "an entry stands there twice"


def test_every_message_begins_with_what_happened_or_with_a_thing() -> None:
    vague = [one for one in said({*LEVELS, "info"}) if beginning(ast.Constant(one.text)) in VAGUE]
    assert not vague
    for place, node in calls():
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func).rpartition(".")[2]
        if isinstance(node, ast.Raise) or name in SPOKEN:
            assert not VAGUE.intersection(map(beginning, call.args)), place


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("claiming failed; trying again", "claiming failed; trying again"),
        ("the breaker of %s is open: %d attempts failed", "the breaker of … is open"),
        ("%s: its token was lost (%s)", "its token was lost"),
        ("task %s", ""),
        ("%s", ""),
    ],
)
def test_a_message_is_known_by_its_first_words(text: str, title: str) -> None:
    assert doc_links.heading(text) == title
    assert doc_links.message(text).endswith(f"#{doc_links.anchor(title)}" if title else "")


def test_refusals_reasons_and_codes_lead_to_their_entries() -> None:
    for code in PROBLEMS:
        assert leads_somewhere(str(Refusal(code, "no").document()["type"])), code
    daemon = (ROOT / "orchestratord" / "daemon" / "daemon.py").read_text()
    parts = {*re.findall(r'"(\w+)": (?:worker|self\._\w+)[},]', daemon), "event_loop", DATABASE}
    assert len(parts) == 5
    codes = {*Code, FATAL, CLAIMS_FAILING, MEMORY, *(f"{part}{STALLED}" for part in parts)}
    for path in (ROOT / "orchestratord").rglob("*.py"):
        codes |= set(re.findall(r'Trouble\(\s*"(\w+)"', path.read_text()))
    assert {"draining", "workers_missing"} < codes
    for word in (*Reason, *codes):
        assert leads_somewhere(doc_links.trouble(word)), word


def test_every_check_of_doctor_leads_to_its_entry() -> None:
    assert len(checks()) > 10
    for check in checks():
        assert leads_somewhere(doc_links.finding(check)), check
    entries = [title for title in titles("troubleshooting", 3) if title.startswith("doctor ")]
    assert entries == [f"doctor {check}" for check in checks()]


def test_the_file_of_a_page_is_installed_beside_the_package() -> None:
    file, _, anchor = doc_links.installed(doc_links.finding("open files")).partition("#")
    assert Path(file).read_text().startswith("# ")
    assert anchor == "doctor-open-files"
    assert doc_links.installed("https://plugin.test/help/#x") == "https://plugin.test/help/#x"


def fields_of(tree: ast.Module) -> Iterator[str]:
    """What the calls of loggers in a module give in `extra`, also by a variable or a function."""
    given = {
        ast.unparse(keyword.value).partition("(")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extra" and not isinstance(keyword.value, ast.Constant)
    }
    given |= {  # lines that are written together: `info(log, lines, fields, about)`
        ast.unparse(node.args[2])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("info", "logs.info")
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(keywords=keywords):
                found = [one.value for one in keywords if one.arg == "extra"]
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in given:
                found = [value]
            case ast.FunctionDef(name=name) if name in given:
                found = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            case _:
                continue
        for one in [inner for value in found if value for inner in ast.walk(value)]:
            if isinstance(one, ast.Dict):
                yield from (str(key.value) for key in one.keys if isinstance(key, ast.Constant))


def test_every_field_of_the_json_log_is_documented() -> None:
    page = (ROOT / "docs" / "how-to" / "ship-the-log.md").read_text()
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", page, re.MULTILINE))))
    found = {
        field
        for folder in ("orchestratord", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        if ".getLogger(" in (text := path.read_text())
        for field in fields_of(ast.parse(text))
    }
    assert {"task_id", "help", "caller", "stack"} <= found
    found |= {f"peer_{name}" for name in Peer._fields}
    assert found == told - {"time", "level", "logger", "message", "exception"}


def test_one_file_says_where_the_documentation_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Documentation"]
    assert doc_links.base() == f"{address}/{doc_links.LATEST}", "install it again: pip install -e ."
    assert doc_links.base().startswith("https://")
    for folder in ("orchestratord", "orchestratorctl", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            assert address not in path.read_text(), path
