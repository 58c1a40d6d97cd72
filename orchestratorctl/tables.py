"""Every list that is shown, column by column, and how tables and labelled fields are laid out.

A column is one row here: its heading and the function that makes its cell of an item.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence

from orchestratorctl.console import Console
from orchestratorctl.formats import GAP, ago, compact, cut, cut_middle, escape, number, until, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]
    Cell = Callable[[Any], "str | Painted"]

_NARROWEST = 8
_COMFORTABLE = 16


class Painted(namedtuple("Painted", ["text", "colour"])):
    """A text that stands out, in one of the screen's colours; None for none."""

    __slots__ = ()


class TableColumn(
    namedtuple(
        "TableColumn", ["title", "cell", "right", "cut", "spare"], defaults=[False, None, False]
    )
):
    """A column of a table.

    Args:
        title: its heading.
        cell: what stands in the row of an item.
        right: whether its cells stand at the right, as numbers do.
        cut: `end` or `middle`, where a cell may be shortened when the line is too short, or
            `target` for what `target` writes; None, and it stays whole.
        spare: whether it is left out before others are shortened much.
    """

    __slots__ = ()


def value_of(name: str, write: Callable[[Any], str] = compact) -> Cell:
    """The cell of a column that shows a value of the API as it is."""
    return lambda item: write(item.get(name))


def table(columns: Sequence[TableColumn], items: Iterable[Any], console: Console) -> list[str]:
    """The lines of a table: headings, then one line an item, none longer than the terminal's."""
    rows = [[_painted(column.cell(item)) for column in columns] for item in items]
    widths = [
        max([len(column.title), *(len(row[at].text) for row in rows)])
        for at, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if console.width is not None:
        silent = [at for at in shown if rows and all(row[at].text in ("", "-") for row in rows)]
        shown = _fit(columns, widths, silent, console.width)
    heads = [Painted(column.title, "dim") for column in columns]
    return [_line(columns, widths, shown, row, console) for row in (heads, *rows)]


def show_list(
    document: Document, name: str, columns: Sequence[TableColumn], nothing: str, console: Console
) -> None:
    """Write a document that holds a list by this name; `nothing` where it is empty, for people."""
    items = document.get(name) or []
    if items or not console.tables:
        console.show(document, lambda: table(columns, items, console))
        if console.tables and document.get("next") is not None:
            console.say(f"There are more than these {len(items)}; --limit shows more.")
    else:
        console.say(nothing)


def _painted(value: str | Painted) -> Painted:
    text, colour = value if isinstance(value, Painted) else (value, None)
    return Painted(escape(text), colour)


def _fit(
    columns: Sequence[TableColumn], widths: list[int], silent: Sequence[int], width: int
) -> list[int]:
    """Shortens `widths` to fit; the numbers of the columns that remain.

    Columns are left out, silent ones first and then the spare, only where the others would have
    to be shortened too much.
    """
    shown = list(range(len(columns)))

    def excess(longest: int | None = None) -> int:
        texts = (
            min(widths[at], longest) if longest and columns[at].cut else widths[at] for at in shown
        )
        return sum(texts) + len(GAP) * (len(shown) - 1) - width

    spare = [at for at in shown if columns[at].spare]
    for at in dict.fromkeys([*silent, *spare]):
        if excess(_COMFORTABLE) > 0:
            shown.remove(at)
    flexible = [at for at in shown if columns[at].cut]
    while excess() > 0 and flexible:
        widest = max(flexible, key=lambda at: widths[at])
        if widths[widest] <= max(_NARROWEST, len(columns[widest].title)):
            break
        widths[widest] -= 1
    return shown


def _line(
    columns: Sequence[TableColumn],
    widths: Sequence[int],
    shown: Sequence[int],
    row: Sequence[Painted],
    console: Console,
) -> str:
    parts = []
    for at in shown:
        column, (text, colour) = columns[at], row[at]
        text = _CUTS.get(column.cut, cut)(text, widths[at])
        blank = "" if at == shown[-1] and not column.right else " " * (widths[at] - len(text))
        text = console.paint(text, colour)
        parts.append(blank + text if column.right else text + blank)
    return GAP.join(parts).rstrip()


def _cut_target(text: str, width: int) -> str:
    """As `cut_middle`; of a delivery to a subscription its tenant stays, as `acme/sub_2c…`."""
    webhook = text.partition(" → ")[2]
    is_long = len(text) > width and "/" in webhook
    return cut(webhook, width) if is_long else cut_middle(text, width)


_CUTS = {"middle": cut_middle, "target": _cut_target}


def fields(
    pairs: Iterable[tuple[str, str | Painted]], console: Console, indent: str = "  "
) -> list[str]:
    """The lines of labelled values; a long value goes on below itself."""
    given = [(label, _painted(value)) for label, value in pairs]
    label_width = max((len(label) for label, _ in given), default=0)
    taken = len(indent) + label_width + len(GAP)
    room = console.room(taken)
    lines = []
    for label, value in given:
        for at, text in enumerate(wrap(value.text, room)):
            head = console.paint(label.ljust(label_width), "dim") if at == 0 else " " * label_width
            lines.append(f"{indent}{head}{GAP}{console.paint(text, value.colour)}".rstrip())
    return lines


# -- tasks ---------------------------------------------------------------------------------------

STATUS_COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "cancelled": "dim"}


