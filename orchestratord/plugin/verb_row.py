"""A verb that a plugin adds to `orchestratorctl`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
_ARGUMENT = re.compile(r"(?P<word>[a-z][a-z0-9_]*)|\[[a-z][a-z0-9_]*\]|--[a-z][a-z0-9-]*(=[A-Z]+)?")


@dataclass(frozen=True, slots=True)
class VerbRow:
    """A verb of `orchestratorctl`: it asks one of the plugin's routes, and shows the JSON object
    that this answers; for people a list in it as a table, else its fields.

    Args:
        name: in small letters.
        about: what it does, in a few words.
        path: the route's, such as `/v1/stock/{item}`.
        method: the route's: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
        arguments: what stands behind it → what the help says of that: `item` is a word, `[item]`
            one that may be left out, `--limit=N` an option with a value, `--all` a switch. The
            words in the braces of the path go there, the others into the query, or for any other
            method than `GET` into the JSON body; those that are not given are left out.

    Raises:
        ValueError: it cannot be a verb.
    """

    name: str
    about: str
    path: str
    method: Method = "GET"
    arguments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be a verb."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the verb {self.name!r} is not a word of small letters")
        if self.method not in get_args(Method):
            raise ValueError(
                f"the verb {self.name}: its method is GET, POST, PUT, PATCH or DELETE, not "
                f"{self.method}"
            )
        found = [_ARGUMENT.fullmatch(argument) for argument in self.arguments]
        for argument, match in zip(self.arguments, found, strict=True):
            if match is None:
                raise ValueError(
                    f"the verb {self.name}: the argument {argument!r} is none of word, [word], "
                    "--option=VALUE, --switch"
                )
        words = {match["word"] for match in found if match is not None}
        if missing := set(re.findall(r"\{(\w+)\}", self.path)) - words:
            raise ValueError(f"the verb {self.name}: no argument {missing.pop()}, as its path has")
