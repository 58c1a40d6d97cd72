"""Lists in flow style, and in JSON."""

from __future__ import annotations

from typing import Any

import pytest
from config_parts import ConfigFolder
from edit_parts import Editing, webhook

NEW = webhook()
INSIDE = '"name": "new", "phase": "on_success", "url": "https://new.example.com/x"'
PLAIN = "name: new, phase: on_success, url: https://new.example.com/x"
A = {"name": "a", "phase": "on_success", "url": "https://a.example.com"}


@pytest.mark.parametrize(
    ("before", "after", "without"),
    [
        ('{"path": "/x"}', f'{{"path": "/x", "webhooks": [{{{INSIDE}}}]}}', '{"path": "/x"}'),
        ('{"path": "/x", "timeout": 5}\n',
         f'{{"path": "/x", "timeout": 5, "webhooks": [{{{INSIDE}}}]}}\n',
         '{"path": "/x", "timeout": 5}\n'),
        ('{"path":"/x","webhooks":[],"timeout":5}',
         f'{{"path":"/x","webhooks":[{{{INSIDE}}}],"timeout":5}}',
         '{"path":"/x","timeout":5}'),
        ('{\n  "path": "/x",\n  "timeout": 5\n}\n',
         '{\n  "path": "/x",\n  "timeout": 5,\n  "webhooks": [\n    {\n      "name": "new",\n'
         '      "phase": "on_success",\n      "url": "https://new.example.com/x"\n    }\n  ]\n}\n',
         '{\n  "path": "/x",\n  "timeout": 5\n}\n'),
        ('{\r\n    "webhooks": [],\r\n    "path": "/x"\r\n}\r\n',
         '{\r\n    "webhooks": [\r\n        {\r\n            "name": "new",\r\n'
         '            "phase": "on_success",\r\n'
         '            "url": "https://new.example.com/x"\r\n        }\r\n    ],\r\n'
         '    "path": "/x"\r\n}\r\n',
         '{\r\n    "path": "/x"\r\n}\r\n'),
        ('{\n\t"path": "/x",\n\t"timeout": 5\n}\n',
         '{\n\t"path": "/x",\n\t"timeout": 5,\n\t"webhooks": [\n\t\t{\n\t\t\t"name": "new",\n'
         '\t\t\t"phase": "on_success",\n\t\t\t"url": "https://new.example.com/x"\n\t\t}\n\t]\n}\n',
         '{\n\t"path": "/x",\n\t"timeout": 5\n}\n'),
    ],
)  # fmt: skip
def test_json(config: ConfigFolder, before: str, after: str, without: str) -> None:
    editing = Editing(config, before.encode(), name="get.json")
    editing.change(lambda items: [NEW])
    assert editing.text == after
    assert editing.items() == [NEW]
    assert not editing.loader.reload("test").problems
    editing.change(lambda items: [])
    assert editing.text == without


def test_json_within_yaml(config: ConfigFolder) -> None:
    editing = Editing(config, "{path: /x,  # why\n timeout: 5s}\n")
    editing.change(lambda items: [NEW])
    assert editing.text == f"{{path: /x,  # why\n timeout: 5s, webhooks: [{{{PLAIN}}}]}}\n"
    editing.change(lambda items: [])
    assert editing.text == "{path: /x,  # why\n timeout: 5s}\n"
    other = Editing(config, b"{}", name="other.yaml")
    assert other.file not in editing.loader.reload("test").problems[0].message


JSON = """\
{
  "path": "/x",
  "webhooks": [
    {"name": "a", "phase":  "on_success", "url": "https://a.example.com"},
    {
      "name": "b",
      "phase": "on_success",
      "url": "https:\\/\\/b.example.com\\/\\ud83d\\ude42",
      "timeout": 1e1
    }
  ],
  "timeout": 5
}
"""


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (lambda a, b: [{**a, "phase": "on_retry"}, b],
         '"phase":  "on_success", "url": "https://a', '"phase":  "on_retry", "url": "https://a'),
        (lambda a, b: [a, {**b, "name": "c"}], '"name": "b"', '"name": "c"'),
        (lambda a, b: [a, {**b, "enabled": True}],
         '1e1\n    }', '1e1,\n      "enabled": true\n    }'),
        (lambda a, b: [a], JSON[JSON.index(",\n    {\n") : JSON.index("\n  ],")], ""),
        (lambda a, b: [a, b, A | {"name": "c"}], "\n    }\n  ],",
         '\n    },\n    {\n      "name": "c",\n      "phase": "on_success",\n'
         '      "url": "https://a.example.com"\n    }\n  ],'),
        (lambda a, b: [a, {k: b[k] for k in b if k != "timeout"}],
         ',\n      "timeout": 1e1', ""),
    ],
)  # fmt: skip
def test_what_is_changed_in_json(config: ConfigFolder, change: Any, old: str, new: str) -> None:
    editing = Editing(config, JSON.encode(), name="get.json")
    read = editing.read()
    a, b = read.items
    editing.edit(change(a, b), etag=read.etag)
    assert JSON.count(old) == 1
    assert editing.text == JSON.replace(old, new)
    assert editing.items() == change(a, b)


@pytest.mark.parametrize(
    ("before", "items", "after"),
    [
        ("[{OTHER}, {PLAIN}]", [NEW], "[{PLAIN}]"),
        ("[{OTHER}, {PLAIN}]", [NEW, A], "[{PLAIN}, {OTHER}]"),
        ("[\n    {PLAIN},  # n\n    {OTHER}  # a\n  ]", [NEW, {**A, "enabled": False}],
         "[\n    {PLAIN},  # n\n    {OTHER, enabled: false}  # a\n  ]"),
        ("[{ PLAIN }]", [{**NEW, "headers": {"X-A": "b, c"}, "include": []}],
         '[{ PLAIN, headers: {X-A: "b, c"}, include: [] }]'),
        ("[{PLAIN, enabled: }]", [{**NEW, "enabled": True}], "[{PLAIN, enabled: true}]"),
    ],
)  # fmt: skip
def test_flow_style(config: ConfigFolder, before: str, items: list[Any], after: str) -> None:
    text = "path: /x\nwebhooks: {}  # w\ntimeout: 5s\n"
    editing = Editing(config, text.replace("{}", _filled(before)).encode())
    editing.edit(items)
    assert editing.text == text.replace("{}", _filled(after))
    assert editing.items() == items
    assert not editing.loader.reload("test").problems


def _filled(text: str) -> str:
    other = "name: a, phase: on_success, url: https://a.example.com"
    return text.replace("PLAIN", PLAIN).replace("OTHER", other)
