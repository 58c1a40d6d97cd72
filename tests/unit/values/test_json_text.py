"""JSON around templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestratord.errors import InvalidPayload
from orchestratord.values.template import JsonText, TemplateTree, to_text


@pytest.mark.parametrize(
    "value",
    [
        {}, [], None, 1.5, "text", "{{ params.id }}", [[], {}, [{}]],
        {"a": "{{ params }}", "ä\n": ["{{ k }}", "x{{ k }}y", {"b": "{{ params.id }}"}], "c": None},
        {"": {"a": True, "n": "{{ [k, none, 1.25] }}", "s": "\"\\"}, "{{ k }}": "{{ k }}"},
    ],
)  # fmt: skip
def test_a_json_text_is_what_the_rendered_tree_is_as_json(value: Any) -> None:
    context = {"params": {"id": 7, "list": [1, "z"]}, "k": 'ü"\u2028'}
    tree = TemplateTree(value)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=to_text).encode
    text = JsonText(tree, lambda value: encode(value).encode())
    assert text.render(context).decode() == encode(tree.render(context))


def test_a_json_text_refuses_what_its_template_refuses() -> None:
    text = JsonText(
        TemplateTree({"a": ["{{ missing }}"]}), lambda value: json.dumps(value).encode()
    )
    with pytest.raises(InvalidPayload, match="missing"):
        text.render({})
