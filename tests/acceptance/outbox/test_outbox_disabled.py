"""The outbox's plugin, switched off: its key, its commands and its route say so, its rows wait."""

from __future__ import annotations

from typing import Any

from tests.acceptance.outbox.conftest import PLACES, Shop
from tests.acceptance.outbox.test_outbox import orders
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


def test_disabled_it_says_so_and_its_rows_wait(make_shop: Any, receiver: Receiver) -> None:
    shop: Shop = make_shop(PLACES[1], plugins={"disabled": ["outbox"]})
    shop.daemon.expect("belongs to the plugin outbox, which is disabled")
    shop.commit(1)
    shop.daemon.start()
    assert shop.daemon.status()["outbox"] is None
    listed = shop.daemon.ctl("outbox", "list")
    assert listed.code == 4
    assert "disabled is the plugin outbox" in listed.err
    for words in (("outbox", "schema"), ("grant-producer", "x")):
        ended = shop.daemon.run(*words)
        assert ended.code == 2
        assert "is a command of the plugin outbox, which is disabled" in ended.err
    assert orders(receiver) == {}
    shop.daemon.settings["plugins"] = {}
    shop.daemon.write("orchestratord.yaml", shop.daemon.settings)
    assert shop.daemon.stop() == 0
    shop.daemon.start()
    until(lambda: 1 in orders(receiver), "the order that waited")
