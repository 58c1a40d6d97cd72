"""What `orchestratord explain` found out, as text for a terminal."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from orchestratord.log import escape
from orchestratord.simulate.timetable import about, between

_WIDTH = 80
_VERBS = {"webhook": ("fires", "does not fire")}
_FOLLOWS = "follows", "does not follow"
_ALIKE = 3
"""Things of one name that are shown; of a thousand calls the first few say it all."""


def explain_text(document: Mapping[str, Any]) -> str:
    """The text for what `explained_json` made."""
    lines = [*_head(document), "", *_request(document)]
    if document["decision"] is not None:
        lines += ["", "What becomes of it", *_decision(document)]
    lines += ["", *_consequences(document)]
    lines += _wrapped("Note: ", document["notes"])
    return "\n".join(escape(line) for line in lines)


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    title = f"{document['endpoint']}, attempt {document['attempt']}"
    title += f" of {document['max_attempts']}"
    if document["status_code"] is not None:
        title += f", status code {document['status_code']}"
    yield title
    if not document["enabled"]:
        yield "Its calls are refused, and tasks wait: enabled is false."


def _request(document: Mapping[str, Any]) -> Iterator[str]:
    request = document["request"]
    yield "The request"
    if request is None:
        yield from _wrapped("  ", [f"cannot be made: {document['error']}"])
        return
    yield from _sent(request, "  ")
    if document["rate_limit"] is not None:
        limit = f"rate_limit {document['rate_limit']}: before it is claimed it waits until the "
        yield from _wrapped("  ", [f"{limit}calls of its API in all daemons leave room for it."])
    before = next(iter(document["hooks"]))
    plugins = document["hooks"][before]
    if plugins:
        yield from _wrapped(
            "  ", [f"{_and(plugins)} may still change or refuse it ({before}); that is not shown."]
        )
    if "curl" in request:
        yield ""
        # Within quotes a line of the body stays what it is.
        indent = "" if "\n" in (request["body"] or "") else "  "
        yield from (f"{indent}{line}" for line in request["curl"].split("\n"))


def _sent(request: Mapping[str, Any], indent: str) -> Iterator[str]:
    if "statement" in request:
        if "database" in request:
            yield f"{indent}in the database {request['database']}:"
        yield from _lines(request["statement"], indent)
        for name, value in request.get("params", {}).items():
            yield f"{indent}:{name} = {json.dumps(value, ensure_ascii=False)}"
        return
    yield f"{indent}{request['method']} {request['url']}"
    for name, value in request["headers"].items():
        yield f"{indent}{name}: {value}"
    for name in request.get("added", ()):
        yield f"{indent}{name}: (made when it is sent)"
    if "body_file" in request:
        yield ""
        yield f"{indent}(what is in {request['body_file']})"
    if request["body"] is not None:
        yield ""
        yield from _lines(request["body"], indent)


def _lines(text: str, indent: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"{indent}{line}"


def _decision(document: Mapping[str, Any]) -> Iterator[str]:
    decision = document["decision"]
    if decision["outcome"] == "succeeded":
        yield "  succeeded"
    elif decision["outcome"] == "retry":
        code = document["status_code"]
        why = f"retry.when covers {code}" if decision["covered"] else "it can be repeated"
        yield from _wrapped("  ", [f"{document['error']}: {why}, so it is tried again"])
        yield f"  in {about(decision['delay'])}{_range(decision)}: {decision['why']}"
    else:
        said = f"{document['error']}: " if document["error"] else ""
        yield from _wrapped("  ", [f"{said}it failed for good, {decision['reason']}"])
        if decision["why"] != decision["reason"]:
            yield from _wrapped("  ", [decision["why"]])
    after = list(document["hooks"])[-1]
    plugins = document["hooks"][after]
    if plugins and document["request"] is not None:
        yield from _wrapped("  ", [f"{_and(plugins)} may decide otherwise ({after})."])


def _range(decision: Mapping[str, Any]) -> str:
    if decision["shortest"] == decision["longest"]:
        return ""
    return f" ({between(decision['shortest'], decision['longest'])} with jitter)"


def _consequences(document: Mapping[str, Any]) -> Iterator[str]:
    phases = document["phases"]
    yield f"What follows in {_and(phases)}"
    unreached = [phase for phase in phases if phase not in document["reached"]]
    if unreached:
        reached = f"this goes through {_and(document['reached'])}"
        yield from _wrapped("  ", [f"{_and(unreached)} is not reached: {reached}."])
    items = document["consequences"]
    if not items:
        yield "  nothing"
    happening = [item for item in items if item["happens"]]
    shown: Counter[tuple[str, str]] = Counter()
    for item in [*happening, *(item for item in items if not item["happens"])]:
        about = item["kind"], item["name"]
        shown[about] += 1
        if shown[about] > _ALIKE:
            continue
        yes, no = _VERBS.get(item["kind"], _FOLLOWS)
        verb = yes if item["happens"] else no
        yield from _wrapped("  ", [f"{item['kind']} {item['name']} {verb}: {item['why']}"])
        if item["error"] is not None:
            yield from _wrapped("    ", [f"it will fail: {item['error']}"])
        if item["request"] is not None:
            yield from _sent(item["request"], "    ")
            yield ""
    for (kind, name), count in shown.items():
        if count > _ALIKE:
            yield f"  and {count - _ALIKE} more of {kind} {name}"


def _wrapped(indent: str, texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
