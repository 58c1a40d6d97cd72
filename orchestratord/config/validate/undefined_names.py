"""Whether the templates of an endpoint use only what there is."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

from orchestratord.config.validate.shapes import leaves_of
from orchestratord.errors import Problem
from orchestratord.model.endpoint import Endpoint, ParamRules
from orchestratord.values.jmespath_expression import NOTHING, Expression
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


Used = Template | TemplateTree | Expression
"""What uses parameters by their names."""


def undeclared(template: Used, declared: Container[str]) -> list[str]:
    """The parameters that a template uses and the endpoint does not declare."""
    used = (path.partition(".") for path in sorted(template.paths))
    return [name for root, _, name in used if root == "params" and name not in declared]


def misused(
    key: str,
    used: Used | None,
    endpoint: Endpoint,
    types: Mapping[str, str] = {},
    *,
    condition: bool = False,
) -> Iterator[Problem]:
    """What is wrong with how a key of an endpoint uses the parameters of its calls.

    What can never work is an error in a file that declares parameters. Elsewhere it is a warning,
    as other endpoints that share the key may have the parameter.

    Args:
        key: its path.
        used: what stands there, of which all names are known.
        endpoint: declares the parameters.
        types: those of other paths that an expression compares (`Expression.misfits`).
        condition: whether an expression has to be true for the key to have an effect.
    """
    declared, spec = endpoint.params, endpoint.spec
    free = not declared and (spec is None or (isinstance(spec, ParamRules) and spec.free))
    of_params = {f"params.{name}": one.type for name, one in declared.items() if one.type}
    for path, part in leaves_of(used.tree if isinstance(used, TemplateTree) else used, (key,)):
        if not isinstance(part, Template | Expression):
            continue
        wrong = [] if free else undeclared(part, _METHODS | declared.keys())
        found = [
            f"'params.{name}' is not declared under params of {endpoint.source}"
            + suggest(name, declared)
            for name in wrong
        ]
        if isinstance(part, Expression):
            missing = {f"params.{name}": NOTHING for name in wrong}
            misfits, never = part.misfits({**types, **of_params, **missing})
            found += misfits
            certain = condition and never
        else:
            certain = not (part.computed and _TOLERANT.search(part.source))
        place = ".".join(map(str, path))
        for message in found:
            if certain and declared:
                yield Problem(message, key=place, own=True)
            yield Problem(message, key=place, severity="warning")


_METHODS = frozenset(dir(dict))
"""What a template may call of `params`, and is no parameter then."""
_TOLERANT = re.compile(r"\b(default|d|defined|undefined|get|if|and|or)\b")
"""With these, a template may render though there is no such parameter."""
