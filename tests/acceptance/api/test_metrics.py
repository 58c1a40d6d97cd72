"""What the daemon exposes for Prometheus, and the spans that it makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.receiver import Receiver
from tests.acceptance.waiting import until

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
TOKEN = "a-token-that-nobody-may-see"

Labels = dict[str, str]


class Scrape:
    """One answer of /metrics, parsed as Prometheus does."""

    def __init__(self, daemon: Daemon) -> None:
        answer = daemon.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.text = answer.text
        self.families = list(text_string_to_metric_families(self.text))

    def value(self, name: str, **labels: str) -> float:
        """The value of one sample, 0 where it is not there."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return found[0] if found else 0.0

    def exposed(self) -> dict[str, tuple[str, set[str]]]:
        """Name → type and the labels' names, as the documentation has them."""
        found = {}
        for family in self.families:
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, labels - {"le"})
        return found


def documented() -> dict[str, tuple[str, set[str]]]:
    """The table of metrics."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([`\w ]*?) ?\|", DOCS.read_text(), re.MULTILINE)
    return {name: (type_, set(re.findall(r"\w+", labels))) for name, type_, labels in rows}


@pytest.fixture
def daemon(make_daemon: MakeDaemon, receiver: Receiver) -> Daemon:
    receiver.on("/ok", 200)
    receiver.on("/flaky", 503, 200)
    receiver.on("/missing", 404)
    receiver.on("/hook", 204)
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/hook"}
    daemon = make_daemon(defaults={"retry": retry()})
    daemon.api("shop", receiver.url, auth={"bearer": TOKEN}, rate_limit="1000/s")
    daemon.endpoint("shop/ok", "/ok", webhooks=[hook])
    daemon.endpoint("shop/flaky", "/flaky")
    daemon.endpoint("shop/missing", "/missing")
    return daemon


def work(daemon: Daemon) -> None:
    for name in ("ok", "ok", "flaky", "missing"):
        daemon.finish(daemon.call(f"shop/{name}"))
    daemon.settle()
    daemon.call("shop/ok", "1h")


def test_what_happened_is_counted(daemon: Daemon) -> None:
    daemon.start()
    work(daemon)
    of_ok = {"endpoint": "shop/ok", "kind": "call"}

    def told() -> Scrape | None:  # events are handed on some moments later, in their order
        scrape = Scrape(daemon)
        last = scrape.value("orchestratord_tasks_created_total", **of_ok) == 3
        return scrape if last else None

    found = until(told, "the last call in the metrics")
    assert found is not None
    attempts = "orchestratord_attempts_total"
    delivered = {"endpoint": "shop/ok", "webhook": "hook", "status": "succeeded"}
    assert found.value("orchestratord_deliveries_total", **delivered) == 2
    assert found.value(attempts, **of_ok, status_class="2xx", outcome="succeeded") == 2
    of_flaky = {"endpoint": "shop/flaky", "kind": "call"}
    assert found.value(attempts, **of_flaky, status_class="5xx", outcome="retried") == 1
    assert found.value(attempts, **of_flaky, status_class="2xx", outcome="succeeded") == 1
    assert found.value("orchestratord_retries_total", **of_flaky) == 1
    assert found.value("orchestratord_attempt_duration_seconds_count", **of_flaky) == 2
    of_missing = {"endpoint": "shop/missing", "kind": "call"}
    assert found.value("orchestratord_final_failures_total", **of_missing, reason="not_retryable")
    assert found.value("orchestratord_tasks_created_total", endpoint="shop/ok", kind="webhook") == 2
    assert found.value("orchestratord_lateness_seconds_count", kind="call") == 5
    assert found.value("orchestratord_tasks", status="pending") == 1
    assert found.value("orchestratord_tasks", status="succeeded") == 5
    assert found.value("orchestratord_tasks", status="failed") == 1
    assert found.value("orchestratord_endpoints") == 3
    assert found.value("orchestratord_lane_concurrency", lane="api:shop") == 10
    assert found.value("process_resident_memory_bytes") > 1 << 20
    assert TOKEN not in found.text
    # The table of the documentation and what is exposed are the same.
    exposed = found.exposed()
    # Nothing is wrong, so that it has no sample, and no label.
    assert exposed["orchestratord_trouble"] == ("gauge", set())
    exposed["orchestratord_trouble"] = ("gauge", {"code"})
    # As nothing was refused; and those of an outbox are there where one is.
    for name, label in (("outbox", {"reason"}), ("inbound", {"endpoint", "reason"})):
        assert exposed[f"orchestratord_{name}_refused_total"] == ("counter", set())
        exposed[f"orchestratord_{name}_refused_total"] = ("counter", label)
    # As no endpoint has a schedule.
    for name in [one for one in exposed if one.startswith("orchestratord_schedule_")]:
        assert exposed[name] == ("gauge", set())
        exposed[name] = ("gauge", {"endpoint"})
    # As no lane is slowed, and no statement was carried out.
    for name, label in (("lane_pace", "lane"), ("sql_connections", "database")):
        assert exposed[f"orchestratord_{name}"] == ("gauge", set())
        exposed[f"orchestratord_{name}"] = ("gauge", {label})
    of_outbox = {name: kind for name, kind in documented().items() if "_outbox_" in name}
    assert documented() == of_outbox | exposed


def test_a_refused_configuration_shows(daemon: Daemon) -> None:
    daemon.expect("refused", "bad.yaml")
    daemon.start()
    before = Scrape(daemon)
    assert before.value("orchestratord_config_refused") == 0
    bad = daemon.write("apis/shop/endpoints/bad.yaml", "path: [1")
    daemon.post("/v1/reload")
    assert Scrape(daemon).value("orchestratord_config_refused") == 1
    bad.write_text("path: /good\n")
    daemon.post("/v1/reload")
    after = Scrape(daemon)
    assert after.value("orchestratord_config_refused") == 0
    assert after.value("orchestratord_config_generation") == 2
    adopted = "orchestratord_config_adopted_timestamp_seconds"
    assert after.value(adopted) > before.value(adopted)
    changes = "orchestratord_config_changes_total"
    until(lambda: Scrape(daemon).value(changes, result="adopted") == 2, "the second adoption")
    assert Scrape(daemon).value(changes, result="refused") == 1


def test_without_the_plugin_there_is_no_such_page(
    make_daemon: MakeDaemon, receiver: Receiver
) -> None:
    receiver.on("/ok", 200)
    daemon = make_daemon(plugins={"disabled": ["metrics", "tracing"]})
    daemon.api("shop", receiver.url)
    daemon.endpoint("shop/ok", "/ok")
    daemon.start()
    assert daemon.finish(daemon.call("shop/ok"))["status"] == "succeeded"
    assert daemon.get("/metrics").status_code == 404


SDK = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

out = open({path!r}, "w", encoding="utf-8")
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""


def test_every_attempt_is_a_span(make_daemon: MakeDaemon, receiver: Receiver) -> None:
    receiver.on("/flaky", 503, 200)
    receiver.on("/hook/s3cr3t-path", 204)
    daemon = make_daemon(plugins={"dirs": ["plugins"]}, defaults={"retry": retry()})
    spans = daemon.home / "spans"
    daemon.plugin("sdk", SDK.format(path=str(spans)))
    hook = {"name": "hook", "phase": "on_success", "url": f"{receiver.url}/hook/s3cr3t-path"}
    daemon.api("shop", receiver.url, auth={"bearer": TOKEN})
    daemon.endpoint("shop/flaky", "/flaky", webhooks=[hook])
    daemon.start()
    task_id = daemon.call("shop/flaky")
    daemon.finish(task_id)
    daemon.settle()
    until(lambda: spans.read_text().count("\n") == 3, "three spans")
    first, second, delivery = map(json.loads, spans.read_text().splitlines())
    assert [span["name"] for span in (first, second, delivery)] == [
        "GET /flaky",
        "GET /flaky",
        "POST hook",
    ]
    assert first["attributes"]["orchestratord.task_id"] == task_id
    assert first["attributes"]["http.response.status_code"] == 503
    assert first["status"]["status_code"] == "ERROR"
    assert second["attributes"]["http.request.resend_count"] == 1
    assert second["attributes"]["server.address"] == "127.0.0.1"
    assert delivery["attributes"]["orchestratord.parent_id"] == task_id
    assert first["start_time"] < first["end_time"] <= second["start_time"]
    text = spans.read_text()
    assert TOKEN not in text
    assert "s3cr3t-path" not in text