def target(task: Document) -> str:
    """What the task calls: an endpoint, or an endpoint's webhook as `api/name → webhook`."""
    endpoint, webhook = compact(task.get("endpoint")), task.get("webhook")
    return f"{endpoint} → {webhook}" if webhook else endpoint


def task_status(task: Document) -> Painted:
    """The task's status and its reason, as `failed exhausted`."""
    name, reason = compact(task.get("status")), task.get("reason")
    return Painted(f"{name} {reason}" if reason else name, STATUS_COLOURS.get(name))


def _attempts(task: Document) -> str:
    """How many attempts of how many, as `2/15`."""
    limit = task.get("max_attempts")
    made = compact(task.get("attempts"))
    return made if limit is None else f"{made}/{limit}"


def _next_try(task: Document) -> str:
    return until(task.get("next_try")) if task.get("status") == "pending" else "-"


def _error(task: Document) -> str:
    """What the last attempt failed with; nothing of a task that has succeeded, and of one that a
    plugin put off, why."""
    if task.get("waits_for"):
        return f"waits for: {compact(task['waits_for'])}"
    return compact(task.get("last_error")) if task.get("status") != "succeeded" else "-"


TASKS = (
    TableColumn("ID", value_of("id"), right=True),
    TableColumn("KIND", value_of("kind"), spare=True),
    TableColumn("ENDPOINT", target, cut="target"),
    TableColumn("STATUS", task_status, cut="end"),
    TableColumn("ATTEMPTS", _attempts, right=True),
    TableColumn("CODE", value_of("last_status_code"), right=True),
    TableColumn("NEXT TRY", _next_try, right=True),
    TableColumn("CREATED", value_of("created_at", ago), right=True),
    TableColumn("ERROR", _error, cut="end", spare=True),
)
PARAMS = TableColumn("PARAMS", value_of("params"), cut="end")
"""Beside those of `TASKS`, where it is asked for."""
GROUPS = {
    "endpoint": TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
    "webhook": TableColumn("WEBHOOK", value_of("webhook"), cut="middle"),
    "kind": TableColumn("KIND", value_of("kind")),
    "status": TableColumn("STATUS", lambda item: task_status({"status": item.get("status")})),
    "reason": TableColumn("REASON", value_of("reason")),
    "status_code": TableColumn("CODE", value_of("status_code"), right=True),
    "partition": TableColumn("PARTITION", value_of("partition"), cut="end"),
}
"""What tasks can be grouped by → its column."""
NEW_CALL = (
    TableColumn("ID", value_of("id"), right=True),
    TableColumn("STATUS", value_of("status")),
    TableColumn("ENDPOINT", value_of("endpoint")),
)


# -- bulks ---------------------------------------------------------------------------------------

_BULK_COLOURS = {"finished": "green", "running": "cyan", "paused": "red", "cancelled": "yellow"}


def _bulk_status(bulk: Document) -> Painted:
    status = compact(bulk.get("status"))
    return Painted(status, _BULK_COLOURS.get(status))


