"""Files of SQLite that the workers of one run share, for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestratord.queue.database import Workers

COUNT = 4
"""Workers that a file may have."""

_shared: dict[str, Workers] = {}
"""By the URL: the worker that was made last."""


def next_worker(url: str) -> Workers | None:
    """Each time another worker of a file that workers share; None for any other database."""
    if (last := _shared.get(url)) is None:
        return None
    _shared[url] = last.worker(last.number % COUNT + 1)
    return _shared[url]


@contextmanager
def shared_files(folder: Path) -> Iterator[Callable[[], str]]:
    """Names files that workers share, and that are not there yet."""
    numbers = itertools.count(1)
    made: list[str] = []

    def create() -> str:
        made.append(f"sqlite:///{folder}/shared{next(numbers)}/orchestratord.db")
        _shared[made[-1]] = Workers.make(COUNT)
        return made[-1]

    yield create
    for url in made:
        _shared.pop(url).close()
