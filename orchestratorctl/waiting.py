"""Waiting for tasks to end, over restarts of the daemon."""

from __future__ import annotations

import time

from orchestratorctl.answers import print_answer
from orchestratorctl.client import Client
from orchestratorctl.failures import FAILED, OK, TIMED_OUT, TimedOut
from orchestratorctl.screen import Screen
from orchestratorctl.tasks import FINAL, ending, progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONG_POLL = 30.0
# Somebody who watches wants to hear of each attempt soon after it.
WATCHED_POLL = 1.0
# How much longer than asked an answer to a long poll may take.
GRACE = 10.0
_SHORTEST_ROUND = 0.25


class Waiter:
    """Waits for tasks, and says on a terminal what it waits for.

    Args:
        timeout: seconds for all tasks together; None, and it waits for as long as it takes.
    """

    def __init__(self, client: Client, screen: Screen, timeout: float | None) -> None:
        self._client = client
        self._screen = screen
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._said = ""

    def wait(self, task_id: int) -> dict[str, Any]:
        """The task once it has ended, or as it is when the time is over."""
        while True:
            started = time.monotonic()
            patience = WATCHED_POLL if self._screen.watched else LONG_POLL
            if self._deadline is not None:
                patience = max(0.0, min(patience, self._deadline - started))
            task = self._client.get_patiently(
                f"/v1/retries/{task_id}",
                {"wait": f"{patience:.3f}"} if patience else None,
                timeout=patience + GRACE,
                deadline=self._deadline,
                away=lambda: self._tell(f"task {task_id}: the daemon is away, waiting for it"),
            )
            now = time.monotonic()
            if task.get("status") in FINAL:
                return task
            if self._deadline is not None and now >= self._deadline:
                return task
            self._tell(f"task {task_id}: {progress(task, time.time())}")
            if now - started < min(patience, _SHORTEST_ROUND):
                time.sleep(_SHORTEST_ROUND)

    def _tell(self, line: str) -> None:
        # The seconds that remain count down; only what else has changed is news.
        news = line.partition(", next try")[0]
        if news != self._said:
            self._said = news
            self._screen.hint(line)


def wait_for(client: Client, screen: Screen, ids: list[int], timeout: float | None) -> int:
    """Waits for each task, prints the answers, and gives the command's exit code.

    The exit code is 0 where all succeeded, 6 where the time was over, else 1.
    """
    waiter = Waiter(client, screen, timeout)
    tasks: list[dict[str, Any]] = []
    code = OK
    for task_id in ids:
        try:
            task = waiter.wait(task_id)
        except KeyboardInterrupt:
            screen.say(f"Task {task_id} goes on. Follow it with: orchestratorctl show {task_id}")
            raise
        except TimedOut as failure:
            if not screen.tables and tasks:
                print_tasks(tasks, screen, len(ids) == 1)
            raise TimedOut(
                f"task {task_id}: {failure}", [*failure.details, "The task goes on."]
            ) from None
        tasks.append(task)
        code = _worse(code, _report(task, screen))
    if not screen.tables:
        print_tasks(tasks, screen, len(ids) == 1)
    return code


def print_tasks(tasks: list[dict[str, Any]], screen: Screen, single: bool) -> None:
    """Writes tasks as data: the one that was named by itself, several as a list."""
    screen.data(tasks[0] if single else {"retries": tasks})


def _report(task: dict[str, Any], screen: Screen) -> int:
    """Says how a task ended, prints its answer in table format, and gives its exit code."""
    state, name = task.get("status"), f"task {task.get('id')}"
    if screen.tables and state in FINAL:
        print_answer(task, screen)
    if state == "succeeded":
        screen.hint(f"{name} {ending(task)}")
        return OK
    if state in FINAL:
        screen.complain(f"{name} {ending(task)}")
        return FAILED
    screen.complain(
        f"{name} has not ended in time: {progress(task, time.time())}",
        f"It goes on. Follow it with: orchestratorctl show {task.get('id')}",
    )
    return TIMED_OUT


def _worse(one: int, other: int) -> int:
    return TIMED_OUT if TIMED_OUT in (one, other) else max(one, other)