MATCHED = TableColumn("MATCHED", value_of("matched", number), right=True)
COUNTS = (
    TableColumn("TASKS", value_of("tasks", number), right=True),
    TableColumn("REASON", value_of("reason")),
    TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
)


def _failed(bulk: Document) -> Painted:
    failed = bulk.get("failed")
    return Painted(number(failed), "red" if failed else None)


OUTCOMES = (
    TableColumn("SUCCEEDED", value_of("succeeded", number), right=True),
    TableColumn("FAILED", _failed, right=True),
    TableColumn("WAITING", value_of("waiting", number), right=True),
)
"""How it went with what a bulk has moved."""

BULKS = (
    TableColumn("BULK", value_of("id"), right=True),
    TableColumn("ACTION", value_of("action")),
    TableColumn("STATUS", _bulk_status),
    MATCHED,
    TableColumn("MOVED", value_of("moved", number), right=True),
    *OUTCOMES,
    TableColumn("SKIPPED", value_of("skipped", number), right=True, spare=True),
    TableColumn("RATE", value_of("rate"), right=True),
    TableColumn("CREATED", value_of("created_at", ago), right=True),
)


def moved_word(bulk: Document) -> str:
    """What a bulk does to its tasks, as `retried`."""
    return {"cancel": "cancelled", "resolve": "resolved"}.get(str(bulk.get("action")), "retried")


def outcomes(bulk: Document) -> list[str]:
    """How it went with what a bulk has moved, as far as that is known: `3 failed`."""
    names = ("succeeded", "failed", "waiting")
    return [f"{number(bulk[name])} {name}" for name in names if bulk.get(name)]


def bulk_table(bulk: Document, console: Console) -> list[str]:
    """The lines of a table of one bulk, how far it has come."""
    columns = (
        TableColumn("BULK", value_of("id"), right=True),
        TableColumn("STATUS", _bulk_status),
        MATCHED,
        TableColumn(moved_word(bulk).upper(), value_of("moved", number), right=True),
        *(OUTCOMES if moved_word(bulk) == "retried" else ()),
        TableColumn("SKIPPED", value_of("skipped", number), right=True),
        TableColumn("RATE", value_of("rate"), right=True),
    )
    return table(columns, [bulk], console)


# -- the outbox ----------------------------------------------------------------------------------


def _outbox_status(row: Document) -> Painted:
    name, reason = compact(row.get("status")), row.get("reason")
    return Painted(f"{name} {reason}" if reason else name, "red" if reason else None)


OUTBOX = (
    TableColumn("ROW", value_of("id"), right=True),
    TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
    TableColumn("STATUS", _outbox_status, cut="end"),
    TableColumn("KEY", value_of("key"), cut="end", spare=True),
    TableColumn("WHY", value_of("error"), cut="end"),
    TableColumn("CREATED", value_of("created_at", ago), right=True),
)


# -- the events of a batch -----------------------------------------------------------------------

EVENTS = (
    TableColumn("AT", value_of("at", ago), right=True),
    TableColumn(
        "EVENT",
        lambda item: compact((item.get("event") or {}).get("text") or item.get("reason")),
        cut="end",
    ),
)
"""Of a batch that tells of what happens in the daemon."""


# -- the action log ------------------------------------------------------------------------------

ACTIONS = (
    TableColumn("AT", value_of("at", ago), right=True),
    TableColumn("WHO", value_of("who"), cut="end"),
    TableColumn("ACTION", value_of("action")),
    TableColumn("ENDPOINT", target, cut="target"),
    TableColumn("TASK", value_of("task"), right=True),
    TableColumn("BULK", value_of("bulk"), right=True),
    TableColumn("DETAIL", lambda item: compact(item.get("detail") or None), cut="end", spare=True),
)


# -- endpoints -----------------------------------------------------------------------------------


def endpoint_state(endpoint: Document) -> Painted:
    """Whether an endpoint is enabled, paused or disabled."""
    if endpoint.get("enabled") is False:
        return Painted("disabled", "dim")
    if endpoint.get("paused"):
        return Painted("paused", "yellow")
    return Painted("enabled", None)


