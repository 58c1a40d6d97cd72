"""The config folder: which one it is, which files in it are read, and the ids they stand for.

orchestratord.yaml                      the daemon's settings
apis/<api>/api.yaml                     what the endpoints of one API share
apis/<api>/endpoints/<name>.yaml        the endpoint <api>/<name>

The YAML names other files, for certificates and bodies. They are read here, too.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

from orchestratord.errors import Problem, Severity
from orchestratord.plugin.long_work import Breathe, no_breath
from orchestratord.values import world
from orchestratord.values.suggest import nearest

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 1_048_576
"""Of one file."""

_SETTLED = 2.0
"""Seconds after which the times of a file are relied on to change with its content."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MEANT = re.compile(r"[^.]+(\.\w+)?\.txt|[^.]+\.(yam|jsn|(yml|yaml|json)[a-z])", re.IGNORECASE)
"""A file that was meant to be an endpoint: saved by an editor of texts, or misspelt."""
_MEANT_SETTINGS = frozenset({"config", "daemon", "settings"})
"""Files beside apis/ that were meant to be orchestratord.yaml."""
_MISPLACED = frozenset({"api", "endpoint", "endpoints"})
"""Folders beside apis/ that were meant to stand in it."""
_NAME_RULE = (
    "a name is made of letters, digits, '.', '_' and '-', and begins with a letter or digit"
)


def home_folder(environ: Mapping[str, str]) -> Path:
    """The user's home; `/` for a user of whom the system knows none, as in containers."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return Path("/")


@dataclass(slots=True)
class Files:
    """What stands in the folder, by what it stands for. Paths are relative to the folder.

    `contents` has the bytes of each file that could be read. `digest` changes when one of them
    changes, comes or goes, or when the problems change; `whole` also when one of the files changes
    that the last reading of these has named.
    """

    daemon: str | None = None
    apis: dict[str, str | None] = field(default_factory=dict)
    """API → its api.yaml, None where it has none."""
    endpoints: dict[str, str] = field(default_factory=dict)
    """Endpoint id → its file."""
    contents: dict[str, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    digest: str = ""
    whole: str = ""
    referred: tuple[dict[Any, Any], dict[Any, Any]] = field(
        default_factory=lambda: ({}, {}), repr=False
    )
    """What references and attached files held; for other workers, and for memory alone."""


class KnownFiles:
    """Contents of files as they were read last.

    A file is opened again only where its inode, size or times are others than before. Times are as
    fine as the system's ticks, so that what was written just before it was read is not relied on.
    """

    def __init__(self) -> None:
        self.lock = world.Lock()
        self.attached: frozenset[str] = frozenset()
        """Paths of other files that belong to the configuration, by what was read last."""
        self._known: dict[str, tuple[tuple[int, ...], bytes]] = {}

    def get(self, path: str) -> bytes | None:
        """The content of the file at `path`, if it is known to be still the same."""
        found = self._known.get(path)
        if found is None:
            return None
        try:
            same = _identity(os.stat(path)) == found[0]
        except OSError:
            return None
        return found[1] if same else None

    def put(self, path: str, seen: os.stat_result, content: bytes) -> None:
        """What was read from a file, which looked like `seen` before."""
        if max(seen.st_mtime, seen.st_ctime) + _SETTLED < world.time():
            self._known[path] = _identity(seen), content
        else:
            self._known.pop(path, None)

    def only(self, paths: Iterable[str]) -> None:
        """Forget all other files."""
        for path in self._known.keys() - set(paths):
            self._known.pop(path, None)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    times = found.st_mtime_ns, found.st_ctime_ns
    return (found.st_dev, found.st_ino, found.st_size, found.st_mode, *times)


def read_folder(
    folder: Path, known: KnownFiles | None = None, breathe: Breathe = no_breath
) -> Files:
    """Find and read every file. What is wrong with names and files stands in `problems`.

    Args:
        folder: the config folder.
        known: what was read before, where the folder is read again and again.
        breathe: called every now and then, for other threads to have their turn.
    """
    known = known or KnownFiles()
    # Two who read at once would only get in each other's way, and in that of all other threads.
    with known.lock:
        return _Reading(folder, known, breathe).run()


def read_daemon_file(folder: Path) -> Files:
    """Read orchestratord.yaml alone."""
    reading = _Reading(folder, KnownFiles())
    reading.root()
    return reading.files


def named_endpoints(folder: Path) -> list[str]:
    """The ids of the endpoints that have a file, by the files' names alone; sorted."""
    found = {
        f"{path.parts[-3]}/{_split(path.name)[0]}"
        for path in folder.glob("apis/*/endpoints/*")
        if _split(path.name)[1] and not path.name.startswith(".")
    }
    return sorted(found)


