"""Which configurations are refused for what they lack."""

from __future__ import annotations

import pytest

from orchestratord.engine.settle.removed_tasks import RELOAD, at_start, refusal


@pytest.mark.parametrize(
    ("waiting", "declared"),
    [({}, ()), ({}, ("a/b",)), ({"a/b": 5}, ("a/b",)), ({"a/b": 5, "a/c": 1}, ("a/c",))],
)
def test_what_is_taken_up(waiting: dict[str, int], declared: tuple[str, ...]) -> None:
    assert refusal(waiting, declared, RELOAD) == ()


def test_all_of_it_is_gone() -> None:
    [problem] = refusal({"a/b": 1500}, (), RELOAD)
    assert str(problem) == (
        "apis: none of the endpoints with tasks waiting is declared: a/b (1,500); "
        "their tasks would fail. To accept that: orchestratorctl reload --accept-removals"
    )


def test_a_start_names_the_database() -> None:
    [problem] = refusal({"a/b": 2}, (), at_start("sqlite:////var/lib/q.db"))
    assert str(problem).endswith(
        "To accept that: orchestratord run --accept-removals; or, if this folder is another "
        "one's, set `database`: the tasks are those of sqlite:////var/lib/q.db"
    )


def test_most_of_it_is_gone() -> None:
    waiting = {f"a/{n}": n for n in range(1, 41)}
    [problem] = refusal(waiting, [f"a/{n}" for n in range(1, 16)], RELOAD)
    assert "25 of the 40 endpoints with tasks waiting are not declared: a/40 (40), a/39" in str(
        problem
    )
    assert "a/21 (21) and 5 more; their" in str(problem)
