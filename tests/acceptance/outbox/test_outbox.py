"""Calls that applications commit in their own transactions."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from orchestratord.cli.main import main
from tests.acceptance.commands.test_doctor import doctor
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.outbox.conftest import ORDER, PLACES, Shop, declare
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow


def orchestratord(*words: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.output


def orders(receiver: Receiver) -> Counter[int]:
    """How often each order came."""
    paths = [one.path for one in receiver.received() if one.path.startswith("/orders/")]
    return Counter(int(path.rpartition("/")[2]) for path in paths)


def outbox(shop: Shop, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.daemon.ctl("outbox", "list", *words, "-o", "json").json()[
        "outbox"
    ]
    return found


def test_what_is_committed_is_called_and_nothing_else(shop: Shop, receiver: Receiver) -> None:
    early = shop.connect()
    first = shop.order(early, 1)
    assert shop.commit(2) > first
    shop.commit(3)
    with shop.connect() as connection:
        shop.order(connection, 4)
        connection.rollback()
        connection.execute("INSERT INTO orchestratord_outbox (endpoint, params) "
                           """VALUES ('shop/order', '{"n": 5}')""")  # fmt: skip
    until(lambda: orders(receiver).keys() == {2, 3, 5}, "those that were committed")
    # The one with the lowest id is committed last.
    early.commit()
    early.close()
    until(lambda: 1 in orders(receiver), "the one that was committed late")
    # What the configuration refuses is marked, and stops no other.
    refused = {
        shop.commit(6, endpoint="shop/nothing"): ("not_found", "there is no endpoint shop/nothing"),
        shop.commit("x"): ("invalid_params", 'n: expected a whole number, not "x"'),
        shop.commit(7, colour="red"): (
            "invalid_params",
            "colour: there is no such parameter; known is n",
        ),
        shop.commit(8, key=""): ("invalid_params", "key: must have 1 to 255 printable characters"),
        shop.commit(8, delay="100 years"): ("invalid_params", "delay: is more than ten years"),
    }
    shop.commit(9, key="nine")
    until(lambda: 9 in orders(receiver), "what came behind those")
    again = shop.commit(9, key="nine")
    other = shop.commit(10, key="nine")
    until(lambda: len(outbox(shop, "--status", "refused")) == 6, "those that are refused")
    listed = {row["id"]: (row["reason"], row["error"]) for row in outbox(shop)}
    assert listed.pop(other)[0] == "idempotency_key_reused"
    assert listed == refused
    assert again not in listed
    delayed = shop.commit(11, delay="1 hour")
    until(lambda: shop.daemon.status()["queue"]["pending"] == 1, "the delayed call")
    assert orders(receiver) == Counter([1, 2, 3, 5, 9])
    status = shop.daemon.status()["outbox"]
    assert (status["relays"], status["error"], status["refused_total"]) == (True, None, 6)
    assert status["taken_total"] == 6
    shop.run("""SELECT orchestratord_enqueue_at('shop/order', '2034-01-01 00:00Z', '{"n": 12}')""")
    until(lambda: len(shop.daemon.tasks(status="pending")) == 2, "the call at a time")
    times = [task["next_try"] for task in shop.daemon.tasks(status="pending")]
    assert "2034-01-01T00:00:00.000Z" in times
    text = shop.daemon.get("/metrics").text
    assert 'orchestratord_outbox_refused_total{reason="invalid_params"} 4.0' in text
    shop.commit(13, endpoint="shop/line")
    line = until(lambda: shop.daemon.tasks(endpoint="shop/line"), "the call of another endpoint")
    assert line[0]["partition"] == "1"
    shop.commit(14, endpoint="shop/placed", key="fourteen")
    told = "what follows from an event"
    until(lambda: "/hooks/stock" in [one.path for one in receiver.received()], told)
    page = shop.daemon.get("/outbox").text
    assert "colour: there is no such parameter" in page
    assert "idempotency_key_reused" in page
    assert "6 rows of the outbox" in shop.daemon.get("/").text
    odd = shop.commit(15, endpoint="\\u0000")  # six characters, which look like one in JSON
    until(lambda: odd in {row["id"] for row in outbox(shop, "--status", "refused")}, "its refusal")
    # It is taken once its reason is gone.
    row = next(iter(refused))
    shop.run("UPDATE orchestratord_outbox SET endpoint = 'shop/order', refused_at = NULL "
             f"WHERE id = {row}")  # fmt: skip
    until(lambda: 6 in orders(receiver), "the one that was mended")
    assert delayed not in {row["id"] for row in outbox(shop)}
    assert shop.run("SELECT count(*) FROM orchestratord_outbox WHERE refused_at IS NULL") == [(0,)]


@pytest.mark.parametrize("place", PLACES)
def test_a_daemon_that_is_killed_between_two_steps_leaves_no_row_out_and_takes_none_twice(
    place: str, make_shop: Any, receiver: Receiver
) -> None:
    """The row is read by then; with its outbox elsewhere, its task is in the queue, too."""
    shop: Shop = make_shop(place)
    shop.daemon.start()
    shop.commit(0)
    until(lambda: 0 in orders(receiver), "that it relays")
    with shop.connect() as connection:
        # It can be read, and not deleted.
        connection.execute("LOCK TABLE orchestratord_outbox IN ROW EXCLUSIVE MODE")
        ids = [shop.order(connection, n) for n in range(1, 40)]
        shop.order(connection, 40, "shop/placed")
        connection.commit()
        connection.execute("LOCK TABLE orchestratord_outbox IN SHARE MODE")
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        if orders(receiver).keys() < set(range(40)):
            until(lambda: shop.run(waits), "that the daemon cannot delete the rows")
        shop.daemon.signal(signal.SIGKILL)
        shop.daemon.wait()
        connection.rollback()
    if place != PLACES[0]:
        # What has made its task is not refused, whatever is declared by now.
        text = {"n": {"type": "string", "required": True}}
        shop.daemon.endpoint("shop/order", "/orders/{{ params.n }}", params=text, **ORDER)
    shop.daemon.start()
    until(lambda: not shop.run("SELECT 1 FROM orchestratord_outbox LIMIT 1"), "no row")
    shop.daemon.settle()
    assert orders(receiver).keys() == set(range(40))
    assert len(shop.daemon.tasks(endpoint="shop/order")) == 40
    assert len(ids) == 39
    assert shop.daemon.status()["outbox"]["refused_total"] == 0


def test_another_daemon_relays_when_the_one_is_gone(
    make_shop: Any, make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    """One with several workers, of which the first relays."""
    shop: Shop = make_shop(PLACES[0])
    other = make_daemon(lease="3s", database=shop.url, workers=2)
    other.expect("a password is written out here")
    declare(other, receiver)
    shop.daemon.start()
    until(lambda: shop.daemon.status()["outbox"]["relays"], "that one relays")
    other.start()
    shop.commit(1)
    until(lambda: 1 in orders(receiver), "an order")
    assert not other.status()["outbox"]["relays"]
    shop.daemon.signal(signal.SIGKILL)
    shop.daemon.wait()
    shop.commit(2)
    until(lambda: 2 in orders(receiver), "an order after its death")
    assert other.status()["outbox"]["relays"]
    shop.daemon.start()
    assert other.stop() == 0
    shop.commit(3)
    until(lambda: 3 in orders(receiver), "an order after the other one's end")
    assert orders(receiver) == Counter([1, 2, 3])


def test_a_producer_may_enqueue_and_nothing_else(make_shop: Any, receiver: Receiver) -> None:
    shop: Shop = make_shop(PLACES[0])
    shop.daemon.start()
    shop.run("CREATE ROLE producer_of_calls LOGIN")
    try:
        granted = orchestratord("grant-producer", "producer_of_calls")
        with shop.connect() as connection:
            connection.execute(granted)
        with shop.connect("producer_of_calls") as connection:
            shop.order(connection, 1)
            connection.execute("INSERT INTO orchestratord_outbox (endpoint, params) "
                               """VALUES ('shop/order', '{"n": 2}')""")  # fmt: skip
        until(lambda: orders(receiver).keys() == {1, 2}, "both orders")
        for statement in (
            "SELECT id FROM orchestratord_outbox",
            "INSERT INTO orchestratord_outbox (endpoint) VALUES ('shop/order') RETURNING id",
            "INSERT INTO orchestratord_outbox (endpoint, uid) VALUES ('a/b', gen_random_uuid())",
            "UPDATE orchestratord_outbox SET refused_at = now()",
            "DELETE FROM orchestratord_outbox",
            "SELECT params FROM retry_schedule",
            "INSERT INTO meta VALUES ('a', 'b')",
            "CREATE TABLE public.pg_proc ()",
        ):
            with (
                shop.connect("producer_of_calls") as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute(statement)
        shop.run("CREATE ROLE stranger_to_calls LOGIN")
        with (
            shop.connect("stranger_to_calls") as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            shop.order(connection, 3)
    finally:
        shop.run("DROP OWNED BY producer_of_calls")
        shop.run("DROP ROLE producer_of_calls")
        shop.run("DROP ROLE IF EXISTS stranger_to_calls")


TROUBLE = """
CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.params::text LIKE '%13%' THEN RAISE 'no' USING ERRCODE = '{}'; END IF;
    RETURN NEW;
