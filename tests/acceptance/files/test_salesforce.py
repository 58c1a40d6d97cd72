"""The files of `docs/salesforce.md`, word for word, against a server that answers as Salesforce."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.receiver import Answer, Received, Receiver
from tests.acceptance.waiting import until

PAGE = Path(__file__).parents[3] / "docs/salesforce.md"
BASE = "/services/data/v59.0"
QUERY = "SELECT Id, Name, Email FROM User WHERE IsActive = true"
LOCATOR = "01gD0000002HU6KIAW"


class Salesforce:
    """Two pages of users; sessions that end when the test says so."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.session = 0
        self.refresh = "5Aep-refresh-0"
        receiver.reply("/services/oauth2/token", self._token)
        receiver.reply(f"{BASE}/query/", self._query)
        receiver.reply(f"{BASE}/composite/sobjects", self._composite)
        receiver.reply("/hook", lambda request: Answer(204))
        self.busy: list[str] = []
        """What Retry-After the next answers have."""

    def _token(self, request: Received) -> Answer:
        said = f"grant_type=refresh_token&refresh_token={self.refresh}"
        if said.encode() not in request.body:
            error = (
                '{"error": "invalid_grant", "error_description": "expired access/refresh token"}'
            )
            return Answer(400, error)
        self.session += 1
        self.refresh = f"5Aep-refresh-{self.session}"
        # There is no `expires_in`.
        given = {"access_token": f"00D!{self.session}", "token_type": "Bearer"}
        return Answer(200, json.dumps({**given, "refresh_token": self.refresh}))

    def _refused(self, request: Received) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer 00D!{self.session}":
            return Answer(401, '[{"errorCode": "INVALID_SESSION_ID"}]')
        if self.busy:
            return Answer(429, "[]", {"Retry-After": self.busy.pop()})
        return None

    def _query(self, request: Received) -> Answer:
        refused = self._refused(request)
        if refused is not None:
            return refused
        page = request.path.rpartition("/")[2]
        first, last = (0, 3) if not page else (3, 5)
        if page not in ("", f"{LOCATOR}-2000") or (not page and request.query != {"q": QUERY}):
            return Answer(400, '[{"errorCode": "MALFORMED_QUERY"}]')
        records = [
            {"attributes": {"type": "User"}, "Id": f"005x{n}", "Name": f"User {n}", "Email": None}
            for n in range(first, last)
        ]
        body: dict[str, Any] = {"totalSize": 5, "done": bool(page), "records": records}
        if not page:
            body["nextRecordsUrl"] = f"{BASE}/query/{LOCATOR}-2000"
        return Answer(200, json.dumps(body))

    def _composite(self, request: Received) -> Answer:
        refused = self._refused(request)
        if refused is not None:
            return refused
        results = [
            {"id": record["id"], "success": record["Title"] != "too long", "errors": []}
            for record in request.json()["records"]
        ]
        return Answer(200, json.dumps(results))


@pytest.fixture
def salesforce(receiver: Receiver) -> Salesforce:
    return Salesforce(receiver)


@pytest.fixture
def daemon(make_daemon: MakeDaemon, salesforce: Salesforce, tmp_path: Path) -> Daemon:
    state, credentials = tmp_path / "state", tmp_path / "credentials"
    state.mkdir()
    credentials.mkdir()
    (state / "salesforce-refresh-token").write_text(f"{salesforce.refresh}\n")
    (credentials / "salesforce_secret").write_text("a-client-secret\n")
    (credentials / "ops_hook").write_text("whsec_YW4tZXhhbXBsZS1zZWNyZXQtZm9yLW9wcw==\n")
    # Quicker than by default, so that the test need not wait.
    quick = {"retry": {"backoff": {"strategy": "fixed", "delay": "200ms"}}}
    daemon = make_daemon(environ={"CREDENTIALS_DIRECTORY": str(credentials)}, defaults=quick)
    url = salesforce.receiver.url
    for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\S+)\n", text)[1]  # type: ignore[index]
        text = text.replace("/var/lib/orchestratord", str(state))
        for host in ("example.my.salesforce.com", "login.salesforce.com", "ops.example.com"):
            text = text.replace(f"https://{host}", url)
        if name == "orchestratord.yaml":
            text += "".join(f"{key}: {json.dumps(to)}\n" for key, to in daemon.settings.items())
        daemon.write(name, text)
    (statement,) = re.findall(r"'(CREATE TABLE .*)'", PAGE.read_text())
    with closing(sqlite3.connect(daemon.config / "warehouse.db")) as connection:
        connection.execute(statement)
    return daemon


