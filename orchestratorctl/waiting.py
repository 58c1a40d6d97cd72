"""Waiting for what goes on in the daemon, over its restarts: tasks to end, bulks to be done."""

from __future__ import annotations

import os
import time

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, OK, TIMED_OUT, CommandError, Lost, NoDaemon, TimedOut
from orchestratorctl.formats import number, span
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import moved_word, outcomes
from orchestratorctl.task_text import FINAL, print_answer, progress_text, result_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONG_POLL = 30.0
# At a terminal each attempt is told soon after it.
WATCHED_POLL = 1.0
# How much longer than asked an answer to a long poll may take.
GRACE = 10.0
_SHORTEST_ROUND = 0.25

BULK_POLL = 0.5
# Seconds between the lines of a log, where stderr is no terminal.
LINE_EVERY = 10.0
_BAR = 24
_NO_ANSWER = "the daemon does not answer; waiting for it"


class TaskWaiter:
    """Waits for tasks, and says on a terminal what it waits for.

    Args:
        timeout: seconds for all tasks together; None, and it waits for as long as it takes.
    """

    def __init__(self, client: SocketClient, console: Console, timeout: float | None) -> None:
        self._client = client
        self._console = console
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._said = ""

    def wait(self, task_id: int, *, once: bool = False) -> dict[str, Any]:
        """The task once it has ended, or as it is when the time is over.

        `once`: also after an attempt that failed, whose next one may be hours away.
        """
        while True:
            started = time.monotonic()
            seconds = WATCHED_POLL if once or self._console.watched else LONG_POLL
            if self._deadline is not None:
                seconds = max(0.0, min(seconds, self._deadline - started))
            task = self._client.get_over_restarts(
                f"/v1/retries/{task_id}",
                {"wait": f"{seconds:.3f}"} if seconds else None,
                timeout=seconds + GRACE,
                deadline=self._deadline,
                away=lambda: self._tell(f"task {task_id}: {_NO_ANSWER}"),
            )
            now = time.monotonic()
            failed = once and task.get("status") == "pending" and task.get("attempts")
            if failed or task.get("status") in FINAL:
                return task
            if self._deadline is not None and now >= self._deadline:
                return task
            self._tell(f"task {task_id}: {progress_text(task)}")
            if now - started < min(seconds, _SHORTEST_ROUND):
                time.sleep(_SHORTEST_ROUND)

    def _tell(self, line: str) -> None:
        # The seconds that remain count down; only what else has changed is news.
        news = line.partition(", next try")[0]
        if news != self._said:
            self._said = news
            self._console.hint(line)


def wait_for_tasks(
    client: SocketClient, console: Console, ids: list[int], timeout: float | None, single: bool
) -> int:
    """Waits for each task, prints the answers, and gives the command's exit code.

    The exit code is 0 where all succeeded, 6 where the time was over, that of a refusal, else 1.
    It ends where the daemon does not answer. `single`: one task was named.
    """
    waiter = TaskWaiter(client, console, timeout)
    tasks: list[dict[str, Any]] = []
    code = OK
    try:
        for task_id in ids:
            try:
                task = waiter.wait(task_id)
            except KeyboardInterrupt:
                follow = f"orchestratorctl show {task_id}"
                console.say(f"Task {task_id} goes on. Follow it with: {follow}")
                raise
            except CommandError as failure:
                goes_on = ["The task goes on."] * isinstance(failure, NoDaemon | Lost | TimedOut)
                console.complain(f"task {task_id}: {failure}", *failure.details, *goes_on)
                code = FAILED if isinstance(failure, NoDaemon) else failure.exit_code
                break
            tasks.append(task)
            ended = _report(task, console)
            code = TIMED_OUT if TIMED_OUT in (code, ended) else max(code, ended)
    finally:  # also what had ended before an interrupt
        if not console.tables:
            print_tasks(tasks, console, single)
    return code


def print_tasks(tasks: list[dict[str, Any]], console: Console, single: bool) -> None:
    """Writes tasks as data: the one that was named by itself, if there is one, several as a
    list."""
    if tasks or not single:
        console.data(tasks[0] if single else {"retries": tasks})


def _report(task: dict[str, Any], console: Console) -> int:
    """Says how a task ended, prints its answer in table format, and gives its exit code."""
    state, name = task.get("status"), f"task {task.get('id')}"
    if console.tables and state in FINAL:
        print_answer(task, console)
    if state == "succeeded":
        console.hint(f"{name} {result_text(task)}")
        return OK
    if state in FINAL:
        console.complain(f"{name} {result_text(task)}")
        return FAILED
    console.complain(
        f"{name} has not ended in time: {progress_text(task)}",
        f"It goes on. Follow it with: orchestratorctl show {task.get('id')}",
    )
    return TIMED_OUT


