"""A statement for a database, as hooks see it before and after it is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Statement:
    """What one attempt executes. A `before_execute` hook may return another one.

    Args:
        database: the name of the database, as the configuration has it.
        text: the statement, in which `:name` stands for a parameter.
        params: name → value; values are bound, and never become a part of the text.
    """

    database: str
    text: str
    params: Mapping[str, Any]
