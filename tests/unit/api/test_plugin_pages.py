"""What plugins bring for the dashboard and `/metrics`: what is wrong with it is theirs alone."""

from __future__ import annotations

from typing import Any, cast

import pytest

from orchestratord import Caller, Counter, Gauge, NotFound, Page, PageVisit, PluginError, hookimpl
from orchestratord.api.plugin_pages import contained_pages
from orchestratord.plugin.host import Host
from orchestratord.plugin.metric import MAX_LABEL_SETS
from orchestratord.plugin.served import plugin_metrics

VISIT = PageVisit({}, {}, Caller("", {}))


class Plugin:
    def __init__(self, pages: Any = (), metrics: Any = ()) -> None:
        self.pages, self.metrics = pages, metrics

    @hookimpl
    def register_pages(self, control: Any) -> Any:
        assert control == "the control"
        return self.pages

    @hookimpl
    def register_metrics(self) -> Any:
        return self.metrics


def host_of(**given: Any) -> Host:
    host = Host(timeout=0.05)
    host.register(Plugin(**given), "my-stock")
    return host


def pages_of(host: Host) -> list[Page]:
    return list(contained_pages(host, cast("Any", "the control")))


async def test_register_pages_are_contained() -> None:
    async def good(visit: PageVisit) -> str:
        return "all is well"

    async def gone(visit: PageVisit) -> str:
        raise NotFound("there is no such thing")

    async def raises(visit: PageVisit) -> str:
        raise SystemExit("out of order")

    async def nonsense(visit: PageVisit) -> Any:
        return 7

    shows = (good, gone, raises, nonsense)
    pages = [Page(f"/{show.__name__}", show.__name__, show) for show in shows]
    host = host_of(pages=[*pages, 7, Page("no-slash", "x", good)])
    found = {page.path: page for page in pages_of(host)}
    assert list(found) == ["/good", "/gone", "/raises", "/nonsense"]
    assert host.plugins["my-stock"].faults == 2
    assert await found["/good"].show(VISIT) == "all is well"
    with pytest.raises(NotFound):
        await found["/gone"].show(VISIT)
    for path, why in (("/raises", "SystemExit: out of order"), ("/nonsense", "returned int")):
        with pytest.raises(PluginError, match="the plugin my-stock failed"):
            await found[path].show(VISIT)
        assert f"page {path}: " in (last := host.plugins["my-stock"].last_fault or "")
        assert why in last


def test_register_metrics_are_read() -> None:
    sold = Counter("my_stock_sold", "Sold.", ("thing",))
    none = Counter("my_stock_none", "None.")
    free = Gauge("my_stock_free", "Room.", lambda: {(): 7})
    host = host_of(metrics=[sold, none, free])
    for n in range(MAX_LABEL_SETS + 2):
        sold.add(str(n), by=2)
    sold.add("0")
    found = {one.name: one for one in plugin_metrics(host)}
    assert found["my_stock_sold"].values["0",] == 3
    assert found["my_stock_sold"].values["other",] == 4
    assert (found["my_stock_none"].kind, found["my_stock_none"].values) == ("counter", {(): 0})
    assert (found["my_stock_free"].kind, found["my_stock_free"].values) == ("gauge", {(): 7})


@pytest.mark.parametrize(("workers", "found"), [("sum", 12), ("max", 7)])
def test_a_gauge_of_all_workers(workers: Any, found: float) -> None:
    free = Gauge("my_stock_free", "Room.", lambda: {("a",): 4}, ("of",), workers=workers)
    own = Gauge("my_stock_own", "Own.", lambda: {(): 1})
    host = host_of(metrics=[free, own])
    assert list(host.registry.gauges_of_all()) == ["my_stock_free"]
    free.of_others.update({2: {("a",): 7.0}, 3: {("a",): 1.0, ("b",): 3.0}})
    values = {one.name: one.values for one in plugin_metrics(host)}
    assert values == {"my_stock_free": {("a",): found, ("b",): 3.0}, "my_stock_own": {(): 1}}
    del free.of_others[2], free.of_others[3]
    assert next(iter(plugin_metrics(host))).values == {("a",): 4}
    with pytest.raises(ValueError, match="workers is first, sum or max"):
        Gauge("my_stock_odd", "Odd.", dict, workers=cast("Any", "each"))


def test_one_that_cannot_be_read_is_its_plugins_fault() -> None:
    def down() -> Any:
        raise SystemExit("down")

    host = host_of(
        metrics=[
            Gauge("my_stock_down", "Down.", down),
            Gauge("my_stock_odd", "Odd.", lambda: {("a", "b"): 1.0}, ("one",)),
            Gauge("my_stock_good", "Good.", lambda: {("a",): 1.0}, ("one",)),
        ]
    )
    assert [one.name for one in plugin_metrics(host)] == ["my_stock_good"]
    assert host.plugins["my-stock"].faults == 2
    assert "metric my_stock_odd: " in (host.plugins["my-stock"].last_fault or "")


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ([Counter("tasks", "x")], "the metric 'tasks' is to begin with my_stock_"),
        ([Counter("my_stock_A", "x")], "is to begin with my_stock_"),
        ([7], "returned 7, which is no Counter or Gauge"),
    ],
)
def test_metrics_that_are_none(metrics: Any, why: str) -> None:
    assert why in (host_of(metrics=metrics).plugins["my-stock"].error or "")


def test_a_metric_is_registered_once() -> None:
    with pytest.raises(PluginError, match="'my_stock_a' is registered by my-stock twice"):
        host_of(metrics=[Counter("my_stock_a", "x"), Counter("my_stock_a", "y")])
