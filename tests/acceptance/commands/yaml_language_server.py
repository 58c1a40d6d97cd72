"""The YAML language server, as editors talk to it: over its standard streams."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = Path(__file__).parents[3] / "node_modules/yaml-language-server/bin/yaml-language-server"


class YamlLanguageServer:
    """Answers what stands beside a key of a file.

    Args:
        node: the program node.
    """

    def __init__(self, node: str) -> None:
        self._process = subprocess.Popen(
            [node, PROGRAM, "--stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._asked = 0
        self._opened = 0
        capabilities = {"textDocument": {"hover": {"contentFormat": ["markdown"]}}}
        self._ask("initialize", processId=None, rootUri=None, capabilities=capabilities)
        self._send(method="initialized", params={})

    def hover(self, text: str, line: int, column: int) -> str:
        """What it shows at a place of a file, counted from 0; empty for nothing."""
        self._opened += 1
        uri = f"file:///open/{self._opened}.yaml"
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        place = {"line": line, "character": column}
        answer = self._ask("textDocument/hover", textDocument={"uri": uri}, position=place)
        self._send(method="textDocument/didClose", params={"textDocument": {"uri": uri}})
        return str(answer["contents"]["value"]) if answer else ""

    def _ask(self, method: str, **params: Any) -> Any:
        self._asked += 1
        self._send(id=self._asked, method=method, params=params)
        while (message := self._received()).get("id") != self._asked or "method" in message:
            if message.get("method") == "workspace/configuration":
                settings: list[Any] = [{} for _ in message["params"]["items"]]
                self._send(id=message["id"], result=settings)
            elif "id" in message and "method" in message:
                self._send(id=message["id"], result=None)
        return message["result"]

    def _send(self, **message: Any) -> None:
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
        self._process.stdin.flush()

    def _received(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        size = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        message: dict[str, Any] = json.loads(self._process.stdout.read(size))
        return message

    def __enter__(self) -> YamlLanguageServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
