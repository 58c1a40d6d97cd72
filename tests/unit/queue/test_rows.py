from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.model.task import Task, UnreadableParams
from orchestratord.queue.operations import search
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.rows import (
    TASK_COLUMNS,
    beginning_of,
    code_of,
    code_text,
    json_text,
    params_of,
    plain,
    same_json,
    task_of,
    worded,
)
from orchestratord.values.json_body import INLINE_BYTES, SHORT_TEXT, is_larger
from orchestratord.values.status_set import StatusSet


@pytest.mark.parametrize(
    ("code", "text"), [(503, "503"), ("error", "error"), ("ok", "ok"), (None, None)]
)
def test_status_codes(code: Any, text: str | None) -> None:
    assert code_text(code) == text
    assert code_of(text) == code


def test_text_without_surrogates_comes_back_as_it_was() -> None:
    for text in ("čau \x00", "\x00", "\U0010ffff", "\U0010ffff0\x00\U0010ffff1", "č"):
        assert "\x00" not in (plain(text) or "")
        assert worded(plain(text)) == text
    assert plain(None) is None
    assert plain("a\udc80b") == "a?b"


def test_the_beginning_of_long_parameters() -> None:
    value = {
        "id": 7,
        "a": [1, {"b": None}],
        "text": 'say "ä\U0001f600" \\ ' * 5,
        "z": 123456,
        "y": [],
    }
    text = json_text(value)
    for length in range(1, len(text)):
        found = beginning_of(text[:length])
        for name, item in found.items():
            if item != value[name]:
                assert name == list(found)[-1]
                assert item.endswith("…")
                assert not item[:-1] or str(value[name]).startswith(item[:-1])
        assert list(found) == list(value)[: len(found)]
    assert beginning_of(text[:-1]) == {**value, "y": "…"}
    assert beginning_of('{"a":"\\ud83d')["a"] in ("…", "\ud83d…")


@pytest.mark.parametrize(
    "text", ['{"a":"%s"}' % ("\U0001f600" * 5_450), '{"a":[%s1]}' % ("1e15," * 1_090),
             '{"a":"%s"}' % (r"\u0001" * 908), '{"a":"%s"}' % ("b" * 5_461)]
)  # fmt: skip
def test_a_short_row_has_no_large_parameters(text: str) -> None:
    task = a_task(params=text)
    assert (len(text) > SHORT_TEXT) is task.maybe_large is text.endswith('bb"}')
    assert task.is_large is is_larger(task.params, INLINE_BYTES) is False
    assert a_task(params='{"a":"%s"}' % ("b" * INLINE_BYTES)).is_large
    assert not a_task(params="{}").is_large
    assert not a_task(params=7).is_large  # a row that cannot be read


def a_task(**values: Any) -> Task:
    """The task of a row that holds these, and no partition."""
    return task_of([values.get(name) for name in TASK_COLUMNS])


TEXTS = st.text(st.characters(), max_size=9)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
FINITE = PLAIN.filter(lambda value: value not in (math.inf, -math.inf))
VALUES = st.recursive(
    FINITE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_parameters_come_back_as_they_were(value: dict[str, Any]) -> None:
    for text in (json_text(value), json.dumps(value)):
        assert repr(params_of(text)) == repr(value)
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if any("\ud800" <= character <= "\udfff" for character in written):
        written = json.dumps(value, separators=(",", ":"))
    assert json_text(value) == written


def test_a_number_that_python_does_not_write_is_refused() -> None:
    for text in ("", "x" * 5000):
        with pytest.raises(ValueError, match="integer string conversion"):
            json_text({"a": 10**5000, "b": text})


@pytest.mark.parametrize(
    "text", ['{"a":NaN}', '{"a":1}x', '{"a":\t"\t"}', "", "[]", b"{}", 7, None]
)
def test_what_is_no_json_object_is_unreadable(text: Any) -> None:
    assert isinstance(params_of(text), UnreadableParams)


def test_json_is_short_and_readable() -> None:
    assert json_text({}) == "{}"
    assert json_text({"a": [1, "č"]}) == '{"a":[1,"č"]}'
    assert json_text({"a": "\udc80"}) == '{"a":"\\udc80"}'


@pytest.mark.parametrize(
    ("stored", "value", "same"),
    [
        ('{"a":1,"b":2}', {"b": 2, "a": 1}, True),
        ('{"a":1}', {"a": True}, False),
        ('{"a":1}', {"a": 1.0}, False),
        ('{"a":"\\udc80"}', {"a": "\udc80"}, True),
        ('{"a":[1,2]}', {"a": [2, 1]}, False),
    ],
)
def test_what_is_the_same(stored: str, value: dict[str, Any], same: bool) -> None:
    assert same_json(stored, value) is same


@pytest.mark.parametrize(
    "wanted",
    [
        TaskFilter(),
        TaskFilter(status=("failed", "cancelled"), endpoint="crm/*", kind="call", since=5),
        TaskFilter(status_code=StatusSet.parse(["5xx", "error", "400-404"])),
        TaskFilter(status_code=StatusSet.parse(200)),
    ],
)
def test_a_filter_survives_being_stored(wanted: TaskFilter) -> None:
    assert search.parse(search.dump(wanted)) == wanted
