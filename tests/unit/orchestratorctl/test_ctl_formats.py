from __future__ import annotations

import json

import pytest

from orchestratorctl.formats import (
    ago,
    body_lines,
    clock_time,
    compact,
    cut,
    cut_middle,
    escape,
    number,
    seconds_at,
    size,
    span,
    until,
    with_age,
    wrap,
)


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


def test_values_in_one_line() -> None:
    assert compact(None) == "-"
    assert compact("x") == "x"
    assert compact({"a": [1, "ü"]}) == '{"a": [1, "ü"]}'
    assert number(1234567) == "1,234,567"
    assert number(None) == "-"
    assert [size(n) for n in (0, 2048, 12_900_000, None)] == ["0 B", "2.0 KiB", "12.3 MiB", "-"]


# -- times ----------------------------------------------------------------------------------------

NOW = 1_796_000_000.0  # 2026-11-30 00:53:20Z


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (5.1, "5.1s"),
        (30, "30s"),
        (59.97, "1m"),
        (280, "4m40s"),
        (7380, "2h3m"),
        (3600, "1h"),
        (273600, "3d4h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_times_are_shown_against_now() -> None:
    assert clock_time("2026-11-30T00:53:20.123Z") == "2026-11-30 00:53:20Z"
    assert clock_time("2026-11-30T01:53:20+01:00") == "2026-11-30 00:53:20Z"
    assert ago("2026-11-29T22:53:20Z", NOW) == "2h ago"
    assert ago("2026-11-30T00:54:00Z", NOW) == "0s ago"  # the daemon's clock may be ahead
    assert until("2026-11-30T00:53:32Z", NOW) == "in 12s"
    assert until("2026-11-30T00:53:20Z", NOW) == "due"
    assert with_age("2026-11-30T00:52:20Z", NOW) == "2026-11-30 00:52:20Z (1m ago)"


@pytest.mark.parametrize("value", [None, 5, {}, "soon", "99999-01-01T00:00:00Z"])
def test_what_is_no_time_is_shown_as_it_is(value: object) -> None:
    assert seconds_at(value) is None
    assert ago(value, NOW) == until(value, NOW) == "-"
    assert clock_time(value) == with_age(value, NOW) == ("-" if value is None else str(value))
