"""All that is wrong, gathered: each thing once, however many endpoints inherit it.

`SourceLines` has the line of a file that a problem is in, as it may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from orchestratord.config.validate.secret_keys import (
    holds_url,
    is_below_secret,
    is_free,
    resembles_secret_key,
    without_tokens,
)
from orchestratord.config.yaml.nodes import ListNode, MapNode, Node, Spot, locate
from orchestratord.errors import Problem
from orchestratord.values.redact import MASK, Redactor
from orchestratord.values.suggest import choices, nearest, suggest
from orchestratord.values.yaml_value import template_problem

_LONGEST = 600
"""Characters of a message."""
WIDTH = 400
"""Characters; the rest of a longer line is not shown."""
_LONGEST_LINE = 10 * WIDTH
"""Characters; a longer line that holds a secret is not shown."""

_UNKNOWN_KEY = "unknown key"
_KEY_OF_NO_FILE = re.compile(f"{_UNKNOWN_KEY}(?! here;)")
"""What a message begins with where the key is wrong, and nothing tells what its value is."""
_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Where YAML begins another line."""
_KEY = re.compile(r"""(?<![\w.-])([\w.-]+)['"]?\s*:(?!\S)\s*""")
_ANY_KEY = re.compile(r"""(['"])[^'"]{1,64}\1\s*:\s*|(?<![\w.-])[\w.-]+\s*:(?!\S)\s*""")
_BLOCK_KEY = re.compile(r"""([ \t]*)(?:- +)*['"]?([\w.-]+)['"]?\s*:(?!\S)""")
_ORIGIN = re.compile(r"""['"]?(\w+://)?[\w.-]+(:\d+)?/?['"]?[\s\]},]*(#.*)?""")
"""A URL that has nothing but a host: no user, no path, no query."""
_CREDENTIAL = re.compile(r"""(?i:\b(?:bearer|basic)\s+|[\w-]+=)[^\s'"&]+""")
_NO_VALUE = re.compile(r"""[\s\[\]{},'"|>-]*""")
_OPENING = re.compile(r"[\s\-{\[]*")
_PLAIN_KEY = re.compile(r"""(['"]?)[a-z_]{1,24}\1\s*:(?!\S)""")
"""A key as ours are; another one may be a secret with its colon misplaced."""
_PLAIN_PATH = re.compile(r"[\w.-]*")
_QUOTED = re.compile(
    r"""(?<![\w\]])(?<!did you mean )(?<!pip install )(['"])(?P<text>(?:\\.|(?!\1).)*)(?:\1|$)"""
)
"""What a message quotes, maybe cut off; not what it proposes, which are words of ours."""
_HARMLESS = re.compile(r"[A-Za-z_.]{0,48}|\{\{ … \}\}")
"""A name as ours are, or a template that holds none; another name may be a secret that was written
into braces."""
_NUMBER = re.compile(r"\d{4,}[\d.]*|\d+\.\d{3,}")
_LONG_NUMBER = re.compile(r"\d{10,}")
_USER_INFO = re.compile(r"""(?<!\S)([\[{'"]*(?:\w+://)?)[^\s\[{'"]\S*@(?=\S)""")
"""No name begins with a quote or a bracket: `'@daily'` has none. Only where a word begins:
anywhere within it would take the square of its length."""


