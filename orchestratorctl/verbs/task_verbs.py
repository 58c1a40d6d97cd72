"""`call`, `list`, `show`, `retry`, `resolve` and `cancel`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, NOT_FOUND, OK, CommandError, RequestRefused, combine
from orchestratorctl.formats import number
from orchestratorctl.socket_client import SocketClient, endpoint_path
from orchestratorctl.tables import (
    EVENTS,
    GROUPS,
    NEW_CALL,
    PARAMS,
    TASKS,
    TableColumn,
    show_list,
    table,
    value_of,
)
from orchestratorctl.task_text import task_page
from orchestratorctl.verb_table import filters
from orchestratorctl.verbs.bulk_verbs import begin_bulk
from orchestratorctl.verbs.run_tree import show_tree
from orchestratorctl.waiting import print_tasks, wait_for_tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def call(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Calls the endpoint; with --wait, waits for the answer."""
    body: dict[str, Any] = {"params": arguments.params or {}}
    if arguments.text_params:
        body["text_params"] = dict(arguments.text_params)
    if arguments.delay is not None:
        body["delay"] = arguments.delay
    if arguments.at is not None:
        body["at"] = arguments.at
    key = arguments.idempotency_key
    status, task = client.request(
        "POST",
        endpoint_path(arguments.endpoint, "calls"),
        body,
        {"Idempotency-Key": key} if key else None,
    )
    task_id = task.get("id")
    if status == 200:
        console.say(f"This key was used before: it is task {task_id}, and no new call was made.")
    if arguments.wait:
        return wait_for_tasks(client, console, [task["id"]], arguments.timeout, single=True)
    shown = {**task, "endpoint": arguments.endpoint}
    console.show(task, lambda: table(NEW_CALL, [shown], console))
    if console.tables:
        console.hint(f"Follow it with: orchestratorctl show {task_id}")
    return OK


def list_tasks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists tasks, newest first, as many pages as the limit needs; with --by, counts them."""
    if arguments.by is not None:
        return _count_tasks(client, console, arguments)
    wanted = filters(arguments)
    tasks = client.get_list("/v1/retries", "retries", wanted, arguments.limit)
    if (
        tasks["retries"]
        or wanted.keys() != {"batch"}
        or not _list_events(client, console, arguments)
    ):
        columns = (*TASKS, PARAMS) if arguments.params else TASKS
        nothing = "No task matches." if wanted else "There are no tasks."
        show_list(tasks, "retries", columns, nothing, console)
    return OK


def _list_events(client: SocketClient, console: Console, arguments: Namespace) -> bool:
    """Lists what a batch tells of where that is events in the daemon, and no tasks; False where
    it is not."""
    target = f"/v1/batches/{arguments.batch}"
    try:
        batch = client.get_list(target, "members", {}, arguments.limit)
    except RequestRefused as refused:
        if refused.exit_code == NOT_FOUND:
            return False
        raise
    if has_events := any(one.get("event") for one in batch["members"]):
        show_list(batch, "members", EVENTS, "", console)
    return has_events


def _count_tasks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    answer = client.get("/v1/retries/groups", {**filters(arguments), "by": arguments.by})
    found = answer.get("groups") or []
    if not console.tables:
        console.data(answer)
    elif found:
        tasks = TableColumn("TASKS", value_of("tasks", number), right=True)
        columns = [tasks, *(GROUPS[name] for name in arguments.by.split(","))]
        console.lines(table(columns, found[: arguments.limit], console))
        if len(found) > arguments.limit:
            console.say(f"There are {len(found)} groups; --limit shows more.")
        if answer.get("complete") is False:
            console.say("Only the newest tasks were counted: choose fewer by a filter.")
    else:
        console.say("No task matches." if filters(arguments) else "There are no tasks.")
    return OK


def show(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Shows a task, its last answer, and the timeline of its attempts; or its run."""
    if arguments.tree:
        show_tree(client, console, arguments.id)
        return OK
    task = client.get(f"/v1/retries/{arguments.id}")
    console.show(task, lambda: task_page(task, console))
    return OK


def retry(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Retries the tasks named, with other parameters if any are given, or all that the filters
    match."""
    if arguments.all:
        return begin_bulk(client, console, arguments, "/v1/retries/trigger", "failed")
    body: dict[str, Any] = {"force": arguments.force}
    if arguments.params:
        body["params"] = arguments.params
    if arguments.text_params:
        body["text_params"] = dict(arguments.text_params)
    tasks, code = _act_on_each(client, console, arguments.ids, "trigger", body)
    single = len(arguments.ids) == 1
    if not arguments.wait:
        _print_results(tasks, console, single)
        return code
    ids = [task["id"] for task in tasks]
    return combine([code, wait_for_tasks(client, console, ids, arguments.timeout, single)])


def resolve(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Says how the tasks named ended, or all that match; what follows from that, follows."""
    said = {"as": arguments.outcome, "note": arguments.note, "body": arguments.body}
    body = {name: value for name, value in said.items() if value is not None}
    if arguments.all:
        return begin_bulk(client, console, arguments, "/v1/retries/resolve", "failed", body)
    tasks, code = _act_on_each(client, console, arguments.ids, "resolve", body)
    _print_results(tasks, console, len(arguments.ids) == 1)
    return code


def cancel(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Cancels the tasks named, one that cannot be does not keep the others, or all that match."""
    if arguments.all:
        return begin_bulk(client, console, arguments, "/v1/retries/cancel", "pending")
    tasks, code = _act_on_each(client, console, arguments.ids, "cancel", None)
    _print_results(tasks, console, len(arguments.ids) == 1)
    for task in tasks:
        if task.get("status") == "running":
            console.say(f"Task {task.get('id')} is in flight; it will not be tried again.")
    return code


def _act_on_each(
    client: SocketClient, console: Console, ids: list[int], action: str, body: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], int]:
    """Posts `action` to each task: those that took it, and the exit code for the rest.

    Where the daemon goes away after one took it, it ends there; else that error is raised.
    """
    tasks = []
    codes = [OK]
    for tried, task_id in enumerate(ids, 1):
        try:
            tasks.append(client.post(f"/v1/retries/{task_id}/{action}", body))
        except RequestRefused as problem:
            # The one sentence of a single failure needs no number in front of it.
            name = f"{task_id}: " if len(ids) > 1 else ""
            details = problem.details
            if problem.code == "overtaken":
                details += (f"orchestratorctl retry {task_id} --force sends it all the same",)
            console.complain(f"{name}{problem}", *details)
            codes.append(problem.exit_code)
        except CommandError as problem:
            if not tasks:
                raise
            rest = [f"Not tried: {', '.join(map(str, ids[tried:]))}"] if ids[tried:] else []
            console.complain(f"{task_id}: {problem}", *problem.details, *rest)
            return tasks, FAILED
    return tasks, combine(codes)


def _print_results(tasks: list[dict[str, Any]], console: Console, single: bool) -> None:
    """Writes the tasks that took an action: a table, or the one task or the list as data."""
    if not console.tables:
        print_tasks(tasks, console, single)
    elif tasks:
        console.lines(table(TASKS, tasks, console))
