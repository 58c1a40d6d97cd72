"""Public OpenAPI documents imported, served by Prism and called through the daemon, all of them.

    python -m tests.acceptance.commands.openapi_campaign [--most N]

Prism, from npm, answers each request with an example of the document, after it has held the request
against it: a path that is not there, a parameter of another type or a missing header is an error.
The documents are those of npm packages, laid into `node_modules` by `.ci/run`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from orchestratord_openapi.openapi_document import (
    OpenApiDocument,
    items,
    mapping,
    read_openapi,
)
from orchestratord_openapi.openapi_operation import media_rank

from tests.acceptance.commands.samples import sample
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port, serving

MODULES = Path(__file__).parents[3] / "node_modules"
PRISM = MODULES / "@stoplight/prism-cli/dist/index.js"

DOCUMENTS = {
    "figma": MODULES / "@figma/rest-api-spec/openapi/openapi.yaml",
    "kubernetes": MODULES / "kubernetes-client/lib/specs/swagger-1.13.json.gz",
    "github": MODULES / "@octokit/openapi/generated/api.github.com.json",
}
"""OpenAPI 3.1 in YAML, written by hand; Swagger 2.0, generated; 3.0 in JSON, of 13 MB."""

TOKEN = "a-token-for-prism"
OURS = {
    "UNPROCESSABLE_ENTITY", "UNAUTHORIZED", "NO_PATH_MATCHED_ERROR", "NO_METHOD_MATCHED_ERROR",
    "NO_SERVER_MATCHED_ERROR", "NO_BASE_URL_ERROR", "INVALID_CONTENT_TYPE", "NOT_ACCEPTABLE",
}  # fmt: skip
"""What Prism says of a request that does not fit the document."""


@dataclass
class Report:
    """What came of one document."""

    name: str
    operations: int = 0
    called: int = 0
    succeeded: int = 0
    off: list[str] = field(default_factory=list)
    """Switched off by the import, which says why."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Failures that are not the request's: of the document, or of Prism."""
    wrong: list[str] = field(default_factory=list)
    """Failures that are."""
    seconds: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """For people."""
        took = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
        return (
            f"{self.name}: {self.operations} operations, {self.called} called, {self.succeeded} "
            f"succeeded, {len(self.off)} switched off, {len(self.wrong)} wrong ({took})"
            + "".join(f"\n  {count} × {what}" for what, count in self.elsewhere.items())
            + "".join(f"\n  {line}" for line in self.wrong)
        )


def run(name: str, home: Path, part: tuple[int, int] = (0, 1)) -> Report:
    """Import one of `DOCUMENTS`, and call its operations.

    Args:
        name: which one.
        home: an empty folder.
        part: which of how many parts of its paths Prism serves; it takes its time to read them.
    """
    report = Report(name)
    content = DOCUMENTS[name].read_bytes()
    file = home / f"{name}{Path(DOCUMENTS[name].name.removesuffix('.gz')).suffix}"
    file.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    document = read_openapi(file)
    served = _cut(document, *part)
    served_file = home / "served.json"
    served_file.write_text(json.dumps(served))
    port = free_port()
    with Daemon(home / "d", {"SECRET": TOKEN}, egress={"allow": [f"127.0.0.1:{port}"]}) as daemon:
        with _timed(report, "import"):
            _import(file, name, daemon)
        with _timed(report, "Prism's start"), ExitStack() as stack:
            stack.enter_context(_prism(served_file, port))
            held = stack.pop_all()
        with held:
            _open_api(daemon, name, port)
            daemon.start()
            endpoints = daemon.get("/v1/endpoints").json()["endpoints"]
            report.operations = len(endpoints)
            report.off = [item["id"] for item in endpoints if not item["enabled"]]
            given = _calls(OpenApiDocument(served), daemon, name)
            with _timed(report, "calls"):
                calls = {
                    daemon.call(endpoint, **call.params): endpoint
                    for endpoint, call in given.items()
                    if endpoint not in report.off
                }
                daemon.settle(timeout=900)
            for task_id, endpoint in calls.items():
                _judge(report, endpoint, daemon.task(task_id), given[endpoint].documented)
            report.called = len(calls)
    return report


def _cut(document: OpenApiDocument, first: int, every: int) -> dict[str, Any]:
    """Every so many of the paths, and what they refer to: Prism takes its time for all of it."""
    paths = dict(list(mapping(document.root["paths"]).items())[first::every])
    wanted: set[str] = set()
    waiting: list[Any] = [paths]
    while waiting:
        node = waiting.pop()
        inner = list(node.values()) if isinstance(node, dict) else items(node)
        waiting += inner
        for reference in inner:  # those of `$ref`, and of a discriminator's `mapping`
            if isinstance(reference, str) and reference.startswith("#/"):
                whole = "/".join(reference.split("/")[: 4 if "/components/" in reference else 3])
                if whole not in wanted:
                    wanted.add(whole)
                    waiting.append(document._target(whole))

    def kept(where: str, entries: Any) -> dict[str, Any]:
        names = {name: name.replace("~", "~0").replace("/", "~1") for name in mapping(entries)}
        return {name: entries[name] for name, one in names.items() if f"{where}/{one}" in wanted}

    served = {key: value for key, value in document.root.items() if "webhooks" not in key}
    served["paths"] = paths
    for key in ("definitions", "parameters", "responses"):
        if key in served:
            served[key] = kept(f"#/{key}", served[key])
    if "components" in served:
        served["components"] = {
            kind: entries if kind == "securitySchemes" else kept(f"#/components/{kind}", entries)
            for kind, entries in mapping(served["components"]).items()
        }
    return served


