from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orchestratord_tracing
import pytest
from observed import START, adopted, created, ended, never_ran, started
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from orchestratord_tracing.spans import Spans

from orchestratord import Endpoint
from orchestratord.engine.http_executor import HttpSpec
from orchestratord.testing import Rig

SECRET = "hunter2-hunter2"
HOOK = {"name": "ops", "phase": "on_success", "url": "https://ops.example.com:8443/T0/B0/tok"}


class Recorder:
    """Spans that end up in memory, of the endpoint shop/get."""

    def __init__(self, sampler: Sampler | None = None, **shown: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)
        self.rig = Rig(object())
        declared = {"base_url": "https://api.example.com/v1/", "path": "/users/{{ params.id }}"}
        self.adopt(
            self.rig.endpoint(
                "shop/get",
                spec=HttpSpec.model_validate({"path": declared["path"]}),
                shown={**declared, "webhooks": [HOOK], **shown},
            )
        )

    def adopt(self, *endpoints: Endpoint) -> None:
        self.spans.adopt(self.rig.config(*endpoints, secrets=[SECRET]))

    def made(self, *events: Any) -> list[ReadableSpan]:
        """The spans that are made of these events."""
        self._exporter.clear()
        self.spans.observe(events)
        return list(self._exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_span_for_an_attempt() -> None:
    (span,) = Recorder().made(created(), started(), ended("succeeded", 200, parent_id=7))
    assert span.name == "GET /v1/users/{{ params.id }}"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is None
    assert (span.start_time, span.end_time) == (START * 10**6, START * 10**6 + 12_500_000)
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "orchestratord"
    assert attributes(span) == {
        "http.request.method": "GET",
        "server.address": "api.example.com",
        "server.port": 443,
        "url.template": "/v1/users/{{ params.id }}",
        "http.response.status_code": 200,
        "orchestratord.task_id": 42,
        "orchestratord.parent_id": 7,
        "orchestratord.kind": "call",
        "orchestratord.endpoint": "shop/get",
        "orchestratord.attempt": 1,
        "orchestratord.outcome": "succeeded",
    }


def test_the_attributes_are_those_of_the_documentation() -> None:
    """What the documentation names is what collectors are set up by: a rename of modules must
    neither reach an attribute nor the test of it."""
    page = Path(__file__).parents[3] / "docs/metrics.md"
    table = page.read_text().partition("| attribute | |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", table))
    recorder = Recorder()
    spans = recorder.made(
        ended("succeeded", 200, parent_id=7, attempt=2),
        ended("failed", 503, webhook="ops", reason="exhausted"),
    )
    shown = {"database": "warehouse", "statement": "DELETE FROM items WHERE id = :id"}
    recorder.adopt(recorder.rig.endpoint("shop/get", type="sql", shown=shown))
    spans += recorder.made(ended("succeeded", "ok"))
    assert {name for span in spans for name in attributes(span)} == documented


def test_a_delivery_does_not_tell_the_path_of_its_receiver() -> None:
    (span,) = Recorder().made(ended("succeeded", 204, webhook="ops"))
    assert span.name == "POST ops"
    found = attributes(span)
    assert found["http.request.method"] == "POST"
    assert (found["server.address"], found["server.port"]) == ("ops.example.com", 8443)
    assert found["orchestratord.webhook"] == "ops"
    assert "tok" not in str(found)
    assert "url.template" not in found


def test_an_attempt_that_failed() -> None:
    failed = ended("failed", 503, error="503 Service Unavailable", reason="exhausted", attempt=3)
    (span,) = Recorder().made(failed)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    found = attributes(span)
    assert found["error.type"] == "503"
    assert found["http.request.resend_count"] == 2
    assert found["orchestratord.reason"] == "exhausted"
    assert found["orchestratord.outcome"] == "failed"


def test_an_attempt_without_an_answer() -> None:
    (span,) = Recorder().made(ended("retried", "error", error="connection refused"))
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "connection refused"
    assert attributes(span)["error.type"] == "no_answer"
    assert "http.response.status_code" not in attributes(span)