class Problems:
    """Errors and warnings of one reading of the folder."""

    def __init__(self) -> None:
        self.errors = 0
        """How many errors there were, those that were said already included."""
        self._found: list[Problem] = []
        self._said: dict[tuple[Spot, str], None] = {}

    def __len__(self) -> int:
        return len(self._found)

    def since(self, length: int) -> list[Problem]:
        """What came since there were so many."""
        return self._found[length:]

    def mark(self) -> tuple[int, int, int]:
        """Where it stands now, for `back_to`: how many problems, how many errors, and the rest."""
        return len(self._found), self.errors, len(self._said)

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what came since then."""
        found, self.errors, said = mark
        del self._found[found:]
        while len(self._said) > said:
            self._said.popitem()

    def error(self, spot: Spot, message: str, hint: str = "", *, unread: bool = False) -> None:
        """Something that refuses the configuration. `hint`: what could stand there; `unread` is
        that of `Problem`."""
        self.add(replace(spot.problem(message, hint=hint), unread=unread))

    def unknown_key(self, spot: Spot, key: str, known: Iterable[str]) -> None:
        """An error about a key that is none of those known there; what it holds is not read."""
        known = set(known)
        above = spot.key.rpartition(".")[0]
        plain = _PLAIN_KEY.fullmatch(f"{key}:") or nearest(key, known) is not None
        if not plain and is_below_secret(above):
            spot = spot._replace(key=f"{above}.{MASK}")  # rather a secret without its key
        message = _UNKNOWN_KEY + suggest(key, known)
        self.error(spot, message, choices(key, known), unread=True)

    def warn(self, spot: Spot, message: str, *, unread: bool = False) -> None:
        """Something that is shown, and refuses nothing; `unread` is that of `Problem`."""
        self.add(replace(spot.problem(message, "warning"), unread=unread))

    def once(self, spot: Spot, message: str, *, about: str) -> None:
        """An error about one thing at one place, which many endpoints may have."""
        key = (spot, about)
        if key in self._said:
            self.errors += 1
        else:
            self._said[key] = None
            self.error(spot, message)

    def add(self, problem: Problem) -> None:
        """One that knows its place, or has none."""
        if problem.severity == "error":
            self.errors += 1
        self._found.append(problem)

    def extend(self, problems: Iterable[Problem]) -> None:
        """Several of these."""
        for problem in problems:
            self.add(problem)

    def sorted(self, redactor: Redactor, contents: Mapping[str, bytes]) -> tuple[Problem, ...]:
        """The errors in the order of the files, then the warnings; without secrets.

        Args:
            redactor: of the present reading.
            contents: what the files hold, for the lines that problems are in.
        """
        # Each once: what endpoints inherit is reported for each of them.
        found = {(p.file, p.line, p.column, p.key, p.message): p for p in reversed(self._found)}
        chosen = sorted(
            found.values(),
            key=lambda p: (p.severity, p.file, p.line or 0, p.column or 0, p.key, p.message),
        )
        unread = frozenset(p.file for p in chosen if p.unread)
        lines = SourceLines(contents, redactor, unread)
        return tuple(
            replace(
                p,
                message=_one_line(_shown_message(p, redactor.text(p.message), unread)),
                key=_one_line(_shown_path(p.key) if p.unread else p.key),
                hint=_one_line(redactor.text(p.hint)),
                source=p.source or lines.of(p),
            )
            for p in chosen
        )


@dataclass(frozen=True, slots=True)
class KeyProblems:
    """Reports problems of one tree, each at the key that a path leads to.

    Args:
        problems: where they are gathered.
        spot: where the tree stands.
        node: the tree.
    """

    problems: Problems
    spot: Spot
    node: Node

    def located(self, *path: str | int) -> tuple[Spot, Node, list[str]]:
        """See `locate`."""
        return locate(self.spot, self.node, path)

    def at(self, *path: str | int) -> Spot:
        """The place that a path leads to, or the last one found on the way."""
        return self.located(*path)[0]

    def no_template(self, remedy: str, *path: str | int) -> None:
        """Report each text at and below a path that looks like a template: it is used as it stands.
        `remedy`: where such a thing belongs."""
        spot, node, skipped = self.located(*path)
        waiting = [] if skipped else [(spot, node)]
        for spot, node in waiting:  # and what is added meanwhile
            if isinstance(node, MapNode):
                waiting += node.entries.values()
            elif isinstance(node, ListNode):
                waiting += node.items
            elif wrong := template_problem(node.text, remedy):
                self.problems.error(spot, wrong)

    def error(self, message: str, *path: str | int) -> None:
        """See `Problems.error`."""
        self.problems.error(self.at(*path), message)

    def warn(self, message: str, *path: str | int) -> None:
        """See `Problems.warn`."""
        self.problems.warn(self.at(*path), message)


def _one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a quoted value may hold.

    A value may also be endless: then its middle is left out, since the remedy is at the end.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown_path(key: str) -> str:
    """A dotted path without what can be no key of ours, such as `bearer S` for `bearer: S`."""
    plain = _PLAIN_PATH.match(key)
    assert plain is not None  # it matches anything
    return key if plain.end() == len(key) else plain[0] + MASK


def _shown_message(problem: Problem, message: str, unread: Container[str]) -> str:
    """The message without the values that it quotes, where these may be secrets."""
    key, unread_file = problem.key, problem.file in unread
    if is_below_secret(key) or (unread_file and not problem.unread and is_free(key)):
        return _NUMBER.sub(MASK, _QUOTED.sub(f"'{MASK}'", message))
    if holds_url(key):  # what is wrong with a template is a name in it
        return _QUOTED.sub(
            lambda match: match[0] if _HARMLESS.fullmatch(match["text"]) else f"'{MASK}'", message
        )
    message = _LONG_NUMBER.sub(MASK, message)
    return _QUOTED.sub(lambda match: _without_lookalikes(match[0]), message)


class SourceLines:
    """The lines of files as they may be shown.

    Of all values a line shows that of the problem's own key alone, without what looks like a token.
    It shows no value of a key that no file has, nor within and below a key that resembles one that
    holds a secret, nor a URL that is more than a host. In a file of which something was not read as
    what it is, it shows none that a receiver or a plugin names.

    Args:
        contents: what the files hold.
        redactor: knows the secrets that were found.
        unread: the files of which something was not read as what it is.
    """

    def __init__(
        self, contents: Mapping[str, bytes], redactor: Redactor, unread: Container[str] = ()
    ) -> None:
        self._contents = contents
        self._unread = unread
        self._redactor = redactor
        self._lines: dict[str, list[str]] = {}

    def of(self, problem: Problem) -> str:
        """The line that a problem is in; empty where it has no place, or one that is cut off."""
        if problem.line is None or problem.file not in self._contents:
            return ""
        lines = self._lines.get(problem.file)
        if lines is None:
            lines = self._lines[problem.file] = lines_of(self._contents[problem.file])
        column = (problem.column or 1) - 1
        if problem.line > len(lines) or column > WIDTH:
            return ""
        line, key = lines[problem.line - 1], problem.key
        if not key:  # it is no YAML
            key = _enclosing(lines, problem.line)
        start, end = _own_part(line, column)
        if self._hides(problem, key, line[start:end]):
            return _fit(_only_keys(line, column))
        # What stands before it keeps its length, so that the column still is the place.
        before = _without_values(line[:start])
        hidden = self._redactor.text(before)
        if hidden != before:
            before = hidden[:start].ljust(start)
        own = _without_secrets(self._redactor.text(line[start:end]))
        behind = self._redactor.text(_without_values(line[end : end + WIDTH]))
        return _fit(before + own + behind)

    def _hides(self, problem: Problem, key: str, own: str) -> bool:
        """Whether the value of a problem's key may be a secret, whatever it looks like."""
        if _KEY_OF_NO_FILE.match(problem.message) or is_below_secret(key):
            return True
        named = _ANY_KEY.match(own)
        if named and _name(named) not in key.split("."):  # what it is about is missing
            return True
        if holds_url(key):
            return _ORIGIN.fullmatch(own[named.end() :] if named else own) is None
        return problem.file in self._unread and is_free(key)


