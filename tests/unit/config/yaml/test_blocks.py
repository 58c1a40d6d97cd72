"""Files that repeat blocks are read as if each were read by itself."""

from __future__ import annotations

import json
import os
import random
import re
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest
from config_parts import ADDRESSES, WHSEC, ConfigFolder, OtherExecutor, host_of
from pydantic import BaseModel

from orchestratord import Executor, Model, hookimpl
from orchestratord.config import load
from orchestratord.config.cache import Cache
from orchestratord.config.load import Sources, read
from orchestratord.config.validate.request_rules import RequestRules
from orchestratord.config.yaml.blocks import CutDocument, KnownBlocks
from orchestratord.config.yaml.document import YamlDocument, read_document
from orchestratord.errors import ConfigError

pytestmark = pytest.mark.slow

FILES = 14
ROUNDS = int(os.environ.get("BLOCK_ROUNDS", "15"))

GOOD = {
    "type": ["type: http", "type: http # comment"],
    "method": ["method: GET", "method: POST # comment", "method: >-\n  GET\n"],
    "path": ["path: /a", 'path: "/{{ params.id }}"', "path: |-\n  /b\n", "path: /${ID:-x}/y"],
    "query": ["query: {limit: '{{ params.limit }}'}", "query:\n  q: a\n  # in between\n\n  r: 2"],
    "headers": ["headers: {X-A: '{{ task.id }}'}", "headers: {X-Api: own, X-T: '{{ now }}'}"],
    "params": [
        "params:\n  id: {type: string}\n  limit: {type: integer, default: 007}",
        "params: {id: {required: true}, limit: {}, tag: {default: '${TAG:-x}'}}",
    ],
    "timeout": ["timeout: 5s", "timeout: 7"],
    "retry": ["retry: {max_attempts: 3}", "retry:\n  backoff: fixed", "retry: &r {jitter: 0.2}"],
    "webhooks": [
        "webhooks:\n- {name: all, phase: on_retry, url: 'https://o.example/own'}",
        "webhooks:\n  - {phase: on_retry, url: 'https://o.example/x', payload: {a: '{{ phase }}'}}",
        f"webhooks: [{{name: s, phase: on_retry, url: 'https://o.example', secret: {WHSEC}}}]",
        "webhooks: [{name: in, phase: on_retry, url: 'http://10.0.0.1/'}]",
    ],
    "schedule": ["schedule: {every: 1h, params: {id: 007, limit: 5}}"],
    "enabled": ["enabled: true", "enabled:", "enabled: false\n\n# the end"],
}
BAD = {
    "type": ["type: htp", "type: gone", "type: [http]", "type: 7"],
    "method": ['method: "GET', "method: FETCH", "method: GET\n..."],
    "path": ["path: [/a", "path: |+\n  /a\n", "path: /{{ params.unknown }}", "path: {a: b,", ""],
    "query": ["query: {a: b,\nlimit: 1\n}", "query: *r", 'query: {a: "x\n"}', "query: {a: }}"]
    + ["query: {q: '{{ parms.x }}'}"] * 2,
    "headers": ["headers: {'a b': c}", "headers: !x {}", 'headers: {X: "a\nenabled: true\n  b"}']
    + ["headers: {Content-Length: '1'}"] * 2,
    "params": ["params: {id: {type: text}}", "params: {limit: {type: integer, default: x}}", ""],
    "timeout": ["timeout: soon", "timeout: 0", "timeout: 5s\ntimeout: 6s", "---\ntimeout: 5s"],
    "retry": ["retry: {backoff: expo}", "retry: {max_attempts: 0}", "retry: *r", "retri: {}"],
    "webhooks": [
        "webhooks: [{phase: on_retry, url: 'https://o.example'}, {phase: on_retry,"
        " url: 'https://o.example'}]",
        "webhooks: [{phase: never, url: 'https://o.example'}]",
    ],
    "schedule": ["schedule: {every: 1h, params: {id: [], other: 5}}", "schedule: hourly"],
    "enabled": ["enabled: maybe", '"enabled": true', "? enabled\n: true", "enabled: true}"],
}
APIS = (
    "base_url: https://a.example\nheaders: {X-Api: '{{ params.id }}'}\nretry: {jitter: 0.3}\n"
    "webhooks: [{name: all, phase: on_retry, url: 'https://o.example/all'}]\n",
    "base_url: https://b.example\ntimeout: 9s\n",
)


CHANGES = (
    "defaults: {retry: {jitter: 0.4}, webhooks: [{name: all, phase: on_retry, secret: x}]}",
    "defaults: {retry: {jitter: 0.5}}",
    "egress: {allow: [10.0.0.0/8]}",
)
"""Of orchestratord.yaml, one after the other; with the first, all is refused."""


def _mended(config: ConfigFolder) -> None:
    """Types are right, and lines move; one file is gone."""
    first, *others = sorted(config.path.glob("apis/*/endpoints/*.yaml"))
    first.unlink()
    for number, path in enumerate(others):
        text = re.sub("(?m)^type: .*", "type: http", path.read_text())
        path.write_text("# one more line\n" * (number % 3) + text)


