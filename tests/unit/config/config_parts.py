"""A config folder that a test writes, reads, and complains about."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import orchestratord_backoff
import orchestratord_webhooks
from pydantic import BaseModel

from orchestratord import Endpoint, Executor, Model, hookimpl
from orchestratord.config.load import load
from orchestratord.config.validate.request_rules import AddressRules
from orchestratord.config.yaml.nodes import ListNode, MapNode, Scalar
from orchestratord.engine.http_executor import HttpPlugin
from orchestratord.errors import ConfigError
from orchestratord.http.egress import Egress, parse_rule
from orchestratord.model.settings import Config
from orchestratord.plugin.host import Host

ADDRESSES = AddressRules(
    check=parse_rule,
    denied=lambda allow, host, port: Egress(
        tuple(parse_rule(rule) for rule in allow)
    ).literal_problem(host, port),
)

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def host_of(*plugins: tuple[str, object], shipped: bool = True) -> Host:
    """The core's HTTP executor, the shipped plugins unless told otherwise, and `plugins`."""
    host = Host()
    host.register(HttpPlugin(), "http")
    if shipped:
        host.register(orchestratord_backoff, "backoff")
        host.register(orchestratord_webhooks, "webhooks")
    for name, plugin in plugins:
        host.register(plugin, name)
        assert host.plugins[name].status == "loaded", host.plugins[name].error
    return host


class ConfigFolder:
    """One folder below a test's own; texts are dedented before they are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = host_of()
        self.environ: dict[str, str] = {}
        (path / "apis").mkdir(parents=True, exist_ok=True)

    def write(self, file: str, text: str | bytes = "") -> Path:
        """Write one file, its folders included."""
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return path

    def api(self, text: str = "base_url: https://api.example.com\n", name: str = "shop") -> None:
        """Write an api.yaml."""
        self.write(f"apis/{name}/api.yaml", text)

    def endpoint(self, text: str = "path: /x\n", name: str = "get", api: str = "shop") -> None:
        """Write an endpoint, and an api.yaml where there is none."""
        self.write(f"apis/{api}/endpoints/{name}.yaml", text)
        if not (self.path / f"apis/{api}/api.yaml").exists():
            self.api(name=api)

    def daemon(self, text: str) -> None:
        """Write orchestratord.yaml."""
        self.write("orchestratord.yaml", text)

    def load(self) -> Config:
        """Read it; it must be good."""
        return load(self.path, self.host, environ=self.environ, addresses=ADDRESSES)

    def one(self) -> Endpoint:
        """The only endpoint."""
        (endpoint,) = self.load().endpoints.values()
        return endpoint

    def errors(self) -> list[str]:
        """All errors of a folder that is refused; none of one that is good."""
        try:
            self.load()
        except ConfigError as error:
            errors = [str(p) for p in error.problems if p.severity == "error"]
            return errors or ["refused without a reason"]
        return []

    def error(self) -> str:
        """The only error."""
        (error,) = self.errors()
        return error

    def warnings(self) -> list[str]:
        """All warnings of a good folder."""
        return [str(problem) for problem in self.load().warnings]


class OtherSpec(Model):
    """The keys of the type `other`."""

    level: int


class OtherExecutor(Executor):
    """A type that says nothing of what a repeat would do; it is never run here."""

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = "other"
    model: ClassVar[type[BaseModel]] = OtherSpec

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Any: ...
    def prepare(self, task: Any, target: Any, now: float) -> Any: ...
    async def execute(self, request: Any, task: Any, target: Any, send: Any) -> Any: ...


class OtherPlugin:
    """Brings the type `other`."""

    @hookimpl
    def register_executor(self) -> list[Executor]:
        return [OtherExecutor()]


def plain(value: Any) -> Any:
    """Nodes of a document as plain data."""
    if isinstance(value, MapNode):
        return {key: plain(node) for key, (_, node) in value.entries.items()}
    if isinstance(value, ListNode):
        return [plain(node) for _, node in value.items]
    assert isinstance(value, Scalar)
    return value.value
