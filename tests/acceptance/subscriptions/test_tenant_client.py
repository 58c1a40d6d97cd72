"""The Python client's tenants and subscriptions, against a real daemon."""

from __future__ import annotations

import re
from pathlib import Path

import orchestratord_client as oc
import pytest

from tests.acceptance.receiver import Receiver
from tests.acceptance.subscriptions.portals import Portal
from tests.acceptance.subscriptions.tenants import MakeTenants
from tests.acceptance.subscriptions.test_subscriptions import SHOP, verified


def test_tenants_and_subscriptions(make_tenants: MakeTenants, receiver: Receiver) -> None:
    portal = Portal(make_tenants, name="Hooks")
    daemon, url = portal.tenants.daemon, f"{receiver.url}/hook"
    with oc.Client(daemon.socket, deadline=20) as client:
        assert client.put_tenant("acme", "Acme").name == "Acme"
        assert client.put_tenant("acme").created_at is not None
        made = client.subscribe("acme", url, key="one", events=["order.paid"], rate="50/s")
        assert made.secret is not None
        assert not made.more, "an attribute is missing"
        assert client.subscribe("acme", url, key="one", events=["order.paid"], rate="50/s") == made
        with pytest.raises(oc.IdempotencyKeyReused):
            client.subscribe("acme", f"{url}/other", key="one")
        with pytest.raises(oc.InvalidParams):
            client.subscribe("acme", "http://10.0.0.1/")
        daemon.call(SHOP, tenant="acme", order=1)
        daemon.settle()
        verified(receiver.received("/hook")[0], made.secret)
        assert client.secret("acme", made.id) == made.secret
        new = client.rotate_secret("acme", made.id)
        assert new != made.secret
        off = client.change_subscription("acme", made.id, enabled=False, description="off")
        assert (off.enabled, off.disabled_reason, off.description) == (False, "by hand", "off")
        assert client.subscription("acme", made.id) == off
        others = [client.subscribe("acme", f"{url}/{number}") for number in range(3)]
        assert {one.id for one in client.subscriptions("acme")} == {
            made.id,
            *(one.id for one in others),
        }
        (tenant,) = client.tenants()
        assert (tenant.tenant, tenant.subscriptions, tenant.disabled) == ("acme", 4, 1)
        assert not tenant.more, "an attribute is missing"
        assert [task.webhook for task in client.list(tenant="acme")] == [f"acme/{made.id}"]
        assert portal.exchange(client.portal("acme")).status_code == 200
        assert client.tenant("acme").subscriptions == 4
        client.wait(client.test_subscription("acme", others[0].id))
        assert receiver.count("/hook/0") == 1
        assert client.replay_subscription("acme", others[0].id, since="1h") == 0
        assert client.replay_subscription("acme", others[0].id, only_failed=False) == 1
        client.unsubscribe("acme", made.id)
        with pytest.raises(oc.NotFound):
            client.unsubscribe("acme", made.id)
        client.remove_tenant("acme")
        assert list(client.tenants()) == []


async def test_the_same_with_asyncio(make_tenants: MakeTenants, receiver: Receiver) -> None:
    portal = Portal(make_tenants)
    url = f"{receiver.url}/hook"
    async with oc.AsyncClient(portal.tenants.daemon.socket, deadline=20) as client:
        await client.put_tenant("acme", "Acme")
        made = await client.subscribe("acme", url)
        assert await client.secret("acme", made.id) == made.secret
        assert await client.rotate_secret("acme", made.id) != made.secret
        assert (await client.tenant("acme")).name == "Acme"
        assert (await client.wait(await client.test_subscription("acme", made.id))).succeeded
        assert await client.replay_subscription("acme", made.id, since="1h") == 0
        changed = await client.change_subscription("acme", made.id, description="x")
        assert await client.subscription("acme", made.id) == changed
        assert [one async for one in client.subscriptions("acme")] == [changed]
        assert [one.tenant async for one in client.tenants()] == ["acme"]
        assert (await client.portal("acme")).startswith(portal.url)
        await client.unsubscribe("acme", made.id)
        await client.remove_tenant("acme")
        with pytest.raises(oc.NotFound):
            await client.remove_tenant("acme")


def test_the_example_of_its_readme(make_tenants: MakeTenants, receiver: Receiver) -> None:
    portal = Portal(make_tenants)
    readme = (Path(oc.__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"^```python tenants\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    block = block.replace("https://acme.example", receiver.url)
    with oc.Client(portal.tenants.daemon.socket) as client:
        names: dict[str, object] = {"client": client}
        exec(compile(block, "README.md", "exec"), names)
        assert list(client.tenants()) == []
    assert str(names["link"]).startswith(portal.url)
    assert str(names["new_secret"]).startswith("whsec_")
