"""What a type of the models expects to read, as far as it matters before pydantic sees the value.

Pydantic is handed plain data, and by then it is too late for three things: a key whose type is a
text keeps `007` as it stands in the file, a key that is not known is answered with the nearest one
that is, and a secret is known as one. So the types are looked at beforehand.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from orchestratord.model.auth import Proxy
from orchestratord.model.backoff import Backoff
from orchestratord.values.attached_file import Attachment
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.secret import Secret, Text
from orchestratord.values.template import Template

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

Kind = Literal["any", "plain", "text", "secret", "map", "list", "model", "backoff"]


@dataclass(frozen=True, slots=True, eq=False)  # each is looked at for thousands of values
class Shape:
    """What a value may look like.

    `members` are the possibilities; most types have one. `null` says that None is a value, not
    only a key that is left empty.
    """

    members: tuple[Member, ...]
    null: bool = False

    @lru_cache(maxsize=4096)  # noqa: B019  # there are as many shapes as there are types
    def member(self, *kinds: Kind) -> Member | None:
        """The one possibility of these kinds; None for none, or for a choice of several."""
        found = [member for member in self.members if member.kind in kinds]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Member:
    """One possibility. `item` is the type of what a map or a list holds."""

    kind: Kind
    type: Any = None
    item: Shape | None = None


_KINDS: tuple[tuple[tuple[type, ...], Kind], ...] = (
    ((str, Template, Expression, Attachment, Proxy), "text"),
    ((Secret,), "secret"),
    ((Backoff,), "backoff"),
    ((BaseModel,), "model"),
    ((bool, int, float), "plain"),
)

ANY = Shape((Member("any"),), null=True)


def shape_of(type_: Any, aliases: tuple[Any, ...] = ()) -> Shape:
    """The shape of a type, with what pydantic's annotations add to it left aside.

    `aliases` are those that it stands in, which it may name again.
    """
    members: list[Member] = []
    null = _collect(type_, members, aliases)
    return Shape(tuple(members), null)


def _collect(type_: Any, members: list[Member], aliases: tuple[Any, ...]) -> bool:
    """Add the members of `type_`; True where None is one of its values."""
    if type_ is None or type_ is type(None):
        return True
    if type(type_).__name__ == "TypeAliasType" and type_ not in aliases:  # `type X = …`
        return _collect(type_.__value__, members, (*aliases, type_))
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _collect(arguments[0], members, aliases)
    if origin is Union or origin is types.UnionType:
        nulls = [_collect(argument, members, aliases) for argument in arguments]
        return any(nulls)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        members.append(Member("map", type_, shape_of(arguments[1], aliases)))
    elif isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        same = len(arguments) == 1 or arguments[1:] == (...,)
        item = shape_of(arguments[0], aliases) if same else ANY
        members.append(Member("list", type_, item))
    else:
        members.append(Member(_kind(type_), type_))
    return type_ is Any


def _kind(type_: Any) -> Kind:
    if not isinstance(type_, type):
        return "any"
    for bases, kind in _KINDS:
        if issubclass(type_, bases):
            return kind
    return "any"


@lru_cache(maxsize=512)
def fields_of(model: type[BaseModel]) -> dict[str, Shape]:
    """The keys of a model as they stand in the YAML, and the shape of each."""
    return {
        key_of(model, name): shape_of(info.annotation) for name, info in model.model_fields.items()
    }


@lru_cache(maxsize=512)
def keyed_fields(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """The keys of a model as they stand in the YAML, and the field of each."""
    return tuple((key_of(model, name), name) for name in model.model_fields)


_LEAVES = frozenset({str, int, float, bool, type(None), Template, Text})
"""Types of most values; to ask each of them whether it is a mapping takes ten times as long."""


def leaves_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value in a tree of models, mappings and lists that is none of these, with its path."""
    if type(value) in _LEAVES:
        yield path, value
    elif isinstance(value, BaseModel):
        for key, name in keyed_fields(type(value)):
            yield from leaves_of(getattr(value, name), (*path, key))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves_of(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves_of(item, (*path, index))
    else:
        yield path, value


def key_of(model: type[BaseModel], name: str) -> str:
    """The key of the YAML that a model's field is read from."""
    info = model.model_fields[name]
    alias = info.validation_alias
    return alias if isinstance(alias, str) else info.alias or name
