from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from orchestratord.queue.sqlite.turn import TURN, Turn

HOLDS = """
import signal, sys, pathlib
from orchestratord.queue.sqlite.turn import Turn
folder = pathlib.Path(sys.argv[1])
turn = Turn(folder / "turn")
turn.take()
print("held", flush=True)
signal.pause()
"""


def test_what_a_process_holds_is_free_once_it_is_killed(tmp_path: Path) -> None:
    """While it is stopped, others wait for their turn."""
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
        finally:
            process.kill()
    waiting.join(10)
    assert not waiting.is_alive()
    turn.release()
    turn.close()
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
