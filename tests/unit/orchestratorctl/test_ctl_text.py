from __future__ import annotations

import json

import pytest

from orchestratorctl.text import body_lines, cut, cut_middle, escape, wrap


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, überall → 日本", "plain, überall → 日本"),
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("two\nlines\tand\rback", "two\\nlines\\tand\\rback"),
        ("\x9b2J", "\\u009b2J"),
        ("turn\u202earound", "turn\\u202earound"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("\ud800", "\\ud800"),
        ("\x00\x7f", "\\u0000\\u007f"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_an_escaped_json_document_stays_the_same_document() -> None:
    document = {"a": "\u202e \x7f \U000e0041"}
    assert json.loads(escape(json.dumps(document, ensure_ascii=False))) == document


def test_a_body_keeps_its_lines_and_tabs_only() -> None:
    assert body_lines("a\r\nb\tc\n\x1b[2Jd\re") == ["a", "b\tc", "\\u001b[2Jd\\re"]


def test_cutting() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"
    assert cut_middle("abcdefgh", 8) == "abcdefgh"
    assert cut_middle("abcdefgh", 5) == "ab…gh"
    assert cut_middle("abcdefgh", 1) == "…"


def test_wrapping_breaks_between_words_and_only_long_words_apart() -> None:
    assert wrap("one two three", None) == ["one two three"]
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("a abcdefghij b", 4) == ["a", "abcd", "efgh", "ij b"]
    assert all(len(line) <= 5 for line in wrap("word  wordword   word", 5))
