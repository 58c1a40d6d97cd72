"""What a version does that fails as it takes over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestratord.daemon import run as module
from orchestratord.errors import ConfigError, OrchestratordError, Problem
from orchestratord.runtime.upgrade import HandedOver, KeptWorker

OLD = HandedOver(workers=(KeptWorker(1, 1, "old", 0),))


@pytest.mark.parametrize(
    "error",
    [
        ConfigError([Problem("a bad key")]),
        OrchestratordError("not here"),
        OSError("no such device"),
        RuntimeError("a bug"),
    ],
)
def test_whatever_it_fails_by_the_workers_of_the_one_before_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    told: list[str] = []

    class Supervising:
        def __init__(self, count: int, *words: Any) -> None:
            assert count == 0
            told.append(words[-1].failure)

        def run(self) -> int:
            return 0

    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(module, "Supervisor", Supervising)
    monkeypatch.setattr(module, "open_host", fail)
    handler = SimpleNamespace(write_apart=lambda: None)
    monkeypatch.setattr(module.logs, "set_up", lambda: handler)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(module.signal, "pthread_sigmask", lambda *_: None)
    monkeypatch.setattr(module.HandedOver, "take", classmethod(lambda _: OLD))
    monkeypatch.setattr(
        module, "Succession", type("S", (), {"__init__": lambda *_: None, "failure": ""})
    )
    assert module.run(tmp_path) == 0
    assert told == [f"the new version does not start: {error}"]
