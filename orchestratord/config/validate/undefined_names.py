"""Whether the templates of an endpoint use only what there is."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from orchestratord.config.validate.shapes import key_of
from orchestratord.values.suggest import suggest
from orchestratord.values.template import Template, TemplateTree

ROOTS = frozenset({"params", "task", "now"})
TASK = frozenset({"task.id", "task.attempt", "task.scheduled_at", "task.last_success_at"})

Path = tuple[str | int, ...]

_EXPRESSION = re.compile(r"""\{\{(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"])*?\}\}""", re.DOTALL)
_REFERENCE = re.compile(r"\$\{[^{}]*\}")


def written(template: Template) -> str:
    """What stands in the file, but for expressions and references."""
    return _REFERENCE.sub("", _EXPRESSION.sub("", template.source))


def literal(template: Template) -> str:
    """The text that is the same for each call: with references, as far as no expression is near."""
    return str(template.render({})) if template.constant else _EXPRESSION.sub("", template.source)


def templates_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Template | TemplateTree]]:
    """Each template in a validated value, with the path of its key."""
    if isinstance(value, Template | TemplateTree):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from templates_in(getattr(value, name), (*path, key_of(type(value), name)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from templates_in(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from templates_in(item, (*path, index))


def undefined(template: Template | TemplateTree) -> Iterator[str]:
    """What is wrong: names that no template of a call has."""
    for name in sorted(template.names - ROOTS):
        yield f"{name!r} is not known in a template{suggest(name, ROOTS)}"
    for path in sorted(template.paths):
        if path.startswith("task.") and path not in TASK:
            yield f"{path!r} is not known in a template{suggest(path, TASK)}"


def undeclared(template: Template | TemplateTree, declared: Container[str]) -> list[str]:
    """The parameters that a template uses and the endpoint does not declare."""
    used = (path.partition(".") for path in sorted(template.paths))
    return [name for root, _, name in used if root == "params" and name not in declared]
