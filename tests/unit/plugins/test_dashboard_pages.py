"""What the pages make of what the daemon says."""

from __future__ import annotations

import time
from typing import Any

import pytest
from orchestratord_dashboard import (
    charts,
    health_pages,
    overview_pages,
    run_pages,
    task_pages,
    template_filters,
    throttled_lanes,
)

from orchestratord import Caller, InvalidParams, NotFound, PageVisit


def wait(delay: float, jitter: float = 0.1) -> dict[str, float]:
    shortest, longest = delay * (1 - jitter), delay * (1 + jitter)
    return {"delay": delay, "shortest": shortest, "longest": longest}


def test_each_step_up_is_ten_times_as_long() -> None:
    one, ten, hundred = charts.retry_bars([wait(1), wait(10), wait(100)])
    assert one.y - ten.y == pytest.approx(ten.y - hundred.y)
    assert one.x < ten.x < hundred.x
    for bar in (one, ten, hundred):
        assert 0 <= bar.top < bar.y < bar.bottom <= 100
    assert hundred.top == pytest.approx(0)


@pytest.mark.parametrize("delays", [[], [0.0], [0.0, 0.0], [5.0], [0.0, 1e9], [1e-9, 86400.0]])
def test_any_delays_can_be_drawn(delays: list[float]) -> None:
    bars = charts.retry_bars([wait(delay) for delay in delays])
    assert len(bars) == len(delays)
    assert all(0 <= bar.top <= bar.bottom <= 100 for bar in bars)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 14, 15, 40])
def test_labels_stand_below_their_bars_and_have_room(count: int) -> None:
    waits = [wait(60.0 * n) for n in range(1, count + 1)]
    found = charts.retry_labels(waits)
    assert len(found) == max(count, charts.PLACES)
    assert sum(bool(text) for text, _ in found) <= 14
    assert sum(bool(text) for text, kind in found if not kind) <= 5
    for n, (text, _) in enumerate(found):
        assert not text or text == template_filters.seconds(waits[n]["delay"])
    assert not count or found[0] == ("1m", "")


def lane(name: str, **fields: Any) -> dict[str, Any]:
    free = {"rate": None, "breaker": None, "retry_after": None, "overload": None}
    return {"name": name, "due": 3, **free, **fields}


UNTIL, SINCE = "2026-11-24T22:00:40.000Z", "2026-11-24T21:58:04.000Z"
BREAKER = {"state": "open", "why": "503", "next_probe": UNTIL, "since": SINCE, "probes": 7}


def test_throttled_lanes() -> None:
    status = {
        "breakers": [{"lane": "api:shop", "due": 412, **BREAKER}],
        "lanes": [
            lane("api:shop", breaker=BREAKER),
            lane("api:crm", rate={"limit": "100/min", "next": UNTIL}),
            lane("api:idle", rate={"limit": "100/min", "next": UNTIL}, due=0),
            lane("api:free", rate={"limit": "100/min", "next": None}),
            lane("hooks:443", retry_after={"until": UNTIL, "why": "429"}),
        ],
        "throttled": [lane("shop/put", overload={"since": SINCE, "rate": 12.5})],
    }
    found = list(throttled_lanes.throttled(status))
    assert [(one.name, one.what, one.until, one.since, one.history) for one in found] == [
        ("api:shop", "circuit breaker", UNTIL, SINCE, "7 probes failed"),
        ("api:crm", "rate limit", UNTIL, None, ""),
        ("hooks:443", "Retry-After", UNTIL, None, ""),
        ("shop/put", "overload", None, SINCE, ""),
    ]
    assert [one.endpoints for one in found] == ["shop/*", "crm/*", None, None]
    assert [one.resume is not None for one in found] == [True, False, True, True]
    assert found[2].resume == '{"name": "hooks:443"}'
    assert throttled_lanes.of_calls(status, "shop/getOrder") == found[0]
    assert throttled_lanes.of_calls(status, "free/get") is None
    probing = {"lane": "a", "due": 1, **BREAKER, "state": "half_open", "next_probe": None}
    status = {"breakers": [probing], "lanes": [], "throttled": []}
    assert [(one.what, one.until) for one in throttled_lanes.throttled(status)] == [
        ("probing", None)
    ]


def test_this_daemon_comes_first_and_a_dead_one_last() -> None:
    def daemon(name: str, alive: bool = True, this: bool = False) -> dict[str, Any]:
        return {"host": name, "alive": alive, "this": this, "started_at": name}

    fleet = [daemon("a", alive=False), daemon("b"), daemon("c", this=True)]
    assert [one["host"] for one in overview_pages.by_life(fleet)] == ["c", "b", "a"]


