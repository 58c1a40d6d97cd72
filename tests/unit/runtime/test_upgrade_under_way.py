"""An upgrade that was asked for is under way until it has failed, or for so long."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestratord.errors import Conflict, UpgradeUnderWay
from orchestratord.queue import schema
from orchestratord.runtime import upgrade as module
from orchestratord.runtime.upgrade import Examined, Upgrade, what_this_is
from orchestratord.values import world


async def test_one_of_which_nothing_is_heard_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = [True]
    now = [1000.0]

    async def examine() -> Examined:
        return Examined("2.0", schema.VERSION, schema.VERSION)

    monkeypatch.setattr(module, "examine", examine)
    monkeypatch.setattr(world, "monotonic", lambda: now[0])
    upgrade = Upgrade(cast("Any", SimpleNamespace(notify=lambda **_: heard[0])))
    await upgrade.begin()
    with pytest.raises(UpgradeUnderWay):
        await upgrade.begin()
    upgrade.failed("why")
    assert upgrade.failure == "why"
    heard[0] = False
    for _ in range(2):  # what has not begun is not under way
        with pytest.raises(Conflict, match="ask again"):
            await upgrade.begin()
    heard[0] = True
    await upgrade.begin()
    now[0] += 119
    with pytest.raises(UpgradeUnderWay):
        await upgrade.begin()
    now[0] += 2
    await upgrade.begin()
    assert upgrade.failure is None


@pytest.mark.parametrize(
    ("of_the_queue", "compatible_from", "drains"),
    [
        (schema.VERSION, schema.VERSION, False),
        (schema.VERSION + 1, schema.VERSION + 1, True),
    ],
)
async def test_workers_go_on_beside_those_only_that_know_each_other(
    monkeypatch: pytest.MonkeyPatch, of_the_queue: int, compatible_from: int, drains: bool
) -> None:
    async def examine() -> Examined:
        return Examined("2.0", of_the_queue, compatible_from)

    monkeypatch.setattr(module, "examine", examine)
    upgrade = Upgrade(cast("Any", SimpleNamespace(notify=lambda **_: True)))
    monkeypatch.setattr(schema, "MIGRATIONS", Path("/those of the other version"))
    assert await upgrade.begin() == {"version": "2.0", "drains_first": drains}


def test_a_version_says_whose_workers_may_go_on_beside_its_own() -> None:
    said = Examined(**json.loads(what_this_is()))
    assert said.compatible_from == schema.compatible_from()
