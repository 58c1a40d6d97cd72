"""Where the parameters of a statement stand, told by the tokens of each dialect.

    SELECT ':a', x::int, $$ :b $$ FROM t -- :c
    WHERE id = :id

has one parameter, `id`. There are libraries that know all of SQL, and each differs a little from
what a database reads. Nothing is pasted into a statement here, so no more has to be known of it
than where its texts, comments and names end; that is the few lines below, which the tests hold
against the databases themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple

Dialect = Literal["sqlite", "postgresql"]

_WORD = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*"

_POSTGRESQL = rf"""
      (?P<blank>\s+|--[^\r\n]*)
    | (?P<comment>/\*)
    | (?P<text>[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*'
        | \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<word>{_WORD})
    | (?P<number>\d[\w.]*)
    | (?P<foreign>\$\d+)
    | (?P<cast>::|:=)
    | :(?P<name>[A-Za-z_]\w*)
    | (?P<end>;)
    | (?P<open>'|"|\$(?:{_WORD})?\$)
    | (?P<other>.)
    """
_SQLITE = rf"""
      (?P<blank>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    | (?P<word>{_WORD})
    | (?P<number>\d[\w.]*)
    | (?P<foreign>\?\d*|[@$#][\w$\x80-\U0010ffff]+)
    | (?P<longer>:[\w$\x80-\U0010ffff]+(?:::|\())
    | :(?P<name>[\w$\x80-\U0010ffff]+)
    | (?P<end>;)
    | (?P<open>['"`\[])
    | (?P<other>.)
    """


@cache
def _pattern(dialect: Dialect) -> re.Pattern[str]:
    """A dialect's tokens. Compiling them takes as long as a dozen imports, and few have SQL."""
    tokens = _POSTGRESQL if dialect == "postgresql" else _SQLITE
    return re.compile(tokens, re.VERBOSE | re.DOTALL)


_COMMENT_MARK = re.compile(r"/\*|\*/")
_PART_OF_A_SLICE = frozenset({"word", "number", "quoted", "closing"})


_TRANSACTION = "is not needed: each attempt is a transaction of its own"
_SESSION = "is for one connection, and attempts share several"

REFUSED = {
    **dict.fromkeys(
        ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"),
        _TRANSACTION,
    ),
    **dict.fromkeys(
        ("ATTACH", "DETACH", "PRAGMA", "SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN"), _SESSION
    ),
    "VACUUM": "runs in no transaction, and each attempt is one",
    "COPY": "moves data to and from the client; write INSERT or SELECT",
}
"""How a statement begins that has no place here, and why."""

WRITING = frozenset(
    "INSERT UPDATE DELETE MERGE INTO CALL DO CREATE ALTER DROP TRUNCATE GRANT REVOKE SHARE".split()
)
"""Words that show, anywhere in a query, that it may change something, or locks rows."""

WORDS_BEFORE_BRACKET = frozenset(
    """
    ALL AND ANY AS BETWEEN BY CASE CAST CROSS DISTINCT ELSE EXCEPT EXISTS FILTER FROM FULL GROUP
    HAVING ILIKE IN INNER INTERSECT IS JOIN LATERAL LEFT LIKE LIMIT MATERIALIZED NOT NULL OFFSET
    ON OR ORDER OVER OUTER PARTITION RIGHT ROW SELECT SETS SOME THEN UNION USING VALUES WHEN
    WHERE WINDOW WITH ROLLUP CUBE RECURSIVE ARRAY INTERVAL NUMERIC DECIMAL VARCHAR CHAR
    CHARACTER VARYING TIMESTAMP TIMESTAMPTZ TIME BIT FLOAT
    """.split()
)
"""Words that a bracket can follow without a call of a function."""

FUNCTIONS = frozenset(
    """
    ABS ACOS AGE ARRAY_AGG ARRAY_LENGTH ARRAY_TO_STRING ASCII ASIN ATAN ATAN2 AVG BIT_LENGTH
    BOOL_AND BOOL_OR BTRIM CARDINALITY CEIL CEILING CHAR_LENGTH CHARACTER_LENGTH CHR COALESCE
    CONCAT CONCAT_WS COS COUNT CUME_DIST DATE DATE_PART DATE_TRUNC DATETIME DEGREES DENSE_RANK
    DIV ENCODE EXP EXTRACT FIRST_VALUE FLOOR FORMAT GENERATE_SERIES GLOB GREATEST GROUP_CONCAT
    GROUPING HEX IFNULL IIF INITCAP INSTR JSON JSON_AGG JSON_ARRAY JSON_ARRAY_LENGTH
    JSON_BUILD_OBJECT JSON_EACH JSON_EXTRACT JSON_GROUP_ARRAY JSON_GROUP_OBJECT JSON_OBJECT
    JSON_OBJECT_AGG JSON_TREE JSON_TYPE JSON_VALID JSONB_AGG JSONB_ARRAY_ELEMENTS
    JSONB_ARRAY_ELEMENTS_TEXT JSONB_ARRAY_LENGTH JSONB_BUILD_OBJECT JSONB_EACH JSONB_EACH_TEXT
    JSONB_EXTRACT_PATH JSONB_EXTRACT_PATH_TEXT JSONB_OBJECT_AGG JSONB_TO_RECORDSET JULIANDAY LAG
    LAST_VALUE LEAD LEAST LENGTH LN LOG LOG10 LOG2 LOWER LPAD LTRIM MAKE_DATE MAKE_INTERVAL MAX
    MD5 MIN MOD NOW NTH_VALUE NTILE NULLIF OCTET_LENGTH OVERLAY PERCENT_RANK PERCENTILE_CONT
    PERCENTILE_DISC PI POSITION POW POWER PRINTF QUOTE RADIANS RANDOM RANK REGEXP_MATCH
    REGEXP_REPLACE REPEAT REPLACE REVERSE ROUND ROW_NUMBER ROW_TO_JSON RPAD RTRIM SIGN SIN
    SPLIT_PART SQRT STDDEV STRFTIME STRING_AGG STRING_TO_ARRAY STRPOS SUBSTR SUBSTRING SUM TAN
    TIME TO_CHAR TO_DATE TO_JSON TO_JSONB TO_NUMBER TO_TIMESTAMP TOTAL TRANSLATE TRIM TRUNC
    TYPEOF UNIXEPOCH UNNEST UPPER VARIANCE
    """.split()
)
"""Functions of both databases that change nothing; any other one may."""


class Placeholder(NamedTuple):
    """A parameter where it stands: `offset` counts the characters before its colon."""

    name: str
    offset: int


class StatementProblem(NamedTuple):
    """What is wrong with a statement, and where in it."""

    message: str
    offset: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What is to be known of a statement in one dialect."""

    text: str
    placeholders: tuple[Placeholder, ...]
    problems: tuple[StatementProblem, ...]
    reads: bool
    """It is certain that the statement only reads."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, each once, in the order in which they come first."""
        return tuple(dict.fromkeys(placeholder.name for placeholder in self.placeholders))

    def numbered(self) -> str:
        """The statement with `$1`, `$2`, … in the place of `names`."""
        numbers = {name: number for number, name in enumerate(self.names, 1)}
        pieces: list[str] = []
        end = 0
        for name, offset in self.placeholders:
            pieces += self.text[end:offset], f"${numbers[name]}"
            end = offset + 1 + len(name)
        return "".join([*pieces, self.text[end:]])


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


@lru_cache(maxsize=1024)
def scan(text: str, dialect: Dialect) -> Scan:
    """Find the parameters of `text`, and what is wrong with it as far as that can be told."""
    placeholders: list[Placeholder] = []
    problems: list[StatementProblem] = []
    tokens: list[_Token] = []
    ended = False
    previous = "blank"
    for token in _tokens(text, dialect):
        kind = token.kind
        if kind == "name" and dialect == "postgresql" and previous in _PART_OF_A_SLICE:
            kind = "other"  # `a[1:n]`
        previous = "closing" if token.text in (")", "]") else kind
        if kind == "blank":
            continue
        if kind == "open":
            problems.append(StatementProblem(f"{token.text} is not closed", token.offset))
            break
        if kind == "foreign":
            said = f"{token.text} is no parameter here; write :name"
            problems.append(StatementProblem(said, token.offset))
        elif kind == "longer":
            name = token.text.rstrip(":(")
            said = f"SQLite takes {token.text} for one name; write a blank behind {name}"
            problems.append(StatementProblem(said, token.offset))
        elif kind == "name":
            placeholders.append(Placeholder(token.text[1:], token.offset))
        if ended and kind != "end":
            problems.append(
                StatementProblem("takes one statement, and here begins another", token.offset)
            )
            break
        ended = ended or kind == "end"
        if kind != "end":
            tokens.append(token._replace(kind=kind))
    first = tokens[0].text.upper() if tokens else ""
    if not tokens:
        problems.append(StatementProblem("is empty", 0))
    elif first in REFUSED:
        problems.append(StatementProblem(f"{first} {REFUSED[first]}", tokens[0].offset))
    reads = not problems and _only_reads(tokens)
    return Scan(text, tuple(placeholders), tuple(problems), reads)


def reads_only(text: str) -> bool:
    """Whether a statement only reads for certain, whichever of the databases reads it."""
    scans = scan(text, "sqlite"), scan(text, "postgresql")
    good = [found.reads for found in scans if not found.problems]
    return bool(good) and all(good)


def _tokens(text: str, dialect: Dialect) -> Iterator[_Token]:
    pattern = _pattern(dialect)
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        assert match is not None, "every character is `other` at least"
        assert match.lastgroup is not None
        kind, end = match.lastgroup, match.end()
        if kind == "comment":
            end = _end_of_comment(text, at)
            kind = "blank" if end else "open"
            end = end or len(text)
        yield _Token(kind, match[0] if kind != "blank" else "", at)
        at = end


def _end_of_comment(text: str, start: int) -> int:
    """Where a comment ends, with those that are nested in it; 0 where it does not."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return 0


def _only_reads(tokens: list[_Token]) -> bool:
    """Whether they are a query that calls nothing but functions which are known to change nothing.

    In doubt it is none: then it is not repeated by itself where it may have been carried out.
    """
    if tokens[0].text.upper() not in ("SELECT", "VALUES", "WITH"):
        return False
    for index, token in enumerate(tokens):
        word = token.text.upper()
        if token.kind == "word" and word in WRITING:
            return False
        called = index + 1 < len(tokens) and tokens[index + 1].text == "("
        if not called or token.kind not in ("word", "quoted"):
            continue
        qualified = index > 0 and tokens[index - 1].text == "."
        known = word in WORDS_BEFORE_BRACKET or word in FUNCTIONS
        if token.kind == "quoted" or qualified or not known:
            return False
    return True
