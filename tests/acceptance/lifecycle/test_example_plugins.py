"""The plugins of `examples/plugins`, as pip installs them, and the one of the documentation."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples/plugins").iterdir())
SECRET = "a-secret-of-the-vault"
KEYS = {"access_key": "AKIDEXAMPLE", "secret_key": "${vault:secret/data/crm#token}"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed all of them, each as a wheel."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-index", "--no-deps", "--no-build-isolation", "--target", target, *EXAMPLES],
        check=True,
        timeout=240,
    )  # fmt: skip
    return target


@pytest.fixture
def mailbox() -> Iterator[Any]:
    """The mail server of the example's own tests."""
    path = ROOT / "examples/plugins/orchestratord-smtp/tests/test_orchestratord_smtp.py"
    spec = importlib.util.spec_from_file_location("smtp_tests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.MailServer()
    yield server
    server.close()


def declare(daemon: Daemon, receiver: Receiver) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    hours = {
        "open": f"{later:%H}:00",
        "close": f"{later:%H}:59",
    }
    headers = {"X-Key": "${vault:secret/data/crm#token}"}
    daemon.api("shop", receiver.url, headers=headers, slack={"call": "slack/post"})
    daemon.api("files", receiver.url, sigv4={**KEYS, "service": "s3"})
    daemon.api("bank", receiver.url, calling_hours=hours)
    daemon.api("slack", receiver.url)
    daemon.api("mail")
    backoff = {"strategy": "fibonacci", "delay": "100ms"}
    daemon.endpoint("shop/get", "/get", retry={"backoff": backoff, "jitter": 0, "max_attempts": 4})
    daemon.endpoint("files/get", "/files/a b(c)")
    daemon.endpoint("bank/pay", "/pay")
    blocks = {"blocks": {"type": "array", "required": True}}
    daemon.endpoint(
        "slack/post", "/slack", method="POST", params=blocks, body={"json": "{{ params.blocks }}"}
    )
    mail = {"to": ["ops@example.com"], "subject": "Hello", "text": "From {{ params.who }}."}
    params = {"who": {"type": "string"}}
    daemon.write("apis/mail/endpoints/send.yaml", {"type": "smtp", **mail, "params": params})


def test_all_seven_work(
    make_daemon: MakeDaemon, receiver: Receiver, installed: Path, mailbox: Any
) -> None:
    vault = Answer(200, json.dumps({"data": {"data": {"token": SECRET}}}))
    receiver.on("/v1/secret/data/crm", vault)
    receiver.on("/get", 503, 503, 503, 503, 200)
    for path in ("/files/a b(c)", "/slack"):
        receiver.on(path, 200)
    daemon = make_daemon(
        environ={"PYTHONPATH": str(installed), "VAULT_ADDR": receiver.url},
        smtp={"host": "127.0.0.1", "port": mailbox.port, "security": "none", "sender": "q@a.com"},
        stale_after="1s",
    )
    declare(daemon, receiver)
    assert daemon.run("check").code == 0, daemon.run("check").err
    daemon.start()
    failed = daemon.finish(daemon.call("shop/get"))
    delays = [one["delay"] for one in failed["attempt_log"]]
    assert delays == [pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.2), None]
    until(lambda: receiver.count("/slack") == 1, "the message of the failure")
    assert "shop/get" in receiver.received("/slack")[0].body.decode()
    assert daemon.finish(daemon.call("shop/get"))["status"] == "succeeded"
    assert receiver.received("/get")[-1].headers["x-key"] == SECRET
    assert SECRET not in daemon.ctl("endpoints", "shop/get", "-o", "json").out
    daemon.finish(daemon.call("files/get"))
    signed = receiver.received("/files/a b(c)")[0].headers["authorization"]
    assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    waits = daemon.call("bank/pay")
    until(lambda: daemon.task(waits)["waits_for"], "the calling hours")
    assert "waits for  the calling hours of bank, from" in daemon.ctl("show", str(waits)).out
    daemon.finish(daemon.call("mail/send", who="us"))
    assert "From us." in mailbox.mails[0]
    time.sleep(1.1)
    daemon.restart()  # its service looks at the start
    until(lambda: "shop/get" in daemon.ctl("stale").out, "what has had no success for a second")
    assert daemon.run("stale").out == "1s\n"
    assert {one["faults"] for one in daemon.status()["plugins"]} == {0}


def test_the_whole_plugin_of_the_documentation(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/get", 200)
    page = (ROOT / "docs/how-to/a-whole-plugin.md").read_text()
    assert len(page.splitlines()) <= 60
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, workers=2)
    daemon.plugin("quiet", found[1])
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/get", "/get")
    assert daemon.run("check").code == 0
    daemon.start()
    refused = daemon.ctl("quiet", "shop", "--for", "nonsense")
    assert (refused.code, "'nonsense' is not a duration" in refused.err) == (2, True), refused
    assert daemon.ctl("quiet", "shop", "--for", "8s").code == 0

    def is_held() -> bool:
        calls = [daemon.call("shop/get") for _ in range(4)]
        found = [daemon.task(call) for call in calls]
        return {one["waits_for"] or one["status"] for one in found} == {"the quiet of shop"}

    until(is_held, "both workers to know it")
    daemon.checks = ()  # the API describes no page
    assert "shop" in daemon.get("/quiet").text
    daemon.settle()
    assert {task["status"] for task in daemon.tasks()} == {"succeeded"}
