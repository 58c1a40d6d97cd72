"""What `check` finds of public events, and how often it looks at the others for that."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import orchestratord_subscriptions as plugin

from orchestratord import Endpoint
from orchestratord.testing import Rig

looks: Counter[str] = Counter()


class Checked:
    """The part of the plugin that `check` asks."""

    register_settings = staticmethod(plugin.register_settings)
    register_daemon_settings = staticmethod(plugin.register_daemon_settings)
    check_endpoint = staticmethod(plugin.check_endpoint)


class Counted(Endpoint):
    """Counts who asks for its settings."""

    def __getitem__(self, setting: Any) -> Any:
        looks[self.id] += 1
        return super().__getitem__(setting)


def events(rig: Rig, names: dict[str, str]) -> list[Endpoint]:
    made = []
    for id_, name in names.items():
        one = rig.endpoint(id_, type="event", public={"name": name})
        given = [one for one in fields(Endpoint) if one.init]
        made.append(Counted(**{field.name: getattr(one, field.name) for field in given}))
    return made


def test_a_public_name_is_told_of_each_further_event_that_has_it() -> None:
    rig = Rig(Checked)
    all_ = events(rig, {"shop/c": "paid", "shop/a": "paid", "shop/b": "paid", "shop/d": "sent"})
    config = rig.config(*all_)
    found = {
        one.id: [p.message for p in rig.check(one, config=config) if p.severity == "error"]
        for one in all_
    }
    taken = ["the name paid is taken by shop/a"]
    assert found == {
        "shop/a": [],
        "shop/b": taken,
        "shop/c": taken,
        "shop/d": [],
    }


def test_the_work_of_a_check_grows_with_the_events_and_not_with_their_square() -> None:
    rig = Rig(Checked)
    all_ = events(rig, {f"shop/e{n}": f"order.{n}" for n in range(200)})
    config = rig.config(*all_)
    looks.clear()
    for one in all_:
        rig.check(one, config=config)
    assert looks.total() < 10 * len(all_)
