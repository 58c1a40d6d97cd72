"""What a plugin puts off is done after its cause, once, in the order of its line."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

PLUGIN = """
from orchestratord import NewChore, NewTask, hookimpl

tries = []


@hookimpl
def on_success(task):
    if task.endpoint_id == "crm/order":
        yield NewChore("award", task.params["customer"], str(task.params["number"]))


async def award(data):
    tries.append(data)
    if len(tries) == 1:
        raise ValueError("not yet")
    return [NewTask("call", "crm/award", {"number": int(data)})]


@hookimpl
def register_chores():
    return {"award": award}
"""


def test_register_chores_has_what_was_put_off_done_once(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.expect(r"cannot do the chore line .* award .* yet: raised ValueError: not yet")
    daemon.plugin("awards", PLUGIN)
    daemon.api("crm", receiver.url)
    daemon.endpoint("crm/order", "/order", params={"customer": {}, "number": {}})
    daemon.endpoint("crm/award", "/award/{{ params.number }}", params={"number": {}})
    daemon.start()
    for number in range(6):
        receiver.on(f"/award/{number}", 200)
        receiver.on("/order", 200)
        daemon.call("crm/order", customer=f"of {number % 2}", number=number)
        daemon.settle()
    until(lambda: not daemon.rows("SELECT 1 FROM chores"), "the end of all chores")
    daemon.settle()
    made = [one["params"]["number"] for one in reversed(daemon.tasks(endpoint="crm/award"))]
    assert sorted(made) == [0, 1, 2, 3, 4, 5]
    assert [one for one in made if one % 2] == [1, 3, 5]
    assert [one for one in made if not one % 2] == [0, 2, 4]


def test_a_chore_that_no_plugin_does_is_a_fault(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = make_daemon(plugins={"dirs": ["plugins"]})
    daemon.plugin("awards", PLUGIN.replace('"award": award', ""))
    daemon.expect(r"plugin awards: on_success returned a NewChore of a kind that no plugin does")
    daemon.api("crm", receiver.url)
    daemon.endpoint("crm/order", "/order", params={"customer": {}, "number": {}})
    receiver.on("/order", 200)
    daemon.start()
    daemon.call("crm/order", customer="a", number=1)
    daemon.settle()
    daemon.logged("a kind that no plugin does: 'award'")
    assert not daemon.rows("SELECT 1 FROM chores")
