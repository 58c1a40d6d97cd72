"""Moving from Svix, as the how-to has it: stored answers of its API become tenants that receive."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.subscriptions.tenants import KEY, Tenants, settings

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "docs/how-to/from-svix.md"
TOKEN = "sk_test_of_a_stored_answer.eu"
OLD = "whsec_" + base64.b64encode(b"the secret that acme has of Svix").decode()
OTHER = "whsec_" + base64.b64encode(b"another one, of another endpoint").decode()
_AT = {"createdAt": "2025-02-14T14:15:22Z", "updatedAt": "2025-02-14T14:15:22Z"}
_APP = {"metadata": {}, "rateLimit": None, **_AT}
_ENDPOINT = {
    "metadata": {}, "rateLimit": None, "uid": None, "version": 1, "disabled": False,
    "channels": None, "filterTypes": None, "description": "", **_AT,
}  # fmt: skip
ANSWERS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("/api/v1/app/", None): {
        "data": [{**_APP, "uid": "acme", "name": "Acme", "id": "app_1srOrx2ZWZBpBUvZwXKQmoEYga2"}],
        "iterator": "app_1srOrx2ZWZBpBUvZwXKQmoEYga2",
        "prevIterator": None,
        "done": False,
    },
    ("/api/v1/app/", "app_1srOrx2ZWZBpBUvZwXKQmoEYga2"): {
        "data": [
            {**_APP, "uid": "-odd-", "name": "Odd", "id": "app_3srOrx2ZWZBpBUvZwXKQmoEYga2"},
            {**_APP, "uid": None, "name": "Globex", "id": "app_2srOrx2ZWZBpBUvZwXKQmoEYga2"},
        ],
        "iterator": "app_2srOrx2ZWZBpBUvZwXKQmoEYga2",
        "prevIterator": "-app_2srOrx2ZWZBpBUvZwXKQmoEYga2",
        "done": True,
    },
    ("/api/v1/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2/endpoint/", None): {
        "data": [
            {**_ENDPOINT, "id": "ep_1", "url": "{receiver}/paid", "filterTypes": ["invoice.paid"]},
            {**_ENDPOINT, "id": "ep_2", "url": "{receiver}/off", "disabled": True, "rateLimit": 5},
            {**_ENDPOINT, "id": "ep_3", "url": "{receiver}/eu", "channels": ["eu"]},
            {**_ENDPOINT, "id": "ep_4", "url": "http://10.0.0.1/hook"},
        ],
        "iterator": "ep_4",
        "prevIterator": None,
        "done": True,
    },
    ("/api/v1/app/app_2srOrx2ZWZBpBUvZwXKQmoEYga2/endpoint/", None): {
        "data": [],
        "iterator": None,
        "prevIterator": None,
        "done": True,
    },
    ("/api/v1/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2/endpoint/ep_1/secret/", None): {"key": OLD},
    ("/api/v1/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2/endpoint/ep_2/secret/", None): {"key": OTHER},
}
"""By the path and the iterator, as Svix's API documents them."""


@pytest.fixture
def svix(receiver: Receiver) -> Iterator[Receiver]:
    def answer(request: Received) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            said = {"code": "authentication_failed", "detail": "Invalid token"}
            return Answer(401, json.dumps(said))
        found = ANSWERS.get((request.path, request.query.get("iterator")))
        if found is None:
            return Answer(404, json.dumps({"code": "not_found", "detail": "Entity not found"}))
        return Answer(200, json.dumps(found).replace("{receiver}", receiver.url))

    with Receiver() as server:
        server.reply("/api/v1/", answer)
        yield server


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    """One with the files of the page, but for the key and the addresses of these tests."""
    daemon = make_daemon(subscriptions=settings(receiver))
    daemon.api("shop")
    for name, text in blocks("yaml"):
        if name.startswith("apis/"):
            daemon.write(name, text)
    receiver.reply("/", lambda request: Answer())
    return daemon.start()


def blocks(language: str) -> list[tuple[str, str]]:
    """The file and the text of each block of the page."""
    found = re.findall(rf"```{language}\n(?:# (\S+)\n)?(.*?)```", PAGE.read_text(), re.DOTALL)
    return [(name, text) for name, text in found]


