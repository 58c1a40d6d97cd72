"""The man pages, made from the pages of docs/ when the package is built.

    python scripts/docs/man.py orchestratorctl.1 | man -l -

shows one from a checkout. hatchling calls `InstalledDocs`; pip installs the pages into `share/man`,
where `man` looks for them by the PATH.

pip loads this file before it reads which Python the package needs. So older ones can load it, too:
there it is pip that says which is needed, and not a traceback.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = Path(__file__).parents[2] / "docs"

PAGES = {
    "orchestratord.1": (
        "calls the APIs that YAML files declare",
        "**orchestratord** *COMMAND* [*OPTIONS*]",
        "commands.md",
        "orchestratord",
    ),
    "orchestratorctl.1": (
        "speaks to a running orchestratord",
        "**orchestratorctl** [`--socket` *PATH*] [`-o` table|json|yaml] *VERB* [*ARGUMENTS*]",
        "commands.md",
        "orchestratorctl",
    ),
    "orchestratord.yaml.5": (
        "the configuration of orchestratord",
        "`orchestratord.yaml`, `apis/`*API*`/api.yaml`, `apis/`*API*`/endpoints/`*NAME*`.yaml`",
        "configuration.md",
        "Configuration",
    ),
}
"""Page → what it is, synopsis, and the file and chapter that it is made from."""

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_UTC = timezone.utc  # noqa: UP017  # `datetime.UTC` came with Python 3.11
_FONTS = {"strong": "B", "em": "I"}


def page(name: str, version: str) -> str:
    """The roff source of a page.

    Args:
        name: one of `PAGES`.
        version: of the package, as it stands in the footer.
    """
    about, synopsis, file, title = PAGES[name]
    stem, _, section = name.rpartition(".")
    others = [other.rpartition(".") for other in PAGES if other != name]
    day = datetime.fromtimestamp(float(os.environ.get("SOURCE_DATE_EPOCH") or _now()), _UTC)
    lines = [
        f'.TH {stem.upper()} {section} {day:%Y-%m-%d} "orchestratord {version}"',
        ".SH NAME",
        f"{stem} \\- {_escaped(about)}",
        ".SH SYNOPSIS",
        *_Roff(_MARKDOWN.parse(synopsis), 0).lines(),
        ".SH DESCRIPTION",
        *_Roff(*_chapter(_MARKDOWN.parse((DOCS / file).read_text("utf-8")), title)).lines(),
        ".SH SEE ALSO",
        *(f".BR {stem} ({section}){',' * (i < 1)}" for i, (stem, _, section) in enumerate(others)),
    ]
    return "\n".join(lines) + "\n"


def _now() -> float:
    return datetime.now(_UTC).timestamp()


def _chapter(tokens: list[Token], title: str) -> tuple[list[Token], int]:
    """What stands below a heading, up to the next one of its level; and that level."""
    headings = [
        (place, int(token.tag[1:]), tokens[place + 1].content)
        for place, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    begin, level = next((place, level) for place, level, text in headings if text == title)
    ends = [place for place, other, _ in headings if place > begin and other <= level]
    return tokens[begin + 3 : min(ends, default=len(tokens))], level


class _Roff:
    """What was read from Markdown as lines of roff, for the macros of man."""

    def __init__(self, tokens: list[Token], level: int) -> None:
        """`level`: of the heading that it stands below."""
        self._tokens = tokens
        self._level = level
        self._at = 0

    def lines(self) -> Iterator[str]:
        """All of it."""
        first = True
        while self._at < len(self._tokens):
            token = self._next()
            if token.type == "heading_open":
                words = _escaped(self._next().content.replace("`", ""))
                # A heading one below is a section of the page, everything deeper a part of it.
                section = int(token.tag[1:]) == self._level + 1
                # The name of a file stays as it is.
                yield (
                    f".SH {words if '.' in words else words.upper()}" if section else f".SS {words}"
                )
                self._next()
                first = True
            elif token.type == "paragraph_open":
                if not first:
                    yield ".PP"
                yield from _text(_inline(self._next()))
                self._next()
                first = False
            elif token.type in ("fence", "code_block"):
                if not first:
                    yield ".PP"
                yield from _verbatim(token.content)
                first = False
            elif token.type == "bullet_list_open":
                yield from self._list()
                first = False
            elif token.type == "table_open":
                yield from self._table()
                first = False
            else:
                raise ValueError(f"a man page cannot hold {token.type}")

    def _next(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _list(self) -> Iterator[str]:
        while (token := self._next()).type != "bullet_list_close":
            if token.type == "list_item_open":
                yield ".IP \\(bu 2"
            elif token.type == "inline":
                yield from _text(_inline(token))

    def _table(self) -> Iterator[str]:
        """Each row an entry: its first cell, and below it what the others say of that."""
        heads: list[str] = []
        row: list[str] = []
        while (token := self._next()).type != "table_close":
            if token.type == "inline":
                row.append(_inline(token))
            elif token.type == "tr_close":
                if heads:
                    yield from _entry(heads, row)
                elif row[0]:
                    yield from (".PP", f"\\fI{row[0][0].upper()}{row[0][1:]}:\\fR")
                heads, row = heads or row, []


def _entry(heads: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    tag, *cells = row
    yield ".TP"
    yield from _text(tag)
    # A column with a name, such as the default, is named; the last one speaks for itself.
    named = zip(heads[1:], cells, strict=False)
    texts = [f"[{head}: {cell}]" if head else cell for head, cell in named if cell]
    yield from _text("\n".join(texts) or "\\&")


def _verbatim(content: str) -> Iterator[str]:
    yield ".RS 4"
    yield ".EX"
    for line in content.rstrip("\n").split("\n"):
        yield from _text(_escaped(line, code=True))
    yield ".EE"
    yield ".RE"


def _text(text: str) -> Iterator[str]:
    """Lines of text, none of which is taken for a request."""
    for line in text.split("\n"):
        yield f"\\&{line}" if line.startswith((".", "'")) else line


def _inline(token: Token) -> str:
    parts: list[str] = []
    fonts = ["R"]
    for child in token.children or ():
        if child.type == "text":
            parts.append(_escaped(child.content))
        elif child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type == "code_inline":
            parts.append(f"\\fB{_escaped(child.content, code=True)}\\f{fonts[-1]}")
        elif child.type in ("strong_open", "em_open"):
            fonts.append(_FONTS[child.type.removesuffix("_open")])
            parts.append(f"\\f{fonts[-1]}")
        elif child.type in ("strong_close", "em_close"):
            fonts.pop()
            parts.append(f"\\f{fonts[-1]}")
        elif child.type not in ("link_open", "link_close"):
            raise ValueError(f"a man page cannot hold {child.type}")
    return "".join(parts)


def _escaped(text: str, code: bool = False) -> str:
    """`text` as it is; in code every character is the one that can be typed again."""
    text = text.replace("\\", "\\e")
    if code:
        for character, name in (("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha")):
            text = text.replace(character, name)
        text = text.replace("~", "\\(ti")
    return text


class InstalledDocs(BuildHookInterface[Any]):
    """Puts the man pages into the wheel, and the pages of docs/ that they are made from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make them; `version` is that of the build, `standard` or `editable`."""
        self._folder = Path(tempfile.mkdtemp(prefix="man-"))
        for name in PAGES:
            path = self._folder / name
            path.write_text(page(name, self.metadata.version), encoding="utf-8")
            build_data["shared_data"][str(path)] = f"share/man/man{name[-1]}/{name}"
        for path in DOCS.rglob("*.md"):
            installed = f"share/doc/orchestratord/{path.relative_to(DOCS)}"
            build_data["shared_data"][str(path)] = installed

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        shutil.rmtree(self._folder)


if __name__ == "__main__":
    print(page(sys.argv[1], "from a checkout"), end="")
