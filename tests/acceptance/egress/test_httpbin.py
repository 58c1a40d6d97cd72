"""httpbin as the API that is called: what another program's HTTP looks like from here."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, retry
from tests.acceptance.processes import free_port, serving

SERVE = """
import sys
from httpbin import app
from werkzeug.serving import WSGIRequestHandler, make_server

WSGIRequestHandler.protocol_version = "HTTP/1.1"
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""

BASIC = {"basic": {"username": "user", "password": "passwd"}}

ENDPOINTS: dict[str, dict[str, Any]] = {
    "bin/unavailable": {"path": "/status/503"},
    "bin/slow": {"path": "/delay/3", "timeout": "300ms"},
    "bin/quick": {"path": "/delay/0.2"},
    "bin/dripping": {
        "path": "/drip",
        "query": {"duration": "10", "numbytes": "50", "delay": "0"},
        "timeout": "500ms",
    },
    "bin/dripped": {"path": "/drip", "query": {"duration": "0.3", "numbytes": "5", "delay": "0"}},
    "bin/redirected": {"path": "/redirect/1"},
    "following/once": {"path": "/redirect/1"},
    "following/often": {"path": "/redirect/6"},
    "bin/stream": {"path": "/stream-bytes/3000", "query": {"seed": "1", "chunk_size": "700"}},
    "small/stream": {"path": "/stream-bytes/3000", "query": {"seed": "1", "chunk_size": "700"}},
    "bin/closed": {"path": "/basic-auth/user/passwd"},
    "authorized/open": {"path": "/basic-auth/user/passwd"},
    "bin/gzip": {"path": "/gzip"},
    "bin/echo": {
        "method": "POST",
        "path": "/anything/{{ params.name }}",
        "params": {"name": {"required": True}, "count": {"type": "integer", "default": 7}},
        "query": {"q": "{{ params.name }}"},
        "headers": {"X-Task": "{{ task.id }}"},
        "body": {"json": {"count": "{{ params.count }}", "text": "n={{ params.count }}"}},
    },
    "bin/form": {"method": "POST", "path": "/post", "body": {"form": {"a": "ä b", "c": "1&2"}}},
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, make_shared: MakeDaemon) -> Iterator[Daemon]:
    port = free_port()
    log = tmp_path_factory.mktemp("httpbin") / "log"
    url = f"http://127.0.0.1:{port}"
    with serving([sys.executable, "-c", SERVE, str(port)], port, log):
        daemon = make_shared(egress={"allow": [f"127.0.0.1:{port}"]})
        daemon.api("bin", url)
        daemon.api("following", url, follow_redirects=True)
        daemon.api("small", url, max_response="1KiB")
        daemon.api("authorized", url, auth=BASIC)
        for name, keys in ENDPOINTS.items():
            daemon.endpoint(name, **keys, retry=retry(attempts=2))
        yield daemon.start()


def made(daemon: Daemon, endpoint: str, **params: Any) -> dict[str, Any]:
    return daemon.finish(daemon.call(endpoint, **params))


def body(task: dict[str, Any]) -> Any:
    return json.loads(task["response"]["body"])


def test_status_503_is_tried_again(daemon: Daemon) -> None:
    task = made(daemon, "bin/unavailable")
    assert (task["status"], task["reason"]) == ("failed", "exhausted")
    assert [item["status_code"] for item in task["attempt_log"]] == [503, 503]


def test_a_delay_longer_than_the_timeout_is_an_error(daemon: Daemon) -> None:
    task = made(daemon, "bin/slow")
    assert [item["status_code"] for item in task["attempt_log"]] == ["error", "error"]
    assert all(300 <= item["duration_ms"] < 2800 for item in task["attempt_log"])
    assert "300ms" in task["last_error"] or "time" in task["last_error"].lower()


def test_a_delay_within_the_timeout_is_not(daemon: Daemon) -> None:
    task = made(daemon, "bin/quick")
    assert task["status"] == "succeeded"
    assert task["attempt_log"][0]["duration_ms"] >= 200


def test_a_dripped_body_ends_at_the_deadline(daemon: Daemon) -> None:
    task = made(daemon, "bin/dripping")
    assert [item["status_code"] for item in task["attempt_log"]] == ["error", "error"]
    assert all(500 <= item["duration_ms"] < 5000 for item in task["attempt_log"])


def test_a_dripped_body_is_read_to_its_end(daemon: Daemon) -> None:
    task = made(daemon, "bin/dripped")
    assert task["status"] == "succeeded"
    assert task["response"]["body"] == "*****"


def test_a_redirect_is_not_followed_unless_asked(daemon: Daemon) -> None:
    task = made(daemon, "bin/redirected")
    assert (task["reason"], task["last_status_code"]) == ("not_retryable", 302)
    task = made(daemon, "following/once")
    assert task["last_status_code"] == 200
    assert body(task)["url"].endswith("/get")
    # Three at most: what answers after those is the answer, a redirect like the others.
    task = made(daemon, "following/often")
    assert task["status"] == "failed"
    assert task["last_status_code"] in (302, "error")


def test_chunked_bytes(daemon: Daemon) -> None:
    task = made(daemon, "bin/stream")
    whole = task["response"]
    assert whole["encoding"] == "base64"
    assert len(base64.b64decode(whole["body"])) == 3000
    assert whole["truncated"] is False
    task = made(daemon, "small/stream")
    assert task["status"] == "succeeded"
    cut = task["response"]
    assert cut["truncated"] is True
    assert base64.b64decode(cut["body"]) == base64.b64decode(whole["body"])[:1024]


def test_basic_auth(daemon: Daemon) -> None:
    task = made(daemon, "bin/closed")
    assert (task["reason"], task["last_status_code"]) == ("not_retryable", 401)
    task = made(daemon, "authorized/open")
    assert task["status"] == "succeeded"
    assert body(task) == {"authenticated": True, "user": "user"}


def test_gzip_is_decoded(daemon: Daemon) -> None:
    assert body(made(daemon, "bin/gzip"))["gzipped"] is True


def test_what_templates_make_of_params(daemon: Daemon) -> None:
    task = made(daemon, "bin/echo", name="a/b ü?&#")
    echoed = body(task)
    assert echoed["method"] == "POST"
    # httpbin shows a path half decoded; what matters is that `?` and `#` have not ended it.
    assert "/anything/a/b%20ü%3F&%23?q=" in echoed["url"]
    assert echoed["args"] == {"q": "a/b ü?&#"}
    assert echoed["json"] == {"count": 7, "text": "n=7"}
    assert echoed["headers"]["X-Task"] == str(task["id"])
    assert echoed["headers"]["Content-Type"] == "application/json"
    assert echoed["headers"]["Idempotency-Key"]


def test_a_form(daemon: Daemon) -> None:
    assert body(made(daemon, "bin/form"))["form"] == {"a": "ä b", "c": "1&2"}
