"""A plugin that is disabled, or optional and broken: what its keys ask for is never left out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver

GUARD = """
from orchestratord import Setting, Reject, hookimpl

GUARD = Setting("guard", str, default="")

@hookimpl
def register_settings():
    return [GUARD]

@hookimpl
def before_request(request, task, endpoint):
    if endpoint[GUARD] and task.kind == "call":
        raise Reject("the guard says no")
"""


@pytest.mark.parametrize(
    ("broken", "absent", "why"),
    [
        ("", {"disabled": ["guard"]}, "is disabled"),
        ("import nothing_of_this_name\n", {"optional": ["guard"]}, "cannot be loaded: Module"),
        ("@hookimpl\ndef on_success(tsk): ...\n", {"optional": ["guard"]}, "cannot be loaded: on_"),
    ],
)
def test_calls_with_a_key_of_an_absent_plugin_wait(
    make_daemon: MakeDaemon, receiver: Receiver, broken: str, absent: dict[str, Any], why: str
) -> None:
    receiver.on("/", 200)
    daemon = make_daemon(plugins={"dirs": ["plugins"], **absent})
    daemon.plugin("guard", GUARD + broken)
    daemon.expect("guard", "cannot be loaded")
    daemon.api("shop", receiver.url, guard="money")
    daemon.api("news", receiver.url)
    daemon.endpoint("shop/pay", "/")
    daemon.endpoint("news/read", "/")
    checked = daemon.run("check")
    assert checked.code == 0
    assert f"belongs to the plugin guard, which {why}" in checked.err
    assert "the tasks of these endpoints wait" in checked.err
    daemon.start()
    call = daemon.call("shop/pay")
    assert daemon.finish(daemon.call("news/read"))["status"] == "succeeded"
    waits = daemon.task(call)["waits"]
    assert waits["for"] == "parked"
    assert f"its key 'guard' belongs to the plugin guard, which {why}" in waits["why"]
    assert receiver.count("/") == 1

    daemon.settings["plugins"] = {"dirs": ["plugins"]}
    daemon.write("orchestratord.yaml", daemon.settings)
    daemon.plugin("guard", GUARD)
    daemon.restart()
    assert daemon.finish(call)["reason"] == "rejected"


def test_a_type_and_a_reference_of_a_broken_plugin_name_its_error(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"], "optional": ["odd"]})
    text = 'import gone\nclass Odd: type = "odd"\ndef register_references(): return {"vault": 1}\n'
    daemon.plugin("odd", text)
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/", type="odd")
    why = "which cannot be loaded: ModuleNotFoundError: No module named 'gone'"
    checked = daemon.run("check")
    assert checked.code == 0
    assert f"the type 'odd' belongs to the plugin odd, {why}; the tasks of this" in checked.err
    daemon.api("shop", receiver.url, headers={"X-Key": "${vault:key}"})
    checked = daemon.run("check")
    assert checked.code == 78
    assert "the plugin odd cannot be loaded: ModuleNotFoundError" in checked.err
    daemon.api("shop", receiver.url, headers={}, guarrd=1)
    assert "guarrd: unknown key" in daemon.run("check").err
