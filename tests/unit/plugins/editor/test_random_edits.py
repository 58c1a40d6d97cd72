"""Edits after edits of files that somebody wrote in some style, with comments everywhere.

Whatever is asked for, the file says exactly that; every byte outside the list is as it was; and
what did not change in the list keeps its comments.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any, cast

import orchestratord_webhooks
import pytest
from config_parts import host_of
from hypothesis import event, given, settings
from hypothesis import strategies as st
from orchestratord_editor.edited_file import EditedFile

from orchestratord import EndpointFile
from orchestratord.config.inherit import Merger
from orchestratord.config.validate.node_reader import NodeReader
from orchestratord.config.validate.problems import Problems
from orchestratord.config.yaml.flow_yaml import json_text
from orchestratord.config.yaml.nodes import MapNode
from orchestratord.config.yaml.references import References
from orchestratord.values.redact import Redactor

REGISTRY = host_of().registry
FILE = "apis/shop/endpoints/get.yaml"

WORDS = [
    "a",
    "yes",
    "007",
    "- x",
    "a: b",
    "x # y",
    "{{ params.id }}",
    "é🙂",
    "it's",
    '"',
    "\u2028",
    "",
]
VALUES = st.recursive(
    st.sampled_from(WORDS)
    | st.integers(-9, 9)
    | st.booleans()
    | st.none()
    | st.just("a\n\n b\nc\n"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["k", "on", "X-Y", "a b"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = ("url", "status_code", "headers", "payload", "timeout")
ITEM = st.fixed_dictionaries(
    {"name": st.sampled_from([f"w{n}" for n in range(8)]), "phase": st.just("on_success")},
    optional=dict.fromkeys(KEYS, VALUES),
)
AROUND = [
    "path: /x\n",
    "timeout: 5s   # t\n",
    "# alone\n",
    "\n",
    "body:\n  text: |+\n    b\n\n",
    "success: [2xx]\n",
]


def file_in_style() -> EndpointFile:
    reader = NodeReader(References({}), REGISTRY, Problems())
    merger = Merger(reader)
    settings_ = {"webhooks": orchestratord_webhooks.WEBHOOKS}
    about = "shop/get", FILE, b"", settings_, MapNode(), Redactor()
    return EndpointFile(*about, merger, cast("Any", None), ())


@dataclass
class Written:
    """A file: what stands before its list and behind it, and each item with its comments."""

    before: str
    after: str
    listed: str
    items: list[dict[str, Any]]
    comments: list[dict[str, list[str]]] = field(default_factory=list)
    """Of each item: for each key (`""` for the item itself) the comments that stand with it."""

    @property
    def text(self) -> str:
        return self.before + self.listed + self.after


@st.composite
def written(draw: st.DrawFn) -> Written:
    """A file in block style."""
    items = draw(st.lists(ITEM, max_size=4, unique_by=lambda item: item["name"]))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    around = [draw(st.lists(st.sampled_from(AROUND), max_size=3, unique=True)) for _ in range(2)]
    before, after = ("".join(part) for part in around)
    after = "".join(line for line in around[1] if line not in around[0] or line[0] in "#\n")
    dash = " " * draw(st.sampled_from([0, 2, 4]))
    counter = iter(range(10_000))
    listed = f"webhooks:{draw(st.sampled_from(['', '   # list']))}\n"
    comments: list[dict[str, list[str]]] = []

    def comment(into: list[str]) -> str:
        into.append(f"#{next(counter)}.")
        return into[-1]

    for item in items:
        own: dict[str, list[str]] = {"": []}
        if draw(st.booleans()):
            listed += "\n"
        if draw(st.booleans()):
            listed += f"{dash}{comment(own[''])}\n"
        if draw(st.booleans()):
            listed += f"{dash}- {json_text(item)}  {comment(own[''])}\n"
        else:
            lead = f"{dash}- "
            for key, value in item.items():
                own[key] = []
                if lead.isspace() and draw(st.booleans()):
                    listed += f"{dash}  {comment(own[key])}\n"
                tail = f" {comment(own[key])}" if draw(st.booleans()) else ""
                if isinstance(value, dict) and value and draw(st.booleans()):
                    listed += f"{lead}{key}:{tail}\n"
                    for name, inner in value.items():
                        tail = f"  {comment(own[key])}" if draw(st.booleans()) else ""
                        listed += f"{dash}     {json_text(name)}: {json_text(inner)}{tail}\n"
                elif isinstance(value, list) and value and draw(st.booleans()):
                    listed += f"{lead}{key}:{tail}\n"
                    for inner in value:
                        tail = f"  {comment(own[key])}" if draw(st.booleans()) else ""
                        listed += f"{dash}  - {json_text(inner)}{tail}\n"
                else:
                    listed += f"{lead}{key}:  {json_text(value)}{tail}\n"
                lead = f"{dash}  "
            if draw(st.booleans()):
                listed += f"{dash}  {comment(own[''])}\n"
        comments.append(own)
    if not items:
        listed = draw(st.sampled_from(["", "webhooks: []  # list\n", "webhooks:\n"]))
    whole = Written(before, after, listed, items, comments)
    whole.before, whole.after, whole.listed = (
        part.replace("\n", newline) for part in (before, after, listed)
    )
    if draw(st.booleans()) and not whole.after and whole.text.endswith(newline):
        part = "listed" if whole.listed else "before"
        setattr(whole, part, getattr(whole, part).removesuffix(newline))
    return whole


@st.composite
def edits(draw: st.DrawFn, items: list[Any]) -> list[Any]:
    """What the items become by one edit."""
    items = copy.deepcopy(items)
    what = draw(st.sampled_from(["add", "remove", "change", "move", "rename", "everything"]))
    event(what)
    if what == "add" or not items:
        taken = {item["name"] for item in items}
        new = draw(ITEM.filter(lambda item: item["name"] not in taken))
        items.insert(draw(st.integers(0, len(items))), new)
    elif what == "remove":
        del items[draw(st.integers(0, len(items) - 1))]
    elif what == "move":
        items = list(draw(st.permutations(items)))
    elif what == "rename":
        draw(st.sampled_from(items))["name"] = "renamed"
    elif what == "change":
        item = draw(st.sampled_from(items))
        key = draw(st.sampled_from(KEYS))
        item.pop(key, None)
        if draw(st.booleans()):
            item[key] = draw(VALUES)
    else:
        items = draw(st.lists(ITEM, max_size=4, unique_by=lambda item: item["name"]))
    return items


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_edits_after_edits(data: st.DataObject) -> None:
    file = data.draw(written())
    around = file_in_style()
    content = EditedFile(around, "webhooks", file.text.encode())
    assert list(content.items) == file.items
    known = {item["name"]: (item, own) for item, own in zip(file.items, file.comments, strict=True)}
    before, after = file.before, file.after
    for _ in range(data.draw(st.integers(1, 4))):
        old = list(content.items)
        new = data.draw(edits(old))
        if len({item["name"] for item in new}) < len(new):
            continue
        content = content.changed(content.wanted(new))
        text = content.bytes.decode()
        assert list(content.items) == new
        if not old and new and not file.listed.startswith("webhooks"):
            # It is added behind everything else.
            before, after = before + after, ""
        assert text.startswith(before)
        assert text.endswith(after)
        file.listed = text[len(before) : len(text) - len(after)] if new else ""
        if not new:
            # Of the last line, the break may have been missing.
            rest = text.rstrip("\r\n")
            if "|+" in before and old:
                break  # blank lines behind the list would become a part of that text
            assert rest == (before + after).rstrip("\r\n") or not old
        # Comments stay with those that are the same, and with what is the same in others.
        for item in new:
            if item["name"] not in known:
                continue
            was, own = known[item["name"]]
            for key, found in own.items():
                if not key or (key in item and same(item[key], was[key])):
                    assert all(file.listed.count(comment) == 1 for comment in found), (key, text)
        known = {
            item["name"]: (item, {
                key: [c for c in found if c in text]
                for key, found in known[item["name"]][1].items() if not key or key in item
            })
            for item in new if item["name"] in known
        }  # fmt: skip
        for name in {item["name"] for item in old} - {item["name"] for item in new}:
            known.pop(name, None)


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
