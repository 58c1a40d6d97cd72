from __future__ import annotations

from collections.abc import Callable

from scripted_daemon import Daemon, Result, a_problem


def test_a_new_generation(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    answer = {
        "generation": 8,
        "changed": True,
        "adopted_at": "2026-11-24T22:00:00Z",
        "warnings": [{"file": "a.yaml", "line": 1, "column": 2, "message": "a secret written out"}],
        "restart_required": ["http.bind"],
    }
    daemon.on("POST", "/v1/reload", (200, answer))
    result = ctl("reload")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "Generation 8 of the configuration is in force.",
        "warning: a.yaml:1:2: a secret written out",
        "http.bind keeps its old value until the daemon is restarted.",
    ]
    assert ctl("reload", "-o", "json").json == answer


def test_nothing_changed(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", "/v1/reload", (200, {"generation": 7, "changed": False}))
    assert ctl("reload") == (0, "", "Nothing has changed; generation 7 goes on.\n")


def test_a_bad_configuration_is_78_with_every_error(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    errors = [
        {"file": "apis/a/endpoints/b.yaml", "line": n, "column": 5, "key": "k", "message": "bad"}
        for n in (1, 2)
    ]
    problem = a_problem(422, "2 errors; generation 7 goes on", code="bad_config", errors=errors)
    daemon.on("POST", "/v1/reload", problem)
    result = ctl("reload")
    assert (result.code, result.out) == (78, "")
    assert result.err.splitlines() == [
        "orchestratorctl: 2 errors; generation 7 goes on",
        "apis/a/endpoints/b.yaml:1:5: k: bad",
        "apis/a/endpoints/b.yaml:2:5: k: bad",
    ]


def test_an_error_is_shown_with_its_line_and_what_could_stand_there(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    error = {
        "file": "a.yaml", "line": 12, "column": 2, "key": "method",
        "message": "unknown value 'GTE'", "hint": "known are GET, POST",
        "source": "\tmethod: GTE\x1b[2J",
    }  # fmt: skip
    daemon.on("POST", "/v1/reload", a_problem(422, "1 error", code="bad_config", errors=[error]))
    assert ctl("reload").err.splitlines() == [
        "orchestratorctl: 1 error",
        "a.yaml:12:2: method: unknown value 'GTE'",
        "   12 |  method: GTE\\u001b[2J",
        "      |  ^~~~~~",
        "      = known are GET, POST",
    ]
    error["line"] = "12"
    daemon.on("POST", "/v1/reload", a_problem(422, "1 error", code="bad_config", errors=[error]))
    assert len(ctl("reload").err.splitlines()) == 2