def test_what_was_no_attempt_has_no_span() -> None:
    assert not Recorder().made(created(), started(), never_ran("expired"), adopted())


def test_an_endpoint_that_is_not_http() -> None:
    recorder = Recorder()
    recorder.adopt(recorder.rig.endpoint("shop/get", type="ping"))
    (span,) = recorder.made(ended("succeeded", "ok"))
    assert span.name == "ping shop/get"
    assert not [name for name in attributes(span) if name.startswith("http.")]


def test_a_statement() -> None:
    recorder = Recorder()
    shown = {"database": "warehouse", "statement": "DELETE FROM items WHERE id = :id"}
    recorder.adopt(recorder.rig.endpoint("shop/get", type="sql", shown=shown))
    (span,) = recorder.made(ended("failed", "error"))
    found = attributes(span)
    assert (found["db.namespace"], found["db.query.text"]) == tuple(shown.values())
    assert found["error.type"] == "error"


def test_an_endpoint_that_is_gone() -> None:
    recorder = Recorder()
    recorder.adopt()
    (span,) = recorder.made(ended("failed", 404, reason="not_retryable"))
    assert span.name == "call shop/get"
    assert attributes(span)["orchestratord.endpoint"] == "shop/get"


def test_a_reload_changes_where_attempts_go() -> None:
    recorder = Recorder()
    recorder.made(ended("succeeded"))
    recorder.adopt(recorder.rig.endpoint("shop/get", shown={"base_url": "http://b.test:81"}))
    (span,) = recorder.made(ended("succeeded"))
    assert attributes(span)["server.address"] == "b.test"
    assert attributes(span)["server.port"] == 81


@pytest.mark.parametrize("base", [f"https://{SECRET}.example.com/{SECRET}", "https://***/***"])
def test_no_secret_in_a_span(base: str) -> None:
    (span,) = Recorder(base_url=base).made(ended("succeeded"))
    assert SECRET not in span.to_json()
    assert attributes(span)["url.template"] == "/***/users/{{ params.id }}"


@pytest.mark.parametrize("base", ["https://***", "https://[", "https://a:b", ""])
def test_an_address_that_cannot_be_told_is_left_out(base: str) -> None:
    (span,) = Recorder(base_url=base).made(ended("succeeded"))
    assert not [name for name in attributes(span) if name.startswith("server.")]


def test_a_webhook_that_is_gone() -> None:
    (span,) = Recorder().made(ended("failed", 410, webhook="old", reason="webhook_removed"))
    assert span.name == "POST old"
    assert "server.address" not in attributes(span)


def test_the_sampler_decides() -> None:
    assert not Recorder(ALWAYS_OFF).made(ended("succeeded"))


def test_observe_without_anybody_who_wants_spans() -> None:
    spans = Spans()  # of the process, which has set up nothing
    spans.adopt(Rig(object()).config())
    spans.observe([ended("succeeded")])
    rig = Rig(orchestratord_tracing, name="tracing")
    rig.adopt(rig.config())
    orchestratord_tracing.observe([ended("succeeded")])
    assert rig.host.plugins["tracing"].hooks == ("config_adopted", "observe")


def test_the_api_is_imported_once_spans_may_be_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestratord_tracing, "_spans", None)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "opentelemetry.trace")
        patch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
        orchestratord_tracing.config_adopted(Rig(object()).config())
        orchestratord_tracing.observe([ended("succeeded")])
        assert "opentelemetry.trace" not in sys.modules
        assert orchestratord_tracing._spans is None
    orchestratord_tracing.observe([ended("succeeded")])
    assert orchestratord_tracing._spans is not None


def test_without_the_api_it_does_nothing() -> None:
    code = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from orchestratord.plugin.host import Host
host = Host()
host.load()
print(host.plugins["tracing"].status, host.plugins["tracing"].hooks)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "loaded ()\n"


def test_loading_it_does_not_load_the_api() -> None:
    code = "import sys, orchestratord_tracing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "opentelemetry.trace" not in done.stdout
