"""A plugin's page and its metric, as a visitor and Prometheus see them."""

from __future__ import annotations

import socket

import httpx

from tests.acceptance.conftest import MakeDaemon

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
