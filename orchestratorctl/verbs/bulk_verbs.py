"""`bulks`, and what `retry --all`, `cancel --all` and `resolve --all` have in common."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from types import MappingProxyType

from orchestratorctl.console import Console
from orchestratorctl.exit_codes import FAILED, OK, TIMED_OUT
from orchestratorctl.formats import compact, number
from orchestratorctl.socket_client import SocketClient
from orchestratorctl.tables import BULKS, COUNTS, MATCHED, TASKS, bulk_table, show_list, table
from orchestratorctl.verb_table import filters
from orchestratorctl.waiting import bulk_is_done, follow_bulk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHY_LEFT_OUT = {
    "ambiguous": " (may have been carried out)",
    "poisoned": " (ended the daemon)",
    "resolved": " (a person said how they ended)",
    "webhook_disabled": " (kept to be replayed once the webhook is enabled)",
}
_WHY_SKIPPED = {
    "changed": "others had moved them, or they ran, before their turn came",
    "overtaken": "later ones of their partition had started; `retry ID --force` sends one",
    "no_success": "an empty answer is no success to them; name them one by one, with --body",
    "replaced": "other tasks replace them, which were made of them with other parameters",
}
# Rows of a dry run's counts that fit on a screen.
_COUNTS = 20


def begin_bulk(
    client: SocketClient,
    console: Console,
    arguments: Namespace,
    path: str,
    status: str,
    said: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Begins a bulk and follows it; with --dry-run, only tells what it would move.

    `status` is meant without one. `said`: of the body, besides.
    """
    body: dict[str, Any] = {
        "filter": {"status": status, **filters(arguments)},
        "dry_run": arguments.dry_run,
        **said,
    }
    for name in ("rate", "include_ambiguous", "force", "stop_after"):
        value = getattr(arguments, name, None)
        if value is not None and value is not False:
            body[name] = value
    answer = client.post(path, body)
    if left_out := answer.get("left_out"):
        console.say(*_left_out(left_out, hasattr(arguments, "include_ambiguous")))
    bulk_id = answer.get("bulk")
    if arguments.dry_run or bulk_id is None:
        console.show(answer, lambda: _dry_run(answer, console))
        if arguments.dry_run:
            console.say("This was a dry run: nothing has changed.")
        return OK
    return _follow(client, console, arguments, bulk_id)


def _follow(client: SocketClient, console: Console, arguments: Namespace, bulk_id: object) -> int:
    """Follows a bulk, with --wait to its end, and says how it went; the exit code."""
    wait = getattr(arguments, "wait", False)
    timeout = arguments.timeout if wait else None
    bulk = follow_bulk(client, console, bulk_id, to_the_end=wait, timeout=timeout)
    _show_bulk(bulk, console)
    if bulk.get("status") == "cancelled":
        console.complain(f"bulk {bulk_id} was cancelled before it was done")
        return FAILED
    if bulk.get("status") == "paused":
        console.complain(
            f"bulk {bulk_id} has paused: {number(bulk.get('failed'))} of what it retried failed",
            f"See why: orchestratorctl list --bulk {bulk_id} --status failed",
            f"Once you have corrected that: orchestratorctl bulks {bulk_id} --resume --wait",
        )
        return FAILED
    if not bulk_is_done(bulk, to_the_end=wait):
        waits = number(bulk.get("waiting"))
        console.complain(f"bulk {bulk_id} has not ended in time, and goes on: {waits} wait")
        return TIMED_OUT
    if bulk.get("failed") and bulk.get("action") != "resolve":
        console.complain(
            f"{number(bulk['failed'])} of what bulk {bulk_id} retried failed",
            f"See which: orchestratorctl list --bulk {bulk_id} --status failed",
        )
        return FAILED
    if bulk.get("waiting"):
        waits = f"{number(bulk['waiting'])} of them wait"
        console.hint(f"{waits}; see how they end: orchestratorctl bulks {bulk_id} --wait")
    return FAILED if (bulk.get("why_skipped") or {}).keys() - {"changed"} else OK


def _left_out(left_out: dict[str, Any], may_include: bool) -> tuple[str, str]:
    parts = [
        f"{number(count)} {compact(reason)}{_WHY_LEFT_OUT.get(reason, '')}"
        for reason, count in left_out.items()
    ]
    more = ", or take all with --include-ambiguous" * (may_include and "resolved" not in left_out)
    return f"Left out: {', '.join(parts)}.", f"Choose them with --reason{more}."


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


def bulks(client: SocketClient, console: Console, arguments: Namespace) -> int:
    """Lists the latest bulks, or shows how far one is and how it went; with --cancel, ends it, with
    --resume, has it go on, with --wait, waits for its end."""
    if arguments.id is None:
        nothing = "There are no bulks: no `retry`, `cancel` or `resolve` with `--all` yet."
        show_list(client.get("/v1/bulks"), "bulks", BULKS, nothing, console)
        return OK
    if arguments.cancel:
        client.post(f"/v1/bulks/{arguments.id}/cancel")
    if arguments.resume:
        client.post(f"/v1/bulks/{arguments.id}/resume")
    if arguments.wait:
        return _follow(client, console, arguments, arguments.id)
    _show_bulk(client.get(f"/v1/bulks/{arguments.id}"), console)
    return OK


def _show_bulk(bulk: dict[str, Any], console: Console) -> None:
    console.show(bulk, lambda: bulk_table(bulk, console))
    for reason, count in (bulk.get("why_skipped") or {}).items():
        why = _WHY_SKIPPED.get(reason, f"they would not be sent ({compact(reason)})")
        console.say(f"{number(count)} skipped: {why}.")
