"""Where the profile charges the time to."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from bench.code.profile import AREAS, OTHER, area_of

ROOT = Path(__file__).parents[3]
PLACES = (ROOT, ROOT / "plugins", Path(sysconfig.get_path("stdlib")))


@pytest.mark.parametrize("path", [path for paths in AREAS.values() for path in paths])
def test_each_path_is_there(path: str) -> None:
    """A module that has moved would silently be charged to another area."""
    assert any((place / path).exists() for place in PLACES)


@pytest.mark.parametrize(
    ("inner", "area"),
    [
        ("_run_once (asyncio/base_events.py:1910)", "the event loop: tasks, callbacks, select"),
        ("feed (orchestratord/http/http1.py:7)", "the client: sending, parsing, its pool"),
        ("decide (orchestratord/engine/retry.py:7)", "an attempt: its course, its decision"),
        (
            "choose (orchestratord/engine/lanes/lane_set.py:7)",
            "slots, lanes, the bookkeeping of what",
        ),
        ("loads (json/__init__.py:7)", "the event loop: tasks, callbacks, select"),
    ],
)
def test_the_innermost_known_frame_is_charged(inner: str, area: str) -> None:
    assert area_of(["main (x.py:1)", "run (asyncio/runners.py:1)", inner]).startswith(area)
    assert area_of(["main (x.py:1)"]) == OTHER