def users(daemon: Daemon) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(daemon.config / "warehouse.db")) as connection:
        return connection.execute("SELECT id, name FROM users ORDER BY id").fetchall()


def kept(daemon: Daemon) -> str:
    return Path(daemon.environ["CREDENTIALS_DIRECTORY"]).with_name("state").joinpath(
        "salesforce-refresh-token"
    ).read_text()  # fmt: skip


def test_users_come_page_after_page(daemon: Daemon, salesforce: Salesforce) -> None:
    salesforce.busy = ["1"]
    ran = daemon.start().ctl("call", "salesforce/listUsers", "--wait")
    assert (ran.code, len(json.loads(ran.out)["records"])) == (0, 3), ran.err
    daemon.settle()
    everybody = [(f"005x{n}", f"User {n}") for n in range(5)]
    assert users(daemon) == everybody
    second, first = daemon.tasks(endpoint="salesforce/listUsers")
    assert (first["params"], second["params"]) == ({"page": ""}, {"page": f"{LOCATOR}-2000"})
    assert second["parent_id"] == first["id"]
    # It was asked for patience once, and kept still for as long as it was told.
    asked = [item.at for item in salesforce.receiver.received(f"{BASE}/query/")]
    assert first["attempts"] == 2
    assert asked[1] - asked[0] >= 1
    assert kept(daemon) == "5Aep-refresh-1\n"

    # The session ends: no call loses an attempt by that.
    salesforce.session += 1
    task = daemon.finish(daemon.call("salesforce/listUsers"))
    assert (task["status"], task["attempts"]) == ("succeeded", 1)
    daemon.settle()
    assert users(daemon) == everybody
    assert kept(daemon) == f"5Aep-refresh-{salesforce.session}\n"


def test_an_answer_200_that_means_no(daemon: Daemon, salesforce: Salesforce) -> None:
    daemon.start()
    (command,) = re.findall(r"orchestratorctl (call salesforce/setTitles) --params '(.*)' (--wait)",
                            PAGE.read_text())  # fmt: skip
    verb, params, wait = command
    ran = daemon.ctl(*verb.split(), "--params", params, wait)
    assert (ran.code, json.loads(ran.out)[0]["success"]) == (0, True), ran.err
    (sent,) = salesforce.receiver.received(f"{BASE}/composite/sobjects")
    assert sent.json() == {"allOrNone": True, **json.loads(params)}
    task = daemon.finish(
        daemon.call("salesforce/setTitles", records=[{"id": "005x1", "Title": "too long"}])
    )
    assert (task["reason"], task["attempts"]) == ("not_retryable", 1)
    wrong = "200, but success_if does not hold: length([?success]) == length(@)"
    assert task["last_error"] == wrong
    (told,) = until(lambda: salesforce.receiver.received("/hook"), "the webhook")
    assert told.json()["data"]["task_id"] == task["id"]


def test_a_refresh_token_that_is_worth_nothing(daemon: Daemon, salesforce: Salesforce) -> None:
    mine, salesforce.refresh = salesforce.refresh, "5Aep-of-somebody-else"
    daemon.start()
    task = daemon.finish(daemon.call("salesforce/listUsers"))
    assert (task["reason"], task["attempts"]) == ("not_retryable", 1)
    assert task["last_error"].endswith(
        "invalid_grant (expired access/refresh token); look at auth.oauth2.refresh_token in the "
        "api.yaml of salesforce"
    )
    salesforce.refresh = "5Aep-got-by-hand"
    state = Path(daemon.environ["CREDENTIALS_DIRECTORY"]).with_name("state")
    (state / "salesforce-refresh-token").write_text(f"{salesforce.refresh}\n")
    daemon.reload()
    assert daemon.ctl("retry", str(task["id"]), "--wait").code == 0
    assert mine not in daemon.log()
