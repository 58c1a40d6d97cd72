"""A secret beside a mistake in a file is seen by nobody who may look at the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.api.test_tcp import HTTP, READER, SECRETS, over_tcp
from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon, ran
from tests.acceptance.receiver import Receiver

MARK = "s3cr3t-m4rk-77"
MISTAKES = [
    "auth: {bearrer: MARK}",
    "auth: {basic: {username: u, pasword: MARK}}",
    "secrt: MARK",
    "tokn: MARK",
    "auth: {bearer MARK}",
    "auth: {basic: 'user:MARK'}",
    "auth:\n  bearer: *MARK",
    "auth: {bearer: 'MARK}",
    "headers: 'Authorization: Bearer MARK'",
    "auth: {bearer: '${MARK}'}",
    "proxy: MARK:9",
    "secrt: x\ntimeout: MARK",
    "webhooks: [{url: 'https://hooks.example/MARK', name: a, phase: after_requst}]",
]


@pytest.fixture(scope="module")
def daemon(make_shared: MakeDaemon, shared_receiver: Receiver) -> Daemon:
    daemon = make_shared(environ=SECRETS, http=HTTP)
    daemon.api("shop", shared_receiver.url)
    daemon.endpoint("shop/ok", "/ok")
    daemon.expect(" config: ", "the configuration is refused")
    return daemon.start()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_nowhere(daemon: Daemon, shared_receiver: Receiver, mistake: str) -> None:
    text = f"base_url: {shared_receiver.url}\n{mistake.replace('MARK', MARK)}\n"
    daemon.write("apis/shop/api.yaml", text)
    refused = daemon.post("/v1/reload")
    assert refused.status_code == 422
    seen = {
        "the reload": refused.text,
        "the status": daemon.get("/v1/status").text,
        "what a reader sees": over_tcp(daemon, "GET", "/v1/status", headers=READER).text,
        "the dashboard": over_tcp(daemon, "GET", "/", headers=READER).text,
        "the metrics": daemon.get("/metrics").text,
        "the log": daemon.log(),
    }
    for where in ("the reload", "the status", "what a reader sees", "the dashboard", "the log"):
        assert "apis/shop/api.yaml" in seen[where], where
    assert [where for where, what in seen.items() if MARK in what or "m4rk" in what] == []


def test_nor_does_check_show_it(tmp_path: Path) -> None:
    for number, mistake in enumerate(MISTAKES):
        api = tmp_path / f"apis/a{number}/api.yaml"
        api.parent.mkdir(parents=True)
        api.write_text(f"base_url: https://a.example\n{mistake.replace('MARK', MARK)}\n")
    checked = ran(["orchestratord", "check", "--config", str(tmp_path)], os.environ)
    assert checked.code == 78
    for number in range(len(MISTAKES)):
        assert f"apis/a{number}/api.yaml:" in checked.err
    assert "m4rk" not in checked.out + checked.err
