"""A config folder whose one endpoint's webhooks are edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

from config_parts import ADDRESSES, ConfigFolder
from orchestratord_editor import editor

from orchestratord import Declaration, Edit, EndpointFile
from orchestratord.config.loader import Loader

ENDPOINT = "shop/get"
KEY = "webhooks"
API = "base_url: https://api.example.com\n"


class Editing:
    """See above.

    Args:
        config: an empty config folder.
        text: what the endpoint's file holds at first; it is dedented.
        api: the same of api.yaml.
        name: the name of the endpoint's file.
        environ: what references read.
    """

    def __init__(
        self,
        config: ConfigFolder,
        text: str | bytes,
        *,
        api: str = API,
        name: str = "get.yaml",
        **environ: str,
    ) -> None:
        self.config = config
        self.file = f"apis/shop/endpoints/{name}"
        config.api(api)
        self.path: Path = config.write(self.file, text)
        self.environ = environ
        self._loader: Loader | None = None

    @property
    def loader(self) -> Loader:
        if self._loader is None:
            self._loader = Loader(
                self.config.path, self.config.host, environ=self.environ, addresses=ADDRESSES
            )
        return self._loader

    def on_disk(self, endpoint_id: str = ENDPOINT) -> EndpointFile:
        return EndpointFile.read(self.loader, endpoint_id)

    @property
    def text(self) -> str:
        """What the file holds, line breaks as they are."""
        return self.path.read_bytes().decode()

    def read(self) -> Declaration:
        return editor.declaration(self.on_disk(), KEY)

    def items(self) -> list[dict[str, Any]]:
        return list(self.read().items)

    def edit(self, items: Any, *, etag: str | None = "*", dry_run: bool = False) -> Edit:
        return editor.edit(self.on_disk(), KEY, items, etag=etag, dry_run=dry_run)

    def change(self, change: Callable[[list[Any]], Any]) -> Edit:
        """Read, let `change` do something to the items, or return others, and write these."""
        read = self.read()
        items = list(read.items)
        other = change(items)
        return self.edit(items if other is None else other, etag=read.etag)

    def holds(self, text: str) -> None:
        """The file holds exactly this (dedented), and the configuration is good."""
        assert self.text == dedent(text)
        assert not self.loader.reload("test").problems


def webhook(**keys: Any) -> dict[str, Any]:
    """A webhook as it is sent."""
    return {"name": "new", "phase": "on_success", "url": "https://new.example.com/x", **keys}
