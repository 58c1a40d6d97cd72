"""The same value as the library reads, however long the text is."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import pytest

from orchestratord.values import json_body
from orchestratord.values.json_body import TooMany, free_json, parse_json


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "PIECE", 16)


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth else 6)
    texts = ["", "}", "{", '"}', "\\", "ä\u2028", '\\"', "a" * 40, "]}", '{"a": 1}']
    if kind < 6:
        return [None, True, -1.5e300, 10**20, chance.choice(texts), 0][kind]
    size = chance.randrange(4)
    if kind == 6:
        return [_value(chance, depth - 1) for _ in range(size)]
    return {chance.choice(texts) + str(n): _value(chance, depth - 1) for n in range(size)}


def test_what_the_library_reads() -> None:
    chance = random.Random(7)
    for _ in range(500):
        value = [_value(chance, 4) for _ in range(3)]
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            assert parse_json(text) == parse_json(text.encode()) == value


def test_its_options() -> None:
    text = json.dumps([{"a": 1.5, "b": [float("inf")]}] * 10)
    found = parse_json(text, parse_float=str, parse_constant=lambda word: f"<{word}>")
    assert found == [{"a": "1.5", "b": ["<Infinity>"]}] * 10


def test_other_encodings() -> None:
    value = ["ä" * 50]
    for encoding in ("utf-8-sig", "utf-16", "utf-32-le"):
        assert parse_json(json.dumps(value, ensure_ascii=False).encode(encoding)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": {"c": 2}',
        '[{"a": 1}, {"b"}, 1, 2, 3]',
        '{"a": 1} {"b": 2} {"c": 3}',
        "[" * 40,
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data"):
        parse_json(text)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"mode": "x", "ids": list(range(12))}, "ids"),
        ({"batch": [{"a": {}, "b": [1] * 40}]}, "batch"),
        ({"batch": [1], "params": {"a": {}, "b": [1] * 40}}, "params"),
        ({str(number): [1, 2] for number in range(40)}, "5"),
        ([[1] * 40], "params"),
    ],
)
def test_what_there_is_no_room_for_is_named(
    value: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "MAX_BATCH", 10)
    with pytest.raises(TooMany, match=f"^{name}$"):
        parse_json(json.dumps(value), 30)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_what_is_nested_too_deeply(text: str) -> None:
    with pytest.raises(RecursionError):
        parse_json(text)


def test_what_is_freed_and_what_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "RUN", 3)
    mine = [{"n": number} for number in range(10)]
    value = [{"a": mine, "b": [[], {}, "text"]}, 1.5, None, mine]
    alone = sys.getrefcount(mine)
    values = [value]
    del value
    free_json(values)
    assert values == []
    assert sys.getrefcount(mine) == alone - 2
    assert mine == [{"n": number} for number in range(10)]