class _Reading:
    def __init__(self, folder: Path, known: KnownFiles, breathe: Breathe = no_breath) -> None:
        self.folder = str(folder)
        self.known = known
        self.breathe = breathe
        self.files = Files()

    def run(self) -> Files:
        if not os.path.isdir(self.folder):
            self._problem(
                "",
                f"there is no config folder {self.folder}; name one with --config DIR or "
                "$ORCHESTRATORD_CONFIG",
            )
        else:
            self.root()
            self._apis()
        attached = self.known.attached
        own = (f"{self.folder}/{path}" for path in self.files.contents)
        self.known.only((*own, *attached))
        digest = sha256()
        for name, content in sorted(self.files.contents.items()):
            digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            digest.update(content)
            self.breathe()
        for problem in self.files.problems:
            digest.update(f"{problem}\0".encode("utf-8", "surrogateescape"))
        self.files.digest = digest.hexdigest()
        others = {path: current_fingerprint(path, self.known) for path in attached}
        self.files.whole = combined(self.files.digest, others)
        return self.files

    def root(self) -> None:
        for entry in self._entries(""):
            stem, suffix = _split(entry.name)
            if is_folder(entry):
                if entry.name in _MISPLACED:
                    self._problem(
                        entry.name,
                        "this folder is not read; endpoints stand in apis/API/endpoints",
                        "warning",
                    )
                continue
            if not suffix:
                continue
            if stem == "orchestratord":
                if self.files.daemon is not None:
                    self._problem(entry.name, f"the same settings as {self.files.daemon}: keep one")
                elif self._read(entry.name):
                    self.files.daemon = entry.name
            elif stem in _MEANT_SETTINGS or nearest(stem, ["orchestratord", "apis"]):
                self._problem(
                    entry.name,
                    "this file is not read; the settings are orchestratord.yaml",
                    "warning",
                )

    def _apis(self) -> None:
        if not os.path.exists(f"{self.folder}/apis"):
            self._problem(
                "apis",
                "there is no such folder; an endpoint stands in apis/API/endpoints/NAME.yaml, "
                "and a config folder without any has an empty apis/",
            )
        for entry in self._entries("apis"):
            path = f"apis/{entry.name}"
            stem, suffix = _split(entry.name)
            if is_folder(entry):
                if self._named(path, entry.name):
                    self.files.apis[entry.name] = None
                    self._api(path, entry.name)
            elif suffix:
                self._problem(path, f"an API is a folder: apis/{stem}/api.yaml")

    def _api(self, folder: str, api: str) -> None:
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}"
            stem, suffix = _split(entry.name)
            if is_folder(entry):
                if entry.name == "endpoints":
                    self._endpoints(path, api)
                else:
                    why = (
                        "this folder is not read"
                        if entry.name in _MISPLACED
                        else "a folder too deep"
                    )
                    self._problem(path, f"{why}; endpoints stand in {folder}/endpoints, flat")
            elif not suffix:
                continue
            elif stem != "api":
                what = f"endpoints stand in {folder}/endpoints"
                if stem.lower() == "api":
                    what = f"the API's settings stand in {folder}/api.yaml"
                self._problem(path, f"this file is not read; {what}")
            elif self.files.apis[api] is not None:
                self._problem(path, f"the same API as {self.files.apis[api]}: keep one of them")
            elif self._read(path):
                self.files.apis[api] = path

    def _endpoints(self, folder: str, api: str) -> None:
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}"
            stem, suffix = _split(entry.name)
            if is_folder(entry):
                self._problem(path, f"a folder too deep; endpoints stand in {folder}, flat")
            elif suffix and self._named(path, stem):
                identity = f"{api}/{stem}"
                if identity in self.files.endpoints:
                    other = self.files.endpoints[identity]
                    self._problem(
                        path, f"the same endpoint {identity} as {other}: keep one of them"
                    )
                elif self._read(path):
                    self.files.endpoints[identity] = path
            elif not suffix and _MEANT.fullmatch(entry.name):
                name = entry.name.partition(".")[0]
                self._problem(
                    path, f"this file is not read: an endpoint stands in {name}.yaml", "warning"
                )

    def _entries(self, relative: str) -> Iterator[os.DirEntry[str]]:
        """The visible entries of a folder, sorted; none where it is missing."""
        try:
            with os.scandir(f"{self.folder}/{relative}") as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._problem(relative, f"cannot be read: {error.strerror}")
            return
        for entry in entries:
            if not entry.name.startswith(".") and not entry.name.endswith("~"):
                yield entry

    def _named(self, path: str, name: str) -> bool:
        if NAME.fullmatch(name):
            return True
        self._problem(path, f"the name {name!r} cannot be used: {_NAME_RULE}")
        return False

    def _read(self, path: str) -> bool:
        """Read a file into `contents`; False where it is gone. Anything else is a problem."""
        self.breathe()
        full = f"{self.folder}/{path}"
        content = self.known.get(full)
        if content is not None:
            self.files.contents[path] = content
            return True
        try:
            seen, content = _regular(full, MAX_BYTES)
        except FileNotFoundError:
            if os.path.lexists(full):
                self._problem(path, "a symbolic link to a file that does not exist")
                return True
            return False  # deleted between listing and reading
        except OSError as error:
            self._problem(path, f"cannot be read: {error.strerror}")
            return True
        if content is None:
            self._problem(path, "not a file that can be read: it is something else")
        elif len(content) > MAX_BYTES:
            self._problem(path, f"larger than {MAX_BYTES} bytes (1 MiB): split it")
        else:
            self.files.contents[path] = content
            self.known.put(full, seen, content)
        return True

    def _problem(self, path: str, message: str, severity: Severity = "error") -> None:
        self.files.problems.append(Problem(message, file=_printable(path), severity=severity))


