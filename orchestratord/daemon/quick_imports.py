"""What is imported before the daemon, with as little as it needs.

A start is imports for the greatest part: `python -m bench.code.instructions --start` counts what
it takes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LEFT_OUT = ("psycopg", "httpx._main")
"""What libraries import where they find it. The first is peewee's, for a PostgreSQL that peewee
connects to: the daemon has `PsycopgDriver` for that, where there is one. The second is the command
`httpx`, with all of rich."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without `LEFT_OUT`, and without a search for garbage: what is imported stays."""
    left_out = [name for name in LEFT_OUT if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    # Python's own way to say that there is no such module.
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        gc.freeze()
        if collecting:
            gc.enable()
