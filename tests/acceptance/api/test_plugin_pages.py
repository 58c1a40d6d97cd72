"""A plugin's page and its metric, as a visitor and Prometheus see them."""

from __future__ import annotations

import socket

import httpx

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

PLUGIN = """
from orchestratord import Counter, Page, hookimpl

SHOWN = Counter("stock_shown", "How often the page was shown.")

@hookimpl
def register_metrics():
    return [SHOWN]

@hookimpl
def register_pages(control):
    async def show(visit):
        SHOWN.add()
        return f"{len(control.config.endpoints)} <things>, writes: {visit.caller.writes}"

    return [Page("/stock", "Stock", show)]
"""


def test_a_page_is_behind_the_login_and_a_metric_in_metrics(make_daemon: MakeDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    http = {"bind": bind, "token": "t" * 24, "read_token": "r" * 24}
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, http=http)
    daemon.plugin("stock", PLUGIN)
    daemon.expect(r"written out here")
    daemon.start()
    with httpx.Client(base_url=f"http://{bind}") as client:
        assert client.get("/stock").status_code in (303, 401)
        for token, writes in (("t" * 24, True), ("r" * 24, False)):
            answer = client.get("/stock", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 200
            assert f"0 &lt;things&gt;, writes: {writes}" in answer.text
            assert '<a href="/stock" aria-current="page">Stock</a>' in answer.text
    assert "orchestratord_stock_shown_total 2.0\n" in daemon.get("/metrics").text
    assert daemon.stop() == 0


COUNTS = """
from orchestratord import Counter, Gauge, hookimpl

SENT = Counter("sent_calls", "Calls.", labels=("endpoint",))
FEW = Counter("sent_few", "Calls again.")

@hookimpl
def register_metrics():
    one = lambda: {(): 1}
    return [SENT, FEW, Gauge("sent_workers", "All.", one, workers="sum"),
            Gauge("sent_most", "The largest.", one, workers="max")]

@hookimpl
def before_request(task):
    SENT.add(task.endpoint_id)
    FEW.add()
"""


def test_a_counter_counts_what_all_workers_do(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, workers=3)
    daemon.plugin("sent", COUNTS)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.start()
    daemon.batch("shop/get", [{}] * 300)
    until(lambda: receiver.count() == 300, "all calls")

    def shown() -> bool:
        text = daemon.get("/metrics").text
        one = 'orchestratord_sent_calls_total{endpoint="shop/get"} 300.0\n'
        assert "orchestratord_sent_most 1.0\n" in text
        all_workers = "orchestratord_sent_workers 3.0\n" in text
        return one in text and "orchestratord_sent_few_total 300.0\n" in text and all_workers

    until(shown, "what all of them have counted")
