"""What is wrong with the text of a file, in words that say what to write instead.

The parser's errors are put into words; what it lets pass is looked for here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from orchestratord.errors import Problem

_UNFIT = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Not by what is fit: Python takes six times as long to compile that."""

_CONFLICT = re.compile(r"^<<<<<<< ", re.MULTILINE)

_GLUED = re.compile(r"\s*(?:- +)?[a-z_]+:(?=[^\s:])(?!//)")
"""A key with its value right behind the colon, which makes a text of both."""

_TYPOGRAPHIC = re.compile("[\u201c-\u201f\u2018-\u201b\u00ab\u00bb]")
"""Quotes that are none in YAML."""

_BRACKETS = re.compile(r"""(?:^|(?<=\s))\#[^\n]*|"(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}]""", re.DOTALL)
"""Brackets, and what may hold such as are none."""

_REMEDIES = (
    ("mapping values are not allowed", "a ':' too many in this line, or wrong indentation; "
     "put a value that holds ': ' in quotes"),
    ("tab character", "a tab; indent with spaces"),
    ("unexpected end of stream|unexpected document", "a quote that is opened here is never closed"),
    ("unknown escape", "an unknown escape in a text in double quotes; write \\\\ for a backslash, "
     "or use single quotes"),
    ("escape", "an escape that is not valid; write \\\\ for a backslash, or use single quotes"),
    ("',' or '}'", "expected ',' or '}' here; a text that holds ': ', {, }, [, ] or , needs "
     "quotes"),
    ("',' or ']'", "expected ',' or ']' here; a text that holds ': ', {, }, [, ] or , needs "
     "quotes"),
    ("node content", "a value is missing here; a text that begins with ], }, or , needs quotes"),
    ("expected ':'", "expected `key: value` here; is the ':' missing, or a space behind it?"),
    ("expected key", "wrong indentation, or something left over from the line before"),
    ("'-' indicator", "wrong indentation; each item of a list begins with '- ' in one column"),
    ("block end", "wrong indentation, or something left over from the line before"),
    ("document start", "something stands behind the end of the document; a file holds one"),
    ("anchor|alias", "the name of an anchor (&) or alias (*) is missing; a text that begins with & "
     "or * needs quotes"),
    ("tag", "tags (!) are not read; a text that begins with ! needs quotes"),
    ("directive", "directives (%) are not read; a text that begins with % needs quotes"),
    ("nesting depth", "nested too deep; flatten it"),
    ("sequence entries|block entries|block sequence",
     "a list cannot begin in this line; begin a new one"),
    ("line break|chomping", "a block text begins in the line after | or >"),
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


def merge_conflict(file: str, text: str) -> Problem | None:
    """One problem for the first merge conflict that git has left in a text."""
    begin = _CONFLICT.search(text)
    if begin is None:
        return None
    end = text.find("\n>>>>>>>", begin.start())
    until = f" and ends in line {text.count(chr(10), 0, end) + 2}" if end >= 0 else ""
    message = (
        f"a merge conflict begins here{until}: keep one of its sides, and delete the lines that "
        "begin with <<<<<<<, ======= and >>>>>>>"
    )
    return at(file, text, begin.start(), message)


def explain(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    """One problem for an error of the YAML parser."""
    mark = error.problem_mark or error.context_mark
    said = f"{error.problem or ''} {error.context or ''}"
    unclosed = "unexpected end of stream" in said or "unexpected document" in said
    if unclosed and error.context_mark is not None:
        mark = error.context_mark  # where the quote begins, not where the file ends
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    message = _message(_line(text, line), column, error)
    glued = _GLUED.match(_line(text, line - 1)) if "mapping values" in said and line else None
    if glued is not None:
        return Problem(
            "a space is missing behind the ':' here", file=file, line=line, column=glued.end()
        )
    if "node content" in said and not _rest(text, line, column).strip():
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
    if "expected ','" in problem and _TYPOGRAPHIC.search(line[:column]):
        return "typographic quotes are none in YAML; write ' or \" in their place"
    for text in (problem, error.context or ""):
        for words, message in _REMEDIES:
            if any(one in text for one in words.split("|")):
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


# -- what the parser lets pass and YAML 1.2 does not -----------------------------------------------

_DASH = re.compile(r"-\s*[,\]}]")
_STRICT_HEADER = re.compile(r"[|>][-+\d]*#")
_NAME_ENDS = frozenset(" \t\r\n,[]{}")


class Strict:
    """Looks at the events of one text, in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0

    @classmethod
    def of(cls, text: str) -> Strict | None:
        """None where a text has nothing that would have to be looked at."""
        suspicious = any(character in text for character in "#?&*") or _DASH.search(text)
        return cls(text) if suspicious else None

    def problem_of(self, event: Any) -> str | None:
        """What is wrong with an event or in front of it; None where nothing is."""
        text, start = self._text, event.start_mark.index
        glued = self._glued(self._end, start)
        self._end = max(event.end_mark.index, start)
        if glued:
            return "a comment begins behind a blank: put one before #, or quotes around the text"
        anchor = getattr(event, "anchor", None)
        if anchor is not None and text[start + 1 + len(anchor) :][:1] not in ("", *_NAME_ENDS):
            return (
                "the name of an anchor (&) or alias (*) ends here, and something follows; a text "
                "that begins with & or * needs quotes"
            )
        style = getattr(event, "style", None)
        if style in ("|", ">") and _STRICT_HEADER.search(text, start, line_end(text, start)):
            return "a comment begins behind a blank: put one before #"
        value = getattr(event, "value", None)
        if value is not None and not style:
            if text[start - 1 : start] == "?":
                return "a text that begins with ? needs quotes"
            if value == "-":
                return "a text that is - needs quotes"
        return None

    def _glued(self, start: int, end: int) -> bool:
        """Whether a comment between two places begins at once behind something else."""
        text = self._text
        while (hash_ := text.find("#", start, end)) >= 0:
            if hash_ > 0 and not text[hash_ - 1].isspace():
                return True
            start = line_end(text, hash_)
        return False


def line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


# -- lines that begin too far to the left, which the parser lets pass as well ----------------------

_LINE = re.compile(r"(?<=[\r\n])( *)[\t ]*([^\s])")
"""The blanks of a line that holds something, and the first character of that."""
_BLANK = re.compile(r"( *)([^\r\n]*)(?:\r\n|[\r\n]|\Z)")
_INDENT_HEADER = re.compile(r"[|>][-+]?(\d?)[^\r\n]*[\r\n]+")

Finding = tuple[int, str]
"""Where a line stands wrongly, as an index of the text, and why."""


def outdented(text: str, start: int, end: int, above: int, free: str = "") -> Finding | None:
    """The first line of a text in quotes, or of a flow collection, that is not indented enough;
    None where all are.

    Args:
        text: the whole file.
        start, end: where it begins and ends.
        above: the column of the block collection that it stands in, -1 where it stands in none.
        free: what a line may begin with that stands where it likes, such as a closing bracket.
    """
    if above < 0 or text.find("\n", start, end) < 0:
        return None
    for line in _LINE.finditer(text, start, end):
        if len(line[1]) <= above and line[2] not in free:
            more = "1 blank" if above == 0 else f"{above + 1} blanks"
            found = line.end() - 1
            if "\t" in line[0]:
                return found, "a tab; indent with spaces"
            return found, f"indent the text in brackets or quotes here by {more} or more"
    return None


def misjudged(text: str, start: int, above: int) -> Finding | None:
    """What is wrong with a block text's first lines, which decide how far it is indented."""
    header = _INDENT_HEADER.match(text, start)
    if header is None or header[1]:
        return None
    at, most = header.end(), 0
    # The line breaks of empty lines at the beginning are a part of the match.
    while at < len(text):
        line = _BLANK.match(text, at)
        assert line is not None  # it matches anything
        blanks, rest = len(line[1]), line[2]
        if not rest:
            most = max(most, blanks)
        elif blanks <= above:
            return (line.end(1), "a tab; indent with spaces") if rest.isspace() else None
        elif blanks < most:
            return line.end(1), "an empty line above has more blanks than this one: take them away"
        else:
            return None
        at = line.end()
    return None


# -- a `.json` file is held to the rules of JSON, then read by the same reader ---------------------

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|.)"
)

