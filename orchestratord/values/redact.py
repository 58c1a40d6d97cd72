"""Keeping secrets out of all that is stored, logged or shown: by value and by header name."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "www-authenticate"}
)
_SECRET_NAME = re.compile(r"(secret|token|password|passwd|api[-_]?key|credential)", re.IGNORECASE)
_HEX = re.compile("%[0-9A-F]{2}")
_SHORTEST = 4
"""A shorter secret would mask half of every text; `check` warns of it instead."""


@lru_cache(maxsize=1024)
def is_secret_header(name: str) -> bool:
    """True where a header's value is never shown."""
    return name.lower() in SECRET_HEADERS or bool(_SECRET_NAME.search(name))


class Learned:
    """Secrets that came up while the daemon runs, such as tokens, by whose they are."""

    __slots__ = ("_owned", "pattern")

    def __init__(self) -> None:
        self._owned: dict[str, frozenset[str]] = {}
        self.pattern: re.Pattern[str] | None = None

    def put(self, owner: str, secrets: Iterable[str]) -> None:
        """From now on these are the secrets of `owner`."""
        self._owned = {**self._owned, owner: _long_enough(secrets)}
        forms = {form for values in self._owned.values() for one in values for form in _forms(one)}
        self.pattern = _pattern(forms) if forms else None


class Redactor:
    """Replaces every known secret, also base64 or URL-encoded, by `***`."""

    __slots__ = ("_learned", "_pattern", "_values")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values = _long_enough(secrets)
        self._learned = Learned()
        forms: set[str] = set()
        for value in self._values:
            forms |= _forms(value)
        self._pattern = _pattern(forms) if forms else None

    def merged(self, other: Redactor) -> Redactor:
        """One that knows the secrets of both; after a reload the old ones still are secret. What
        `other` learns later is known to it, too."""
        same = other._values <= self._values
        if same and other._learned is self._learned:
            return self
        merged = Redactor() if same else Redactor(self._values | other._values)
        if same:
            merged._values, merged._pattern = self._values, self._pattern
        merged._learned = other._learned
        return merged

    def learn(self, owner: str, secrets: Iterable[str]) -> None:
        """Secrets that came up by now, instead of those that `owner` had before."""
        self._learned.put(owner, secrets)

    def text(self, text: str) -> str:
        """`text` with every secret masked."""
        text = self._pattern.sub(MASK, text) if self._pattern else text
        learned = self._learned.pattern
        return learned.sub(MASK, text) if learned else text

    def value(self, value: Any) -> Any:
        """A JSON-like value with every secret in its texts masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Headers for people: secret ones masked by name, all others by value."""
        return [
            (name, MASK if is_secret_header(name) else self.text(value)) for name, value in headers
        ]


def _long_enough(secrets: Iterable[str]) -> frozenset[str]:
    return frozenset(secret for secret in secrets if len(secret) >= _SHORTEST)


def _pattern(forms: Iterable[str]) -> re.Pattern[str]:
    """Any of the forms, the longest one where several begin at one place.

    By their first character: `re` tries alternatives one after the other, and would at each
    character of a long text try all of them.
    """
    rests: dict[str, list[str]] = {}
    for form in sorted(forms, key=len, reverse=True):
        rests.setdefault(form[0], []).append(re.escape(form[1:]))
    return re.compile("|".join(f"{re.escape(c)}(?:{'|'.join(rest)})" for c, rest in rests.items()))


def _forms(value: str) -> set[str]:
    """How a secret may stand in a text: as it is, URL-encoded, in JSON, in base64."""
    forms = {value, value.strip()}
    for encoded in (quote(value, safe=""), quote(value), quote_plus(value)):
        forms |= {encoded, _HEX.sub(lambda match: match[0].lower(), encoded)}
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        forms |= {escaped, escaped.replace("/", "\\/")}
    raw = value.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        # Inside a longer base64 text (`user:password`) a secret starts at one of three offsets;
        # the characters at its ends depend on its neighbours and are left out.
        for offset in range(3):
            padded = encode(b"\0" * offset + raw).decode()
            start = (offset * 8 + 5) // 6
            forms.add(padded[start : (offset + len(raw)) * 8 // 6])
    return {form for form in forms if len(form) >= _SHORTEST}