def _request(endpoint: Document) -> str:
    where = endpoint.get("path")
    if where is None:
        statement = endpoint.get("statement")
        return compact(" ".join(str(statement).split()) if statement else endpoint.get("type"))
    return f"{endpoint.get('method') or 'GET'} {compact(where)}"


def _schedule(schedule: Any) -> str:
    if not isinstance(schedule, dict):
        return compact(schedule)
    if schedule.get("cron"):
        return compact(schedule["cron"])
    words = [f"every {compact(schedule['every'])}"] if schedule.get("every") else []
    words += [f"at {compact(schedule['at'])}"] if schedule.get("at") else []
    return " ".join(words) or compact(schedule)


ENDPOINTS = (
    TableColumn("ENDPOINT", value_of("id")),
    TableColumn("STATE", endpoint_state),
    TableColumn("TARGET", _request, cut="middle"),
    TableColumn("SCHEDULE", value_of("schedule", _schedule), cut="end"),
    TableColumn("WEBHOOKS", lambda item: str(len(item.get("webhooks") or [])), right=True),
)

RUNS = (
    TableColumn("RUN", value_of("id"), right=True),
    TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
    TableColumn("STATUS", value_of("status")),
    TableColumn("CALLS", lambda run: number(run["counts"]["total"]), right=True),
    TableColumn("SUCCEEDED", lambda run: number(run["counts"]["succeeded"]), right=True),
    TableColumn("FAILED", lambda run: _failed(run["counts"]), right=True),
    TableColumn("BEGAN", value_of("started_at", ago), right=True),
    TableColumn("ENDED", value_of("ended_at", ago), right=True),
)


def _missed(schedule: Document) -> Painted:
    missed = schedule.get("missed")
    if not missed:
        return Painted("-", None)
    what = "run once, late" if missed.get("ran") else "skipped"
    return Painted(f"{number(missed.get('slots'))} until {ago(missed.get('last'))}, {what}", "red")


SCHEDULES = (
    TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
    TableColumn("STATE", endpoint_state),
    TableColumn("SCHEDULE", value_of("schedule", _schedule), cut="end"),
    TableColumn("NEXT", value_of("next_run", until), right=True),
    TableColumn("LAST", value_of("last_run", ago), right=True),
    TableColumn("TASK", value_of("task"), right=True),
    TableColumn("STATUS", task_status, cut="end"),
    TableColumn("MISSED", _missed, cut="end", spare=True),
)


# -- webhooks ------------------------------------------------------------------------------------


def _codes(value: Any) -> str:
    """The status codes that a webhook fires on, as `5xx,error`; `any` where it names none."""
    if value is None or value == []:
        return "any"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return compact(value)


def _webhook_state(webhook: Document) -> Painted:
    if webhook.get("enabled") is not False:
        return Painted("enabled", "green")
    reason = webhook.get("disabled_reason")
    return Painted(f"disabled ({reason})" if reason else "disabled", "red")


def _last_answer(webhook: Document) -> str:
    tried = webhook.get("last_attempt_at")
    last = compact(webhook.get("last_status_code"))
    return f"{last} {ago(tried)}" if tried else last


def _failures(webhook: Document) -> Painted:
    failures = webhook.get("failures") or 0
    return Painted(compact(failures), "yellow" if failures else None)


DECLARED_WEBHOOKS = (
    TableColumn("NAME", value_of("name")),
    TableColumn("PHASE", value_of("phase")),
    TableColumn("STATUS CODE", value_of("status_code", _codes)),
    TableColumn("URL", value_of("url"), cut="middle"),
    TableColumn("ENABLED", lambda item: "no" if item.get("enabled") is False else "yes"),
)
"""Of the webhooks of one endpoint, as it declares them."""

WEBHOOKS = (
    TableColumn("ENDPOINT", value_of("endpoint"), cut="middle"),
    TableColumn("WEBHOOK", value_of("name"), cut="middle"),
    TableColumn("PHASE", value_of("phase")),
    TableColumn("ON", value_of("status_code", _codes)),
    TableColumn("URL", value_of("url"), cut="middle", spare=True),
    TableColumn("STATE", _webhook_state, cut="end"),
    TableColumn("LAST", _last_answer, right=True),
    TableColumn("FAILED", _failures, right=True, spare=True),
)
