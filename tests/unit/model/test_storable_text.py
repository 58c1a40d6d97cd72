"""Texts that one of the two databases cannot hold."""

from __future__ import annotations

import pytest

from orchestratord.errors import InvalidParams
from orchestratord.model.storable_text import check_texts


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\udfff!"])
def test_what_a_database_cannot_hold_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidParams, match="name: holds a character"):
        check_texts({"name": text, "count": 1})


def test_every_other_text_is_fit() -> None:
    check_texts({"name": "é\U0001f600\x01", "count": 1, "none": None})
