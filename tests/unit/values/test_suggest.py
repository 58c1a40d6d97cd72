from __future__ import annotations

import pytest

from orchestratord.values.suggest import nearest, suggest


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("expo", "exponential"),
        ("exponental", "exponential"),
        ("Linear", "linear"),
        ("lnear", "linear"),
        ("fx", None),
        ("xyz", None),
        ("", None),
    ],
)
def test_the_nearest_word(word: str, expected: str | None) -> None:
    assert nearest(word, ["fixed", "linear", "exponential", "list"]) == expected


def test_how_it_reads() -> None:
    assert suggest("metod", ["method", "path"]) == ", did you mean 'method'?"
    assert suggest("x", ["b", "a"]) == "; known are a, b"
    assert suggest("x", ["a"]) == "; known is a"
    assert suggest("x", []) == ""
    assert suggest("x", [str(number) for number in range(100)]) == ""
