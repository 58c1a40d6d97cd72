"""A configuration that is report: read from files, with the shipped plugins and others."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import orchestratord_backoff
import orchestratord_webhooks

from orchestratord.cli.opened_config import OpenedConfig
from orchestratord.config.load import load
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.model.settings import Config
from orchestratord.model.test_case import FakeAnswer
from orchestratord.plugin.host import Host
from orchestratord.simulate.explain import Explainer
from orchestratord.simulate.report import Report
from orchestratord.testing import FakeClock

API = """
    base_url: https://shop.example.com/v1
    auth: {bearer: "${secret:SHOP_TOKEN}"}
    retry: {backoff: {strategy: exponential, delay: 10s}, max_attempts: 4, jitter: 0.1}
    webhooks:
      - name: ops
        phase: after_request
        status_code: [5xx, error]
        url: https://ops.example.com/hook
        secret: ${secret:OPS_HOOK}
        headers: {X-Key: "${secret:SHOP_TOKEN}"}
        payload: {text: "{{ endpoint }}: {{ status_code }}"}
"""
GET = """
    path: /orders/{{ params.id }}
    params: {id: {type: integer, required: true}}
    webhooks:
      - {name: read, phase: on_success, url: "https://hooks.example.com/{{ params.id }}"}
      - {name: late, phase: on_retry, url: https://hooks.example.com/}
      - {name: lost, phase: on_final_failure, url: https://hooks.example.com/}
      - {name: asked, phase: before_request, url: https://hooks.example.com/}
      - {name: off, phase: after_request, url: https://hooks.example.com/, enabled: false}
"""
POST = """
    method: POST
    path: /orders
    params: {item: {required: true}}
    body: {json: {item: "{{ params.item }}"}}
"""
ENVIRON = {"SHOP_TOKEN": "hunter22-token", "OPS_HOOK": "aHVudGVyMjItaG9vay1zZWNyZXQtYWJjZA=="}


class Shop:
    """One folder with an API `shop`, and an explainer over it."""

    def __init__(self, folder: Path, *plugins: object, **endpoints: str) -> None:
        self.folder = folder
        self.host = Host()
        self.host.register(HttpPlugin(), "http")
        self.host.register(orchestratord_backoff, "backoff")
        self.host.register(orchestratord_webhooks, "webhooks")
        for number, plugin in enumerate(plugins, 1):
            self.host.register(plugin, f"plugin{number}")
            assert self.host.plugins[f"plugin{number}"].status == "loaded"
        self._write("apis/shop/api.yaml", API)
        for name, text in {"get": GET, "post": POST, **endpoints}.items():
            self._write(f"apis/shop/endpoints/{name}.yaml", text)
        self.config: Config = load(folder, self.host, environ=ENVIRON)
        # Whatever another test taught the plugin is forgotten.
        arguments = {"config": self.config, "tables": {"webhooks": []}, "elsewhere": ()}
        self.host.ask("config_adopted", arguments)
        for executor in self.host.registry.executors:
            executor.bind("q1", {})
        self.opened = OpenedConfig(folder, self.host, self.config)
        self.clock = FakeClock()
        self.explainer = Explainer(self.host, self.config, self.clock)

    def _write(self, file: str, text: str) -> None:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    async def explain(
        self,
        name: str = "get",
        params: dict[str, Any] | None = None,
        *,
        answer: dict[str, Any] | int | None = None,
        **more: Any,
    ) -> Report:
        """What is said of an attempt; `answer`: a status code, or what a test's answer holds."""
        if isinstance(answer, int):
            answer = {"status_code": answer}
        return await self.explainer.explain(
            self.config.endpoints[f"shop/{name}"],
            {"id": 7} if params is None else params,
            answer=None if answer is None else FakeAnswer.model_validate(answer),
            **more,
        )

    def json(self, report: Report) -> dict[str, Any]:
        """The same for people."""
        return report.document(self.config.redactor)


def rules(report: Report) -> dict[str, tuple[bool, str]]:
    """Of each webhook whether it fires, and why."""
    found = [item.explanation for item in report.consequences]
    assert len({item.name for item in found}) == len(found)
    return {item.name: (item.happens, item.why) for item in found}
