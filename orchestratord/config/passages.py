"""A place inside a text, found in the file that the text was read from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestratord.config.positions import Spot

_WORD = re.compile(r"\W?\w+|.", re.DOTALL)


def passage(spot: Spot, text: str, offset: int, lines: Sequence[str]) -> Spot:
    """Where the word at `offset` of a text stands.

    A text can be written in many ways: in quotes, or as a block that is folded or not. Its words
    stand in the file in the same order in each of them; where one does not, the place is the key's.

    Args:
        spot: the place of the text's key.
        text: as it was read.
        offset: characters.
        lines: the file's.
    """
    match = _WORD.match(text, offset)
    if match is None or spot.line > len(lines):
        return spot
    word = match[0]
    left = sum(1 for found in _each(word, text) if found < offset)
    column = spot.column - 1
    for number in range(spot.line - 1, len(lines)):
        for found in _each(word, lines[number]):
            if found < column:
                continue
            if left == 0:
                return Spot(spot.file, number + 1, found + 1, spot.key)
            left -= 1
        column = 0
    return spot


def _each(word: str, text: str) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(word) + r"(?!\w)", text)]
