"""Every way in which a configuration changes on a disk, a few times each."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.reload import ways
from tests.acceptance.reload.reload_campaign import alternate

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/0")
    return daemon


@pytest.mark.parametrize("way", [way for way in ways.WAYS if way != "no watches left"])
def test_each_way_is_taken_up_once(daemon: Daemon, way: str) -> None:
    ways.go(daemon, way, 2 if way == "no events" else 3)


def test_good_and_bad_saves_under_load(daemon: Daemon, receiver: Receiver) -> None:
    report = alternate(daemon, receiver, 12)
    assert report.wrong == []
    assert report.good == report.bad == 6
    assert report.calls > 20


def test_it_says_that_the_system_has_no_watches_left(daemon: Daemon) -> None:
    if not ways.can_be_limited():
        pytest.skip("no user namespaces here")
    ways.go(daemon, "no watches left", 2)
    daemon.logged(
        r"WARNING config.watch: no file events come from .*/shop( and 1 other folder)?: "
        r"inotify watch limit reached; "
        r"the folder is polled every 10 s \(raise fs\.inotify\.max_user_watches "
    )
