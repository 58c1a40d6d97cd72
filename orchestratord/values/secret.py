"""Texts whose references were resolved, and secrets that nothing prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from orchestratord.values.yaml_value import YamlValue


class Text(str):
    """A string of the YAML whose references were resolved.

    It is the resolved text; `parts` keeps what stood in the file apart from what came out of a
    reference, so that a reference's value is never read as a template, and `secret` says whether
    one of them was secret.
    """

    __slots__ = ("parts", "secret", "source")

    parts: tuple[tuple[str, bool], ...]
    """(text, came from a reference) in order."""
    secret: bool
    source: str
    """As it stands in the file."""

    @classmethod
    def of(cls, parts: Iterable[tuple[str, bool]], *, secret: bool, source: str) -> Text:
        """Join `parts` and remember them."""
        kept = tuple(parts)
        text = cls("".join(part for part, _ in kept))
        text.parts = kept
        text.secret = secret
        text.source = source
        return text


class Secret(YamlValue):
    """A value that nothing prints. `reveal()` gives it to what sends it."""

    __slots__ = ("_value",)

    json_schema: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "minLength": 1,
        "description": "a secret, by reference: ${secret:NAME}, ${credential:name}, ${file:/path}",
    }

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the wire alone."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def parse(cls, value: Any) -> Secret:
        """A non-empty string becomes a secret. Raises ValueError without showing the value."""
        if isinstance(value, Secret):
            return value
        if isinstance(value, Text) and not value:
            raise ValueError(f"{value.source} is empty; give it the secret")
        if not isinstance(value, str) or not value:
            raise ValueError(
                "a secret is a text that is not empty, preferably a reference: ${secret:NAME}"
            )
        return cls(str(value))
