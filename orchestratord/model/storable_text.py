"""Texts that both databases can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestratord.errors import InvalidParams

_UNFIT = re.compile("[\0\ud800-\udfff]")


def check_texts(values: Mapping[str, Any]) -> None:
    """Raise InvalidParams where a text has a NUL, which PostgreSQL cannot hold, or half of a
    surrogate pair, which UTF-8 cannot."""
    unfit = {
        name: "holds a character that no database can store: NUL, or half of a surrogate pair"
        for name, value in values.items()
        if isinstance(value, str) and _UNFIT.search(value)
    }
    if unfit:
        raise InvalidParams(unfit)