def test_the_tree_of_a_run() -> None:
    def one(id_: int, parent: int | None, status: str = "succeeded") -> dict[str, Any]:
        return {"id": id_, "parent_id": parent, "status": status}

    many = [one(number, 2) for number in range(5, 5 + run_pages.SIBLINGS + 3)]
    # The parent of 4 is gone: it stands below the first one.
    tasks = [one(1, None), one(2, 1), one(3, 2, "failed"), one(4, 99), *many]
    rows = run_pages.tree(tasks, 1)
    assert [(row["task"]["id"], row["level"]) for row in rows[:3]] == [(1, 0), (2, 1), (3, 2)]
    assert (rows[-1]["task"]["id"], rows[-1]["level"]) == (4, 1)
    assert (rows[-2]["more"], rows[-2]["level"]) == ({"succeeded": 4}, 2)
    assert len(rows) == 2 + run_pages.SIBLINGS + 2


@pytest.mark.parametrize("page", ["0", "-1", "x", "²", "1000000", "9" * 5000])
def test_what_is_no_number_of_a_page(page: str) -> None:
    with pytest.raises(InvalidParams):
        health_pages._asked(PageVisit({}, {"page": page}, Caller("", {})))


def test_a_filter_as_an_address() -> None:
    assert task_pages.address({}) == "/retries"
    given = {"status": "failed,pending", "endpoint": "shop/*", "text": "a&b=c <x>", "kind": ""}
    expected = "/retries?status=failed,pending&endpoint=shop/*&text=a%26b%3Dc+%3Cx%3E"
    assert task_pages.address(given) == expected


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "９", "9" * 19])
def test_what_is_no_number_of_a_task(text: str) -> None:
    with pytest.raises(NotFound):
        task_pages.number(text, "task")


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (None, "–"),
        ({"every": "15m"}, "every 15m"),
        ({"every": "day", "at": "06:30", "timezone": "Europe/Paris"},
         "every day at 06:30 (Europe/Paris)"),
        ({"cron": "*/5 * * * *", "timezone": "UTC"}, "cron */5 * * * *"),
    ],
)  # fmt: skip
def test_schedules_in_words(declared: Any, text: str) -> None:
    assert template_filters.schedule(declared) == text


def test_times_are_escaped_and_exact() -> None:
    assert 'datetime="2026-11-24T22:00:00.000+00:00"' in template_filters.clock(
        "2026-11-24T22:00:00.000Z"
    )
    assert "2026-11-24 22:00:00 UTC" in template_filters.clock(1795557600000)
    assert "ago" in template_filters.when(1)
    assert "in 1h" in template_filters.when((time.time() + 3601) * 1000)
    assert template_filters.when(None) == "–"
    assert template_filters.cut("x" * 500) == "x" * 400 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0s"), (0.0034, "3.4ms"), (0.9, "900ms"), (2.5, "2.5s"), (59.96, "1m"),
        (90, "1m 30s"), (3600, "1h"), (90061, "1d 1h"),
    ],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert template_filters.seconds(value) == text


def test_numbers_and_sizes() -> None:
    assert (
        template_filters.number(1234567)
        == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    )
    assert [template_filters.size(n) for n in (5, 2048, 150 << 20)] == ["5 B", "2.0 KiB", "150 MiB"]


def test_names_are_escaped_and_break_at_their_slash() -> None:
    assert template_filters.name("shop/get") == "shop/<wbr>get"
    assert template_filters.name("shop/getAll") == "shop/<wbr>get<wbr>All"
    assert template_filters.name("on_retry") == "on_<wbr>retry"
    assert template_filters.name("<b>/&") == "&lt;b&gt;/<wbr>&amp;"


def test_json_is_made_readable_and_all_else_stays() -> None:
    assert template_filters.pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert template_filters.pretty("plain") == "plain"
    assert template_filters.pretty("12") == "12"
    assert template_filters.pretty("[" * 100_000) == "[" * 100_000
    assert template_filters.pretty({"ä": None}) == '{\n  "ä": null\n}'


def test_codes_are_graded() -> None:
    found = [template_filters.grade(code) for code in (200, 404, 503, "error", "ok", None)]
    assert found == ["good", "odd", "bad", "bad", "good", "none"]
    # A plugin's table keeps them as texts.
    assert [template_filters.grade(code) for code in ("200", "410", "503")] == [
        "good",
        "odd",
        "bad",
    ]
