"""Data of events for which their schema takes years: refused in seconds, and nobody else waits."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.undisturbed import undisturbed
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

NODE = {"type": "object", "properties": {"a": {"$ref": "#/$defs/node"}}, "minProperties": 1}
TREE = {"$defs": {"node": {"anyOf": [NODE] * 3}}, "properties": {"a": {"$ref": "#/$defs/node"}}}
WORDS = {"properties": {"text": {"type": "string", "pattern": r"^(\w+\s?)*$"}}}
UNIQUE = {"properties": {"list": {"uniqueItems": True, "items": {"type": "object"}}}}
"""Behind a word of Python's own, so that no other program reads it."""
AHEAD = {"properties": {"list": {"uniqueItems": True}, "text": {"pattern": "(?P<a>x)(?P=a)|^$"}}}
SCHEMAS = {"tree": TREE, "words": WORDS, "unique": UNIQUE, "ahead": AHEAD}


def nested(depth: int, leaf: Any) -> Any:
    return leaf if depth == 0 else {"a": nested(depth - 1, leaf)}


COSTLY = {
    "tree": nested(16, 1),
    "words": {"text": "a" * 40 + "!"},
    "ahead": {"list": [{"n": number} for number in range(9_000)], "text": ""},
}
GOOD = {"tree": nested(14, {"a": {"b": 1}}), "words": {"text": "two words"},
        "unique": {"list": [{"n": number} for number in range(4_000)]}}  # fmt: skip


LONG = "a" * 5_000
"""Good, and longer than what is looked at in the daemon."""


def declare(daemon: Daemon) -> None:
    daemon.api("shop", "http://127.0.0.1:9")
    for name, schema in SCHEMAS.items():
        daemon.write(f"schemas/{name}.json", json.dumps(schema))
        checked = {"type": "event", "schema": {"file": f"schemas/{name}.json"}}
        daemon.write(f"apis/shop/endpoints/{name}.yaml", checked)
    daemon.write("apis/shop/endpoints/plain.yaml", {"type": "event"})


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Iterator[Daemon]:
    daemon = make_daemon()
    declare(daemon)
    daemon.start()
    yield daemon
    daemon.stop()


def others_go_on(daemon: Daemon, within: float = 1.0) -> AbstractContextManager[None]:
    """Others are answered meanwhile."""

    def ask() -> None:
        assert daemon.get("/healthz").status_code == 200
        daemon.call("shop/plain")

    return undisturbed(daemon, ask, within)


def offer(daemon: Daemon, name: str, body: Any) -> Any:
    return daemon.post(f"/v1/endpoints/shop/{name}/calls", body, timeout=60)


def children(daemon: Daemon) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"schema_check" in path.read_bytes():
                stat = (path.parent / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == daemon.pid and stat[0] != "Z":
                    found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("name", COSTLY)
def test_what_takes_too_long_is_refused_and_nobody_waits_for_it(daemon: Daemon, name: str) -> None:
    with others_go_on(daemon):
        refused = offer(daemon, name, {"params": COSTLY[name]})
    assert refused.status_code == 422, refused.text
    assert refused.json()["code"] == "schema_too_costly"
    assert "schemas/" in refused.json()["errors"][0]["message"]
    # The deadline is of all of a batch; and what comes behind is taken, by another process.
    good = GOOD.get(name, {})
    assert offer(daemon, name, {"batch": [good, COSTLY[name], good]}).status_code == 422
    assert offer(daemon, name, {"params": good}).status_code == 202
    if name == "words":
        wrong = offer(daemon, name, {"batch": [good, {"text": 7}]}).json()
        assert (wrong["code"], wrong["errors"][0]["key"]) == ("invalid_params", "batch.1.text")


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_is_taken_however_often_its_schema_comes_back_to_itself(
    daemon: Daemon, name: str
) -> None:
    with others_go_on(daemon, within=3):  # 2 MB are written to the disk with the others' calls
        assert offer(daemon, name, {"params": GOOD[name]}).status_code == 202
        assert offer(daemon, name, {"batch": [GOOD[name]] * 50}).status_code == 202


def test_the_process_has_nothing_of_the_daemon_and_ends_with_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    declare(daemon)
    daemon.start()
    daemon.call("shop/plain")
    daemon.call("shop/words", None, text="a")
    assert children(daemon) == []  # what is small and good is seen at once
    daemon.call("shop/words", None, text=LONG)
    [first] = children(daemon)
    opened = [os.readlink(one) for one in Path(f"/proc/{first}/fd").iterdir()]
    assert len(opened) == 3
    assert opened.count("/dev/null") == 1
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{first}/environ").read_bytes()
    assert f"{512 << 20}" in Path(f"/proc/{first}/limits").read_text()
    os.kill(first, signal.SIGKILL)
    daemon.call("shop/words", None, text=LONG)
    [second] = children(daemon)
    # One that is stopped is ended, and another one answers.
    os.kill(second, signal.SIGSTOP)
    daemon.call("shop/words", None, text=LONG)
    [third] = children(daemon)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(offer, daemon, "words", {"params": COSTLY["words"]})
        time.sleep(0.5)
        daemon.kill()
        with suppress(Exception):
            asked.result()
    gone = f"process {third}, which was busy"
    until(lambda: not Path(f"/proc/{third}").exists(), gone)
    daemon.start()
    daemon.call("shop/words", None, text=LONG)
    [fourth] = children(daemon)
    daemon.stop()
    until(lambda: not Path(f"/proc/{fourth}").exists(), "the end of its process")


def test_an_event_that_follows_from_an_answer(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    """What a receiver answers is data from outside as well."""
    daemon = make_daemon()
    declare(daemon)
    daemon.api("crm", receiver.url)
    event = {"call": "shop/words", "params": {"text": "body.text"}}
    daemon.endpoint("crm/get", "/get", then=[event], retry={"max_attempts": 1})
    daemon.endpoint("crm/lose", "/lose", then=[{**event, "on": "failure"}],
                    retry={"max_attempts": 1})  # fmt: skip
    daemon.expect("skipped an entry of `then` of task")
    costly, good = json.dumps(COSTLY["words"]), json.dumps(GOOD["words"])
    receiver.on("/get", Answer(200, costly), Answer(200, good), Answer(200, '{"text": 7}'))
    receiver.on("/lose", Answer(404, costly))
    daemon.start()
    with others_go_on(daemon):
        task = daemon.finish(daemon.call("crm/get"))
        lost = daemon.finish(daemon.call("crm/lose"))
    assert task["status"] == "failed"
    assert "cannot be held against schemas/words.json in 2 s" in task["last_error"]
    assert daemon.finish(daemon.call("crm/get"))["status"] == "succeeded"
    assert "text: 7 is not of type 'string'" in daemon.finish(daemon.call("crm/get"))["last_error"]
    assert lost["status"] == "failed"
    assert len(daemon.tasks(endpoint="shop/words")) == 1
