"""What an expression finds in an answer, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST_FOUND = 200
"""Characters of what an expression found."""


def found_text(found: Mapping[str, Any]) -> str:
    """One of the `expressions` of a report's document."""
    value = json.dumps(found["value"], ensure_ascii=False)
    if found["error"]:
        value = f"cannot be told: {found['error']}"
    shown = value if len(value) <= LONGEST_FOUND else f"{value[:LONGEST_FOUND]}…"
    return f"{found['key']}: {found['expression']} finds {shown}"