def _enclosing(lines: list[str], number: int) -> str:
    """The dotted path of the keys that a line of a block stands below, and of its own, as far as
    indentation tells."""
    path: list[str] = []
    own = lines[number - 1]
    depth = len(own) - len(own.lstrip()) + 1
    for line in reversed(lines[:number]):
        found = _BLOCK_KEY.match(line)
        if found and len(found[1]) < depth:
            depth = len(found[1])
            path.insert(0, found[2])
    return ".".join(path)


def _fit(line: str) -> str:
    line = line[:WIDTH]
    if not line.isprintable():  # which nearly every line is
        line = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)
    return line.rstrip()


def lines_of(content: bytes) -> list[str]:
    """The lines of a file. What is no UTF-8 is what some problems are about."""
    return _ENDS.split(content.decode("utf-8", "replace").removeprefix("\ufeff"))


def _own_part(line: str, column: int) -> tuple[int, int]:
    """From where to where the key at a column stands, and its value with the keys within; at most
    `_LONGEST_LINE`."""
    start, end, within = 0, min(len(line), column + _LONGEST_LINE), 0
    for key in _ANY_KEY.finditer(line, 0, end):
        if key.start() <= column:
            start, within = key.start(), key.end()
        elif _depth(line[within : key.start()]) <= 0:
            return start, key.start()
    return start, end