def is_folder(entry: os.DirEntry[str] | Path) -> bool:
    """Whether a folder is there; False where it cannot be looked at."""
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads nowhere, or a name that is too long
        return False


def _regular(path: str | Path, limit: int) -> tuple[os.stat_result, bytes | None]:
    """What a file looks like, and what it holds, up to one byte more than `limit`; None for what is
    no file.

    Raises OSError, and ValueError for a name that no file can have.
    """
    # Not waiting: what is named like a file may be a FIFO to which nothing is written.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(handle)
        if not stat.S_ISREG(seen.st_mode):
            return seen, None
        content = b""
        wanted = min(seen.st_size, limit) + 1
        while len(content) <= limit and (piece := os.read(handle, wanted)):
            content += piece
        return seen, content
    finally:
        os.close(handle)


def _split(name: str) -> tuple[str, str]:
    for suffix in SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def _printable(path: str) -> str:
    """A file's name for people: names that are not UTF-8, or hold control characters, escaped."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# -- files that are no YAML and belong to the configuration ----------------------------------------

LARGEST = 16 << 20
"""Bytes that are looked at for a change."""

UNREADABLE = ""
"""The fingerprint of what cannot be read, whatever the reason is."""


def placed(name: str, folder: Path, *, inside: bool) -> Path:
    """The path that a name in the YAML stands for, relative to the config folder.

    Raises ValueError where it has to be `inside` that and is not. Links are followed, as those to
    the YAML are: who can make one there decides what the daemon does anyway.
    """
    path = PurePath(name)
    if inside and (path.is_absolute() or ".." in path.parts):
        raise ValueError(f"{name!r} leads out of the config folder; name a file in it")
    return folder / path


def read_bytes(path: Path, limit: int) -> bytes:
    """What a file holds. Raises ValueError, which says what is wrong with the path named before."""
    try:
        _, content = _regular(path, limit)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if content is None:
        raise ValueError("is not a file")
    if len(content) > limit:
        raise ValueError(f"is larger than {limit} bytes")
    return content


def fingerprint(content: bytes) -> str:
    """What changes with the content."""
    return sha256(content).hexdigest()


def combined(digest: str, found: Mapping[str, str]) -> str:
    """The digest of the folder's own files together with the fingerprints of others."""
    if not found:
        return digest
    joined = "".join(f"{path}\0{one}\0" for path, one in sorted(found.items()))
    return sha256(f"{digest}\0{joined}".encode("utf-8", "surrogateescape")).hexdigest()


def current_fingerprint(path: str, known: KnownFiles) -> str:
    """The fingerprint of a file as it is now; it is opened again only where it looks changed."""
    found = known.get(path)
    if found is not None:
        return found.decode()
    try:
        seen = os.stat(path)
        read = fingerprint(read_bytes(Path(path), LARGEST))
    except (OSError, ValueError):
        return UNREADABLE
    known.put(path, seen, read.encode())
    return read