def follow_bulk(
    client: SocketClient,
    console: Console,
    bulk_id: object,
    *,
    to_the_end: bool = False,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Shows the progress of a bulk until it has moved all; returns it.

    It belongs to the daemon: an interrupt ends the watching alone.

    Args:
        to_the_end: go on until all that it has moved has ended, or it pauses.
        timeout: seconds; after that it is returned as it is, or `TimedOut` is raised where the
            daemon does not answer.
    """
    bar = BulkProgress(console, f"bulk {bulk_id}")
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            bulk = client.get_over_restarts(
                f"/v1/bulks/{bulk_id}", away=bar.away, deadline=deadline
            )
            bar.show(bulk)
            if bulk_is_done(bulk, to_the_end=to_the_end):
                break
            rest = BULK_POLL if deadline is None else min(BULK_POLL, deadline - time.monotonic())
            if rest <= 0:
                break
            time.sleep(rest)
    except KeyboardInterrupt:
        bar.close()
        console.say(f"Bulk {bulk_id} goes on in the daemon.", *_commands(bulk_id))
        raise
    except (NoDaemon, Lost, TimedOut) as failure:
        goes_on = f"Bulk {bulk_id} goes on when the daemon is back."
        failure.details += (goes_on, *_commands(bulk_id))
        raise
    finally:
        bar.close()
    return bulk


def bulk_is_done(bulk: dict[str, Any], *, to_the_end: bool) -> bool:
    """Whether a bulk goes on no more: it moves nothing, and where `to_the_end` nothing that it has
    moved is waited for; one that has paused waits for a person."""
    status = bulk.get("status")
    return status != "running" and not (to_the_end and status != "paused" and bulk.get("waiting"))


def _commands(bulk_id: object) -> tuple[str, str]:
    command = f"orchestratorctl bulks {bulk_id}"
    return f"Look at it with: {command}", f"End it with: {command} --cancel"


class BulkProgress:
    """Shows on stderr how far a bulk is.

    Args:
        name: what the bulk is called.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._started: tuple[float, int] | None = None
        self._drawn = 0
        self._last_line: float | None = None
        self._is_away = False
        encoding = (getattr(console.stderr, "encoding", None) or "").lower().replace("-", "")
        self._full, self._empty = ("█", "░") if encoding == "utf8" else ("#", ".")

    def show(self, bulk: dict[str, Any]) -> None:
        """Draws the bulk as it is."""
        self._is_away = False
        matched = int(bulk.get("matched") or 0)
        moved, skipped = int(bulk.get("moved") or 0), int(bulk.get("skipped") or 0)
        done = moved + skipped
        now = time.monotonic()
        if self._started is None:
            self._started = (now, done)
        if self._console.watched:
            self._draw("  ".join([self._picture(matched, done, now), *outcomes(bulk)]))
        elif self._last_line is None or now - self._last_line >= LINE_EVERY:
            self._last_line = now
            words = f"{number(moved)} of {number(matched)} tasks {moved_word(bulk)}"
            if skipped:
                words += f", {number(skipped)} skipped"
            words = ", ".join([words, *outcomes(bulk)])
            self._console.say(f"{self._name}: {words}")

    def away(self) -> None:
        """Says that the daemon does not answer at the moment."""
        words = f"{self._name}: {_NO_ANSWER}"
        if self._console.watched:
            self._draw(words)
        elif not self._is_away:
            self._console.say(words)
        self._is_away = True

    def close(self) -> None:
        """Leaves the bar's line, so that what follows stands below it."""
        if self._drawn:
            self._drawn = 0
            self._console.stderr.write("\n")
            self._console.stderr.flush()

    def _picture(self, matched: int, done: int, now: float) -> str:
        share = min(done / matched, 1.0) if matched else 1.0
        full = int(share * _BAR)
        parts = [
            self._name,
            self._full * full + self._empty * (_BAR - full),
            f"{number(done)}/{number(matched)}",
            f"{share:.0%}",
        ]
        started, first = self._started or (now, done)
        if first < done < matched:
            parts.append(f"{span((matched - done) * (now - started) / (done - first))} left")
        return "  ".join(parts)

    def _draw(self, line: str) -> None:
        room = self._room()
        shown = line if room is None else line[:room]
        self._console.stderr.write("\r" + shown.ljust(self._drawn))
        self._console.stderr.flush()
        self._drawn = len(shown)

    def _room(self) -> int | None:
        """What fits on the terminal's line without going on to the next."""
        try:
            return max(os.get_terminal_size(self._console.stderr.fileno()).columns - 1, 0) or None
        except (OSError, ValueError):
            return None
