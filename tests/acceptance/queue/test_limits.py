"""A daemon, its files, and what people see of lanes that wait: rates and breakers."""

from __future__ import annotations

import json

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


def test_a_rate_limit_of_the_yaml_holds_up_its_own_calls_alone(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon()
    for name, keys in (("crm", {"rate_limit": "2/min"}), ("free", {})):
        daemon.api(name, receiver.url, **keys)
        daemon.endpoint(f"{name}/get", "/")
    with daemon.start():
        ids = daemon.batch("crm/get", [{}] * 4)
        for id_ in daemon.batch("free/get", [{}] * 5):
            daemon.finish(id_)
        until(lambda: receiver.count("/") == 7, "two calls of the limited API")
        assert [daemon.task(id_)["attempts"] for id_ in ids] == [1, 1, 0, 0]
        shown = daemon.ctl("show", str(ids[2])).out
        words = " ".join(shown.split())
        assert "waits for rate_limit 2/min of api:crm, the next of it in " in words
        assert "rate_limit 2/min" in daemon.ctl("status").out
        # It is not forgotten over a restart, and a reload takes it away.
        daemon.restart()
        until(lambda: daemon.task(ids[2])["waits"], "the rate, once more")
        assert daemon.task(ids[2])["attempts"] == 0
        daemon.api("crm", receiver.url)
        daemon.adopt()
        for id_ in ids:
            daemon.finish(id_)


def test_calls_wait_for_a_receiver_that_is_down_and_go_when_it_is_back(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/", 503)
    daemon = make_daemon(defaults={"retry": retry("1h")})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    daemon.endpoint("shop/again", "/", retry=retry("600ms"))
    with daemon.start():
        # It has to have lasted for some seconds.
        again = daemon.call("shop/again")
        until(lambda: daemon.task(again)["attempts"] >= 10, "some seconds of failures")
        ids = daemon.batch("shop/get", [{}] * 100)
        until(lambda: daemon.status()["breakers"], "the breaker")
        [breaker] = daemon.status()["breakers"]
        assert breaker["lane"] == "api:shop"
        assert breaker["why"].startswith("503 ")
        waits = daemon.task(ids[-1])["waits"]
        assert (waits["for"], waits["lane"]) == ("breaker", "api:shop")
        assert "THROTTLED LANE" in daemon.ctl("status").out
        assert 'orchestratord_lane_breaker_open{lane="api:shop"} 1.0' in daemon.get("/metrics").text
        overview = daemon.get("/").text.partition('<h2 id="throttled-title">')[2]
        assert "api:shop" in overview
        assert breaker["why"] in overview
        assert "the breaker of api:shop is open" in daemon.get(f"/retries/{ids[-1]}").text
        receiver.on("/", 200)
        # By hand, the last one is the probe, and lets all others follow.
        ran = daemon.ctl("retry", str(ids[-1]), "--wait", "-o", "json")
        if ran.code != 5:  # else a probe of the breaker's own was quicker, and it has succeeded
            assert json.loads(ran.out)["status"] == "succeeded"
        # What had failed meanwhile comes forward, though its backoff says an hour.
        states = [(task["status"], task["attempts"]) for task in map(daemon.finish, ids)]
        failed = states.count(("succeeded", 2))
        assert 8 <= failed <= 35  # ten were under way when it opened; probes cost nothing
        assert states.count(("succeeded", 1)) == 100 - failed
        assert daemon.status()["breakers"] == []
        daemon.logged("the breaker of api:shop is open: 2. attempts failed, the last with: 503")
        daemon.logged("the breaker of api:shop is closed again after")
