"""Every way in which a configuration changes on a disk, a few times each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.acceptance import ways
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.reload_campaign import alternate
from tests.acceptance.waiting import until


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    daemon = make_daemon()
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/0")
    return daemon


@pytest.mark.parametrize("way", ways.WAYS)
def test_each_way_is_taken_up_once(daemon: Daemon, way: str) -> None:
    ways.go(daemon, way, 2 if way == "no events" else 3)


def test_good_and_bad_saves_under_load(daemon: Daemon, receiver: Receiver) -> None:
    report = alternate(daemon, receiver, 12)
    assert report.wrong == []
    assert report.good == report.bad == 6
    assert report.calls > 20


class Limited(Daemon):
    """In a namespace of its own, whose user may watch two folders and no more."""

    LIMIT = 'echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"'

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "-Ur", "sh", "-c", self.LIMIT, "sh",
                 sys.executable, "-m", "orchestratord", "run", "--config", str(self.config)],
                stdout=log, stderr=log, env=self.environ, cwd=self.home, start_new_session=True,
            )  # fmt: skip
        return self.process


def test_it_goes_on_where_the_system_has_no_watches_left(tmp_path_factory: Any) -> None:
    trial = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", Limited.LIMIT, "sh", "true"],
        capture_output=True,
        check=False,
    )
    if trial.returncode != 0:
        pytest.skip("no user namespaces here")
    with Limited(tmp_path_factory.mktemp("d")) as daemon:
        daemon.api("shop", "http://127.0.0.1:9")
        daemon.endpoint("shop/get", "/0")
        daemon.start()
        daemon.logged(
            r"WARNING config.watch: no events come from .*/shop( and 1 other folder)?: "
            r"inotify watch limit reached; "
            r"changes are found by looking every 10 s \(raise fs\.inotify\.max_user_watches "
        )
        (daemon.config / ways.FILE).write_text(ways.text(1))
        until(lambda: daemon.get("/v1/endpoints/shop/get").json()["path"] == "/1", "the poll")
        assert daemon.status()["config"]["error"] is None
