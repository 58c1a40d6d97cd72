"""Whatever stands in a file: an answer within a second, never a traceback, always with a place.

More of it, and what was longest:

    pytest -rP --hypothesis-profile=campaign tests/unit/config/yaml/test_yaml_fuzz.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from config_parts import ADDRESSES, ConfigFolder, host_of
from hypothesis import example, given
from hypothesis import strategies as st

from orchestratord.config.load import load, read_plugins
from orchestratord.config.yaml.document import read_document
from orchestratord.errors import ConfigError, Problem

pytestmark = pytest.mark.slow

HOST = host_of()
TEN_SECONDS = 10.0
"""Far above what the slowest machine takes, far below what a quadratic rule would: minutes."""
LOADERS = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]

FILES = {
    "orchestratord.yaml": """\
concurrency: 5
egress: {allow: [10.0.0.0/8]}
plugins: {dirs: [plugins], settings: {own: {a: 1}}}
defaults: {timeout: 5s, retry: {backoff: linear}, webhooks: []}
""",
    "apis/shop/api.yaml": """\
base_url: https://a.example:443/v1
headers: {Accept: "*/*", X-A: "{{ task.id }}"}
auth: {basic: {username: me, password: "${secret:S}"}}
max_response: 1MiB
""",
    "apis/shop/endpoints/get.yaml": """\
method: POST
path: /x/{{ params.id }}
query: &q {limit: "{{ params.limit }}"}
body: {json: {a: [1, 2.5, null, true], b: "{{ params.id|upper }}"}}
params: {id: {required: true}, limit: {type: integer, default: 50}}
success: [2xx, 304]
schedule: {every: day, at: 10:30, params: {id: x}}
retry:
  backoff: {strategy: list, delays: [1s, 2m]}
  when: [error, 500-599]
webhooks:
  - name: ops
    phase: after_request
    status_code: [5xx, error]
    url: https://ops.example.com/hook
    headers: *q
    payload: {text: "{{ endpoint }}"}
