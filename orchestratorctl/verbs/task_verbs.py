"""`call`, `list`, `show`, `retry`, `cancel` and `bulks`."""

from __future__ import annotations

from argparse import Namespace

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, OK, RequestRefused, combine
from orchestratorctl.formats import compact, number
from orchestratorctl.socket_client import SocketClient, endpoint_path
from orchestratorctl.tables import BULKS, COUNTS, MATCHED, NEW_CALL, TASKS, bulk_table, table
from orchestratorctl.task_text import task_page
from orchestratorctl.verb_table import filters
from orchestratorctl.verbs.run_tree import show_tree
from orchestratorctl.waiting import follow_bulk, print_tasks, wait_for_tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAGE = 1000
# Rows of a dry run's counts that fit on a screen.
_COUNTS = 20


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
    """Shows a task, its last answer, and the timeline of its attempts; or its run."""
    if arguments.tree:
        show_tree(client, console, arguments.id)
        return OK
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
    """Lists the latest bulks, or shows how far one is; with --cancel, ends it."""
    if arguments.id is None:
        return _list_bulks(client, console)
    if arguments.cancel:
        client.post(f"/v1/bulks/{arguments.id}/cancel")
    _show_bulk(client.get(f"/v1/bulks/{arguments.id}"), console)
    return OK


def _list_bulks(client: SocketClient, console: Console) -> int:
    answer = client.get("/v1/bulks")
    found = answer.get("bulks") or []
    if found or not console.tables:
        console.show(answer, lambda: table(BULKS, found, console))
    else:
        console.say("There are no bulks: no `retry --all` or `cancel --all` yet.")
    return OK


def _show_bulk(bulk: dict[str, Any], console: Console) -> None:
    console.show(bulk, lambda: bulk_table(bulk, console))
    for reason, count in (bulk.get("why_skipped") or {}).items():
        why = f"they would not be sent ({compact(reason)})"
        if reason == "changed":
            why = "others had moved them, or they ran, before their turn came"
        elif reason == "overtaken":
            why = "later ones of their partition had started; `retry ID --force` sends one"
        console.say(f"{number(count)} skipped: {why}.")


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
            details = problem.details
            if problem.code == "overtaken":
                details += (f"orchestratorctl retry {task_id} --force sends it all the same",)
            console.complain(f"{name}{problem}", *details)
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
    """Begins a bulk and follows it; with --dry-run, only tells what it would move.

    `status` is meant without one.
    """
    body: dict[str, Any] = {
        "filter": {"status": status, **filters(arguments)},
        "dry_run": arguments.dry_run,
    }
    if arguments.rate is not None:
        body["rate"] = arguments.rate
    if getattr(arguments, "include_ambiguous", False):
        body["include_ambiguous"] = True
    answer = client.post(path, body)
    if left_out := answer.get("left_out"):
        console.say(*_left_out(left_out))
    bulk_id = answer.get("bulk")
    if arguments.dry_run or bulk_id is None:
        console.show(answer, lambda: _dry_run(answer, console))
        if arguments.dry_run:
            console.say("This was a dry run: nothing has changed.")
        return OK
    bulk = follow_bulk(client, console, bulk_id)
    _show_bulk(bulk, console)
    if bulk.get("status") == "cancelled":
        console.complain(f"bulk {bulk_id} was cancelled before it was done")
        return FAILED
    return FAILED if (bulk.get("why_skipped") or {}).keys() - {"changed"} else OK


def _left_out(left_out: dict[str, Any]) -> tuple[str, str]:
    numbers = " and ".join(f"{number(count)} {compact(why)}" for why, count in left_out.items())
    return (
        f"Left out: {numbers}, which may have been carried out, or ended the daemon.",
        "Choose them with --reason, or take all with --include-ambiguous.",
    )


def _dry_run(answer: dict[str, Any], console: Console) -> list[str]:
    """The lines of what a bulk would move: how many, which, and the first of them."""
    lines = table([MATCHED], [answer], console)
    counts, examples = answer.get("counts") or [], answer.get("examples") or []
    if counts:
        lines += ["", *table(COUNTS, counts[:_COUNTS], console)]
    if len(counts) > _COUNTS:
        lines.append(f"and {number(len(counts) - _COUNTS)} more; -o json has all")
    if examples:
        lines += ["", *table(TASKS, examples, console)]
    return lines
