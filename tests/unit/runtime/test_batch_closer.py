"""Batches that cannot be told of here hold up no others, and are left to who can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orchestratord_webhooks
from orchestratord_webhooks.operational_webhook import OPERATIONAL_WEBHOOKS
from pydantic import TypeAdapter

from orchestratord.engine.worker import Worker
from orchestratord.http.client import HttpClient
from orchestratord.model.endpoint import OWN_ENDPOINT
from orchestratord.model.task import BatchMember, Key, NewTask
from orchestratord.plugin.executor import Doomed, Parked
from orchestratord.queue.operations import chores, search
from orchestratord.queue.operations.effects import write_effects
from orchestratord.queue.records import TaskFilter
from orchestratord.queue.store import Store
from orchestratord.runtime.batch_closer import BatchCloser
from orchestratord.runtime.fleet import Fleet
from orchestratord.testing import Rig
from orchestratord.values.clock import Clock

OPS = Key(OWN_ENDPOINT, "ops")


def member(name: str, **fields: Any) -> BatchMember:
    given: dict[str, Any] = {"endpoint_id": f"shop/{name}", "group": f"of {name}", "most": 1}
    return BatchMember(webhook="ops", phase="on_success", every=60.0, **given | fields)


def delivery(batch: Any) -> NewTask:
    if batch.endpoint_id == "shop/bad":
        raise RuntimeError("no")
    endpoint_id = OWN_ENDPOINT if "gone" in batch.endpoint_id else batch.endpoint_id
    return NewTask("webhook", endpoint_id, webhook="ops", phase="on_success", payload="{}")


async def test_one_that_cannot_be_told_of_holds_up_no_others(tmp_path: Path) -> None:
    rig, clock = Rig(orchestratord_webhooks), Clock()
    store = await Store.open(f"sqlite:///{tmp_path / 'q.db'}")
    worker = Worker(store, rig.host, HttpClient(), clock)
    config = rig.config(rig.endpoint("shop/good"))
    worker.placement.adopt(config)
    # A daemon with other operational webhooks: what tells of them is its.
    worker.placement.set_elsewhere({OWN_ENDPOINT: False})
    assert isinstance(worker.placement.of(OPS), Parked)
    host: Any = SimpleNamespace(ask=lambda hook, given: [("x", [delivery(given["batch"])])])
    worker.host = host
    closer = BatchCloser(worker)
    members = [member("bad"), member("gone")] + [member("good") for _ in range(30)]
    await store.write(write_effects(members))

    async def look() -> int:
        """How many wait."""
        await closer.close()
        ids = await store.read(chores.due(store.owner, clock.now_ms(), (), 99))
        pauses: list[float | None] = []
        for chore in await store.write(chores.claim(ids)):
            try:
                pauses.append(await closer.deliver(chore))
            except RuntimeError:  # as the runner of chores does
                pauses.append(1.0)
        return len(pauses) - pauses.count(None)

    assert await look() == 2

    async def told() -> list[str]:
        page, _ = await store.read(search.page(TaskFilter(kind="webhook"), 100))
        return sorted({task.endpoint_id for task in page} | {str(len(page))})

    assert await told() == ["30", "shop/good"], "all in one look"
    worker.placement.set_elsewhere({})
    assert isinstance(worker.placement.of(OPS), Doomed)
    assert OWN_ENDPOINT not in worker.placement.left
    assert await look() == 1
    assert await told() == ["31", OWN_ENDPOINT, "shop/good"]
    await store.close()


def test_daemons_say_which_operational_webhooks_they_have() -> None:
    rig = Rig(orchestratord_webhooks)
    webhook = {"name": "ops", "url": "https://ops.example/x"}
    declared = TypeAdapter(OPERATIONAL_WEBHOOKS.type).validate_python(
        [webhook], context={"backoffs": rig.host.registry.backoffs}
    )
    fleet: Any = SimpleNamespace(
        _worker=SimpleNamespace(host=rig.host), _digests={}, pid=1, _group="", _number=1, _said=None
    )
    one, same, other = (
        Fleet._say(fleet, replace(rig.config(), settings={"operational_webhooks": webhooks}))
        for webhooks in (declared, declared, ())
    )
    digests = [said.endpoints[OWN_ENDPOINT] for said in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
