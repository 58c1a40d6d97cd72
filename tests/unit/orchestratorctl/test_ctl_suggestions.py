"""What is said below `there is no …`: what there is that was probably meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted_daemon import CALLS, Daemon, Result, a_problem

from orchestratorctl.verbs.suggestions import nearest

HOOK = "/v1/endpoints/shop/getOrder/webhooks"


@pytest.fixture(autouse=True)
def declared(daemon: Daemon) -> None:
    """Two endpoints, one with a webhook."""
    ids = ["shop/getOrder", "crm/getUsers"]
    daemon.on("GET", "/v1/endpoints", (200, {"endpoints": [{"id": one} for one in ids]}))
    webhooks = {"webhooks": [{"name": "ops"}, {"name": "audit"}]}
    daemon.on("GET", "/v1/endpoints/shop/getOrder", (200, webhooks))


@pytest.mark.parametrize(
    ("word", "near"),
    [("stauts", "status"), ("stat", "status"), ("ls", "list"), ("xyz", None), ("", None)],
)
def test_the_nearest_word(word: str, near: str | None) -> None:
    assert nearest(word, ["list", "status", "watch"]) == near


@pytest.mark.parametrize("verb", ["endpoints", "call", "pause", "resume"])
def test_the_nearest_endpoint(ctl: Callable[..., Result], verb: str) -> None:
    result = ctl(verb, "shop/getOrdr")
    assert result.code == 4
    assert result.err.splitlines()[-1] == "Did you mean shop/getOrder?"


def test_no_endpoint_is_near(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", CALLS, a_problem(404, "there is no endpoint a/b"))
    assert ctl("call", "a/b").err == "orchestratorctl: there is no endpoint a/b\n"


def test_the_nearest_webhook(daemon: Daemon, ctl: Callable[..., Result]) -> None:
    daemon.on("POST", f"{HOOK}/opps/test", a_problem(404, "shop/getOrder has no webhook 'opps'"))
    result = ctl("webhooks", "test", "shop/getOrder", "opps")
    assert result.code == 4
    assert result.err.splitlines()[-1] == "Did you mean ops?"


def test_a_bulk_is_not_shown_as_a_task_nor_a_task_as_a_bulk(
    daemon: Daemon, ctl: Callable[..., Result]
) -> None:
    daemon.on("GET", "/v1/bulks/7", (200, {"id": 7}))
    assert ctl("show", "7").err.endswith("There is a bulk 7: orchestratorctl bulks 7\n")
    daemon.on("GET", "/v1/retries/8", (200, {"id": 8}))
    assert ctl("bulks", "8").err.endswith("There is a task 8: orchestratorctl show 8\n")
    assert "There is" not in ctl("show", "9").err
