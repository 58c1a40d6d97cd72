"""Lists in block style: which bytes an edit changes, and where comments go."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from config_parts import ConfigFolder
from edit_parts import Editing, webhook

FILE = """\
# The order, as the shop has it.
path: /x   # of the API

# Who is told.
webhooks:      # two of them
  # --- alerts ---

  # Operations come first.
  - name: ops   # short
    phase: after_request
    # What is bad.
    status_code:
      - 5xx    # the server
      - error  # nothing came
    url: https://ops.example.com/hook  # on call
    headers:
      X-Team: a  # team
      # X-Old: b
    # retry: {max_attempts: 3}

  # The chat.
  - {name: chat, phase: on_retry, url: "https://chat.example.com/x"}  # flow

  - name: log
    phase: on_success
    url: https://log.example.com
    payload: |
      hello
      you

# The end.
timeout: 5s
"""

Change = Callable[[list[Any]], Any]


def setting(number: int, **keys: Any) -> Change:
    def change(items: list[Any]) -> None:
        items[number] = {**items[number], **keys}

    return change


def without(number: int, key: str) -> Change:
    def change(items: list[Any]) -> None:
        items[number] = {k: v for k, v in items[number].items() if k != key}

    return change


@pytest.mark.parametrize(
    ("change", "replacements"),
    [
        (lambda items: None, []),
        (setting(0, url="https://ops.example.com/other"), [("hook  #", "other  #")]),
        (setting(0, phase="on_retry"), [("phase: after_request\n", "phase: on_retry\n")]),
        (setting(0, timeout="5s"), [("    # retry: {max", "    timeout: 5s\n    # retry: {max")]),
        (without(0, "status_code"), [
            (FILE[FILE.index("    # What") : FILE.index("    url: https://ops")], ""),
        ]),
        (setting(0, status_code=["error", "404", "5xx"]), [
            ("      - 5xx    # the server\n      - error  # nothing came\n",
             '      - error  # nothing came\n      - "404"\n      - 5xx    # the server\n'),
        ]),
        (setting(0, status_code="5xx"), [
            ("      - 5xx    # the server\n      - error  # nothing came\n", ""),
            ("    status_code:\n", "    status_code: 5xx\n"),
        ]),
        (setting(0, headers={"X-Team": "b", "X-New": "1"}), [
            ("X-Team: a  # team\n", 'X-Team: b  # team\n      X-New: "1"\n'),
        ]),
        (setting(0, name="alerts"), [("name: ops   # short", "name: alerts   # short")]),
        (setting(1, phase="on_success", status_code=["5xx"]), [
            ("phase: on_retry", "phase: on_success"),
            ('/x"}', '/x", status_code: [5xx]}'),
        ]),
        (without(1, "url"), None),  # which the configuration refuses
        (setting(2, payload="hello\n\nme\n"), [("      you\n", "\n      me\n")]),
        (setting(2, payload={"text": "{{ endpoint }}: ok", "count": 1}), [
            ("    payload: |\n      hello\n      you\n",
             '    payload:\n      text: "{{ endpoint }}: ok"\n      count: 1\n'),
        ]),
        (setting(2, enabled=False), [("      you\n", "      you\n    enabled: false\n")]),
    ],
)  # fmt: skip
def test_what_is_changed_in_an_item(
    config: ConfigFolder, change: Change, replacements: list[tuple[str, str]] | None
) -> None:
    editing = Editing(config, FILE)
    if replacements is None:
        with pytest.raises(Exception, match="is required"):
            editing.change(change)
        replacements = []
    else:
        edit = editing.change(change)
        assert edit.written is bool(replacements)
    expected = FILE
    for old, new in replacements:
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    editing.holds(expected)


def parts() -> tuple[str, str, str, str, str]:
    """The file before the list, its three items with what stands above them, and the rest."""
    marks = ["  # --- alerts", "\n  # The chat", "\n  - name: log", "\n# The end"]
    places = [FILE.index(mark) for mark in marks]
    bounds = [0, *places, len(FILE)]
    head, ops, chat, log, tail = (FILE[a:b] for a, b in pairwise(bounds))
    return head, ops, chat, log, tail


def test_items_that_come_go_and_move(config: ConfigFolder) -> None:
    head, ops, chat, log, tail = parts()
    section = "  # --- alerts ---\n\n"
    editing = Editing(config, FILE)
    new = (
        "\n  - name: new\n    phase: on_success\n    url: https://new.example.com/x\n"
        "    status_code: [2xx, error]\n"
    )
    editing.change(lambda items: [*items, webhook(status_code=["2xx", "error"])])
    editing.holds(head + ops + chat + log + new + tail)
    editing.change(lambda items: [items[0], items[2], items[1]])
    editing.holds(head + ops + log + chat + tail)
    editing.change(lambda items: [items[2], items[0], items[1]])
    editing.holds(head + chat[1:] + "\n" + ops + log + tail)
    editing.change(lambda items: [items[0], items[2]])
    editing.holds(head + chat[1:] + "\n" + section + log[1:] + tail)
    editing.change(lambda items: [*items, copy.deepcopy(items[0]) | {"name": "copy"}])
    copied = "\n  - name: copy\n    phase: on_retry\n    url: https://chat.example.com/x\n"
    editing.holds(head + chat[1:] + "\n" + section + log[1:] + copied + tail)
    editing.change(lambda items: [])
    editing.holds(head.removesuffix("webhooks:      # two of them\n") + tail)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("path: /x\n", "path: /x\nwebhooks:\n  {}\n"),
        ("path: /x", "path: /x\nwebhooks:\n  {}\n"),
        ("path: /x  # why", "path: /x  # why\nwebhooks:\n  {}\n"),
        ("path: /x\r\ntimeout: 5s\r\n", "path: /x\r\ntimeout: 5s\r\nwebhooks:\r\n  {}\r\n"),
        ("\ufeffpath: /x\n", "\ufeffpath: /x\nwebhooks:\n  {}\n"),
        ("path: /x\nwebhooks: []  # none yet\n", "path: /x\nwebhooks:  # none yet\n  {}\n"),
        ("path: /x\nwebhooks:\n  # - name: old\ntimeout: 5s\n",
         "path: /x\nwebhooks:\n  {}\n  # - name: old\ntimeout: 5s\n"),
        ("path: /x\nwebhooks: ~\ntimeout: 5s\n", "path: /x\nwebhooks:\n  {}\ntimeout: 5s\n"),
        ("path: /x\nsuccess:\n- 2xx\n", "path: /x\nsuccess:\n- 2xx\nwebhooks:\n{}\n"),
        ("path: /x\nsuccess:\n    - 2xx\n", "path: /x\nsuccess:\n    - 2xx\nwebhooks:\n    {}\n"),
        ("---\npath: /x\n...\n# the end\n", "---\npath: /x\nwebhooks:\n  {}\n...\n# the end\n"),
        ("  path: /x\n", "  path: /x\n  webhooks:\n    {}\n"),
        ("method: POST\npath: /x\nbody:\n  text: |+\n    a\n\n",
         "method: POST\npath: /x\nbody:\n  text: |+\n    a\n\nwebhooks:\n  {}\n"),
        ("method: POST\npath: /x\nbody:\n  text: |\n    a",
         "method: POST\npath: /x\nbody:\n  text: |\n    a\nwebhooks:\n  {}\n"),
    ],
)  # fmt: skip
def test_a_list_where_none_was(config: ConfigFolder, before: str, after: str) -> None:
    editing = Editing(config, before.encode())
    added = webhook()
    editing.change(lambda items: [added])
    first = after.partition("{}")[0].rpartition("\n")[2]
    newline = "\r\n" if "\r\n" in after else "\n"
    gap = f"{newline}{first}  "
    written = f"- name: new{gap}phase: on_success{gap}url: https://new.example.com/x"
    assert editing.text == after.format(written)
    assert editing.items() == [added]
    assert not editing.loader.reload("test").problems


@pytest.mark.parametrize(
    "listed",
    [
        "webhooks:\n- NAME\n  phase: PHASE\n  URL\n",
        "webhooks:\n- NAME\n  phase: PHASE\n  URL",
        "webhooks:\n-   NAME\n    phase:   PHASE # p\n    URL\n",
        "webhooks:\n  -\n    NAME\n    phase: PHASE\n    URL\n",
        "webhooks:\n  - # first\n    NAME\n    phase: PHASE\n    URL\n",
        "webhooks: # w\n  - phase:\n      PHASE\n    NAME\n    url: 'https://a.example.com'\n",
        "webhooks:\r\n  - NAME\r\n    phase: PHASE # p\r\n    URL\r\n",
        "webhooks: [{NAME, phase: PHASE, URL}] # f\n",
        "webhooks: [\n  # first\n  {NAME, phase: PHASE, # p\n   URL},\n]\n",
        "'webhooks':\n  - \"name\": a\n    'phase': PHASE\n    URL\n",
        "webhooks:\n  - NAME\n    url: >-\n      https://a.example.com\n\n    phase: PHASE\n",
        'webhooks:\n  - NAME\n    phase: PHASE\n    headers: &h {X: "1"} # h\n    URL\n'
        "headers: *h\n",
        'headers: &h {X: "1"}\n'
        "webhooks:\n  - NAME\n    phase: PHASE\n    headers: *h # h\n    URL\n",
    ],
)
def test_ways_of_writing(config: ConfigFolder, listed: str) -> None:
    editing = Editing(config, filled(listed, "on_success"))
    editing.change(setting(0, phase="on_retry"))
    assert editing.text == filled(listed, "on_retry").decode()
    assert not editing.loader.reload("test").problems


@pytest.mark.parametrize(
    "listed",
    ["webhooks:\n  - &a\n    NAME\n    phase: PHASE\n    URL\n",
     "webhooks: &w\n  - NAME\n    phase: PHASE\n    URL\n"],
)  # fmt: skip
def test_anchors_that_nobody_repeats_go(config: ConfigFolder, listed: str) -> None:
    editing = Editing(config, filled(listed, "on_success"))
    editing.change(setting(0, phase="on_retry"))
    plain = "webhooks:\n  - NAME\n    phase: PHASE\n    URL\n"
    assert editing.text == filled(plain, "on_retry").decode()


def filled(listed: str, phase: str) -> bytes:
    words = {"NAME": "name: a", "PHASE": phase, "URL": "url: https://a.example.com"}
    for word, text in words.items():
        listed = listed.replace(word, text)
    return f"path: /x\n{listed}".encode()


def test_aliases_of_what_goes_are_not_left_behind(config: ConfigFolder) -> None:
    editing = Editing(
        config,
        """\
        path: /x
        webhooks:
          - name: a  # first
            phase: on_success
            headers: &h {X: "1"}
            url: https://a.example.com
          - name: b  # second
            phase: on_success
            headers: *h
            url: https://b.example.com
        """,
    )
    editing.change(lambda items: items[1:])
    editing.holds(
        """\
        path: /x
        webhooks:
          - name: b
            phase: on_success
            headers:
              X: "1"
            url: https://b.example.com
        """
    )
    other = Editing(
        config,
        """\
        path: /x
        webhooks:
          - {name: a, phase: on_success, url: "https://a.example.com", headers: &h {X: "1"}}
        headers: *h
        """,
    )
    before = other.text
    with pytest.raises(Exception, match="edit the file manually"):
        other.change(lambda items: [])
    assert other.text == before


@pytest.mark.parametrize(
    "value",
    [
        "yes", "null", "~", "1", "0x1f", "1e3", "12:30", "2001-01-01", "- a", "a: b", "a #b", "# a",
        " a ", "", "'", '"', "\\", "*a", "&a", "!a", "%a", "@a", "`a", "{a}", "[a]", "a,b", "|",
        ">", "a\nb", "a\nb\n", "a\n\nb\n\n", "\na", "a\n b", " a\nb", "a \nb", "a\tb", "a\r\nb",
        "é🙂", "\x85", "\u2028", "\ufeff", "\x7f", "{{ params.x }}", "a {{ b }} c", "---", "...",
        "?", "? a", "=", "<<", "a:", ":a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", ["block", "flow", "json"])
def test_texts_are_written_as_what_they_are(config: ConfigFolder, value: str, style: str) -> None:
    block = (
        "path: /x\nwebhooks:\n  - name: a\n    phase: on_success\n    url: https://a.example.com\n"
    )
    flow = "path: /x\nwebhooks: [{name: a, phase: on_success, url: https://a.example.com}]\n"
    json = (
        '{\n  "path": "/x",\n  "webhooks": [\n    {"name": "a", "phase": "on_success",'
        ' "url": "https://a.example.com"}\n  ]\n}\n'
    )
    texts = {"block": block, "flow": flow, "json": json}
    name = "get.json" if style == "json" else "get.yaml"
    editing = Editing(config, texts[style].encode(), name=name)
    wanted = {"text": value, "list": [value, value], value or "empty": 1}
    read = editing.read()
    edit = editing.edit(
        [{**read.items[0], "payload": wanted}, webhook(payload=wanted)],
        etag=read.etag,
        dry_run=True,
    )
    # `{{ … }}` is checked, and some of the names are not declared.
    assert all("template" in problem.message for problem in edit.problems)
    assert [item["payload"] for item in edit.declaration.items] == [wanted, wanted]
