from __future__ import annotations

import io

import pytest

from orchestratorctl.render import Column, Painted, compact, fields, number, size, table
from orchestratorctl.screen import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(columns: int | None = None, colour: bool = False, **environment: str) -> Screen:
    if columns is not None:
        environment["COLUMNS"] = str(columns)
    return Screen(
        environment={"TERM": "xterm", **environment},
        stdout=Terminal() if colour else io.StringIO(),
        stderr=io.StringIO(),
    )


COLUMNS = (
    Column("ID", right=True),
    Column("KIND", spare=True),
    Column("WHERE", cut="middle"),
    Column("NOTHING"),
)
ROWS = [["1", "call", "a" * 20 + "z" * 20, "-"], ["22", "webhook", "short", "-"]]


def test_a_table_that_nobody_measures_is_whole_and_aligned() -> None:
    assert table(COLUMNS, ROWS, screen()) == [
        "ID  KIND     WHERE                                     NOTHING",
        f" 1  call     {'a' * 20}{'z' * 20}  -",
        "22  webhook  short                                     -",
    ]


def test_a_narrow_screen_loses_silent_columns_then_spare_ones_and_cuts_the_rest() -> None:
    assert table(COLUMNS, ROWS, screen(54))[0].split() == ["ID", "KIND", "WHERE", "NOTHING"]
    assert table(COLUMNS, ROWS, screen(30)) == [
        "ID  KIND     WHERE",
        f" 1  call     {'a' * 8}…{'z' * 8}",
        "22  webhook  short",
    ]
    assert table(COLUMNS, ROWS, screen(24))[0].split() == ["ID", "WHERE"]
    for width in range(20, 80):
        assert max(len(line) for line in table(COLUMNS, ROWS, screen(width))) <= width


def test_a_row_is_one_line_whatever_its_cells_hold() -> None:
    lines = table([Column("A"), Column("B")], [["x\ny\x1b[2J", "z"]], screen())
    assert lines == ["A              B", "x\\ny\\u001b[2J  z"]


def test_colour_is_no_part_of_the_width() -> None:
    rows: list[list[str | Painted]] = [[Painted("failed", "red"), "x"], ["succeeded", "y"]]
    plain = table([Column("S"), Column("T")], rows, screen())
    coloured = table([Column("S"), Column("T")], rows, screen(colour=True))
    assert "\x1b[31mfailed\x1b[0m" in coloured[1]
    assert coloured[1].replace("\x1b[31m", "").replace("\x1b[0m", "") == plain[1]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_off_where_it_is_not_wanted(environment: dict[str, str]) -> None:
    assert screen(None, True, **environment).paint("x", "red") == "x"
    assert screen(colour=True, NO_COLOR="").paint("x", "red") != "x"
    assert screen(colour=False).paint("x", "red") == "x"


def test_fields_go_on_below_themselves() -> None:
    pairs = [("a", "one two three four five six"), ("longer", "\x1b")]
    assert fields(pairs, screen(30)) == [
        "  a       one two three four",
        "          five six",
        "  longer  \\u001b",
    ]


def test_values_in_one_line() -> None:
    assert compact(None) == "-"
    assert compact("x") == "x"
    assert compact({"a": [1, "ü"]}) == '{"a": [1, "ü"]}'
    assert number(1234567) == "1,234,567"
    assert number(None) == "-"
    assert [size(n) for n in (0, 2048, 12_900_000, None)] == ["0 B", "2.0 KiB", "12.3 MiB", "-"]