def _plain(self: KnownBlocks, file: str, content: bytes) -> CutDocument:
    return CutDocument(read_document(file, content))


def _outcome(config: ConfigFolder, cache: Cache | None = None) -> tuple[list[Any], Any]:
    sources = Sources(config.path, config.host, {}, ADDRESSES)
    try:
        found = read(sources, cache or Cache())
    except ConfigError as error:
        return [(str(p), p.source, p.hint, p.severity) for p in error.problems], None
    made = found.config
    shown = {id_: json.dumps(one.shown) for id_, one in made.endpoints.items()}
    said = [(str(p), p.source, p.hint, p.severity) for p in made.warnings]
    secrets = made.redactor.text(WHSEC)
    return said, (dict(made.endpoints), shown, dict(found.references), secrets)


def _write(config: ConfigFolder, chance: random.Random, bad: float) -> None:
    for number, api in enumerate(APIS):
        config.api(api, f"api{number}")
    for number in range(FILES):
        keys = [key for key in GOOD if key in ("path", "params") or chance.random() < 0.5]
        chance.shuffle(keys)
        texts = [chance.choice(BAD[key] if chance.random() < bad else GOOD[key]) for key in keys]
        config.endpoint("\n".join(texts) + "\n", f"e{number}", f"api{number % len(APIS)}")


@pytest.mark.parametrize("bad", [0.0, 0.02, 0.3])
def test_a_folder_is_the_same_with_and_without_known_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    known = good = 0
    for seed in range(ROUNDS):
        config = ConfigFolder(tmp_path / str(seed))
        config.host.registry.disabled_types["gone"] = "others"
        _write(config, random.Random(seed), bad)
        original = KnownBlocks.read

        def counting(
            self: KnownBlocks, file: str, content: bytes, plain: Any = original
        ) -> CutDocument:
            nonlocal known
            found: CutDocument = plain(self, file, content)
            known += bool(found.known)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(KnownBlocks, "read", counting)
            cache = Cache()
            found = _outcome(config, cache)
        with monkeypatch.context() as patch:
            patch.setattr(KnownBlocks, "read", _plain)
            assert _outcome(config) == found, seed
        good += found[1] is not None
        for change in (*CHANGES, "{}"):  # with what the readings before have left
            config.daemon(change)
            if change == "{}":
                _mended(config)
            found = _outcome(config, cache)
            with monkeypatch.context() as patch:
                patch.setattr(KnownBlocks, "read", _plain)
                assert _outcome(config) == found, (seed, change)
    # What is compared happens.
    assert known > ROUNDS * FILES / 8
    assert good == ROUNDS if bad == 0 else good < ROUNDS


def test_what_would_go_on_in_a_known_block_is_a_problem_all_the_same() -> None:
    """A quote or a bracket that is open where a known block stands."""
    known = "timeout: 5s\n"
    openings = ('path: "/a\n', "path: '/a\n", "query: {a: b,\n", "query: [a,\n", "path: |\n")
    endings = ('  b"\n', "  b'\n", "}\n", "]\n", 'enabled: "}\n', "enabled: '}\n", "enabled: x}\n")
    for opening, ending in product(openings, endings):
        blocks = KnownBlocks()
        for file in ("a.yaml", "b.yaml"):
            blocks.learn(blocks.read(file, b"method: GET\n" + known.encode()), ())
        text = (opening + known + ending).encode()
        found, alone = blocks.read("c.yaml", text).document, read_document("c.yaml", text)
        assert found.problems == alone.problems, (opening, ending)
        assert (found.root is None) == (alone.root is None)
    assert blocks.read("c.yaml", b"path: /a\n" + known.encode()).known


def test_places_are_those_of_the_own_file(config: ConfigFolder) -> None:
    """A block that is good in one file and wrong in another, with lines of either."""
    for number in range(3):
        config.endpoint("path: /x\nparams: {id: {}}\nquery: {q: '{{ params.id }}'}\n", f"e{number}")
    config.endpoint("path: /y\n# four\n# lines\nquery: {q: '{{ params.id }}'}\n", "wrong")
    assert config.error().startswith("apis/shop/endpoints/wrong.yaml:4:9: query.q: 'params.id'")


WRONG = {
    "query: {q: '{{ parms.x }}'}\n": "query.q: 'parms' is not known in a template",
    "body: {json: ['{{ task.idd }}']}\n": "body.json: 'task.idd' is not known in a template",
    "headers: {Content-Length: '1'}\n": "headers.Content-Length: is set by the client itself",
}
"""Blocks that are good by their models."""


@pytest.mark.parametrize("block", WRONG)
@pytest.mark.parametrize("type_", ["htp", "gone"])
@pytest.mark.parametrize("files", [1, 2])
def test_keys_are_looked_at_once_the_type_is_right(
    config: ConfigFolder, block: str, type_: str, files: int
) -> None:
    config.host.registry.disabled_types["gone"] = "others"
    cache = Cache()
    for wanted in (type_, type_, "http"):
        for number in range(files):
            config.endpoint(f"type: {wanted}\nmethod: POST\npath: /x\n{block}", f"e{number}")
        found = _outcome(config, cache)
        assert found == _outcome(config)
        assert not cache.blocks.read("other.yaml", block.encode()).known
    assert found[1] is None
    errors = [text for text, *_ in found[0]]
    assert [WRONG[block] in text for text in errors] == [True] * files


