"""What browsers load beside the pages: read once, and served under the hash of its content.

So a file can be kept for ever, and one that changed is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestratord import Answer, NotFound, Route

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Everything else in the folder is not served."""

PREFIX = "/assets/"
_IMPORT = re.compile(rb'(?<=from )"\./([a-z-]+\.js)"')
"""A script that another one imports, which has to ask for it by the name with the hash."""

# Its address is in pages that need a token: nothing between the two is to keep it for others.
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


class Assets:
    """The files of `static/`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._addresses: dict[Path, str] = {}
        self._files: dict[str, tuple[bytes, str]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix in TYPES:
                self.add(path)

    def add(self, path: Path) -> str:
        """Read a file, and those that it imports, which stand beside it or in `static/`; the name
        that it is served under."""
        if path in self._addresses:
            return self._addresses[path].removeprefix(PREFIX)

        def imported(match: re.Match[bytes]) -> bytes:
            beside = path.with_name(match[1].decode())
            found = beside if beside.exists() else self._folder / beside.name
            return b'"./%b"' % self.add(found).encode()

        content = _IMPORT.sub(imported, path.read_bytes())
        name = f"{path.stem}.{sha256(content).hexdigest()[:16]}{path.suffix}"
        self._addresses[path] = PREFIX + name
        self._files[name] = (content, TYPES[path.suffix])
        return name

    def address(self, name: str | Path) -> str:
        """Where a file of `static/`, or one that was added, is served. Raises KeyError."""
        return self._addresses[self._folder / name]

    def route(self) -> Route:
        """What serves them."""
        return Route("GET", PREFIX + "{file}", self._serve)

    async def _serve(self, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Answer:
        # Only names that are known are found, so no path leads anywhere else.
        found = self._files.get(path["file"])
        if found is None:
            raise NotFound("there is no such file; an older page named it")
        content, media_type = found
        return Answer(content, headers=_KEPT, media_type=media_type)
