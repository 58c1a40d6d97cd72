"""What the queue holds, turned into lines: every attempt once, with what was decided and why."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestratord.cli.demo.daemon import Daemon
from orchestratord.cli.demo.receiver import Delivery
from orchestratord.cli.demo.screen import Screen
from orchestratord.values.durations import format_duration

Task = Mapping[str, Any]

PAGE = 200
"""The newest tasks are asked for all the time, older ones only while they are not done."""


class Watch:
    """Follows all tasks through the API, and writes what is new to the screen."""

    def __init__(self, daemon: Daemon, screen: Screen) -> None:
        self.tasks: dict[int, Task] = {}
        """Every task, by its id, as it was last seen."""
        self._daemon = daemon
        self._screen = screen
        self._shown: dict[int, int] = {}

    def look(self) -> None:
        """Ask for the tasks, and show the attempts that were not there before."""
        newest = self._daemon.get(f"/v1/retries?limit={PAGE}")["retries"]
        listed = {task["id"] for task in newest}
        older = [task["id"] for task in self.unfinished() if task["id"] not in listed]
        newest += [self._daemon.get(f"/v1/retries/{id_}") for id_ in older]
        for task in sorted(newest, key=lambda task: int(task["id"])):
            known = self.tasks.get(task["id"])
            self.tasks[task["id"]] = task
            if known is None or known["updated_at"] != task["updated_at"]:
                self._show(self._daemon.get(f"/v1/retries/{task['id']}"))

    def _show(self, task: Task) -> None:
        # An attempt that has ended while its task still runs was recorded between two looks at
        # the database; the next one shows both.
        log = [
            entry
            for entry in task["attempt_log"]
            if task["status"] != "running" or entry["attempt"] < task["attempts"]
        ]
        seen = self._shown.get(task["id"], 0)
        self._shown[task["id"]] = len(log)
        for entry in log[seen:]:
            last = entry is log[-1]
            delivered = task["kind"] == "webhook" and last and task["status"] == "succeeded"
            if not delivered:  # a delivery is shown as its receiver saw it
                self._attempt(task, entry, last)

    def _attempt(self, task: Task, entry: Mapping[str, Any], last: bool) -> None:
        result, colour = str(entry["status_code"]), "yellow"
        if last and task["status"] == "succeeded":
            colour, rest = "green", f"succeeded at attempt {entry['attempt']}"
        elif entry["delay"] is not None:
            wait = format_duration(round(entry["delay"], 1))
            rest = f"attempt {entry['attempt']} failed, next in {wait}: {entry['why']}"
        else:
            colour, rest = "red", f"failed for good, {task['reason'] or task['status']}"
            if entry["error"]:
                rest += f": {entry['error']}"
        self._screen.event(*name(task), (f"{result:<6}", colour), rest)

    def waiting(self) -> str:
        """The footer: what is under way, and what is waiting for how long."""
        texts = []
        for task in self.tasks.values():
            if task["status"] == "running":
                texts.append(f"#{task['id']} {task['endpoint']} under way")
            elif task["status"] == "pending" and task["next_try"]:
                due = datetime.fromisoformat(task["next_try"]).timestamp() - time.time()
                texts.append(f"#{task['id']} {task['endpoint']} in {max(due, 0):.1f}s")
        return f"         waiting: {', '.join(texts)}" if texts else ""

    def unfinished(self) -> list[Task]:
        """The tasks that are not done, those of schedules left out: there is always a next one."""
        return [
            task
            for task in self.tasks.values()
            if task["status"] in ("pending", "running") and task["endpoint"] != "shop/getStock"
        ]


def name(task: Task) -> tuple[str | tuple[str, str], ...]:
    """The first columns of a line about a task."""
    what = task["endpoint"] if task["kind"] == "call" else f"webhook {task['webhook']}"
    return (f"#{task['id']}".ljust(5), f"{what:<20} ")


def show_delivery(screen: Screen, delivery: Delivery) -> None:
    """A webhook as it arrived at the receiver."""
    signature = ("signature ok", "cyan") if delivery.verified else ("WRONG SIGNATURE", "red")
    screen.event(
        "     ", (f"↳ {delivery.path:<18} ", "cyan"), f"{gist(delivery.body)}, ", signature
    )
    if delivery.status >= 300:
        screen.event("     ", (f"  the receiver answers {delivery.status}", "yellow"))


def gist(body: str) -> str:
    """What a payload says, in a few words."""
    document = json.loads(body)
    if "text" in document:
        return f"“{document['text']}”"
    data = document["data"]
    return f"{document['type']} of #{data['task_id']} {data['endpoint']}, {data['status_code']}"
