"""`did you mean`: the nearest of the words that would have been right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

MOST_UNKNOWN = 100
"""Of one request, that are told of: to find the nearest word takes a while."""
_LONGEST = 200
"""Characters of a word that could be meant to be another one."""
_LISTED = 16
"""More words than this are not listed in a message."""
_FOREIGN = {
    "event": ("phase",),
    "interval": ("every",),
    "max_retries": ("max_attempts",),
    "on": ("when",),
    "port": ("bind",),
    "retries": ("retry", "max_attempts"),
    "status": ("status_code", "outcome"),
    "token": ("bearer",),
    "uri": ("path", "url"),
    "url": ("path", "base_url"),
}
"""Words of other programs, and ours for them, as far as spelling does not tell."""


def suggest(word: str, known: Iterable[str]) -> str:
    """What to append to a problem with `word`: the nearest known one, else all, else nothing.

    It begins with a comma or a semicolon, or is empty where there is nothing to say.
    """
    words = sorted(set(known))
    near = nearest(word, words)
    if near is not None:
        return f", did you mean {near!r}?"
    if 0 < len(words) <= _LISTED:
        return f"; known {'is' if len(words) == 1 else 'are'} {', '.join(words)}"
    return ""


def choices(word: str, known: Iterable[str]) -> str:
    """The hint beside such a problem: all the words, where `suggest` names only the nearest."""
    words = sorted(set(known))
    return f"known are {', '.join(words)}" if nearest(word, words) is not None else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    return _nearest(word, tuple(sorted(set(known)))) if len(word) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _nearest(word: str, words: tuple[str, ...]) -> str | None:
    lower = word.lower()
    if lower not in words:
        for candidate in _FOREIGN.get(lower, ()):
            if candidate in words:
                return candidate
    for candidate in words:
        # An abbreviation is far from its word by edit distance, and clear to a person.
        if len(lower) >= 3 and candidate.lower().startswith(lower):
            return candidate
    folded = {candidate.lower(): candidate for candidate in words}
    close = difflib.get_close_matches(lower, folded, n=1)
    return folded[close[0]] if close else None