@contextmanager
def _timed(report: Report, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    report.seconds[what] = time.monotonic() - began


def _prism(file: Path, port: int) -> AbstractContextManager[Any]:
    command = ["node", str(PRISM), "mock", "-h", "127.0.0.1", "-p", str(port), str(file)]
    environ = {**os.environ, "NO_COLOR": "1", "NODE_OPTIONS": "--max-old-space-size=4096"}
    return serving(command, port, file.with_suffix(".log"), environ=environ, timeout=900)


def _import(file: Path, name: str, daemon: Daemon) -> None:
    done = daemon.run("import", "openapi", str(file), "--api", name, timeout=600)
    assert done.code == 0, done.err


def _open_api(daemon: Daemon, name: str, port: int) -> None:
    """What an operator does next: the host, and a secret."""
    path = daemon.config / f"apis/{name}/api.yaml"
    text = re.sub(
        r"^base_url: .*$", f"base_url: http://127.0.0.1:{port}", path.read_text(), flags=re.M
    )
    text = re.sub(r"^# (auth: \{header:.*)$", r"\1", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"\$\{secret:\w+\}", "${secret:SECRET}", text)
    # Some operations ask for another scheme than the others: a request may carry both.
    text += (
        '\nheaders: {Authorization: "Bearer ${SECRET}"}\nretry: {max_attempts: 1}\ntimeout: 2m\n'
    )
    path.write_text(text)


@dataclass(frozen=True)
class Call:
    """What an endpoint is given, and the status codes that the document has for it."""

    params: dict[str, Any]
    documented: set[str]


def _calls(document: OpenApiDocument, daemon: Daemon, api: str) -> dict[str, Call]:
    """Endpoint → how it is called, by its file and the document's schemas."""
    keys = {}
    for file in (daemon.config / f"apis/{api}/endpoints").iterdir():
        found = re.search(r"^# Operation: (\S+) (.+)$", file.read_text(), re.MULTILINE)
        assert found is not None
        keys[found[1], found[2]] = f"{api}/{file.stem}"
    given: dict[str, Call] = {}
    for path, method, shared, operation in document.operations():
        endpoint = keys.get((method.upper(), path))
        if endpoint is not None:
            declared = daemon.get(f"/v1/endpoints/{endpoint}").json().get("params", {})
            params = _given(document, declared, shared, operation)
            given[endpoint] = Call(params, set(map(str, mapping(operation.get("responses")))))
    return given


def _given(
    document: OpenApiDocument, declared: Mapping[str, Any], shared: Any, operation: Any
) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for parameter in document.parameters_of(shared, operation):
        own = {key: parameter[key] for key in ("example", "examples") if key in parameter}
        if isinstance(own.get("examples"), Mapping):
            first = document.look(next(iter(own.pop("examples").values()), {}))
            own |= {"example": first["value"]} if "value" in first else {}
        schema = parameter.get("schema", parameter)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(parameter.get("name"))).strip("_.-")
        schemas.setdefault(name, {**document.look(schema), **own})
    content = mapping(document.look(operation.get("requestBody")).get("content"))
    if content:
        media = mapping(content[min(content, key=media_rank)])
        schema = document.look(media.get("schema", {}))
        examples = [
            document.look(one).get("value") for one in mapping(media.get("examples")).values()
        ]
        example = media.get("example", examples[0] if examples else None)
        # Some examples do not fit their own schema.
        whole = {**schema, "components": document.root.get("components", {})}
        if example is not None and Draft202012Validator(whole).is_valid(example):
            schema = {**schema, "example": example}
        schemas.setdefault("body", schema)
        schemas |= {n: s for n, s in mapping(schema.get("properties")).items() if n not in schemas}
    return {
        name: _fitting(sample(document, schemas.get(name, {"type": param.get("type")})), param)
        for name, param in declared.items()
        if param.get("required")
    }


def _fitting(value: Any, param: Mapping[str, Any]) -> Any:
    """Examples say `1` where they mean the text."""
    if param.get("type") == "string" and not isinstance(value, str):
        return json.dumps(value)
    if param.get("type") == "integer" and isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


def _judge(report: Report, endpoint: str, task: Mapping[str, Any], documented: set[str]) -> None:
    if task["status"] == "succeeded":
        report.succeeded += 1
        return
    body = str(mapping(task.get("response")).get("body"))
    found = re.search(r"prism/errors#(\w+)", body)
    if documented == {str(task["last_status_code"])}:
        report.elsewhere[f"{task['last_status_code']} is all that is documented"] += 1
    elif task["last_error"] == "no answer came in time":
        report.elsewhere[f"{task['last_error']}: {endpoint}"] += 1
    elif found is None or found[1] in OURS:
        report.wrong.append(f"{endpoint}: {task['last_error']}: {body[:400]}")
    else:
        report.elsewhere[found[1]] += 1


def missing() -> list[str]:
    """What is not installed."""
    return [str(path) for path in (PRISM, *DOCUMENTS.values()) if not path.exists()]


def main() -> int:
    """Run all documents; 1 where a request did not fit its document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=DOCUMENTS, action="append")
    parser.add_argument("--parts", type=int, default=1, help="in which Prism serves each document")
    parser.add_argument("--first", type=int, help="so many of these parts, and no more")
    arguments = parser.parse_args()
    bad = 0
    for name in arguments.only or DOCUMENTS:
        for part in range(min(arguments.first or arguments.parts, arguments.parts)):
            with tempfile.TemporaryDirectory(prefix="o") as home:
                report = run(name, Path(home), (part, arguments.parts))
            print(report.line(), flush=True)
            bad += len(report.wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
