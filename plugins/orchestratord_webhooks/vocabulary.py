"""The names that the templates of a webhook may use, and complaints about others."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from orchestratord import Template, TemplateTree

DATA = frozenset(
    {"endpoint", "phase", "status_code", "task_id", "attempt", "params", "request", "response",
     "error", "next_try"}
)  # fmt: skip
"""The fields of the envelope's data."""

PAYLOAD = DATA | {"task", "now"}
"""For a payload, which is rendered when the event happens."""

DELIVERY = frozenset({"params", "task", "now", "endpoint", "phase", "task_id"})
"""For URL and headers, which are rendered when a delivery is sent."""


FIELDS = {
    "task": frozenset({"id", "attempt", "scheduled_at", "last_success_at"}),
    "request": frozenset({"method", "url", "database", "statement", "params"}),
    "response": frozenset({"headers", "body", "encoding", "truncated"}),
}
"""What these names hold."""


def check_names(template: Template | TemplateTree, known: frozenset[str]) -> None:
    """Raises ValueError where a template uses a name that there is not."""
    wrong = [
        f"{name!r} is not known in this template: {why}" for name, why in _wrong(template, known)
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def _wrong(template: Template | TemplateTree, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    for name in sorted(template.names - known):
        if name in PAYLOAD:
            yield name, "only a payload can use it; it is not kept until the delivery is sent"
        else:
            yield name, _remedy(name, known)
    for path in sorted(template.paths):
        root, _, field = path.partition(".")
        # What every mapping can do, such as `response.get("truncated")`, is no name of ours.
        if root in known and root in FIELDS and not hasattr(dict, field):
            fields = {f"{root}.{name}" for name in FIELDS[root]}
            if path not in fields:
                yield path, _remedy(path, frozenset(fields))


def _remedy(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
