"""`orchestratorctl upgrade`: the daemon goes on as what is installed by now, and no one notices.

`UPGRADES=20 pytest -s tests/acceptance/upgrade` upgrades it more often.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until
from tests.acceptance.workers.crew import first, worker_pids
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

CLIENTS = 4
PLACE = "takes its place"
UPGRADES = int(os.environ.get("UPGRADES", "1"))

STUBBORN = """
import os, signal, sys, time
from pathlib import Path
from orchestratord import hookimpl

flag = Path(os.environ["STUBBORN"])
what = flag.read_text() if flag.exists() and "--examine" not in sys.argv else ""
if what == "import":
    raise RuntimeError("not as this version")

@hookimpl
def config_adopted(config):
    if what == "adopt":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(1000)
"""


@contextmanager
def calls(daemon: Daemon, path: str) -> Iterator[tuple[list[int], list[str]]]:
    """Clients that make one call after the other meanwhile, over connections that they keep: the
    ids, and what was refused."""
    made: list[int] = []
    refused: list[str] = []
    ended = threading.Event()

    def client() -> None:
        transport = httpx.HTTPTransport(uds=str(daemon.socket))
        with httpx.Client(transport=transport, base_url="http://daemon", timeout=60) as session:
            while not ended.is_set():
                try:
                    answer = session.post(path, json={})
                except httpx.HTTPError as error:
                    refused.append(repr(error))
                else:
                    if answer.status_code == 202:
                        made.append(answer.json()["id"])
                    else:
                        refused.append(answer.text)
                ended.wait(0.01)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        yield made, refused
    finally:
        ended.set()
        for thread in clients:
            thread.join()


def declared(make_daemon: MakeDaemon, receiver: Receiver, workers: int, **more: object) -> Daemon:
    daemon = make_daemon(workers=workers, http={"bind": "127.0.0.1:0", "token": "t" * 20}, **more)
    daemon.by_command = True  # it becomes that again
    receiver.on("/order", 200)
    daemon.api("shop", receiver.url, concurrency=50)
    daemon.endpoint("shop/order", "/order", method="POST", idempotent=False)
    return daemon


def started_at(daemon: Daemon) -> str:
    return str(daemon.get("/v1/status").json()["started_at"])


@pytest.mark.parametrize(("workers", "shared"), [(1, False), (2, False), (2, True)])
def test_no_call_is_refused_lost_or_doubled(
    make_daemon: MakeDaemon, receiver: Receiver, postgres: Postgres, workers: int, shared: bool
) -> None:
    more = {"database": postgres.create()} if shared else {}
    daemon = declared(make_daemon, receiver, workers, **more)
    daemon.expect("a password is written out")
    daemon.start()
    assert daemon.process is not None
    before, pid = started_at(daemon), daemon.process.pid
    began = time.monotonic()
    with calls(daemon, "/v1/endpoints/shop/order/calls") as (made, refused):
        for _ in range(UPGRADES):
            count = len(made)
            until(lambda count=count: len(made) > count + 50, "calls before")  # type: ignore[misc]
            upgraded = daemon.ctl("upgrade", timeout=120)
            assert upgraded.code == 0, upgraded.err
        count = len(made)
        until(lambda: len(made) > count + 50, "calls after")
    rate = len(made) / (time.monotonic() - began)
    print(f"{UPGRADES} upgrades at {rate:.0f} calls/s: {len(made)} calls, {len(refused)} refused")
    assert refused == []
    assert len(set(made)) == len(made)
    until(lambda: receiver.count("/order") >= len(made), "all calls")
    assert receiver.count("/order") == len(made)
    assert started_at(daemon) != before
    assert daemon.process.pid == pid
    assert daemon.process.poll() is None
    # It is ended as any other.
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_version_that_does_not_start_leaves_the_old_one(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    flag = tmp_path / "stubborn"
    daemon = declared(
        make_daemon, receiver, 2, environ={"STUBBORN": str(flag)}, plugins={"dirs": ["plugins"]}
    )
    daemon.plugin("stubborn", STUBBORN)
    daemon.endpoint("shop/tick", "/tick", schedule={"every": "1s"}, idempotent=True)
    daemon.start()
    before = started_at(daemon)
    daemon.expect("config", "not as this version", "stubborn", "the old version")
    daemon.expect("http.bind", "ended by signal")

    def goes_on(why: str) -> None:
        until(lambda: why in daemon.log(), why)
        assert started_at(daemon) == before
        count = receiver.count("/order")
        assert daemon.post("/v1/endpoints/shop/order/calls").status_code == 202
        until(lambda: receiver.count("/order") > count, "a call by the old version")
        daemon.write("orchestratord.yaml", daemon.settings)
        flag.unlink(missing_ok=True)

    def command(why: str) -> None:
        """The command says at once what the log says."""
        said = daemon.ctl("upgrade", timeout=120)
        now = time.time()
        assert (said.code, why in said.err) == (1, True), said
        line = next(line for line in daemon.log().splitlines()[::-1] if why in line)
        at = datetime.fromisoformat(line.split()[0]).timestamp()
        assert now - at < 5, (now, line)  # as the command starts and ends
        goes_on(why)

    # What it says by itself.
    daemon.write("orchestratord.yaml", {**daemon.settings, "concurrency": "many"})
    answer = daemon.post("/v1/upgrade")
    assert answer.status_code == 409
    assert "concurrency" in answer.json()["detail"]
    goes_on("concurrency")
    # It has said that it would start, and then does not: its plugins, its sockets, its workers.
    flag.write_text("import")
    command("the old version goes on: the new version does not start: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = {"bind": f"127.0.0.1:{taken.getsockname()[1]}", "token": "t" * 20}
        daemon.write("orchestratord.yaml", {**daemon.settings, "http": bind})
        command("the new version does not start: http.bind: cannot listen")
    # Nor does it keep the lock, or the socket, of what it would have worked on.
    elsewhere = {"database": f"sqlite:///{tmp_path}/new.db", "control_socket": f"{tmp_path}/new.s"}
    daemon.write("orchestratord.yaml", {**daemon.settings, **elsewhere})
    flag.write_text("adopt")
    command("of the new version ended by signal SIGKILL")
    assert not (tmp_path / "new.s").exists()
    # And once it is mended, it takes over, and does all that is done once.
    assert daemon.ctl("upgrade", timeout=120).code == 0
    assert started_at(daemon) != before
    for deaths in (1, 2):
        ticks = receiver.count("/tick")
        until(lambda ticks=ticks: receiver.count("/tick") > ticks, "schedules")  # type: ignore[misc]
        os.kill(first(daemon), signal.SIGKILL)
        until(lambda deaths=deaths: daemon.log().count(PLACE) == deaths, PLACE)  # type: ignore[misc]
        until(lambda: len(worker_pids(daemon)) == 2, "another first worker")
    assert daemon.stop() == 0


def test_a_version_that_hangs_at_its_start_leaves_the_old_one(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    """After half a minute; until then no other upgrade begins."""
    flag = tmp_path / "stubborn"
    daemon = declared(
        make_daemon, receiver, 2, environ={"STUBBORN": str(flag)}, plugins={"dirs": ["plugins"]}
    )
    daemon.plugin("stubborn", STUBBORN)
    daemon.start()
    before, workers = started_at(daemon), worker_pids(daemon)
    daemon.expect("the old version", "event loop")
    flag.write_text("hang")
    assert daemon.post("/v1/upgrade").status_code == 202
    until(lambda: len(worker_pids(daemon)) == 4, "the new workers")
    refused = daemon.post("/v1/upgrade")
    assert (refused.status_code, refused.json()["code"]) == (409, "upgrade_under_way")
    assert daemon.ctl("upgrade").code == 5
    assert daemon.post("/v1/endpoints/shop/order/calls").status_code == 202
    why = "the workers of the new version do not serve after 30 s"
    until(lambda: daemon.status()["upgrade_failed"], "the end of the new workers")
    assert daemon.status()["upgrade_failed"] == why
    assert f"the old version goes on: {why}" in daemon.log()
    assert worker_pids(daemon) == workers
    flag.unlink()
    assert daemon.ctl("upgrade", timeout=120).code == 0
    assert started_at(daemon) != before
    assert daemon.status()["upgrade_failed"] is None


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daemon_that_is_stopped_meanwhile_stops(
    make_daemon: MakeDaemon, receiver: Receiver, workers: int
) -> None:
    daemon = declared(make_daemon, receiver, workers).start()
    receiver.hold("/order")
    assert daemon.post("/v1/endpoints/shop/order/calls").status_code == 202
    until(lambda: receiver.count("/order") == 1, "a call in flight")
    assert daemon.post("/v1/upgrade").status_code == 202
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0


def test_a_changed_database_is_taken_and_the_old_one_kept_until_it_is_left(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    daemon = declared(make_daemon, receiver, 2, drain_timeout="60s")
    daemon.expect("database")
    daemon.start()
    receiver.hold("/order")
    assert daemon.post("/v1/endpoints/shop/order/calls").status_code == 202
    until(lambda: receiver.count("/order") == 1, "a call in flight")
    old, new = daemon.settings["database"], f"sqlite:///{daemon.home}/new.db"

    def other(database: str, code: int | None) -> None:
        another = make_daemon(database=database)
        another.expect("in use by")
        another.launch()
        if code is None:
            another.wait_ready()
            assert another.stop() == 0
        else:
            assert another.wait() == code, another.log()

    daemon.write("orchestratord.yaml", {**daemon.settings, "database": new})
    assert daemon.ctl("upgrade", timeout=120).code == 0
    assert not daemon.tasks()
    for database in (old, new):
        other(database, 1)
    receiver.let_go("/order")
    until(lambda: len(worker_pids(daemon)) == 2, "the end of the old workers")
    other(old, None)
    other(new, 1)
    assert [row["status"] for row in daemon.rows("SELECT status FROM retry_schedule")] == [
        "succeeded"
    ]
    assert daemon.stop() == 0


MARK = """
from orchestratord import hookimpl

