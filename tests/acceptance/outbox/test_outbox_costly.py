"""Rows of the outbox that cost more than they may, or of which the daemon dies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.acceptance.outbox.conftest import PLACES, Shop
from tests.acceptance.receiver import Receiver
from tests.acceptance.undisturbed import undisturbed
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

WORDS = {"properties": {"text": {"type": "string", "pattern": r"^(\w+\s?)*$"}}}
COSTLY = "a" * 40 + "!"


def declare(shop: Shop) -> None:
    shop.daemon.write("schemas/words.json", json.dumps(WORDS))
    said = {"type": "event", "schema": {"file": "schemas/words.json"}}
    shop.daemon.write("apis/shop/endpoints/said.yaml", said)


def refused(shop: Shop) -> dict[int, tuple[str, str]]:
    found = shop.daemon.ctl("outbox", "list", "--status", "refused", "-o", "json").json()["outbox"]
    return {row["id"]: (row["reason"], row["error"]) for row in found}


@pytest.mark.parametrize("place", PLACES)
def test_rows_that_cost_too_much_are_marked_and_hold_up_no_other(
    place: str, make_shop: Any, receiver: Receiver
) -> None:
    shop: Shop = make_shop(place)
    declare(shop)
    shop.daemon.start()
    with shop.connect() as connection:
        good = [shop.order(connection, n, "shop/said", text="two words") for n in range(5)]
        costly = [shop.order(connection, n, "shop/said", text=COSTLY) for n in range(2)]
        wrong = shop.order(connection, 7, "shop/said", text=7)
        shop.order(connection, 8)
        connection.commit()
    with undisturbed(shop.daemon, lambda: shop.daemon.get("/healthz")):
        until(lambda: len(refused(shop)) == 3, "those that are refused")
    found = refused(shop)
    assert found.pop(wrong) == ("invalid_params", "text: 7 is not of type 'string'")
    assert sorted(found) == costly
    for reason, error in found.values():
        assert reason == "schema_too_costly"
        assert error == "params: cannot be held against schemas/words.json in 2 s"
    until(lambda: receiver.count("/orders/8") == 1, "the order behind them")
    assert len(shop.daemon.tasks(endpoint="shop/said")) == len(good)


def test_a_row_of_which_the_daemon_died_twice_is_passed_over(
    make_shop: Any, receiver: Receiver
) -> None:
    """It is killed while it looks at the row: among others first, which tells nothing of it, then
    by itself."""
    shop: Shop = make_shop(PLACES[0])
    declare(shop)
    shop.daemon.start()
    before = shop.commit(1)
    until(lambda: receiver.count("/orders/1") == 1, "that it relays")
    with shop.connect() as connection:
        deadly = shop.order(connection, 0, "shop/said", text=COSTLY)
        shop.order(connection, 2)
        connection.commit()

    def looks() -> Any:
        rows = shop.run("SELECT deaths FROM outbox_looks WHERE uid <> ''")
        return [["died"] * deaths + ["looks"] for (deaths,) in rows]

    assert before < deadly
    time.sleep(0.5)
    shop.daemon.kill()
    for times in (1, 2):
        shop.daemon.start()

        def noted(times: int = times) -> bool:
            found = looks()
            return bool(found) and len(found[0]) == times

        until(noted, "that it looks at the row alone")
        shop.daemon.kill()
    shop.daemon.start()
    until(lambda: receiver.count("/orders/2") == 1, "the order behind it")
    why = "params: the daemon died 2 times while it looked at this row alone"
    assert refused(shop) == {deadly: ("invalid_params", why)}
    assert looks() == []