_CONSTANT = re.compile(r'"(?:\\.|[^"\\])*"|(-?Infinity|NaN)', re.DOTALL)
"""A text, or a word that Python takes for a number and JSON does not."""


def check(file: str, text: str, problems: list[Problem]) -> str | None:
    """The text as YAML reads it to the same value; None, and a problem, where it is not JSON."""
    try:
        json.loads(text, parse_constant=_refuse, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        problem = error.msg[:1].lower() + error.msg[1:]
        problems.append(
            Problem(f"is not JSON: {problem}", file=file, line=error.lineno, column=error.colno)
        )
        return None
    except ValueError as error:
        found = next(match for match in _CONSTANT.finditer(text) if match[1])
        problems.append(at(file, text, found.start(1), str(error)))
        return None
    except RecursionError:
        pass  # the depth is refused, with its place, when the tree is built
    if match := next((m for m in _ESCAPE.finditer(text) if _is_half(m[3])), None):
        message = f"{match[0]} is half of a character"
        problems.append(at(file, text, match.start(), message))
        return None
    return _ESCAPE.sub(_joined, text)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON; quote it if the text is meant")


def _is_half(code: str | None) -> bool:
    return code is not None and 0xD800 <= int(code, 16) <= 0xDFFF


def _joined(match: re.Match[str]) -> str:
    # JSON writes a character beyond U+FFFF as two escapes, YAML as one.
    if match[1] is None:
        return match[0]
    pair = bytes.fromhex(match[1] + match[2]).decode("utf-16-be")
    return f"\\U{ord(pair):08x}"
