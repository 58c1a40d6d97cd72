"""Lines that begin too far to the left, which YAML 1.2 does not allow and the parser lets pass.

In a bracket, a text in quotes or a block text, every line has to be indented by more than the
collection that it belongs to: what is not may have been meant to stand outside.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"(?<=[\r\n])( *)[\t ]*([^\s])")
"""The blanks of a line that holds something, and the first character of that."""
_BLANK = re.compile(r"( *)([^\r\n]*)(?:\r\n|[\r\n]|\Z)")
_HEADER = re.compile(r"[|>][-+]?(\d?)[^\r\n]*[\r\n]+")

Complaint = tuple[int, str]
"""Where a line stands wrongly, as an index of the text, and why."""


def in_brackets(text: str, start: int, end: int, above: int) -> Complaint | None:
    """The first line of a flow collection that is not indented enough; None where all are.

    A closing bracket and a comment may stand where they like.

    Args:
        text: the whole file.
        start, end: where the collection begins and ends.
        above: the column of the block collection that it stands in, -1 where it stands in none.
    """
    return _outdented(text, start, end, above, "]}#")


def in_text(text: str, style: str, start: int, end: int, above: int) -> Complaint | None:
    """The same for a text in quotes, or a block text; `style` is what it begins with."""
    if style in ("'", '"'):
        return _outdented(text, start, end, above, "")
    return _misjudged(text, start, end, above)


def _outdented(text: str, start: int, end: int, above: int, free: str) -> Complaint | None:
    if above < 0 or text.find("\n", start, end) < 0:
        return None
    for line in _LINE.finditer(text, start, end):
        if len(line[1]) <= above and line[2] not in free:
            more = "1 blank" if above == 0 else f"{above + 1} blanks"
            found = line.end() - 1
            if "\t" in line[0]:
                return found, "a tab; indent with spaces"
            return found, f"what is in brackets or quotes is indented here by {more} or more"
    return None


def _misjudged(text: str, start: int, end: int, above: int) -> Complaint | None:
    """A block text's first lines, which decide how far all of it is indented."""
    header = _HEADER.match(text, start)
    if header is None or header[1]:
        return None
    at, most = header.end(), 0
    # The line breaks of empty lines at the beginning are a part of the match.
    while at < len(text):
        line = _BLANK.match(text, at)
        assert line is not None  # it matches anything
        blanks, rest = len(line[1]), line[2]
        if not rest:
            most = max(most, blanks)
        elif blanks <= above:
            return (line.end(1), "a tab; indent with spaces") if rest.isspace() else None
        elif blanks < most:
            return line.end(1), "an empty line above has more blanks than this one: take them away"
        else:
            return None
        at = line.end()
    return None
