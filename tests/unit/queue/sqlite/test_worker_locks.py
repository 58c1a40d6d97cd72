from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestratord.queue.sqlite.worker_locks import TURN, Life, Turn, living
from orchestratord.values import world

HOLDS = """
import signal, sys, pathlib
from orchestratord.queue.sqlite.worker_locks import Life, Turn
folder = pathlib.Path(sys.argv[1])
turn, life = Turn(folder / "turn"), Life(folder, "theirs")
turn.take()
print("held", flush=True)
signal.pause()
"""


def test_what_a_process_holds_is_free_once_it_is_killed(tmp_path: Path) -> None:
    """While it is stopped, it lives, and others wait for their turn."""
    ours = Life(tmp_path, "ours")
    turn = Turn(tmp_path / TURN)
    waiting = threading.Thread(target=turn.take)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            os.kill(process.pid, signal.SIGSTOP)
            waiting.start()
            time.sleep(0.05)
            assert waiting.is_alive()
            assert sorted(living(tmp_path)) == ["ours", "theirs"]
        finally:
            process.kill()
    waiting.join(10)
    assert not waiting.is_alive()
    assert living(tmp_path) == ["ours"]
    assert sorted(os.listdir(tmp_path)) == ["ours", TURN]
    turn.release()
    turn.close()
    ours.close()
    assert os.listdir(tmp_path) == [TURN]


def test_a_turn_is_taken_and_released_once(tmp_path: Path) -> None:
    one, other = Turn(tmp_path / TURN), Turn(tmp_path / TURN)
    one.release()
    with one.ours():
        one.take()
        waiting = threading.Thread(target=other.take)
        waiting.start()
        time.sleep(0.02)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
    one.close()
    other.close()


def test_a_file_that_is_not_locked_yet_may_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock another owner looks."""
    import fcntl

    looks = [True]
    lock = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if looks and how == fcntl.LOCK_EX:
            looks.clear()
            assert living(tmp_path) == []
            assert os.listdir(tmp_path) == []
        lock(descriptor, how)

    monkeypatch.setattr(world, "flock", flock)
    life = Life(tmp_path, "owner")
    assert not looks
    assert living(tmp_path) == ["owner"]
    life.close()
