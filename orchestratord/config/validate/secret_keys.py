"""Which keys hold secrets, by their names; and where secrets stand that would be stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from orchestratord.config.validate.shapes import Path, leaves_of
from orchestratord.values.secret import Text

_SECRET_KEY = re.compile(
    r"(^auth|authorization|cookie|secret|token|password|passwd|api[-_]?key|credentials?)$",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """True where a text under `key` is taken for a secret."""
    return bool(_SECRET_KEY.search(key))


def secret_values(data: Any) -> Iterator[Path]:
    """Where secrets stand in the defaults of parameters and in the schedule's `params`.

    Args:
        data: an endpoint's own keys as `NodeReader.read` gives them, whatever is wrong with them.
    """
    params = _mapping(_mapping(data).get("params"))
    for name, param in params.items():
        default = _mapping(param).get("default")
        path = ("params", name, "default")
        if is_secret_key(name) and isinstance(default, str) and default:
            yield path
        else:
            yield from _secrets(default, path)
    scheduled = _mapping(_mapping(data).get("schedule")).get("params")
    yield from _secrets(scheduled, ("schedule", "params"))


def _secrets(value: Any, path: Path) -> Iterator[Path]:
    return (at for at, leaf in leaves_of(value, path) if isinstance(leaf, Text) and leaf.secret)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
