"""Keeping secrets out of all that is stored, logged or shown: by value and by header name."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from copy import copy
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
_KNOWN = 256
"""Of so many names it is remembered what is shown."""
_TELLING = 12
"""What is shorter stands in ordinary texts by chance: `demo` in `demonstration`."""
_TEXT = frozenset({str})
_FLAT = frozenset({str, int, float, bool, type(None)})
"""Types of what holds no further values."""


@lru_cache(maxsize=1024)
def is_secret_header(name: str) -> bool:
    """True where a header's value is never shown."""
    return name.lower() in SECRET_HEADERS or bool(_SECRET_NAME.search(name))


class Learned:
    """Secrets that came up while the daemon runs, such as tokens, by whose they are."""

    __slots__ = ("_owned", "pattern", "telling", "values")

    def __init__(self) -> None:
        self._owned: dict[str, frozenset[str]] = {}
        self.pattern: re.Pattern[str] | None = None
        self.telling: re.Pattern[str] | None = None
        self.values: frozenset[str] = frozenset()

    def put(self, owner: str, secrets: Iterable[str]) -> None:
        """From now on these are the secrets of `owner`."""
        self._owned = {**self._owned, owner: _long_enough(secrets)}
        self.values = frozenset().union(*self._owned.values())
        self.pattern, self.telling = _patterns(self.values)


class Redactor:
    """Replaces every known secret, also base64 or URL-encoded, by `***`."""

    __slots__ = tuple("_data _hosts _known _learned _pattern _secrets _telling _values".split())

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
        """`hosts`: of URLs that are secrets; data may name them, and errors and logs may not."""
        self._values, self._hosts = _long_enough(secrets), _long_enough(hosts)
        self._learned = Learned()
        self._secrets, self._telling = _patterns(self._values)
        self._pattern = _patterns(self._values | self._hosts)[0] if self._hosts else self._secrets
        self._known: dict[Hashable, tuple[re.Pattern[str] | None, Any, Any]] = {}
        self._data: Redactor | None = None

    @property
    def data(self) -> Redactor:
        """Masks what is secret also in data that others send, or are sent: no `hosts`."""
        if self._data is None:
            data = copy(self)
            data._pattern, data._known = self._secrets, {}
            self._data = data  # whole, as threads look at it
        return self._data

    def merged(self, other: Redactor) -> Redactor:
        """One that knows the secrets of both; after a reload the old ones still are secret. What
        `other` learns later is known to it, too."""
        values, hosts = self._values | other._values, self._hosts | other._hosts
        same = (values, hosts) == (self._values, self._hosts)
        if same and other._learned is self._learned:
            return self
        merged = copy(self) if same else Redactor(values, hosts)
        merged._learned, merged._known, merged._data = other._learned, {}, None
        return merged

    def learn(self, owner: str, secrets: Iterable[str]) -> None:
        """Secrets that came up by now, instead of those that `owner` had before."""
        self._learned.put(owner, secrets)

    def text(self, text: str) -> str:
        """`text` with every secret masked."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        learned = self._learned.pattern
        return text if learned is None else learned.sub(MASK, text)

    def recall(self, name: Hashable, given: Any) -> Any:
        """What was last remembered under a name, if it was of what equals `given`, and no secret
        came up since; else None."""
        known = self._known.get(name)
        if known is None:
            return None
        learned, same, shown = known
        return shown if learned is self._learned.pattern and same == given else None

    def remember(self, name: Hashable, given: Any, shown: Any) -> None:
        """Remember what is shown of `given`, which nothing changes any more, as of what comes again
        and again."""
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[name] = self._learned.pattern, given, shown

    def is_in(self, value: Any) -> bool:
        """True where a JSON-like value holds a secret, keys included: as a whole text or number,
        and one of 12 characters or more also as a part of a text, in any form."""
        if isinstance(value, str):
            if value in self._values or value in self._learned.values:
                return True
            patterns = (self._telling, self._learned.telling)
            return any(pattern is not None and pattern.search(value) for pattern in patterns)
        if isinstance(value, int | float):
            return not isinstance(value, bool) and self.is_in(_digits(value))
        if isinstance(value, Mapping):
            return any(self.is_in(str(key)) or self.is_in(item) for key, item in value.items())
        return isinstance(value, list | tuple) and any(map(self.is_in, value))

    def problems_in(self, given: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with what a caller sent, by its name, where it would be stored."""
        if not (self._values or self._learned.values):
            return {}
        problem = "holds a secret of this configuration, and this value is stored"
        return {name: problem for name, value in given.items() if self.is_in(value)}

    def value(self, value: Any) -> Any:
        """A JSON-like value with every secret in its texts masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            if _FLAT.issuperset(map(type, value.values())) and _TEXT.issuperset(map(type, value)):
                texts = [*value, *[item for item in value.values() if type(item) is str]]
                together = "\n".join(texts)  # one search for all of them
                if self.text(together) == together:
                    return dict(value)
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Headers for people: secret ones masked by name, all others by value."""
        shown = list(headers)
        if shown:
            names, values = zip(*shown, strict=True)
            together = "\n".join(values)  # one search for all of them
            if self.text(together) == together and not any(map(is_secret_header, names)):
                return shown  # as nearly always
        return [
            (name, MASK if is_secret_header(name) else self.text(value)) for name, value in shown
        ]


def _long_enough(secrets: Iterable[str]) -> frozenset[str]:
    return frozenset(secret for secret in secrets if len(secret) >= _SHORTEST)


def _patterns(
    secrets: Iterable[str],
) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """What finds any form of the secrets, and only those that no text holds by chance."""
    forms, telling = set[str](), set[str]()
    for secret in secrets:
        found = _forms(secret)
        forms |= found
        if len(secret) >= _TELLING:
            telling |= {form for form in found if len(form) >= _TELLING}
    pattern = _pattern(forms)
    return pattern, pattern if telling == forms else _pattern(telling)


def _digits(number: float) -> str:
    """A number as a text; empty for one with more digits than Python writes."""
    try:
        return str(number)
    except ValueError:
        return ""


def _pattern(forms: Collection[str]) -> re.Pattern[str] | None:
    """Any of the forms, None for none, the longest one where several begin at one place.

    By their first character: `re` tries alternatives one after the other, and would at each
    character of a long text try all of them.
    """
    rests: dict[str, list[str]] = {}
    if not forms:
        return None
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
