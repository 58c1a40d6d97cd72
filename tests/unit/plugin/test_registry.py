"""Who has which name, and which executor carries out what."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.engine.http_executor import HttpExecutor
from orchestratord.errors import PluginError
from orchestratord.plugin.executor import Executor
from orchestratord.plugin.registry import Registry


class Delivery(Executor):
    kind = "webhook"

    def standing(self, endpoint: Any, webhook: str, config: Any) -> Any: ...

    def prepare(self, task: Any, target: Any, now: float) -> Any: ...

    async def execute(self, request: Any, task: Any, target: Any, send: Any) -> Any: ...


def test_a_name_is_given_once() -> None:
    registry = Registry()
    registry.claim("table", "mine", "first")
    registry.claim("key", "mine", "second")  # another kind of name
    with pytest.raises(PluginError, match="the table 'mine' is registered by first and by second"):
        registry.claim("table", "mine", "second")
    with pytest.raises(PluginError, match="the table 'mine' is registered by first twice"):
        registry.claim("table", "mine", "first")
    assert registry.owners["table", "mine"] == "first"


def test_a_name_that_was_taken_back_is_free_again() -> None:
    registry = Registry()
    registry.claim("table", "mine", "first")
    registry.forget("first")
    registry.claim("table", "mine", "second")
    assert registry.owners["table", "mine"] == "second"


def test_without_plugins_there_is_fixed_alone() -> None:
    registry = Registry()
    assert set(registry.backoffs) == {"fixed"}
    assert registry.backoffs["fixed"]().explain(1) == "fixed 5s"
    assert registry.executors == []


def test_executors_are_found_by_kind_and_calls_by_type() -> None:
    http, delivery = HttpExecutor(), Delivery()
    registry = Registry(executors=[http, delivery])
    assert registry.executor("call", "http") is http
    assert registry.executor("call", "sql") is None
    assert registry.executor("webhook", "http") is delivery
    assert registry.executor("webhook", "sql") is delivery
    assert registry.executor("pigeon", "http") is None
    assert registry.call_executors() == {"http": http}