def imports(daemon: Daemon, svix: Receiver, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Carry out the command of the page, which says where things are."""
    (daemon.home / "svix-token").write_text(f"{token}\n")
    [line] = [text for _, text in blocks("sh") if "import svix" in text]
    places = {
        "orchestratord": f"{sys.executable} -m orchestratord",
        "https://api.eu.svix.com": svix.url,
        "svix-token": str(daemon.home / "svix-token"),
        "/var/lib/orchestratord/svix.json": str(daemon.home / "svix.json"),
    }
    words = [places.get(word, word) for word in shlex.split(line)]
    environ: Mapping[str, str] = {**daemon.environ, "ORCHESTRATORD_SOCKET": str(daemon.socket)}
    return subprocess.run(
        [*words[0].split(), *words[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )


def take_up(daemon: Daemon, until: str) -> None:
    """Write `imported_secrets` as the page has it."""
    (declared,) = re.findall(r"imported_secrets: \{file: (\S+), until: (\S+)\}", PAGE.read_text())
    assert declared[0] == "/var/lib/orchestratord/svix.json"
    assert datetime.fromisoformat(declared[1]).tzinfo is not None
    imported = {"file": str(daemon.home / "svix.json"), "until": until}
    subscriptions = {**daemon.settings["subscriptions"], "imported_secrets": imported}
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": subscriptions})
    daemon.reload()


def call(daemon: Daemon) -> None:
    """Carry out the last command of the page."""
    [line] = [text for _, text in blocks("sh") if "call" in text]
    assert daemon.ctl(*shlex.split(line)[1:-1], f"evt-{len(daemon.tasks())}").code == 0
    daemon.settle()


def test_the_how_to(daemon: Daemon, svix: Receiver, receiver: Receiver) -> None:
    tenants = Tenants(daemon, receiver.url)
    done = imports(daemon, svix)
    assert done.returncode == 0, done.stderr
    assert "acme http://10.0.0.1/hook: " in done.stdout, done.stdout
    assert f"left out  acme {receiver.url}/eu: write its channels as a `when`" in done.stdout
    assert "left out  -odd-: PUT /v1/tenants/-odd-: 422 tenant the id of" in done.stdout
    assert "2 new secrets" in done.stdout
    listed = tenants.ask("GET", "").json()["tenants"]
    assert [(one["tenant"], one["name"]) for one in listed] == [
        ("acme", "Acme"),
        ("app_2srOrx2ZWZBpBUvZwXKQmoEYga2", "Globex"),
    ]
    paid, off = sorted(tenants.of("acme"), key=lambda one: -one["enabled"])
    assert (paid["url"], paid["events"]) == (f"{receiver.url}/paid", ["invoice.paid"])
    assert (off["url"], off["rate"]) == (f"{receiver.url}/off", "5/s")
    file = daemon.home / "svix.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {
        f"acme/{paid['id']}": OLD,
        f"acme/{off['id']}": OTHER,
    }
    again = imports(daemon, svix)
    assert "0 new secrets" in again.stdout
    assert len(tenants.of("acme")) == 2

    take_up(daemon, "2099-01-01T00:00:00Z")
    call(daemon)
    [request] = receiver.received("/paid")
    assert request.json() == {"type": "invoice.paid", "data": {"id": 7}}
    new = tenants.ask("GET", tenants.one(paid, "/secret")).json()["secret"]
    for secret in (OLD, new):
        Webhook(secret).verify(request.body, dict(request.headers))
    assert OLD.removeprefix("whsec_") not in "\n".join(
        str(row) for row in daemon.rows("SELECT * FROM subscriptions")
    )


def signatures(receiver: Receiver) -> int:
    return len(receiver.received("/paid")[-1].headers["webhook-signature"].split())


def test_an_imported_secret_ends(daemon: Daemon, svix: Receiver, receiver: Receiver) -> None:
    tenants = Tenants(daemon, receiver.url)
    assert imports(daemon, svix).returncode == 0
    paid = next(one for one in tenants.of("acme") if one["enabled"])
    later = datetime.now(UTC) + timedelta(seconds=6)
    take_up(daemon, later.isoformat())
    call(daemon)
    assert signatures(receiver) == 2
    tenants.ask("POST", tenants.one(paid, "/rotate"))
    call(daemon)
    assert signatures(receiver) == 3  # for 24 hours after a rotation
    while datetime.now(UTC) < later:
        call(daemon)
    call(daemon)
    assert signatures(receiver) == 2


def test_what_svix_and_the_daemon_refuse(daemon: Daemon, svix: Receiver) -> None:
    refused = imports(daemon, svix, token="wrong")
    assert refused.returncode == 1
    assert "GET /api/v1/app/?limit=250: 401 Invalid token" in refused.stderr
    assert not (daemon.home / "svix.json").exists()
    daemon.stop()
    away = imports(daemon, svix)
    assert (away.returncode, "no answer of the daemon" in away.stderr) == (1, True)


def test_a_file_without_secrets_is_refused(daemon: Daemon) -> None:
    file = daemon.home / "none.json"
    imported = {"file": str(file), "until": "2099-01-01T00:00:00Z"}
    subscriptions = {**daemon.settings["subscriptions"], "key": KEY, "imported_secrets": imported}
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": subscriptions})
    said = daemon.run("check").err
    assert "cannot read its file: No such file or directory; `orchestratord import svix`" in said
    assert "orchestratord.yaml:" in said
    imported |= {"file": "none.json", "until": "2099-01-01"}
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": subscriptions})
    said = daemon.run("check").err
    assert "imported_secrets.file: expected an absolute path, such as /var/lib/" in said
    assert "until: needs a time zone, such as the Z of YYYY-MM-DDThh:mm:ssZ" in said
    assert "there are no subscriptions" not in said
    imported |= {"file": str(file), "until": "2099-01-01T00:00:00Z"}
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": subscriptions})
    file.write_text('["whsec_"]')
    assert "cannot read its file: it holds no secrets by TENANT/ID" in daemon.run("check").err
    imported["until"] = "2020-01-01T00:00:00Z"
    daemon.write("orchestratord.yaml", {**daemon.settings, "subscriptions": subscriptions})
    assert "they sign no more: take imported_secrets out" in daemon.run("check").err
    daemon.expect(
        "configuration is refused", "cannot read its file", "an absolute path", "needs a time zone"
    )
