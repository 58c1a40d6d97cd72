"""How-tos of the docs as their readers carry them out: their files, against receivers of a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.conftest import MakeDaemon
from tests.acceptance.daemon import Daemon
from tests.acceptance.processes import free_port
from tests.acceptance.receiver import Receiver

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"

_YAML = re.compile(r"^```yaml\n# (part of )?([\w./-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HOST = re.compile(r"https://[\w-]+(?:\.[\w-]+)*\.(?:com|example)\b")


def page(name: str) -> str:
    """The text of a how-to."""
    return (HOW_TO / f"{name}.md").read_text()


def python(name: str) -> list[str]:
    """The Python blocks of a how-to."""
    return re.findall(r"^```python\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)


def of_page(name: str, make_daemon: MakeDaemon, receiver: Receiver, **settings: Any) -> Daemon:
    """A daemon with the files of a how-to, which is not started.

    Every host of the page is the receiver, and an API without a file there gets one. Of
    `orchestratord.yaml` the test's `settings` win.
    """
    blocks = [
        (part, file, _HOST.sub(receiver.url, text))
        for part, file, text in _YAML.findall(page(name))
    ]
    for _, file, text in blocks:
        if file == "orchestratord.yaml":
            settings = {**yaml.safe_load(text), **settings}
    if "inbound" in settings:
        settings["inbound"] = {"bind": f"127.0.0.1:{free_port()}"}
    daemon = make_daemon(**settings)
    for part, file, text in blocks:
        if file.startswith("apis/"):
            daemon.write(file, f"path: /\n{text}" if part else text)
    for folder in (daemon.config / "apis").iterdir():
        if not (folder / "api.yaml").exists():
            daemon.api(folder.name, receiver.url)
    return daemon
