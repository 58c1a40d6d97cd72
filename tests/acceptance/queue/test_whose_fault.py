"""What an answer speaks of waits, and nothing else: a URL, an endpoint, a receiver."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


def test_retry_after_of_one_hook_holds_its_url_and_no_other(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    receiver.on("/tenants/a", Answer(429, headers={"Retry-After": "86400"}))
    receiver.on("/tenants/b", 200)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    for name, tenant, more in (
        ("one", "a", {}),
        ("same", "a", {}),
        ("other", "b", {}),
        # Tried again within seconds, it would have a throttle of its own as well.
        ("deaf", "a", {"retry": retry("1h", respect_retry_after=False)}),
    ):
        url = f"{receiver.url}/tenants/{tenant}"
        hook = {"name": "hook", "phase": "on_success", "url": url, **more}
        daemon.endpoint(f"shop/{name}", "/", webhooks=[hook])
    url = f"{receiver.url}/tenants/a"
    with daemon.start():
        daemon.call("shop/one")
        until(lambda: receiver.count("/tenants/a") == 1, "the 429")
        until(lambda: daemon.status()["throttled"], "the hold")
        for name in ("other", "same", "deaf"):
            daemon.call(f"shop/{name}")
        until(lambda: receiver.count("/tenants/b") == 1, "the delivery to the neighbour")
        until(lambda: receiver.count("/tenants/a") == 2, "what does not respect it")
        same = {"endpoint": "shop/same", "kind": "webhook"}
        [held] = until(lambda: daemon.tasks(**same), "the delivery that is held")
        waits = daemon.task(held["id"])["waits"]
        assert (waits["for"], waits["lane"], held["attempts"]) == ("retry_after", url, 0)
        assert "was told to wait: 429 with Retry-After" in daemon.ctl("show", str(held["id"])).out
        assert 'orchestratord_throttled{cause="retry_after"} 1.0' in daemon.get("/metrics").text
        daemon.logged(f"WARNING worker: {url} was told to wait")
        # It is known after a restart, and lifted by its name.
        daemon.restart()
        until(lambda: daemon.task(held["id"])["waits"], "the hold, once more")
        assert url in daemon.ctl("status").out
        receiver.on("/tenants/a", 200)
        assert f"{url} goes on." in daemon.ctl("resume", url).err
        daemon.finish(held["id"])
        # What was held begins at a pace, one after the other.
        until(lambda: daemon.status()["throttled"] == [], "the end of the hold")
        assert daemon.ctl("resume", "api:nothing").code == 4


def test_one_endpoint_that_fails_opens_a_breaker_of_its_own(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/good", 200)
    receiver.on("/bad", 500)
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.api("strict", receiver.url, breaker={"failures": 3, "window": "1m"})
    daemon.api("without", receiver.url, breaker="off")
    daemon.endpoint("shop/bad", "/bad", retry=retry("100ms", 100))
    daemon.endpoint("shop/good", "/good")
    for api in ("strict", "without"):
        daemon.endpoint(f"{api}/bad", "/bad", retry=retry("100ms", 30))
    with daemon.start():
        daemon.finish(daemon.call("shop/good"))
        ids = daemon.batch("shop/bad", [{}] * 5)
        strict, without = daemon.call("strict/bad"), daemon.call("without/bad")

        def opened() -> bool:
            daemon.finish(daemon.call("shop/good"))
            return {"shop/bad", "api:strict"} <= {b["lane"] for b in daemon.status()["breakers"]}

        until(opened, "the breakers")
        assert daemon.finish(without)["attempts"] == 30
        # Probes cost no attempt, and neighbours do not wait.
        before = daemon.task(strict)["attempts"]
        probes = len(daemon.task(strict)["attempt_log"])
        until(lambda: len(daemon.task(strict)["attempt_log"]) > probes + 1, "two probes")
        assert daemon.task(strict)["attempts"] == before <= 4
        began = time.monotonic()
        for _ in range(10):
            daemon.finish(daemon.call("shop/good"))
        assert time.monotonic() - began < 8
        assert daemon.task(ids[0])["waits"]["lane"] == "shop/bad"
        # What its backoff had put off comes forward when the breaker closes.
        receiver.on("/bad", 200)
        assert daemon.ctl("resume", "shop/bad").code == 0
        for id_ in (*ids, strict):
            assert daemon.finish(id_)["status"] == "succeeded"
        assert daemon.status()["breakers"] == []
        daemon.expect("answers 5")
