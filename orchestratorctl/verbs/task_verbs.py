"""`call`, `list`, `show`, `retry`, `cancel` and `bulks`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, OK, RequestRefused, combine
from orchestratorctl.socket_client import SocketClient, endpoint_path
from orchestratorctl.tables import MATCHED, NEW_CALL, TASKS, bulk_table, table
from orchestratorctl.task_text import task_page
from orchestratorctl.verb_table import filters
from orchestratorctl.waiting import follow_bulk, print_tasks, wait_for_tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAGE = 1000


def call(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Calls the endpoint; with --wait, waits for the answer."""
    body: dict[str, Any] = {"params": arguments.params or {}}
    if arguments.text_params:
        body["text_params"] = dict(arguments.text_params)
    if arguments.delay is not None:
        body["delay"] = arguments.delay
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
        return wait_for_tasks(client, console, [task["id"]], arguments.timeout)
    shown = {**task, "endpoint": arguments.endpoint}
    console.show(task, lambda: table(NEW_CALL, [shown], console))
    if console.tables:
        console.hint(f"Follow it with: orchestratorctl show {task_id}")
    return OK


def list_tasks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists tasks, newest first, as many pages as the limit needs."""
    tasks: list[dict[str, Any]] = []
    after = None
    while True:
        room = min(arguments.limit - len(tasks), _PAGE)
        page = client.get("/v1/retries", {**filters(arguments), "limit": room, "after": after})
        tasks += page.get("retries") or []
        after = page.get("next")
        if after is None or len(tasks) >= arguments.limit or not page.get("retries"):
            break
    if not console.tables:
        console.data({"retries": tasks, "next": after})
    elif tasks:
        console.lines(table(TASKS, tasks, console))
        if after is not None:
            console.say(f"There are more than these {len(tasks)}; --limit shows more.")
    else:
        console.say("No task matches." if filters(arguments) else "There are no tasks.")
    return OK


def show(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Shows a task, its last answer, and the timeline of its attempts."""
    task = client.get(f"/v1/retries/{arguments.id}")
    console.show(task, lambda: task_page(task, console))
    return OK


def retry(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Retries the tasks named, or all that the filters match."""
    if arguments.all:
        return _begin_bulk(client, console, arguments, "/v1/retries/trigger", "failed")
    body = {"force": arguments.force}
    tasks, code = _act_on_each(client, console, arguments.ids, "trigger", body)
    if not arguments.wait:
        _print_results(tasks, console, len(arguments.ids) == 1)
        return code
    ids = [task["id"] for task in tasks]
    if not ids:
        return code
    return combine([code, wait_for_tasks(client, console, ids, arguments.timeout)])


def cancel(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Cancels the tasks named, one that cannot be does not keep the others, or all that match."""
    if arguments.all:
        return _begin_bulk(client, console, arguments, "/v1/retries/cancel", "pending")
    tasks, code = _act_on_each(client, console, arguments.ids, "cancel", None)
    _print_results(tasks, console, len(arguments.ids) == 1)
    for task in tasks:
        if task.get("status") == "running":
            console.say(f"Task {task.get('id')} is in flight; it will not be tried again.")
    return code


def bulks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Shows how far a bulk is; with --cancel, ends it."""
    if arguments.cancel:
        client.post(f"/v1/bulks/{arguments.id}/cancel")
    bulk = client.get(f"/v1/bulks/{arguments.id}")
    console.show(bulk, lambda: bulk_table(bulk, console))
    return OK


def _act_on_each(
    client: SocketClient, console: Console, ids: list[int], action: str, body: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], int]:
    """Posts `action` to each task: those that took it, and the exit code for the rest."""
    tasks = []
    codes = [OK]
    for task_id in ids:
        try:
            tasks.append(client.post(f"/v1/retries/{task_id}/{action}", body))
        except RequestRefused as problem:
            # The one sentence of a single failure needs no number in front of it.
            name = f"{task_id}: " if len(ids) > 1 else ""
            console.complain(f"{name}{problem}", *problem.details)
            codes.append(problem.exit_code)
    return tasks, combine(codes)


def _print_results(tasks: list[dict[str, Any]], console: Console, single: bool) -> None:
    """Writes the tasks that took an action: a table, or the one task or the list as data."""
    if not console.tables:
        if tasks or not single:
            print_tasks(tasks, console, single)
    elif tasks:
        console.lines(table(TASKS, tasks, console))


def _begin_bulk(
    client: SocketClient, console: Console, arguments: Namespace, path: str, status: str
) -> int:
    """Begins a bulk and follows it; with --dry-run, only counts. `status` is meant without one."""
    body: dict[str, Any] = {
        "filter": {"status": status, **filters(arguments)},
        "dry_run": arguments.dry_run,
    }
    if arguments.rate is not None:
        body["rate"] = arguments.rate
    answer = client.post(path, body)
    bulk_id = answer.get("bulk")
    if arguments.dry_run or bulk_id is None:
        console.show(answer, lambda: table([MATCHED], [answer], console))
        if arguments.dry_run:
            console.say("This was a dry run: nothing has changed.")
        return OK
    bulk = follow_bulk(client, console, bulk_id)
    console.show(bulk, lambda: bulk_table(bulk, console))
    if bulk.get("status") == "cancelled":
        console.complain(f"bulk {bulk_id} was cancelled before it was done")
        return FAILED
    return OK
