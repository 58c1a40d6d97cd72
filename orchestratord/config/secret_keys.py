"""Which keys hold secrets, by their names."""

from __future__ import annotations

import re
from functools import lru_cache

_SECRET_KEY = re.compile(
    r"(^auth|authorization|cookie|secret|token|password|passwd|api[-_]?key|credentials?)$",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """True where a text under `key` is taken for a secret."""
    return bool(_SECRET_KEY.search(key))
