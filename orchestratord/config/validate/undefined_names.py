"""Whether the templates of an endpoint use only what there is."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from orchestratord.values.suggest import suggest
from orchestratord.values.template import Template, TemplateTree

ROOTS = frozenset({"params", "task", "now"})
TASK = frozenset({"task.id", "task.attempt", "task.scheduled_at", "task.last_success_at"})

_EXPRESSION = re.compile(r"""(?s){{(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"}]++|}(?!}))*}}""")
_REFERENCE = re.compile(r"\$\{[^{}]*\}")


def written(template: Template) -> str:
    """What stands in the file, with a blank for each expression and reference."""
    return _REFERENCE.sub(" ", _EXPRESSION.sub(" ", template.source))


def undefined(template: Template | TemplateTree) -> Iterator[str]:
    """What is wrong: names that no template of a call has."""
    for name in sorted(template.names - ROOTS):
        yield f"{name!r} is not known in a template{suggest(name, ROOTS)}"
    for path in sorted(template.paths):
        if path.startswith("task.") and path not in TASK:
            yield f"{path!r} is not known in a template{suggest(path, TASK)}"


def unknown_yet(template: Template) -> Iterator[str]:
    """What is wrong with a template that is rendered when a call is accepted: it has `params`."""
    for name in sorted(template.names - {"params"}):
        if name in ROOTS:
            yield f"{name!r} is not known yet when a call is accepted; only `params` is"
        else:
            yield f"{name!r} is not known in a template{suggest(name, ('params',))}"


def undeclared(template: Template | TemplateTree, declared: Container[str]) -> list[str]:
    """The parameters that a template uses and the endpoint does not declare."""
    used = (path.partition(".") for path in sorted(template.paths))
    return [name for root, _, name in used if root == "params" and name not in declared]