""",
}
PIECES = [
    "{", "}", "[", "]", ":", ": ", ",", "-", "- ", "?", "|", ">", "&q", "*q", "!", "!!int ", "%",
    "@", "'", '"', "#", "\t", "\n", "  ", "\\", "${", "${X}", "${file:/dev/zero}", "$${", "{{",
    "}}", "{{ x }}", "{{ params.id }}", "{%", "<<: ", "---\n", "...\n", "~", "null", "true", "no",
    "0", "-1", "1e999", ".nan", "9" * 500, "0x1f", "\x00", "\x1b[31m", "\u2028", "\ud7ff", "\ufeff",
    "é", "🙂", "\r", "name", "webhooks", "retry", "backoff", "strategy", "x" * 2000,
]  # fmt: skip


@dataclass
class Took:
    """The CPU time of this thread, which does not depend on who else is at work."""

    files: int = 0
    longest: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
        self.files += 1
        self.longest = max(self.longest, took)
        assert took < TEN_SECONDS


TOOK = Took()


def check(problems: list[Problem], content: bytes, file: str) -> None:
    lines = content.decode("utf-8", "replace").splitlines() or [""]
    for problem in problems:
        assert problem.message
        assert str(problem).isprintable(), str(problem)
        if problem.file == file:
            assert problem.line is not None, str(problem)
            assert 1 <= problem.line <= len(lines) + 1
            assert problem.column is not None
            assert problem.column >= 1


@given(st.binary(max_size=300), st.sampled_from(["f.yaml", "f.json"]))
@example(b"\xef\xbb\xbf\xef\xbb\xbf", "f.yaml")
@example(b"? ? ? ?\n", "f.yaml")
@example(b"&a &b c", "f.yaml")
@example(b"- - *a", "f.yaml")
@example(b'{"a": "\\u0000"}', "f.json")
def test_arbitrary_bytes(content: bytes, file: str) -> None:
    for loader in LOADERS:
        with TOOK.measured():
            document = read_document(file, content, loader=loader)
        assert (document.root is not None) or document.problems
        check(document.problems, content, file)


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.sampled_from(["f.yaml", "f.json"]))
def test_pieces_of_yaml(pieces: list[str], file: str) -> None:
    content = "".join(pieces).encode()
    for loader in LOADERS:
        with TOOK.measured():
            document = read_document(file, content, loader=loader)
        assert (document.root is not None) or document.problems
        check(document.problems, content, file)


@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 12), st.sampled_from(PIECES)),
             min_size=1, max_size=4),
)  # fmt: skip
@example("apis/shop/api.yaml", [(595, 1, "\\")])
def test_a_good_folder_with_something_cut_out_and_put_in(
    file: str, edits: list[tuple[int, int, str]]
) -> None:
    text = FILES[file]
    for position, cut, piece in edits:
        at = position % (len(text) + 1)
        text = text[:at] + piece + text[at + cut :]
    _load({**FILES, file: text}, file)


def values() -> st.SearchStrategy[object]:
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8)
        | st.sampled_from(
            ["http", "fixed", "list", "5s", "2xx", "error", "{{ params.id }}", "${X}"]
        )
    )
    keys = st.sampled_from(
        ["strategy", "name", "phase", "url", "type", "default", "delay", "delays", "json", "every"]
    ) | st.text(max_size=4)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


@given(
    st.sampled_from(sorted(FILES)),
    st.dictionaries(
        st.sampled_from(
            [
                "type", "method", "path", "query", "headers", "body", "params", "success",
                "timeout", "idempotent", "enabled", "schedule", "retry", "webhooks", "base_url",
                "auth", "egress", "max_response", "concurrency", "defaults", "plugins", "log",
                "retention", "database",
            ]
        ),
        values(),
        max_size=6,
    ),
)  # fmt: skip
def test_good_yaml_that_means_nothing(file: str, tree: dict[str, object]) -> None:
    _load({**FILES, file: yaml.safe_dump(tree, allow_unicode=True)}, file)


def _load(files: dict[str, str], changed: str) -> list[Problem]:
    with tempfile.TemporaryDirectory() as name:
        folder = ConfigFolder(Path(name))
        (folder.path / "plugins").mkdir()
        for file, text in files.items():
            (folder.path / file).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / file).write_bytes(text.encode("utf-8", "surrogatepass"))
        content = (folder.path / changed).read_bytes()
        try:
            with TOOK.measured():
                config = load(folder.path, HOST, environ={"S": "a-secret"}, addresses=ADDRESSES)
            problems = list(config.warnings)
        except ConfigError as error:
            problems = list(error.problems)
            assert problems
        check(problems, content, changed)
        try:
            read_plugins(folder.path)
        except ConfigError as error:
            check(list(error.problems), content, changed)
    return problems


def test_the_folder_that_is_mutated_is_good() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = ConfigFolder(Path(name))
        folder.environ = {"S": "a-secret"}
        (folder.path / "plugins").mkdir()
        for file, text in FILES.items():
            folder.write(file, text)
        assert folder.errors() == []


@pytest.mark.parametrize(
    "piece", ["? ", "- ", "[", "{a: ", "a: &a\n", "*a, ", "'' : ", "{}, ", "[]: 1, ", "!x y, "]
)
def test_long_rows_of_one_thing(piece: str) -> None:
    # Not timed: what is quadratic here would not end within anybody's patience.
    for row in (piece * 1000, piece * (200_000 // len(piece))):
        for text, file in (("k: [" + row, "f.yaml"), (row, "f.yaml"), ('{"k": [' + row, "f.json")):
            document = read_document(file, text.encode())
            assert document.problems


LARGE = 1_040_000
"""Characters; a little less than what is taken."""
AT_ITS_BOUNDS = {
    "unknown keys": "".join(f"k{n}: 1\n" for n in range(9_000)),
    "webhooks": "webhooks: [" + "{}, " * 6_500 + "]",
    "references": "query: {" + "".join(f"k{n}: '${{K{n}}}', " for n in range(9_000)) + "}",
    "names": "query: {" + "".join(f"k{n}: '{{{{ k{n} }}}}', " for n in range(9_000)) + "}",
    "delays": "retry: {backoff: {strategy: list, delays: [" + "x, " * 19_000 + "]}}",
    "one template": "query: {a: '{{ " + "1+" * (LARGE // 2) + "1 }}'}",
    "braces": "query: {a: '" + "{{" * (LARGE // 2) + "'}",
    "one duration": "timeout: " + "9" * LARGE + "s",
    "one cron": "schedule: {cron: '" + "1," * (LARGE // 2) + "1 * * * *'}",
    "values": "body: {json: [" + "1, " * (LARGE // 3) + "]}",
}


@pytest.mark.parametrize("name", AT_ITS_BOUNDS)
def test_a_file_at_its_bounds(name: str) -> None:
    file = "apis/shop/endpoints/get.yaml"
    problems = _load({**FILES, file: f"path: /x\n{AT_ITS_BOUNDS[name]}\n"}, file)
    assert all(len(str(problem)) < 1_000 for problem in problems)
    assert name == "one cron" or problems


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """What the docs say is measured by this."""
    yield
    print(f"{TOOK.files:,} files, the longest took {TOOK.longest * 1e3:.0f} ms")
