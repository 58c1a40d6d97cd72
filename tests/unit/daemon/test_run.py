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


def test_a_program_that_cannot_be_executed_is_an_error_that_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After this one has drained: nothing is left to go back to, and the service manager begins
    anew."""

    class Left:
        def execute(self) -> int:
            raise FileNotFoundError(2, "No such file or directory")

    def work(start: Any, place: Any) -> int:
        start.left = Left()
        return 0

    nothing = SimpleNamespace(
        write_apart=lambda: None, adopt=lambda *_: None, set_threshold=lambda *_: None
    )
    daemon = SimpleNamespace(log=None, worker_count=1)
    loader = SimpleNamespace(config=SimpleNamespace(daemon=daemon, redactor=None))
    for name, instead in {
        "open_host": lambda _: None, "Loader": lambda *_, **__: loader, "gc": nothing,
        "take_signals": lambda **_: None, "_work": work, "leave_threads": lambda code: code,
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, instead)
    monkeypatch.setattr(module.logs, "set_up", lambda: nothing)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(module.signal, "pthread_sigmask", lambda *_: None)
    assert module.run(tmp_path) == 1
    assert "No such file or directory" in caplog.text
