"""What the parser lets pass and YAML 1.2 does not: refused, as it may have been meant otherwise."""

from __future__ import annotations

import re
from typing import Any

_DASH = re.compile(r"-\s*[,\]}]")
_HEADER = re.compile(r"[|>][-+\d]*#")
_NAME_ENDS = frozenset(" \t\r\n,[]{}")


class Strict:
    """Looks at the events of one text, in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0

    @classmethod
    def of(cls, text: str) -> Strict | None:
        """None where a text has nothing that would have to be looked at."""
        suspicious = any(character in text for character in "#?&*") or _DASH.search(text)
        return cls(text) if suspicious else None

    def complaint(self, event: Any) -> str | None:
        """What is wrong with an event or in front of it; None where nothing is."""
        text, start = self._text, event.start_mark.index
        glued = self._glued(self._end, start)
        self._end = max(event.end_mark.index, start)
        if glued:
            return "a comment begins behind a blank: put one before #, or quotes around the text"
        anchor = getattr(event, "anchor", None)
        if anchor is not None and text[start + 1 + len(anchor) :][:1] not in ("", *_NAME_ENDS):
            return (
                "the name of an anchor (&) or alias (*) ends here, and something follows; a text "
                "that begins with & or * needs quotes"
            )
        style = getattr(event, "style", None)
        if style in ("|", ">") and _HEADER.search(text, start, _line_end(text, start)):
            return "a comment begins behind a blank: put one before #"
        value = getattr(event, "value", None)
        if value is not None and not style:
            if text[start - 1 : start] == "?":
                return "a text that begins with ? needs quotes"
            if value == "-":
                return "a text that is - needs quotes"
        return None

    def _glued(self, start: int, end: int) -> bool:
        """Whether a comment between two places begins at once behind something else."""
        text = self._text
        while (hash_ := text.find("#", start, end)) >= 0:
            if hash_ > 0 and not text[hash_ - 1].isspace():
                return True
            start = _line_end(text, hash_)
        return False


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
