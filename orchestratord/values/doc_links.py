"""The addresses of pages of the documentation, and of what stands on them."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.metadata import distribution
from pathlib import Path

LATEST = "latest"
"""The version of the pages: a problem keeps its type where the daemon is upgraded."""

PROBLEMS, TROUBLESHOOTING, MESSAGES = "problems", "troubleshooting", "messages"
"""The pages on which the API's refusals, symptoms and reasons, and the log's messages stand."""

_DECLARED = re.compile(r"^Project-URL: Documentation, (\S+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"%(?:[-+ #0]*[\d.]*[a-zA-Z])")
_END = re.compile(r"[:;,(]")
_WORD = re.compile(r"[a-z][a-z'_.`-]+", re.IGNORECASE)
_FEWEST_WORDS = 3
"""Words by which a message is known from others, without the values in it."""


@cache
def base() -> str:
    """The address below which all pages stand, as `[project.urls]` of pyproject.toml has it.

    Raises OSError where no file can be opened: what has to speak then calls it early.
    """
    text = distribution("orchestratord").read_text("METADATA") or ""
    found = _DECLARED.search(text)
    return f"{found[1].rstrip('/')}/{LATEST}" if found else ""


def page(name: str, anchor: str = "") -> str:
    """The address of a page, and of an anchor on it."""
    return f"{base()}/{name}/{f'#{anchor}' if anchor else ''}"


def problem(code: str) -> str:
    """Where a refusal of the API is explained, by its `code`."""
    return page(PROBLEMS, code)


@lru_cache(maxsize=64)
def trouble(word: str) -> str:
    """Where the reason of a task, or the code of what is wrong with the daemon, is explained."""
    return page(TROUBLESHOOTING, word)


def schema(file: str) -> str:
    """Where the JSON Schema of a kind of file is: `endpoint`, `api` or `daemon`."""
    return f"{base()}/schemas/{file}.json"


def finding(check: str) -> str:
    """Where the findings of one check of `doctor` are explained."""
    return page(TROUBLESHOOTING, anchor(f"doctor {check}"))


def installed(address: str) -> str:
    """The installed file of the page at `address`, with the anchor; `address` if there is none.

    pip installs the pages beside the package, for machines that cannot open the address.
    """
    name, _, anchor = address.removeprefix(f"{base()}/").partition("/")
    for file in distribution("orchestratord").files or ():
        if file.match(f"share/doc/orchestratord/{name}.md"):
            return f"{Path(file.locate()).resolve()}{anchor}"
    return address


@lru_cache(maxsize=256)
def message(text: str) -> str:
    """Where a message of the log is explained, by its words with the placeholders still in them;
    empty where there are too few to know it by."""
    known_by = heading(text)
    return page(MESSAGES, anchor(known_by)) if known_by else ""


def heading(text: str) -> str:
    """What a message of the log is known by: its first part with three words of its own, `…` for
    each value. Empty where it has none."""
    shown = _PLACEHOLDER.sub("…", text)
    ends = [*(match.start() for match in _END.finditer(shown)), len(shown)]
    parts = (shown[:end] for end in ends)
    first = next((part for part in parts if len(_WORD.findall(part)) >= _FEWEST_WORDS), "")
    return first.strip(" …:;,")


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
