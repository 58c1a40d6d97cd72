"""Changed files are taken up while it runs: all of them or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    for path in ("/old", "/new"):
        receiver.on(path, 200)
    daemon = make_daemon(defaults={"retry": retry()})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/old")
    return daemon.start()


def path_of(daemon: Daemon) -> Any:
    return daemon.get("/v1/endpoints/shop/get").json()["path"]


def generation(daemon: Daemon) -> Any:
    return daemon.status()["config"]["generation"]


def save_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def rename_onto(file: Path, text: str) -> None:
    """As editors do, with a backup and a file of their own beside it."""
    other = file.with_name(f".{file.name}.swp")
    other.write_text(text)
    file.with_name(f"{file.name}~").write_bytes(file.read_bytes())
    os.replace(other, file)


def write_by_steps(file: Path, text: str) -> None:
    with file.open("w") as open_file:
        for start in range(0, len(text), 5):
            open_file.write(text[start : start + 5])
            open_file.flush()


@pytest.mark.parametrize("save", [save_in_place, rename_onto, write_by_steps])
def test_a_saved_file_is_taken_up(daemon: Daemon, receiver: Receiver, save: Any) -> None:
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    save(daemon.config / "apis/shop/endpoints/get.yaml", "path: /new\n# and nothing else\n")
    until(lambda: path_of(daemon) == "/new", "the new path")
    daemon.finish(daemon.call("shop/get"))
    assert [item.path for item in receiver.received()] == ["/old", "/new"]
    assert generation(daemon) == 2
    assert daemon.status()["config"]["error"] is None


def test_a_new_and_a_deleted_file(daemon: Daemon) -> None:
    file = daemon.endpoint("shop/more", "/new")
    until(lambda: daemon.get("/v1/endpoints/shop/more").status_code == 200, "the new endpoint")
    assert daemon.finish(daemon.call("shop/more"))["status"] == "succeeded"
    file.unlink()
    until(lambda: daemon.get("/v1/endpoints/shop/more").status_code == 404, "its end")
    answer = daemon.post("/v1/endpoints/shop/more/calls", {"params": {}})
    assert answer.status_code == 404


def test_sighup_reloads(daemon: Daemon) -> None:
    daemon.endpoint("shop/get", "/new")
    daemon.signal(signal.SIGHUP)
    until(lambda: path_of(daemon) == "/new", "the new path")
    # The watcher sees the same change, and finds nothing new in it.
    before = generation(daemon)
    assert daemon.reload()["changed"] is False
    assert generation(daemon) == before == 2


def test_what_the_watcher_took_up_first_is_compared_all_the_same(daemon: Daemon) -> None:
    before = generation(daemon)
    daemon.endpoint("shop/get", "/quicker")
    until(lambda: generation(daemon) > before, "the watcher")
    ran = daemon.ctl("reload", "--diff")
    assert "Nothing has changed" in ran.err
    assert "It differs from the generation before:" in ran.err
    assert '+ path: "/quicker"' in ran.out
    assert daemon.ctl("reload", "--diff").out == ran.out
    assert daemon.post("/v1/reload").json()["changes"]["counts"]["changed"] == 0


def test_a_dry_run_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    daemon.reload()
    before = daemon.status()["config"]
    other = tmp_path / "other"
    shutil.copytree(daemon.config, other)
    ran = daemon.ctl("reload", "--dry-run", str(other))
    assert (ran.code, ran.err) == (
        0, "The configuration is good, and nothing would change; this was a dry run.\n",
    )  # fmt: skip
    file = other / "apis/shop/endpoints/get.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"path": "/planned"}))
    ran = daemon.ctl("reload", "--dry-run", str(other), "--diff")
    assert (ran.code, "it would be adopted" in ran.err) == (0, True)
    assert '+ path: "/planned"' in ran.out
    assert ran.out.count("+ ") == 1  # what is the same but for its folder does not differ
    file.write_text("path: [")
    ran = daemon.ctl("reload", "--dry-run", str(other))
    assert (ran.code, str(file.name) in ran.err) == (78, True)
    assert daemon.ctl("reload", "--dry-run", str(tmp_path / "nothing")).code == 78
    assert daemon.ctl("reload", str(other)).code == 2
    body = {"folder": str(other)}
    assert daemon.request("POST", "/v1/reload", json=body).status_code == 422
    after = daemon.status()["config"]
    assert (after["generation"], after["error"]) == (before["generation"], None)
    actions = daemon.get("/v1/actions").json()["actions"]
    assert [one["action"] for one in actions] == ["reload"]


def test_a_dry_run_of_the_daemons_own_folder(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.api("shop", "http://127.0.0.1:9")
    daemon.endpoint("shop/get", "/old")
    daemon.start()
    (daemon.config / "apis/shop/endpoints/get.yaml").write_text("path: [")
    daemon.expect(r".*")  # the watcher finds it as well
    ran = daemon.ctl("reload", "--dry-run")
    assert ran.code == 78
    daemon.endpoint("shop/get", "/new")
    until(lambda: daemon.status()["config"]["changes"]["changed"] == ["shop/get"], "the watcher")


def test_a_bad_file_changes_nothing_and_is_shown_until_it_is_mended(
    daemon: Daemon, receiver: Receiver
) -> None:
    daemon.expect(r"endpoints/get\.yaml", r"endpoints/more\.yaml", "the configuration is refused")
    daemon.endpoint("shop/more", "/new")
    daemon.write("apis/shop/endpoints/get.yaml", "path: /new\nretry:\n  backof: expo\n")

    error = until(lambda: daemon.status()["config"]["error"], "the error in status")
    (problem,) = error["errors"]
    assert problem["file"] == "apis/shop/endpoints/get.yaml"
    assert (problem["line"], problem["column"]) == (3, 3)
    assert problem["key"] == "retry.backof"
    assert "did you mean 'backoff'?" in problem["message"]
    daemon.logged(r"apis/shop/endpoints/get\.yaml:3:3: retry\.backof: ")
    shown = daemon.ctl("status")
    assert shown.code == 0
    assert "get.yaml:3:3" in shown.out + shown.err

    # Not even the good one of the two files.
    assert daemon.get("/v1/endpoints/shop/more").status_code == 404
    assert path_of(daemon) == "/old"
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    assert receiver.count("/new") == 0
    answer = daemon.ctl("reload")
    assert answer.code == 78
    assert "get.yaml:3:3" in answer.err

    daemon.write("apis/shop/endpoints/get.yaml", "path: /new\n")
    until(lambda: daemon.status()["config"]["error"] is None, "the end of the error")
    assert path_of(daemon) == "/new"
    assert daemon.get("/v1/endpoints/shop/more").status_code == 200


def test_waiting_tasks_follow_it_and_one_in_flight_does_not(
    daemon: Daemon, receiver: Receiver
) -> None:
    receiver.hold("/held")
    receiver.on("/waits", 503)
    daemon.endpoint("shop/held", "/held", timeout="30s")
    daemon.endpoint("shop/waits", "/waits", retry=retry("60s"))
    daemon.adopt()
    in_flight, waiting = daemon.call("shop/held"), daemon.call("shop/waits")
    until(lambda: receiver.count("/held") == 1, "the call")
    daemon.until_status(waiting, "pending")

    daemon.endpoint("shop/held", "/new", timeout="1ms")
    daemon.endpoint("shop/waits", "/new", retry=retry("60s"))
    daemon.adopt()
    receiver.let_go("/held")
    assert daemon.finish(in_flight)["status"] == "succeeded"
    assert daemon.ctl("retry", str(waiting), "--wait").code == 0
    assert receiver.count("/new") == 1


def test_what_needs_a_restart_is_said(daemon: Daemon) -> None:
    other = str(daemon.home / "other.sock")
    daemon.write("orchestratord.yaml", {**daemon.settings, "control_socket": other})
    answer = daemon.reload()
    assert answer["restart_required"] == ["control_socket"]
    assert daemon.status()["config"]["restart_required"] == ["control_socket"]
    assert daemon.get("/healthz").status_code == 200
    assert not Path(other).exists()
    # Plugins are loaded at the start only: folders that are named, and files that come into them.
    folder = daemon.config / "more"
    folder.mkdir()
    plugins = {**daemon.settings.get("plugins", {}), "dirs": ["more"]}
    daemon.write("orchestratord.yaml", {**daemon.settings, "plugins": plugins})
    assert daemon.reload()["restart_required"] == ["plugins.dirs"]
    assert daemon.status()["config"]["restart_required"] == ["plugins.dirs"]
    assert "restart required for plugins.dirs" in daemon.ctl("status").out
    assert "plugins.dirs changed, which takes a restart" in daemon.log()
    daemon.restart()
    assert daemon.reload()["restart_required"] == []
    (folder / "late.py").write_text("import nothing_of_this_name\n")
    assert daemon.reload()["restart_required"] == ["plugins.dirs"]
    assert "a file in plugins.dirs changed, which takes a restart" in daemon.log()
    ran = daemon.ctl("reload")
    assert ran.code == 0
    assert "plugins.dirs keeps its old value until the daemon is restarted." in ran.err
    assert "late" not in {plugin["name"] for plugin in daemon.status()["plugins"]}
    (folder / "late.py").unlink()
    assert daemon.reload()["restart_required"] == []


def test_a_disabled_endpoint_refuses_calls_and_its_tasks_wait(
    daemon: Daemon, receiver: Receiver
) -> None:
    receiver.on("/down", 503)
    daemon.endpoint("shop/get", "/down", retry=retry("10ms", attempts=1000))
    daemon.reload()
    task_id = daemon.call("shop/get")
    until(lambda: receiver.count("/down") > 2, "some attempts")
    daemon.endpoint("shop/get", "/new", enabled=False)
    daemon.reload()
    assert daemon.post("/v1/endpoints/shop/get/calls", {}).status_code == 409
    daemon.until_status(task_id, "pending")
    daemon.endpoint("shop/get", "/new")
    daemon.reload()
    assert daemon.finish(task_id)["status"] == "succeeded"


def test_410_disables_a_webhook_until_it_is_enabled_or_changed(
    daemon: Daemon, receiver: Receiver
) -> None:
    hook = {"name": "gone", "phase": "on_success", "url": f"{receiver.url}/hook", "retry": retry()}
    receiver.on("/hook", 410)
    daemon.endpoint("shop/get", "/old", webhooks=[hook])
    daemon.reload()
    first = daemon.finish(daemon.call("shop/get"))
    (delivery,) = daemon.deliveries(first["id"])
    ended = daemon.finish(delivery["id"])
    assert (ended["status"], ended["reason"]) == ("failed", "webhook_disabled")
    assert ended["attempts"] == 1
    (shown,) = daemon.get("/v1/webhooks").json()["webhooks"]
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "410 Gone")
    assert "gone" in daemon.ctl("webhooks").out
    ran = daemon.ctl("retry", str(ended["id"]))
    assert (ran.code, ran.out) == (5, "")
    assert "the webhook is disabled: 410 Gone" in ran.err
    assert "orchestratorctl webhooks enable shop/get gone" in ran.err
    ran = daemon.ctl("retry", "--all", "--reason", "webhook_disabled", "-o", "json")
    bulk = json.loads(ran.out)
    assert ran.code == 1
    assert (bulk["moved"], bulk["why_skipped"]) == (0, {"webhook_disabled": 1})
    assert daemon.task(ended["id"])["status"] == "failed"

    for _ in range(2):
        missing = daemon.finish(daemon.call("shop/get"))
        (missed,) = daemon.deliveries(missing["id"])
        missed = daemon.finish(missed["id"])
        assert (missed["reason"], missed["attempts"]) == ("webhook_disabled", 0)
        daemon.restart()

    receiver.on("/hook", 204)
    assert daemon.ctl("webhooks", "enable", "shop/get", "gone").code == 0
    fourth = daemon.finish(daemon.call("shop/get"))
    (delivery,) = daemon.deliveries(fourth["id"])
    assert daemon.finish(delivery["id"])["status"] == "succeeded"
    # Nor would it be sent while its YAML switches it off, or those of its endpoint while that is.
    for asked, keys in (
        (fourth["id"], {"webhooks": [hook], "enabled": False}),
        (ended["id"], {"webhooks": [{**hook, "enabled": False}]}),
    ):
        daemon.endpoint("shop/get", "/old", **keys)
        daemon.reload()
        ran = daemon.ctl("retry", str(asked), "--force")
        assert (ran.code, ran.out) == (5, "")
        assert "again, set `enabled: true` in its YAML" in ran.err
    ran = daemon.ctl("retry", "--all", "--reason", "webhook_disabled")
    assert ran.code == 1
    assert "3 skipped: they would not be sent (webhook_disabled)" in ran.err
    daemon.endpoint("shop/get", "/old", webhooks=[hook])
    daemon.reload()
    # The one that failed is not lost either: a person may send it again.
    assert daemon.ctl("retry", str(ended["id"]), "--wait").code == 0

    receiver.on("/hook", 410)
    daemon.settle()
    fifth = daemon.finish(daemon.call("shop/get"))
    (delivery,) = daemon.deliveries(fifth["id"])
    assert daemon.finish(delivery["id"])["reason"] == "webhook_disabled"
    receiver.on("/hook2", 204)
    daemon.endpoint("shop/get", "/old", webhooks=[{**hook, "url": f"{receiver.url}/hook2"}])
    daemon.reload()
    sixth = daemon.finish(daemon.call("shop/get"))
    (delivery,) = daemon.deliveries(sixth["id"])
    assert daemon.finish(delivery["id"])["status"] == "succeeded"


def test_what_waits_for_a_webhook_fails_with_it(daemon: Daemon, receiver: Receiver) -> None:
    receiver.on("/hook", 503, 503, 410)
    slow = {"backoff": {"strategy": "fixed", "delay": "1h"}}
    hook = {"name": "gone", "phase": "on_success", "url": f"{receiver.url}/hook", "retry": slow}
    daemon.endpoint("shop/get", "/old", webhooks=[hook])
    daemon.reload()
    ids = []
    for number in range(3):
        call = daemon.finish(daemon.call("shop/get"))
        ids += [delivery["id"] for delivery in daemon.deliveries(call["id"])]
        until(lambda n=number: receiver.count("/hook") == n + 1, "the delivery")  # type: ignore[misc]
    ended = [daemon.finish(task_id) for task_id in ids]
    assert {(task["status"], task["reason"]) for task in ended} == {("failed", "webhook_disabled")}
    assert [task["last_status_code"] for task in ended][2] == 410
    assert receiver.count("/hook") == 3


@pytest.mark.slow
def test_what_was_removed_fails_after_a_minute(daemon: Daemon, receiver: Receiver) -> None:
    receiver.on("/down", 503)
    receiver.on("/hook", 503)
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/hook",
            "retry": retry("1h")}  # fmt: skip
    told = {"name": "told", "phase": "on_final_failure", "url": f"{receiver.url}/told"}
    daemon.endpoint("shop/removed", "/down", retry=retry("1h"), webhooks=[told])
    daemon.endpoint("shop/restored", "/down", retry=retry("1h"))
    daemon.endpoint("shop/get", "/old", webhooks=[hook])
    daemon.reload()
    removed, restored = daemon.call("shop/removed"), daemon.call("shop/restored")
    caller = daemon.finish(daemon.call("shop/get"))
    (delivery,) = daemon.deliveries(caller["id"])
    waiting = (removed, restored, delivery["id"])
    until(lambda: all(daemon.task(i)["attempts"] == 1 for i in waiting), "the first attempts")

    daemon.endpoint("shop/get", "/old")
    daemon.expect(r"the configuration is refused", r"endpoints with tasks waiting are not declared")
    for name in ("removed", "restored"):
        (daemon.config / f"apis/shop/endpoints/{name}.yaml").unlink()
    daemon.reload(accept_removals=True)
    early = daemon.finish_none(waiting, 30)
    daemon.endpoint("shop/restored", "/old", retry=retry("1h"))
    daemon.reload()
    assert early == []
    ended = daemon.finish(removed, 60)
    assert (ended["status"], ended["reason"]) == ("failed", "endpoint_removed")
    assert ended["last_status_code"] is None
    ended = daemon.finish(delivery["id"], 60)
    assert (ended["status"], ended["reason"]) == ("failed", "webhook_removed")
    assert daemon.task(restored)["status"] == "pending"

    # What was removed and is back can be retried.
    daemon.endpoint("shop/removed", "/old")
    daemon.reload()
    assert daemon.ctl("retry", str(removed), "--wait").code == 0
