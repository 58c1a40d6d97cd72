"""What is wrong with the text of a file, in words that say what to write instead."""

from __future__ import annotations

import re

import yaml

from orchestratord.errors import Problem

_UNFIT = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

_BRACKETS = re.compile(r"""(?:^|(?<=\s))\#[^\n]*|"(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}]""", re.DOTALL)
"""Brackets, and what may hold such as are none."""

_REMEDIES = (
    ("mapping values are not allowed", "a ':' too many in this line, or wrong indentation; "
     "put a value that holds ': ' in quotes"),
    ("tab character", "a tab; indent with spaces"),
    ("unexpected end of stream", "a quote that is opened here is never closed"),
    ("unexpected document", "a quote that is opened here is never closed"),
    ("unknown escape", "an unknown escape in a text in double quotes; write \\\\ for a backslash, "
     "or use single quotes"),
    ("escape", "an escape that is not valid; write \\\\ for a backslash, or use single quotes"),
    ("',' or '}'", "expected ',' or '}' here; a text that holds {, }, [, ] or , needs quotes"),
    ("',' or ']'", "expected ',' or ']' here; a text that holds {, }, [, ] or , needs quotes"),
    ("node content", "a value is missing here; a text that begins with ], }, or , needs quotes"),
    ("expected ':'", "expected `key: value` here; is the ':' missing, or a space behind it?"),
    ("expected key", "wrong indentation, or something left over from the line before"),
    ("'-' indicator", "wrong indentation; each item of a list begins with '- ' in one column"),
    ("block end", "wrong indentation, or something left over from the line before"),
    ("document start", "something stands behind the end of the document; a file holds one"),
    ("anchor", "the name of an anchor (&) or alias (*) is missing; a text that begins with & or * "
     "needs quotes"),
    ("alias", "the name of an anchor (&) or alias (*) is missing; a text that begins with & or * "
     "needs quotes"),
    ("tag", "tags (!) are not read; a text that begins with ! needs quotes"),
    ("directive", "directives (%) are not read; a text that begins with % needs quotes"),
    ("nesting depth", "nested too deep; flatten it"),
    ("sequence entries", "a list cannot begin in this line; begin a new one"),
    ("block entries", "a list cannot begin in this line; begin a new one"),
    ("block sequence", "a list cannot begin in this line; begin a new one"),
    ("line break", "a block text begins in the line after | or >"),
    ("chomping", "a block text begins in the line after | or >"),
    ("incompatible YAML", "leave the line %YAML out"),
)  # fmt: skip


def decode(file: str, content: bytes, problems: list[Problem]) -> str | None:
    """The text of a file, without a byte-order mark; None, and a problem, where it is none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.append(Problem("is UTF-16; save it as UTF-8", file=file, line=1, column=1))
        return None
    body = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        before = body[: error.start].decode()
        problems.append(at(file, before, len(before), "is not UTF-8 here; save the file as UTF-8"))
        return None
    if match := _UNFIT.search(text):
        code = f"U+{ord(match[0]):04X}"
        message = (
            f"the character {code} cannot stand in a file; delete it, or write it as an escape"
        )
        problems.append(at(file, text, match.start(), message))
        return None
    return text


def explain(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    """One problem for an error of the YAML parser."""
    mark = error.problem_mark or error.context_mark
    complaint = f"{error.problem or ''} {error.context or ''}"
    unclosed = "unexpected end of stream" in complaint or "unexpected document" in complaint
    if unclosed and error.context_mark is not None:
        mark = error.context_mark  # where the quote begins, not where the file ends
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    message = _message(_line(text, line), column, error)
    if "node content" in complaint and not _rest(text, line, column).strip():
        # The parser does not say where the list or the mapping began that is not finished.
        place = _open_bracket(text)
        if place is not None:
            return at(file, text, place, f"the {text[place]} here is never closed")
    opened = error.context_mark
    if opened is not None and not _rest(text, line, column).strip():
        bracket = _line(text, opened.line)[opened.column : opened.column + 1]
        if bracket in ("{", "["):
            line, column = opened.line, opened.column
            message = f"the {bracket} here is never closed"
    return Problem(message, file=file, line=line + 1, column=column + 1)


def _open_bracket(text: str) -> int | None:
    """Where the last bracket stands that is not closed, quotes and comments left out."""
    opened: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match[0] in ("[", "{"):
            opened.append(match.start())
        elif match[0] in ("]", "}") and opened:
            opened.pop()
    return opened[-1] if opened else None


def _message(line: str, column: int, error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "cannot start any token" in problem:
        found = line[column : column + 1]
        if found == "\t":
            return "a tab; indent with spaces"
        if line[: column + 1].endswith("{%"):
            return "a template has expressions only, {{ … }}, and needs quotes around it"
        return f"a text that begins with {found} needs quotes"
    for text in (problem, error.context or ""):
        for words, message in _REMEDIES:
            if words in text:
                return message
    return f"cannot be read as YAML ({problem}); check quotes and indentation here"


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


def _rest(text: str, number: int, column: int) -> str:
    """What stands from a place on."""
    lines = text.splitlines()[number:]
    return "\n".join([lines[0][column:], *lines[1:]]) if lines else ""


def at(file: str, text: str, offset: int, message: str) -> Problem:
    """A problem at one character of a text."""
    line = text.count("\n", 0, offset)
    column = offset - (text.rfind("\n", 0, offset) + 1)
    return Problem(message, file=file, line=line + 1, column=column + 1)
