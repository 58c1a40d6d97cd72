"""One action on each of several tasks."""

from __future__ import annotations

import time

from orchestratorctl.client import Client
from orchestratorctl.failures import OK, Problem, combine
from orchestratorctl.screen import Screen
from orchestratorctl.tasks import task_table
from orchestratorctl.waiting import print_tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def act_on_each(
    client: Client, screen: Screen, ids: list[int], action: str, body: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], int]:
    """Posts `action` to each task: those that took it, and the exit code for the rest."""
    tasks = []
    codes = [OK]
    for task_id in ids:
        try:
            tasks.append(client.post(f"/v1/retries/{task_id}/{action}", body))
        except Problem as problem:
            # The one sentence of a single failure needs no number in front of it.
            name = f"{task_id}: " if len(ids) > 1 else ""
            screen.complain(f"{name}{problem}", *problem.details)
            codes.append(problem.exit_code)
    return tasks, combine(codes)


def print_results(tasks: list[dict[str, Any]], screen: Screen, single: bool) -> None:
    """Writes the tasks that took an action: a table, or the one task or the list as data."""
    if not screen.tables:
        if tasks or not single:
            print_tasks(tasks, screen, single)
    elif tasks:
        screen.lines(task_table(tasks, screen, time.time()))
