"""Values in one line of YAML, written so that every reader takes them for what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from orchestratord.config.yaml.scalars import resolve

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_FLOW_WORD = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.@%+=&~;:\- ]*")
_WORDS_11 = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
"""What some reader of YAML takes for something else than a text."""
SPECIAL = re.compile("[\x7f-\xa0\ud800-\udfff\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that only an escape may stand for in a file."""
_STR = "tag:yaml.org,2002:str"
_RESOLVER: Any = yaml.SafeLoader("")


def flow(value: Any) -> str:
    """A value in one line, as it may stand within brackets."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key_text(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str):
        word = _FLOW_WORD.fullmatch(value) and is_plain(value)
        return value if word and means_itself(value) else visible(json_text(value))
    return json.dumps(value)


def json_text(value: Any, indent: str = "") -> str:
    """A value as JSON that is YAML as well; the indent is that of `json.dumps`."""
    text = json.dumps(value, ensure_ascii=False, indent=indent or None)
    return SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def visible(text: str) -> str:
    """With what cannot be seen, or turns the line around, written out as YAML reads it."""
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if c <= "\uffff" else f"\\U{ord(c):08x}"
        for c in text
    )


def key_text(key: str) -> str:
    """A key as it may stand before a colon."""
    return key if _KEY.fullmatch(key) and means_itself(key) else json_text(key)


def is_plain(text: str) -> bool:
    """True where nothing in a text ends it, or makes a key of it."""
    return text[-1] not in " :" and ": " not in text


def means_itself(text: str) -> bool:
    """True where a plain scalar is a text, for readers of YAML 1.2 and for those of 1.1."""
    if text.lower() in _WORDS_11:
        return False
    try:
        if resolve(text) != text:
            return False
    except ValueError:
        return False
    return bool(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == _STR)
