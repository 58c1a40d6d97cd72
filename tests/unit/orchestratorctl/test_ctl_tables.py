from __future__ import annotations

import io
import os
import sys
from operator import itemgetter
from unittest.mock import patch

import pytest

from orchestratorctl.console import Console
from orchestratorctl.tables import Painted, TableColumn, fields, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(columns: int | None = None, colour: bool = False, **environment: str) -> Console:
    if columns is not None:
        environment["COLUMNS"] = str(columns)
    stdout = Terminal() if colour else io.StringIO()
    with (
        patch.multiple(sys, stdout=stdout, stderr=io.StringIO()),
        patch.dict(os.environ, {"TERM": "xterm", **environment}, clear=True),
    ):
        return Console()


COLUMNS = (
    TableColumn("ID", itemgetter(0), right=True),
    TableColumn("KIND", itemgetter(1), spare=True),
    TableColumn("WHERE", itemgetter(2), cut="middle"),
    TableColumn("NOTHING", itemgetter(3)),
)


def two(first: str, second: str) -> tuple[TableColumn, TableColumn]:
    return TableColumn(first, itemgetter(0)), TableColumn(second, itemgetter(1))


ROWS = [["1", "call", "a" * 20 + "z" * 20, "-"], ["22", "webhook", "short", "-"]]


def test_a_table_that_nobody_measures_is_whole_and_aligned() -> None:
    assert table(COLUMNS, ROWS, console()) == [
        "ID  KIND     WHERE                                     NOTHING",
        f" 1  call     {'a' * 20}{'z' * 20}  -",
        "22  webhook  short                                     -",
    ]


def test_a_narrow_screen_loses_silent_columns_then_spare_ones_and_cuts_the_rest() -> None:
    assert table(COLUMNS, ROWS, console(54))[0].split() == ["ID", "KIND", "WHERE", "NOTHING"]
    assert table(COLUMNS, ROWS, console(30)) == [
        "ID  KIND     WHERE",
        f" 1  call     {'a' * 8}…{'z' * 8}",
        "22  webhook  short",
    ]
    assert table(COLUMNS, ROWS, console(24))[0].split() == ["ID", "WHERE"]
    for width in range(20, 80):
        assert max(len(line) for line in table(COLUMNS, ROWS, console(width))) <= width


def test_a_row_is_one_line_whatever_its_cells_hold() -> None:
    lines = table(two("A", "B"), [["x\ny\x1b[2J", "z"]], console())
    assert lines == ["A              B", "x\\ny\\u001b[2J  z"]


def test_colour_is_no_part_of_the_width() -> None:
    rows: list[list[str | Painted]] = [[Painted("failed", "red"), "x"], ["succeeded", "y"]]
    plain = table(two("S", "T"), rows, console())
    coloured = table(two("S", "T"), rows, console(colour=True))
    assert "\x1b[31mfailed\x1b[0m" in coloured[1]
    assert coloured[1].replace("\x1b[31m", "").replace("\x1b[0m", "") == plain[1]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_off_where_it_is_not_wanted(environment: dict[str, str]) -> None:
    assert console(None, True, **environment).paint("x", "red") == "x"
    assert console(colour=True, NO_COLOR="").paint("x", "red") != "x"
    assert console(colour=False).paint("x", "red") == "x"


def test_fields_go_on_below_themselves() -> None:
    pairs = [("a", "one two three four five six"), ("longer", "\x1b")]
    assert fields(pairs, console(30)) == [
        "  a       one two three four",
        "          five six",
        "  longer  \\u001b",
    ]
