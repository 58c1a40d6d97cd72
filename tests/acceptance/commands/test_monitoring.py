"""The rules and the dashboard that the command prints, by promtool and by a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, ran, retry
from tests.acceptance.processes import free_port, serving
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

pytestmark = pytest.mark.slow

READ = "the-token-of-the-spectators"

ELSEWHERE = {"Outbox: rows taken", "Outbox: rows", "Outbox: refused in an hour"}
"""Panels of an outbox, which takes PostgreSQL."""
QUIET = {"Troubles", "Refused requests of senders"}
"""Panels of what does not happen here."""


def printed(command: str) -> str:
    """What the command says."""
    done = ran(["orchestratord", command], os.environ)
    assert done.code == 0, done.err
    return done.out


def test_promtool_passes_the_rules(program: Callable[[str], str], tmp_path: Path) -> None:
    promtool = program("promtool")
    rules = tmp_path / "rules.yaml"
    rules.write_text(printed("rules"))
    tests = tmp_path / "rules_test.yaml"
    tests.write_text(Path(__file__).with_name("rules_test.yaml").read_text())
    for words in (
        ["check", "rules", "--lint=all", "--lint-fatal", rules],
        ["test", "rules", tests],
    ):
        judged = subprocess.run([promtool, *words], capture_output=True, text=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """Each panel's title and query, as Grafana asks them with everything chosen."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], filled(target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield "annotation", filled(annotation["expr"])


def filled(expression: str) -> str:
    expression = expression.replace("$__rate_interval", "1m")
    expression = re.sub(r"\$(job|instance|endpoint)\b", ".*", expression)
    assert "$" not in expression
    return expression


def load(daemon: Daemon, receiver: Receiver) -> None:
    """Declare what makes every panel of one daemon show something."""
    receiver.on("/ok", 200)
    receiver.on("/flaky", 503, 200)
    receiver.on("/missing", 404)
    receiver.on("/hook", 204)
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon.api("shop", receiver.url, rate_limit="1000/s")
    daemon.endpoint("shop/ok", "/ok", webhooks=[hook], schedule={"every": "1s"})
    daemon.endpoint("shop/flaky", "/flaky")
    daemon.endpoint("shop/missing", "/missing", schedule={"every": "1s"})


def test_prometheus_answers_every_query_of_the_dashboard(
    program: Callable[[str], str], make_daemon: MakeDaemon, receiver: Receiver, tmp_path: Path
) -> None:
    prometheus = program("prometheus")
    daemon_port, port = free_port(), free_port()
    bind = f"127.0.0.1:{daemon_port}"
    daemon = make_daemon(
        defaults={"retry": retry()},
        http={"bind": bind, "token": "the-token-of-the-operators", "read_token": READ},
    )
    load(daemon, receiver)
    daemon.start()
    (tmp_path / "rules.yaml").write_text(printed("rules"))
    settings = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "orchestratord",
                "static_configs": [{"targets": [bind]}],
                "authorization": {"credentials": READ},
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(settings))
    words = [
        prometheus,
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        serving(words, port, tmp_path / "log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as client,
    ):

        def ask(path: str, **params: str) -> Any:
            answer = client.get(path, params=params)
            if answer.status_code == 503:  # it has just begun to listen
                return None
            assert answer.status_code == 200, (params, answer.text)
            return answer.json()["data"]

        def shown(expression: str) -> bool:
            found = ask("/query", query=expression)
            return found is not None and bool(found["result"])

        until(lambda: shown("orchestratord_ready == 1"), "the first scrape")
        daemon.call("shop/flaky")
        for title, expression in queries(json.loads(printed("grafana"))):
            if title in ELSEWHERE | QUIET | {"annotation"}:
                ask("/query", query=expression)
            else:
                until(lambda asked=expression: shown(asked), f"{title}: {expression}")  # type: ignore[misc]
        alert = 'ALERTS{alertname="OrchestratordTasksFailed", alertstate="firing"}'
        until(lambda: shown(alert), "the alert of /missing")
        rules = [rule for group in ask("/rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
        firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert firing == {"OrchestratordTasksFailed"}
