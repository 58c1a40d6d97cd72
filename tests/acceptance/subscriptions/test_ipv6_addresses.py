"""An address that is no name, such as one of IPv6, is its tenant's, too, however it is spelled."""

from __future__ import annotations

import httpx

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.subscriptions.tenants import Tenants, declare, settings
from tests.acceptance.subscriptions.test_confidential_addresses import PAGES, PATH, READ, WRITE
from tests.acceptance.subscriptions.test_portal import asked
from tests.acceptance.subscriptions.test_subscriptions import SHOP
from tests.acceptance.waiting import until

SECRETS = ("::1", "0:0:0:0", "/127.1:", " 127.1:", PATH)


def test_a_token_that_only_reads_sees_none(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    closed = free_port()
    refused = f"no connection to its host:{closed}: Connection refused"
    with Receiver("::1") as own:
        bind = f"127.0.0.1:{free_port()}"
        said = settings(receiver, retry={"backoff": {"strategy": "fixed", "delay": "1h"}})
        said |= {"ports": [receiver.port, own.port, closed], "allow": ["::1", "127.0.0.1"]}
        http = {"bind": bind, "token": WRITE, "read_token": READ}
        daemon = make_daemon(subscriptions=said, http=http)
        declare(daemon)
        moved = f"http://[0:0::1]:{own.port}/{PATH}/moved"
        own.reply("/", lambda request: Answer(302, headers={"Location": moved}))
        daemon.start()
        tenants = Tenants(daemon, f"http://[::1]:{own.port}")
        tenants.put("acme")
        tenants.add("acme", f"/{PATH}")
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "127.1"):
            url = {"url": f"http://{host}:{closed}/{PATH}"}
            assert tenants.ask("POST", "/acme/subscriptions", url).status_code == 201
        daemon.call(SHOP, tenant="acme", order=1)
        until(lambda: all(one["attempts"] for one in daemon.tasks(tenant="acme")), "attempts")
        tasks = daemon.tasks(tenant="acme")
        assert sorted(str(one["last_error"]) for one in tasks) == ["302 Found", *[refused] * 3]
        document = daemon.get("/openapi.json").json()
        tried = 0
        token = {"Authorization": f"Bearer {READ}"}
        with httpx.Client(base_url=f"http://{bind}", headers=token) as reader:
            for task in tasks:
                names = {
                    "tenant": "acme",
                    "api": "shop",
                    "name": "orderPaid",
                    "id": str(task["id"]),
                }
                paths = [path for method, path in asked(document, names) if method == "GET"]
                for path in {*paths, *PAGES, f"/retries/{task['id']}"} - {"/v1/events"}:
                    answer = reader.get(path)
                    tried += answer.status_code == 200
                    assert [one for one in SECRETS if one in answer.text] == [], path
        assert tried > 30
        assert [one for one in SECRETS if one in daemon.log()] == []
