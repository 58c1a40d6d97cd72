"""Status, endpoints, plugins, reload, and what all routes have in common."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestratord import Answer, Control, NewTask, NotFound, Reject, Route, hookimpl
from orchestratord.api import status as status_module
from orchestratord.config.changes import Changes
from orchestratord.errors import Problem
from tests.unit.api.control_parts import UNLIMITED, Parts, until


async def test_status(parts: Parts) -> None:
    parts.receiver.gate.clear()
    await parts.made()
    await parts.later(2)
    await until(lambda: parts.receiver.targets)
    # Where the first one was claimed in a transaction of its own, its key is looked up once more.
    await until(lambda: parts.worker.lanes.next_due())
    answer = await parts.client.get("/v1/status")
    status = answer.json()
    assert list(status) == [
        "version", "pid", "workers", "instance", "started_at", "uptime", "health", "config",
        "queue", "in_flight", "concurrency", "next_due", "draining", "lanes", "throttled",
        "breakers", "rates", "failing", "failing_counts", "events_dropped", "unheld_claims",
        "upgrade_failed",
        "database", "daemons", "clock", "outbox", "plugins", "paused", "stuck_chores",
    ]  # fmt: skip
    assert status["health"] == {"ready": True, "troubles": []}
    assert (status["pid"], status["workers"]) == (os.getpid(), 1)
    assert status["instance"] == parts.store.instance
    assert status["queue"] == {
        "pending": 2, "running": 1, "succeeded": 0, "failed": 0, "missed": 0, "resolved": 0,
        "cancelled": 0,
        "due": 0, "oldest_due_age": None, "held": 0, "held_partitions": 0, "held_by": [],
    }  # fmt: skip
    assert (status["in_flight"], status["concurrency"], status["draining"]) == (1, 100, False)
    assert status["next_due"].endswith("Z")
    assert status["lanes"] == [
        {"name": "api:demo", "in_flight": 1, "concurrency": 10, "due": 0, **UNLIMITED}
    ]
    assert status["breakers"] == []
    assert status["database"]["url"] == f"sqlite:///{parts.folder}/q.db"
    assert status["database"]["size"] > 0
    assert status["database"]["accepting"] is True
    assert status["plugins"] == [
        {
            "name": "http", "version": "test", "status": "loaded",
            "hooks": ["check_endpoint", "register_executor"],
            "faults": 0, "last_fault": None, "services": [],
        }
    ]  # fmt: skip
    config = status["config"]
    assert (config["endpoints"], config["cause"], config["error"]) == (3, "start", None)


async def test_status_says_how_late_the_oldest_task_is(parts: Parts) -> None:
    await parts.post("/v1/endpoints/demo/get/pause")
    await parts.made()
    await asyncio.sleep(0.2)
    queue = (await parts.client.get("/v1/status")).json()["queue"]
    assert queue["due"] == 1
    assert queue["oldest_due_age"] >= 0.2


async def test_status_shows_what_is_wrong_with_the_files(parts: Parts) -> None:
    problem = Problem("unknown strategy 'expo'", "apis/demo/endpoints/get.yaml", 12, 5, "retry")
    parts.loader.error = (parts.clock.now_ms(), [problem])
    parts.loader.restart_required = ("database",)
    config = (await parts.client.get("/v1/status")).json()["config"]
    assert config["error"]["errors"] == [
        {
            "file": "apis/demo/endpoints/get.yaml", "line": 12, "column": 5, "key": "retry",
            "message": "unknown strategy 'expo'", "hint": None, "source": None,
        }
    ]  # fmt: skip
    assert config["error"]["at"].endswith("Z")
    assert config["restart_required"] == ["database"]


async def test_status_shows_the_busiest_lanes(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [
        {"name": f"lane-{n:02}", "in_flight": n % 7, "concurrency": 10, "due": n, **UNLIMITED}
        for n in range(50)
    ]
    snapshot = {**parts.worker.snapshot(), "lanes": lanes}
    monkeypatch.setattr(parts.worker, "snapshot", lambda: snapshot)
    shown = (await parts.client.get("/v1/status")).json()["lanes"]
    assert len(shown) == status_module.MAX_LANES
    assert [lane["name"] for lane in shown[:3]] == ["lane-48", "lane-41", "lane-34"]


async def test_status_shows_no_secret(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = parts.SECRET
    breaker = {
        "state": "open", "since": 0, "why": f"cannot connect to {secret}", "probes": 3,
        "next_probe": 30_000,
    }  # fmt: skip
    lane = {
        "name": f"receiver:http://{secret}", "in_flight": 1, "concurrency": 2, "due": 0,
        **UNLIMITED, "breaker": breaker,
    }  # fmt: skip
    snapshot = {**parts.worker.snapshot(), "lanes": [lane]}
    monkeypatch.setattr(parts.worker, "snapshot", lambda: snapshot)
    monkeypatch.setattr(parts.store, "url", f"sqlite:///{secret}")
    problem = Problem(
        f"cannot read {secret}", f"{secret}.yaml", 1, 2, f"params.{secret}",
        hint=f"known are {secret}", source=f"path: {secret}",
    )  # fmt: skip
    parts.loader.error = (parts.clock.now_ms(), [problem])
    answer = await parts.client.get("/v1/status")
    assert secret not in answer.text
    status = answer.json()
    shown = {
        "state": "open", "since": "1970-01-01T00:00:00.000Z", "why": "cannot connect to ***",
        "probes": 3, "next_probe": "1970-01-01T00:00:30.000Z",
    }  # fmt: skip
    assert status["lanes"] == [{**lane, "name": "receiver:http://***", "breaker": shown}]
    assert status["breakers"] == [{"lane": "receiver:http://***", "due": 0, **shown}]
    assert status["database"]["url"] == "sqlite:///***"
    assert status["config"]["error"]["errors"] == [
        {
            "file": "***.yaml", "line": 1, "column": 2, "key": "params.***",
            "message": "cannot read ***", "hint": "known are ***", "source": "path: ***",
        }
    ]  # fmt: skip


async def test_endpoints_show_no_secret(parts: Parts) -> None:
    endpoint = parts.loader.config.endpoints["demo/get"]
    shown = {"path": f"/{parts.SECRET}", "webhooks": [{"name": "ops", "url": parts.SECRET}]}
    parts.loader.config.endpoints["demo/get"] = replace(endpoint, shown=shown)  # type: ignore[index]
    for target in ("/v1/endpoints", "/v1/endpoints/demo/get"):
        answer = await parts.client.get(target)
        assert parts.SECRET not in answer.text
        assert '"url":"***"' in answer.text


async def test_endpoints(parts: Parts) -> None:
    parts.scheduler.runs = {"demo/get": 1_800_000_000_000}
    await parts.post("/v1/endpoints/demo/other/pause")
    endpoints = (await parts.client.get("/v1/endpoints")).json()["endpoints"]
    by_id = {endpoint["id"]: endpoint for endpoint in endpoints}
    assert list(by_id) == ["demo/get", "demo/other", "demo/off"]
    assert by_id["demo/get"] == {
        "id": "demo/get", "method": "GET", "path": "/things", "enabled": True, "webhooks": [],
        "paused": False, "next_run": "2027-01-15T08:00:00.000Z", "source": "",
    }  # fmt: skip
    assert by_id["demo/other"]["paused"] is True
    assert by_id["demo/off"]["enabled"] is False
    one = await parts.client.get("/v1/endpoints/demo/get")
    assert one.json() == by_id["demo/get"]
    assert (await parts.client.get("/v1/endpoints/demo/nope")).status_code == 404
    assert (await parts.client.get("/v1/endpoints?paused=1")).status_code == 422


async def test_reload(parts: Parts) -> None:
    answer = await parts.client.post("/v1/reload")
    assert answer.status_code == 200
    assert list(answer.json()) == [
        "generation", "changed", "adopted_at", "cause", "changes", "restart_required", "warnings",
    ]  # fmt: skip
    assert parts.loader.causes == ["command"]


async def test_reload_says_what_differs(parts: Parts) -> None:
    answer = (await parts.client.post("/v1/reload", json={"diff": True})).json()
    assert answer["changes"] == {
        "added": [], "removed": [], "changed": ["demo/get"], "daemon": [],
        "counts": {"added": 0, "removed": 0, "changed": 1},
    }  # fmt: skip
    assert answer["diff"] == [
        {"endpoint": "demo/get", "key": "timeout", "before": "10s", "after": "20s"}
    ]


async def test_status_says_what_the_last_reload_changed(parts: Parts) -> None:
    many = tuple(f"demo/{n}" for n in range(status_module.MAX_CHANGES + 1))
    parts.loader.changes = Changes(added=many, removed=("demo/old",), daemon=("log.level",))
    changes = (await parts.client.get("/v1/status")).json()["config"]["changes"]
    assert changes["added"] == list(many[:-1])
    assert changes["removed"] == ["demo/old"]
    assert changes["daemon"] == ["log.level"]
    assert changes["counts"] == {"added": len(many), "removed": 1, "changed": 0}


async def test_a_bad_configuration_is_shown_whole(parts: Parts) -> None:
    parts.loader.problems = (
        Problem("is required", "apis/demo/endpoints/get.yaml", 1, 1, "path"),
        Problem("cannot be read", "orchestratord.yaml"),
    )
    answer = await parts.client.post("/v1/reload")
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "bad_config"
    assert problem["errors"][0] == {
        "file": "apis/demo/endpoints/get.yaml", "line": 1, "column": 1, "key": "path",
        "message": "is required", "hint": None, "source": None,
    }  # fmt: skip
    assert problem["errors"][1]["line"] is None


async def test_health(parts: Parts) -> None:
    assert (await parts.client.get("/healthz")).json() == {"status": "ok"}
    assert (await parts.client.get("/readyz")).json() == {"status": "ready"}
    await parts.worker.drain(0)
    draining = await parts.client.get("/readyz")
    assert (draining.status_code, draining.json()["code"]) == (503, "not_ready")
    status = (await parts.client.get("/v1/status")).json()
    assert status["draining"] is True
    why = {"code": "draining", "why": "the daemon is draining", "since": None}
    assert status["health"] == {"ready": False, "troubles": [why]}


async def test_all_troubles_are_said(parts: Parts) -> None:
    health = parts.store.health
    health.begin("worker_stalled", "the worker stands still")
    health.begin("scheduler_stalled", "the scheduler stands still")
    answer = await parts.client.get("/readyz")
    assert answer.json()["detail"] == "the worker stands still; the scheduler stands still"
    assert [error["key"] for error in answer.json()["errors"]] == [
        "worker_stalled",
        "scheduler_stalled",
    ]
    [worker, _] = (await parts.client.get("/v1/status")).json()["health"]["troubles"]
    assert worker["why"] == "the worker stands still"
    assert worker["since"].endswith("Z")
    for code in list(health.troubles):
        assert health.end(code)
    health.fatal = "the writing thread has died"
    assert (await parts.client.get("/readyz")).json()["detail"] == "the writing thread has died"


# -- what all have in common -----------------------------------------------------------------------


async def test_unknown_paths_and_methods(parts: Parts) -> None:
    missing = await parts.client.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["title"] == "Not Found"
    for target in ("/v1/status/", "/v1//status", "/v1/endpoints/a/b/c"):
        assert (await parts.client.get(target)).status_code == 404
    wrong = await parts.client.put("/v1/retries/trigger")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert (await parts.client.delete("/v1/retries/1")).status_code == 405
    # No task has the name of a route.
    looked = await parts.client.get("/v1/retries/cancel")
    assert (looked.status_code, looked.headers["allow"]) == (405, "POST")
    either = await parts.client.put("/v1/endpoints/demo/get/explain")
    assert (either.status_code, either.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_a_body_that_is_null(parts: Parts) -> None:
    """It is no object, and none at all is something else."""
    for content in (b" null ", b" \n"):
        answer = await parts.client.post("/v1/endpoints/demo/get/pause", content=content)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


async def test_head_is_get_without_the_body(parts: Parts) -> None:
    answer = await parts.client.head("/v1/status")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_a_path_is_decoded_by_its_parts(parts: Parts) -> None:
    assert (await parts.client.get("/v1/endpoints/d%65mo/get")).status_code == 200
    assert (await parts.client.get("/v1/endpoints/demo%2Fget")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"{'a': 1}", b"nonsense", b'{"delay": NaN}', b'{"delay": -Infinity}',
        b'{"params": {"deep": 1e999}}', b'{"params": {"deep": "\\ud800"}}', b'{"params": "\xff"}',
        b'{"params": {"deep": "\xed\xa0\x80"}}', b"[" * 100_000, b"[" * 65 + b"]" * 65,
        b'{"params": {"deep": ' + b"9" * 5000 + b"}}",
        b'{"params": {}, "params": {"id": "x"}}', b'{"params": {"id": "x", "id": "x"}}',
        b'{"params": {"deep": [{"a": 1, "b": 2, "\\u0061": 3}]}}',
    ],
)  # fmt: skip
async def test_what_is_not_json_is_refused(parts: Parts, body: bytes) -> None:
    answer = await parts.client.post("/v1/endpoints/demo/get/calls", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


async def test_json_is_taken_whatever_it_says_it_is(parts: Parts) -> None:
    deep: Any = "x"
    for _ in range(60):
        deep = [deep]
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
        answer = await parts.client.post(
            "/v1/endpoints/demo/get/calls",
            content=b'  {"params": {"deep": "\\ud83d\\ude00"}}\n',
            headers={"Content-Type": kind},
        )
        assert answer.status_code == 202
    assert (await parts.post("/v1/endpoints/demo/get/calls", {"params": {"deep": deep}})).is_success


async def test_each_writing_request_is_one_line_of_the_log(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "orchestratord.control"):
        await parts.client.get("/v1/status")
        await parts.post("/v1/endpoints/demo/get/pause")
        await parts.post("/v1/endpoints/demo/nope/pause")
        await parts.client.put("/v1/nothing%0Anew-line")
    lines = [record for record in caplog.records if record.name == "orchestratord.control"]
    user = pwd.getpwuid(os.getuid()).pw_name
    me = f"by {user} (uid {os.getuid()}, pid {os.getpid()})"
    assert [record.getMessage() for record in lines] == [
        f"POST /v1/endpoints/demo/get/pause: 200, {me}",
        f"POST /v1/endpoints/demo/nope/pause: 404, {me}",
        f"PUT /v1/nothing%0Anew-line: 404, {me}",
    ]
    assert vars(lines[0])["peer_pid"] == os.getpid()


async def test_a_fault_of_the_daemon_says_nothing_of_itself(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("a secret thing")

    monkeypatch.setattr(parts.service, "status", broken)
    answer = await parts.client.get("/v1/status")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret thing" not in answer.text
    assert [record for record in caplog.records if record.exc_info]


# -- plugins ---------------------------------------------------------------------------------------


class Extra:
    """A plugin with routes, good ones and bad ones."""

    @hookimpl
    def register_routes(self, control: Control) -> list[Any]:
        self.control = control

        async def echo(path: Any, query: Any, body: Any) -> Answer:
            return Answer(
                {"path": dict(path), "query": dict(query), "body": body}, 201, {"X-A": "b"}
            )

        async def write(path: Any, query: Any, body: Any) -> Answer:
            ids = await control.write([NewTask("call", "demo/get", {"id": "written"})])
            return Answer({"ids": ids, "endpoints": len(control.config.endpoints)})

        async def missing(path: Any, query: Any, body: Any) -> Answer:
            raise NotFound("no such thing")

        async def raises(path: Any, query: Any, body: Any) -> Answer:
            raise {"exit": SystemExit(3), "reject": Reject("no"), "plain": ValueError("oops")}[
                path["how"]
            ]

        async def cancels(path: Any, query: Any, body: Any) -> Answer:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
            return Answer(None)

        async def hangs(path: Any, query: Any, body: Any) -> Answer:
            await asyncio.sleep(60)
            return Answer(None)

        async def nothing(path: Any, query: Any, body: Any) -> Any:
            return None

        async def no_json(path: Any, query: Any, body: Any) -> Answer:
            return Answer({"a": {1, 2}, "b": float("nan")})

        return [
            Route("GET", "/v1/extra/{name}", echo),
            Route("POST", "/v1/extra/{name}", echo),
            Route("PUT", "/v1/extra/write", write),
            Route("GET", "/v1/missing", missing),
            Route("GET", "/v1/raises/{how}", raises),
            Route("GET", "/v1/cancels", cancels),
            Route("GET", "/v1/hangs", hangs),
            Route("GET", "/v1/nothing", nothing),
            Route("GET", "/v1/no_json", no_json),
            Route("GET", "/v1/status", echo),
            Route("GET", "/v1/bad/{a}/{a}", echo),
            "no route",
        ]


@pytest.fixture
async def extended(tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(tmp_path)
    await parts.start(Extra())
    yield parts
    await parts.stop()


async def test_a_plugin_brings_routes(extended: Parts) -> None:
    answer = await extended.post("/v1/extra/a%2Fb?x=1&y=2&x=3", {"k": None})
    assert (answer.status_code, answer.headers["x-a"]) == (201, "b")
    assert answer.json() == {
        "path": {"name": "a/b"}, "query": {"x": "1,3", "y": "2"}, "body": {"k": None},
    }  # fmt: skip
    assert (await extended.client.get("/v1/extra/z")).json()["body"] is None
    written = (await extended.client.put("/v1/extra/write")).json()
    assert written["endpoints"] == 3
    assert (await extended.ended(written["ids"][0]))["status"] == "succeeded"


async def test_what_a_plugin_refuses_is_its_answer(extended: Parts) -> None:
    answer = await extended.client.get("/v1/missing")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such thing")
    assert extended.host.plugins["extra"].faults == 3  # those of its routes


@pytest.mark.parametrize(
    "target",
    ["raises/exit", "raises/reject", "raises/plain", "cancels", "hangs", "nothing", "no_json"],
)
async def test_what_a_plugin_does_wrong_is_its_fault(
    extended: Parts, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = extended.host.plugins["extra"].faults
    caplog.clear()
    answer = await extended.client.get(f"/v1/{target}")
    assert (answer.status_code, answer.json()["code"]) == (500, "plugin_fault")
    assert "extra" in answer.json()["detail"]
    assert extended.host.plugins["extra"].faults == before + 1
    assert [record for record in caplog.records if "plugin extra" in record.getMessage()]
    assert (await extended.client.get("/healthz")).status_code == 200


async def test_a_route_that_cannot_be_is_left_out(extended: Parts) -> None:
    assert "version" in (await extended.client.get("/v1/status")).json()
    [_, plugin] = (await extended.client.get("/v1/plugins")).json()["plugins"]
    assert (plugin["name"], plugin["hooks"], plugin["faults"]) == ("extra", ["register_routes"], 3)
    assert "no route" in plugin["last_fault"]


async def test_plugins(parts: Parts) -> None:
    [plugin] = (await parts.client.get("/v1/plugins")).json()["plugins"]
    assert list(plugin) == [
        "name", "version", "source", "status", "hooks", "error", "faults", "last_fault",
        "services", "verbs",
    ]  # fmt: skip
