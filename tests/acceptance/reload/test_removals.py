"""A configuration that lacks what the queue waits for: refused, unless it is meant."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

REFUSED = (
    r"the configuration is refused",
    r"endpoints with tasks waiting",
    r"apis: there is no such folder",
    r"there is no config folder",
)
NAMES = ("one", "two", "three")


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    """One with three endpoints of which calls wait, and one without."""
    receiver.on("/", 200)
    daemon = make_daemon()
    daemon.expect(*REFUSED)
    daemon.api("shop", receiver.url)
    for name in (*NAMES, "idle"):
        daemon.endpoint(f"shop/{name}", "/")
    daemon.start()
    for count, name in enumerate(NAMES, 1):
        for _ in range(count):
            daemon.call(f"shop/{name}", 3600)
    return daemon


def remove(daemon: Daemon, *names: str) -> None:
    for name in names:
        (daemon.config / f"apis/shop/endpoints/{name}.yaml").unlink()


def errors(daemon: Daemon) -> str:
    error = daemon.status()["config"]["error"]
    return " ".join(one["message"] for one in error["errors"]) if error else ""


def declared(daemon: Daemon) -> list[str]:
    return [one["id"] for one in daemon.get("/v1/endpoints").json()["endpoints"]]


@pytest.mark.parametrize("away", ["apis", "apis/shop", "."])
def test_a_folder_that_is_away_changes_nothing(daemon: Daemon, away: str) -> None:
    folder = (daemon.config / away).resolve()
    folder.rename(daemon.home / "away")
    until(lambda: errors(daemon), "the refusal")
    daemon.signal(signal.SIGHUP)
    ran = daemon.ctl("reload")
    assert ran.code == 78
    if away == "apis/shop":
        named = "shop/three (3), shop/two (2), shop/one (1)"
        assert f"none of the endpoints with tasks waiting is declared: {named}" in ran.err
        assert "orchestratorctl reload --accept-removals" in ran.err
    assert len(declared(daemon)) == 4
    assert daemon.status()["queue"]["pending"] == 6
    (daemon.home / "away").rename(folder)
    until(lambda: not errors(daemon), "the folder that is back")
    assert daemon.ctl("reload").code == 0


def test_more_than_half_at_once_has_to_be_meant(daemon: Daemon) -> None:
    remove(daemon, "idle")
    assert daemon.ctl("reload").code == 0
    remove(daemon, "one", "two")
    ran = daemon.ctl("reload")
    assert ran.code == 78
    assert "2 of the 3 endpoints with tasks waiting are not declared: shop/two (2)" in ran.err
    assert len(declared(daemon)) == 3
    ran = daemon.ctl("reload", "--accept-removals")
    assert (ran.code, declared(daemon)) == (0, ["shop/three"])
    assert not errors(daemon)
    # It was said once, and is not asked again while their tasks still wait to be failed.
    daemon.restart()
    daemon.kill()
    daemon.start()
    assert declared(daemon) == ["shop/three"]
    assert daemon.status()["queue"]["pending"] == 6


def test_what_was_refused_is_taken_up_when_the_tasks_have_ended(daemon: Daemon) -> None:
    remove(daemon, "one", "two")
    assert daemon.ctl("reload").code == 78
    assert "shop/two (2), shop/one (1)" in errors(daemon)
    [task, _] = daemon.tasks(endpoint="shop/two")
    daemon.ctl("cancel", str(task["id"]))
    until(lambda: "shop/one (1), shop/two (1)" in errors(daemon), "the truth in the status")
    daemon.ctl("cancel", "--all", "--endpoint", "shop/two")
    until(lambda: not errors(daemon), "the reload", 20)
    assert declared(daemon) == ["shop/idle", "shop/three"]
    assert daemon.status()["config"]["cause"] == "tasks ended"


def test_fewer_are_removed_as_ever(daemon: Daemon) -> None:
    remove(daemon, "one")
    assert daemon.ctl("reload").code == 0
    remove(daemon, "two")  # one of the two that are left
    assert daemon.ctl("reload").code == 0
    assert declared(daemon) == ["shop/idle", "shop/three"]
    daemon.restart()


def test_a_start_with_another_folder_is_refused(daemon: Daemon, receiver: Receiver) -> None:
    assert daemon.stop() == 0
    shutil.move(daemon.config / "apis", daemon.home / "apis")
    daemon.launch()
    assert daemon.wait() == 78
    assert "apis: there is no such folder" in daemon.log()
    # Another config folder, on the same database.
    daemon.api("bank", receiver.url)
    daemon.endpoint("bank/get", "/")
    daemon.launch()
    assert daemon.wait() == 78
    assert "none of the endpoints with tasks waiting is declared: shop/three (3)" in daemon.log()
    assert "orchestratord run --accept-removals" in daemon.log()
    assert "if this folder is another one's, set `database`: the tasks are" in daemon.log()
    shutil.copytree(daemon.home / "apis", daemon.config / "apis", dirs_exist_ok=True)
    daemon.start()
    assert daemon.status()["queue"]["pending"] == 6
    assert daemon.stop() == 0
    shutil.rmtree(daemon.config / "apis/shop")
    daemon.start("--accept-removals")
    daemon.restart()
    assert declared(daemon) == ["bank/get"]


def test_nothing_is_asked_where_nothing_waits(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/", 200)
    daemon = make_daemon()
    daemon.start()  # without any endpoint
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/")
    assert daemon.ctl("reload").code == 0
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    shutil.rmtree(daemon.config / "apis/shop")
    assert daemon.ctl("reload").code == 0
    assert declared(daemon) == []
