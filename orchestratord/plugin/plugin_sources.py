"""Where plugins are: entry points, and the single files of folders. Nothing is imported to know it.

`Host` loads all of them; a command of `orchestratord` only those whose text names what it needs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

GROUP = "orchestratord"
"""The entry-point group."""

ENTRY_POINT = "entry point"


class Package(NamedTuple):
    """What was installed with a plugin; `requires` says which orchestratord, or is empty."""

    name: str
    version: str
    requires: str


@lru_cache(maxsize=16)
def _package(installed: importlib.metadata.Distribution) -> Package:
    """Its metadata, read once: that takes as long as importing a module."""
    metadata = installed.metadata
    asked = metadata.get_all("Requires-Dist") or ()
    core = (one for one in asked if re.match(r"orchestratord(?![\w.-])", one))
    return Package(metadata["Name"], metadata["Version"], next(core, ""))


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin that is here, not imported yet.

    Args:
        name: what it is called.
        place: `entry point`, or its file.
        load: imports it; may raise anything.
        module: of an entry point: the module that has the hooks.
        installed: of an entry point: where its package is from.
    """

    name: str
    place: str
    load: Callable[[], Any]
    module: str = ""
    installed: importlib.metadata.Distribution | None = None

    @property
    def package(self) -> Package | None:
        """What was installed with it; None for a single file."""
        return None if self.installed is None else _package(self.installed)

    @property
    def version(self) -> str:
        """Of its package; `?` where none is known."""
        return self.package.version if self.package is not None else "?"

    @property
    def requires(self) -> str:
        """Which orchestratord its package asks for; empty where it does not say."""
        return self.package.requires if self.package is not None else ""

    @property
    def home(self) -> str:
        """Its package with the version, or its file."""
        package = self.package
        return self.place if package is None else f"{package.name} {package.version}"

    def names(self, word: str) -> bool:
        """Whether its text has this word; True where that cannot be read."""
        with suppress(Exception):  # a package above the module is imported, and may raise anything
            return word.encode() in self._file().read_bytes()
        return True

    def text(self) -> str:
        """That of all its modules; empty where it cannot be read."""
        with suppress(Exception):  # as above
            file = self._file()
            files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
            return "\n".join(one.read_text(errors="replace") for one in files)
        return ""

    def _file(self) -> Path:
        spec = importlib.util.find_spec(self.module) if self.module else None
        return Path((spec and spec.origin) or "" if self.module else self.place)


def installed_plugins() -> Iterator[PluginSource]:
    """The plugins of entry points, by their names."""
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.name):
        yield PluginSource(point.name, ENTRY_POINT, point.load, point.module, point.dist)


def single_files(folders: Iterable[Path]) -> Iterator[PluginSource]:
    """The plugins in these folders, in order."""
    for folder in folders:
        for path in _files(folder):
            if not path.name.startswith((".", "_")):
                yield PluginSource(path.stem, str(path), partial(_import_file, path))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.py"))
    except OSError:  # its name is too long, for example; that it is not there is an error of check
        return []


def _import_file(path: Path) -> Any:
    name = f"orchestratord_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
