"""What the benchmark says: figures, tables, the page that they are written into."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import cases
from bench.__main__ import main
from bench.cases import Measure, Race
from bench.environment.folder import Folder
from bench.measures.drain import Drained
from bench.results import table
from bench.results.figures import Figure, Spread, percentile
from bench.results.report import Report
from bench.results.rounds import Results

FAST = Race("fast", "the fast one", 1000, "tuned", lambda home, nginx: Drained(0, 0, 0, 0))
SLOW = Race("slow", "the slow one", 500, "as shipped", lambda home, nginx: Drained(0, 0, 0, 0))
LATE = Measure("late", "of all", lambda home, nginx: [])


def results() -> Results:
    drained = {
        "slow": [Drained(rate, 0.5, 0.1, 20) for rate in (100, 90, 140)],
        "fast": [
            Drained(rate, 0.25, 0.1, peak) for rate, peak in ((250, 30), (400, 50), (200, 40))
        ],
    }
    late = [Figure("how late", value, "ms") for value in (3.0, 1.25, 123.4)]
    return Results(drained, {"how late": late})


def test_a_spread_has_the_median_and_both_ends() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)


def test_a_percentile_is_a_value_that_so_many_do_not_exceed() -> None:
    values = list(range(1000, 0, -1))
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (501, 991)
    assert percentile([7], 0.99) == 7


def test_races_are_compared_by_their_medians() -> None:
    made = table.races([FAST, SLOW, LATE], results(), ["slow", "absent"])
    assert made.head[5] == "× slow"
    assert [row[:6] for row in made.rows] == [
        ("the fast one", "1,000", "250", "200", "400", "2.50"),
        ("the slow one", "500", "100", "90", "140", "1.00"),
    ]
    assert [row[-3:] for row in made.rows] == [("0.250", "0.100", "50"), ("0.500", "0.100", "20")]


def test_figures_have_their_unit() -> None:
    assert table.figures(results()).rows == [("how late", "3.00 ms", "1.25 ms", "123 ms")]


def test_a_table_is_aligned_as_text_and_whole_as_markdown() -> None:
    made = table.Table(("", "a"), [("long words", "1"), ("b", "1,000")])
    assert made.text() == "                a\nlong words      1\nb           1,000"
    assert made.markdown() == "|  | a |\n| --- | ---: |\n| long words | 1 |\n| b | 1,000 |"


def test_results_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = table.marks("bench")
    page.write_text(f"above\n{begin}\nold\n{end}\nbelow\n")
    for text in ("first", "second"):
        table.insert(page, "bench", text)
    assert page.read_text() == f"above\n{begin}\n\nsecond\n\n{end}\nbelow\n"


def test_a_new_page_is_made(tmp_path: Path) -> None:
    table.insert(tmp_path / "page.md", "bench.store", "text")
    assert "\n\ntext\n\n" in (tmp_path / "page.md").read_text()


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(ValueError, match="lacks the lines"):
        table.insert(page, "bench", "theirs")
    assert page.read_text() == "mine"


@pytest.mark.parametrize("name", ["bench", "bench.store"])
def test_the_page_of_the_results_has_the_marks(name: str) -> None:
    text = (Path(__file__).parents[3] / "bench" / "results.md").read_text()
    begin, end = map(text.index, table.marks(name))
    assert begin < end


def test_a_report_says_what_made_it_and_with_which_settings() -> None:
    report = Report("python -m bench", "2026-11-25", [FAST, SLOW, LATE], 3, results(), ["2 cores"])
    for text in (report.text(), report.markdown()):
        for words in ("the fast one", "fast: tuned", "how late", "2 cores", "3 rounds in turn"):
            assert words in text
    assert report.markdown().startswith("`python -m bench`, 2026-11-25:")


def test_every_case_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = [case.name for case in (*cases.own(quick=False), *cases.peers(Folder(tmp_path)))]
    assert len(set(names)) == len(names)
    assert {case.name for case in cases.own(quick=True)} < set(names)


def test_a_case_that_does_not_exist_is_refused_and_the_others_are_named(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["--only", "deliveries,nosuch", "--folder", str(tmp_path)])
    assert ran.exit_code == 2
    assert "nosuch: there are deliveries, calls," in ran.output