class TextSpec(Model):
    """Keys of the same names as those of HTTP, without templates."""

    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: Any = None


class TextExecutor(OtherExecutor):
    type: ClassVar[str] = "text"
    model: ClassVar[type[BaseModel]] = TextSpec


class TextPlugin:
    @hookimpl
    def register_executor(self) -> list[Executor]:
        return [TextExecutor()]


@pytest.mark.parametrize("block", WRONG)
def test_what_is_good_for_one_type_is_looked_at_for_another(
    config: ConfigFolder, block: str
) -> None:
    config.host = host_of(("text", TextPlugin()))
    for name in "abc":
        config.endpoint(f"type: text\n{block}", name)
    for name in "xyz":
        config.endpoint(f"path: /x\n{block}", name)
    files = [f"apis/shop/endpoints/{name}.yaml" for name in "xyz"]
    errors = config.errors()
    assert [error.partition(":")[0] for error in errors] == files
    assert all(WRONG[block] in error for error in errors)


def test_a_known_block_is_looked_at_once(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = RequestRules.check_headers

    def counting(self: RequestRules, headers: Any, keys: Any) -> None:
        seen.extend(headers)
        original(self, headers, keys)

    monkeypatch.setattr(RequestRules, "check_headers", counting)
    for number in range(9):
        config.endpoint("path: /x\nheaders: {X-A: '{{ task.id }}'}\n", f"e{number}")
    config.load()
    assert seen == ["X-A"] * 3  # in the first two files, and when it is known


HOOK = "webhooks: [{name: in, phase: on_retry, url: 'http://10.0.0.1/'}]\n"


def _warnings(config: ConfigFolder, cache: Cache) -> list[str]:
    """After `egress.allow`, with which there were none, is gone."""
    config.daemon("{}")
    found = _outcome(config, cache)
    assert found == _outcome(config)
    return [text.partition(": ")[0] for text, *_ in found[0]]


@pytest.mark.parametrize("gone", ["a", "b"])
def test_a_warning_names_no_file_that_is_gone(config: ConfigFolder, gone: str) -> None:
    config.daemon("egress: {allow: [10.0.0.0/8]}")
    for name in "abc":
        config.endpoint(f"path: /x\n{HOOK}", name)
    cache = Cache()
    assert _outcome(config, cache)[0] == []
    (config.path / f"apis/shop/endpoints/{gone}.yaml").unlink()
    config.endpoint(f"path: /x\n# three\n{HOOK}", "c")
    places = {"a": "a.yaml:2:40", "b": "b.yaml:2:40", "c": "c.yaml:3:40"}
    del places[gone]
    expected = [f"apis/shop/endpoints/{place}" for place in places.values()]
    assert _warnings(config, cache) == expected


def test_a_warning_has_the_line_of_the_file_as_it_is(config: ConfigFolder) -> None:
    config.daemon("egress: {allow: [10.0.0.0/8]}")
    for name in "ab":
        config.endpoint(f"path: /x\n{HOOK}", name)
    cache = Cache()
    assert _outcome(config, cache)[0] == []
    for name in "ab":
        config.endpoint(f"path: /x\n# two\n# lines\n{HOOK}", name)
    expected = [f"apis/shop/endpoints/{name}.yaml:4:40" for name in "ab"]
    assert _warnings(config, cache) == expected


def test_what_all_inherit_has_no_file_read_twice(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning of api.yaml comes of each endpoint, and its place is right."""
    config.api(f"base_url: https://a.example\n{HOOK}")
    for number in range(5):
        config.endpoint("path: /x\ntimeout: 5s\n", f"e{number}")
    monkeypatch.setattr(load, "read_document", _only_shared)
    assert [text.partition(": ")[0] for text in config.warnings()] == ["apis/shop/api.yaml:2:40"]


def test_a_warning_of_a_known_block_has_no_file_read_twice(
    config: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is that of the file that is read, which the block was not parsed in."""
    hook = f"webhooks:\n- {{phase: on_retry, url: 'https://o.example', secret: {WHSEC}}}\n"
    for number in range(5):
        config.endpoint(f"path: /{number}\n" + "# one more line\n" * number + hook, f"e{number}")
    monkeypatch.setattr(load, "read_document", _only_shared)
    whole = []
    original = KnownBlocks.read

    def counting(self: KnownBlocks, file: str, content: bytes) -> CutDocument:
        found = original(self, file, content)
        whole.append(not found.known)
        return found

    monkeypatch.setattr(KnownBlocks, "read", counting)
    places = [f"apis/shop/endpoints/e{number}.yaml:{3 + number}:47" for number in range(5)]
    assert [text.partition(": ")[0] for text in config.warnings()] == places
    assert whole == [True, True, False, False, False]


def _only_shared(file: str, content: bytes) -> YamlDocument:
    assert "/endpoints/" not in file
    return read_document(file, content)