END $$
"""


def test_what_passes_is_tried_again_and_what_never_fits_is_refused(
    make_shop: Any, receiver: Receiver
) -> None:
    shop: Shop = make_shop(PLACES[0])
    shop.daemon.expect("the queue never takes row")
    shop.daemon.start()
    shop.run(TROUBLE.format("57014"))  # as if an administrator had cancelled it
    shop.run("CREATE TRIGGER trouble BEFORE INSERT ON retry_schedule FOR EACH ROW "
             "EXECUTE FUNCTION trouble()")  # fmt: skip
    with shop.connect() as connection:
        for n in (11, 13, 12):
            shop.order(connection, n)
    until(lambda: orders(receiver).keys() == {11}, "the one before it")
    until(lambda: "refused: no" in str(shop.daemon.status()["outbox"]["error"]), "what is wrong")
    shop.run("ALTER TABLE retry_schedule DISABLE TRIGGER trouble")
    until(lambda: orders(receiver).keys() == {11, 12, 13}, "all of them")
    shop.run(TROUBLE.format("22000"))  # a value that it never takes
    shop.run("ALTER TABLE retry_schedule ENABLE TRIGGER trouble")
    with shop.connect() as connection:
        for n in (21, 213, 22):
            shop.order(connection, n)
    until(lambda: orders(receiver).keys() == {11, 12, 13, 21, 22}, "those that fit")
    [refused] = outbox(shop, "--status", "refused")
    assert (refused["reason"], json.loads(refused["params"])) == ("internal", {"n": 213})
    # What is told of a row is bounded, whatever it says.
    shop.commit(1, **{"x" * 100_000: 1, **{f"y{n}": n for n in range(100)}})
    until(lambda: len(outbox(shop, "--status", "refused")) == 2, "its refusal")
    assert len(json.dumps(outbox(shop)[0]["problem"])) < 20_000


def test_an_outbox_of_the_queue_that_is_gone_is_said(make_shop: Any, receiver: Receiver) -> None:
    shop: Shop = make_shop(PLACES[0])
    shop.daemon.start()
    shop.commit(1)
    until(lambda: 1 in orders(receiver), "an order")
    shop.run("ALTER TABLE orchestratord_outbox RENAME TO elsewhere")

    def troubles() -> list[str]:
        return [one["code"] for one in shop.daemon.status()["health"]["troubles"]]

    until(lambda: troubles() == ["outbox_failing"], "the trouble", 5)
    ready = shop.daemon.get("/readyz")
    assert (ready.status_code, ready.json()["errors"][0]["key"]) == (503, "outbox_failing")
    assert "there is no table orchestratord_outbox" in shop.daemon.status()["outbox"]["error"]
    assert "there is no table orchestratord_outbox" in shop.daemon.ctl("status").out
    code, found = doctor(shop.daemon)
    assert (code, [one["status"] for one in found["outbox"]]) == (1, ["fail"])
    assert shop.daemon.finish(shop.daemon.call("shop/order", n=2))["status"] == "succeeded"
    shop.run("ALTER TABLE elsewhere RENAME TO orchestratord_outbox")
    until(lambda: troubles() == [], "its being back")
    shop.commit(3)
    until(lambda: 3 in orders(receiver), "an order")


def test_where_there_is_no_outbox_it_is_said(make_shop: Any, receiver: Receiver) -> None:
    shop: Shop = make_shop(PLACES[1])
    shop.run("DROP TABLE orchestratord_outbox")
    shop.daemon.start()
    shop.daemon.logged("cannot relay the outbox in the database shop now; trying again: there "
                       "is no table orchestratord_outbox where the outbox is to be: make it with "
                       "`orchestratord outbox schema")  # fmt: skip
    assert "orchestratord outbox schema" in shop.daemon.status()["outbox"]["error"]
    shown = shop.daemon.ctl("outbox", "list")
    assert shown.code == 5
    assert "orchestratord outbox schema" in shown.err
    code, found = doctor(shop.daemon)
    assert code == 1
    [finding] = found["outbox"]
    assert "there is no table orchestratord_outbox" in finding["what"]
    assert finding["remedy"].startswith("make it with `orchestratord outbox schema")
    with shop.connect() as connection:
        connection.execute(orchestratord("outbox", "schema", "--notify"))
        connection.commit()
        shop.order(connection, 1)
    until(lambda: 1 in orders(receiver), "an order")
    assert shop.daemon.status()["outbox"]["error"] is None
    # One that is named and not there is an error of the files.
    shop.daemon.settings["outbox"] = {"database": "shap"}
    shop.daemon.write("orchestratord.yaml", shop.daemon.settings)
    shop.daemon.expect("the configuration is refused", "outbox.database: there is no database")
    refused = shop.daemon.ctl("reload")
    assert refused.code == 78
    assert "there is no database 'shap' under databases, did you mean 'shop'?" in refused.err


def test_one_line_for_many_rows_that_are_refused(shop: Shop) -> None:
    shop.run(
        "INSERT INTO orchestratord_outbox (endpoint, params) "
        "SELECT 'shop/unknown', '{}'::jsonb FROM generate_series(1, 1000)"
    )
    until(lambda: shop.daemon.status()["outbox"]["refused_total"] == 1000, "their refusal")
    line = shop.daemon.logged(r"WARNING .*of the outbox is refused: shop/unknown: .*999 other rows")
    assert shop.daemon.log().count("of the outbox is refused") == 1, line