def _depth(part: str) -> int:
    """How many more brackets are opened in a part of a line than are closed."""
    return sum((c in "{[") - (c in "}]") for c in part)


def _without_values(part: str) -> str:
    """Part of a line with its keys alone, as long as it was."""
    shown, position = "", 0
    for key in [*_ANY_KEY.finditer(part), None]:
        value = part[position : key.start() if key else len(part)]
        if _NO_VALUE.fullmatch(value) is None:
            bare = value.rstrip(" ,]}")
            value = MASK[: len(bare)].ljust(len(bare)) + value[len(bare) :]
        shown += value + (key[0] if key else "")
        position = key.end() if key else len(part)
    return shown


def _name(key: re.Match[str]) -> str:
    return key[0].strip(" :'\"")


def _without_secrets(line: str) -> str:
    """A key with its value, without what is or looks like a secret in it."""
    own = _ANY_KEY.match(line)
    first = own.end() if own else 0
    for key in _ANY_KEY.finditer(line, first):
        if is_free(_name(key)) or holds_url(_name(key)):
            line = line[: key.start()] + _without_values(line[key.start() :])
            break
    line = _USER_INFO.sub(lambda match: f"{match[1]}{MASK}@", line)
    for match in _KEY.finditer(line):
        value = line[match.end() :]
        if value and resembles_secret_key(match[1]):
            return line[: match.end()] + MASK.ljust(len(value))
    return line[:first] + _without_lookalikes(line[first:])


def _without_lookalikes(text: str) -> str:
    return without_tokens(_CREDENTIAL.sub(_hidden_credential, text))


def _hidden_credential(match: re.Match[str]) -> str:
    """What follows `Bearer`, or a name with `=` that resembles one of a secret, masked."""
    name, equals, _ = match[0].partition("=")
    if equals and not resembles_secret_key(name):
        return match[0]
    return f"{name if equals else name.split()[0]}{equals or ' '}{MASK}"


def _only_keys(line: str, column: int) -> str:
    """The keys that stand where the line begins and at a column, and what opens the value between
    the two; nothing else of it."""
    opening = _OPENING.match(line)
    assert opening is not None  # it matches anything
    first = _PLAIN_KEY.match(line, opening.end())
    if first and first.end() <= column and _OPENING.fullmatch(line[first.end() : column]):
        return line[:column] + _key_alone(line, column, MASK)
    shown = opening[0] + _key_alone(line, opening.end(), MASK)
    return shown if column < len(shown) else shown.ljust(column) + _key_alone(line, column)


def _key_alone(line: str, start: int, otherwise: str = "") -> str:
    """The key that begins at a place, with what is behind it masked; or, where no key does and the
    line goes on, something else."""
    key = _PLAIN_KEY.match(line, start)
    if key is None:
        return otherwise if line[start:].strip() else ""
    return f"{key[0]} {MASK}" if line[key.end() :].strip() else key[0]