@hookimpl
def before_request(request):
    request.headers["X-{name}"] = "{mark}"
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_other_plugins_are_told_of_and_taken(
    make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path, workers: int
) -> None:
    """A single file, and one that pip has installed meanwhile."""
    site = tmp_path / "site"

    def install(version: str) -> None:
        shutil.rmtree(site, ignore_errors=True)
        about = site / f"wheel-{version}.dist-info"
        about.mkdir(parents=True)
        (site / "wheel.py").write_text(MARK.format(name="Wheel", mark=version))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wheel\nVersion: {version}\n")
        (about / "entry_points.txt").write_text("[orchestratord]\nwheel = wheel\n")

    def sent(daemon: Daemon) -> tuple[str, str]:
        daemon.finish(daemon.call("shop/order"))
        headers = receiver.received("/order")[-1].headers
        return headers["x-file"], headers["x-wheel"]

    install("1.0")
    dirs = {"plugins": {"dirs": ["plugins"]}}
    daemon = declared(make_daemon, receiver, workers, environ={"PYTHONPATH": str(site)}, **dirs)
    daemon.plugin("single", MARK.format(name="File", mark="1.0"))
    daemon.start()
    assert sent(daemon) == ("1.0", "1.0")
    assert json.loads(daemon.ctl("reload", "-o", "json").out)["restart_required"] == []
    daemon.plugin("single", MARK.format(name="File", mark="2.0"))
    install("2.0")
    changed = ["plugins.dirs", "plugin wheel"]
    assert json.loads(daemon.ctl("reload", "-o", "json").out)["restart_required"] == changed
    assert "restart required for plugins.dirs, plugin wheel" in daemon.ctl("status").out
    told = daemon.run("doctor").out
    assert "it keeps old values of plugins.dirs, plugin wheel" in told
    assert "the daemon runs wheel 1.0, and 2.0 is installed" in told
    assert sent(daemon) == ("1.0", "1.0")
    upgraded = daemon.ctl("upgrade", timeout=120)
    assert upgraded.code == 0, upgraded.err
    assert sent(daemon) == ("2.0", "2.0")
    assert daemon.status()["config"]["restart_required"] == []
    assert daemon.stop() == 0
