"""What is said of one task: its page, attempts and last answer, how far it is, how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from orchestratorctl.console import Console
from orchestratorctl.formats import (
    GAP,
    ago,
    body_lines,
    clock_time,
    coarse,
    compact,
    cut,
    escape,
    number,
    seconds_at,
    short_time,
    span,
    until,
    with_age,
    wrap,
)
from orchestratorctl.tables import STATUS_COLOURS, Painted, fields, target, task_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FINAL = ("succeeded", "failed", "cancelled")
SCREENFUL = 20
_LINE = 78
_PARAMS = 400

_TITLES = ("#", "STARTED (UTC)", "TOOK", "CODE", "THEN")
_RIGHT = (True, False, True, True, False)


# -- sentences -----------------------------------------------------------------------------------


def progress_text(task: dict[str, Any]) -> str:
    """How far the task has come, as `attempt 2 failed with 503, next try in 10s`."""
    made = task.get("attempts") or 0
    state = task.get("status")
    if state == "running":
        return f"attempt {made} is under way"
    if state in FINAL:
        return result_text(task)
    at = seconds_at(task.get("next_try"))
    wait = None if at is None else at - time.time()
    if (waits := task.get("waits")) and (wait is None or wait <= 0):
        return f"waits: {waits.get('why')}"
    if not made:
        later = f"first try in {coarse(wait + 0.999)}" if wait and wait > 0 else None
        return (later or "waits for its turn") + _error(task)  # one that was given back says why
    what = f"attempt {made} failed{_with(task)}"
    if wait is None:
        return what
    return f"{what}, next try " + (f"in {coarse(wait + 0.999)}" if wait > 0 else "is due")


def result_text(task: dict[str, Any]) -> str:
    """How the task ended, as `failed (exhausted) after 15 attempts with 503`."""
    made = task.get("attempts") or 0
    after = f" after {made} attempt{'' if made == 1 else 's'}" if made else ""
    reason = f" ({task['reason']})" if task.get("reason") else ""
    return f"{compact(task.get('status'))}{reason}{after}{_with(task)}"


def _with(task: dict[str, Any]) -> str:
    code = task.get("last_status_code")
    return ("" if code is None or code == "error" else f" with {code}") + _error(task)


def _error(task: dict[str, Any]) -> str:
    error = task.get("last_error")
    return f": {error}" if error and task.get("status") != "succeeded" else ""


def wait_reason(found: dict[str, Any]) -> str:
    """What a task waits for, as `breaker of api:shop …: since 10:31:04, next probe in 12s`."""
    why, at = compact(found.get("why")), found.get("until")
    what = found.get("for")
    if what == "breaker":
        return f"{why}; open since {time_of_day(found.get('since'))}, next {probe_time(at)}"
    if what == "overload":
        return why
    if what == "partition" and at:
        return f"{why}, which is tried again: {until(at)}"
    if what == "rate_limit":
        return f"{why}, the next of it {until(at)}" if at else why
    return f"{why}, {until(at)}" if at else why


def probe_time(at: object) -> str:
    """When the probe of an open circuit breaker is sent."""
    if at is None:
        return "probe is under way"
    due = until(at)
    return "probe with the next task" if due == "due" else f"probe {due}"


def time_of_day(at: object) -> str:
    """The time of the day, as the log has it: in UTC."""
    return clock_time(at)[-9:]


# -- its page ------------------------------------------------------------------------------------


def task_page(task: dict[str, Any], console: Console) -> list[str]:
    """All that is shown of one task."""
    lines = [console.paint(_title(task), "bold"), "", *fields(_facts(task), console)]
    lines += ["", *_answer(task, console)]
    return [*lines, "", *timeline(task.get("attempt_log") or [], console, task.get("status"))]


def _title(task: dict[str, Any]) -> str:
    verb = "delivery for" if task.get("kind") == "webhook" else f"{compact(task.get('kind'))} of"
    return f"Task {task.get('id')}: {verb} {target(task)}"


def _facts(task: dict[str, Any]) -> list[tuple[str, str | Painted]]:
    state = task.get("status")
    facts: list[tuple[str, str | Painted]] = [
        ("status", task_status(task)),
        ("attempts", f"{compact(task.get('attempts'))} of {compact(task.get('max_attempts'))}"),
    ]
    if task.get("deaths"):
        facts.append(
            ("deaths", f"{compact(task['deaths'])} of its starts ended with the daemon's death")
        )
    if task.get("looks"):
        first = ago(task.get("looked_since"))
        facts.append(("looks", f"{compact(task['looks'])}, not done yet; the first {first}"))
    if task.get("phase"):
        facts.append(("phase", compact(task["phase"])))
    if state == "pending":
        at = task.get("next_try")
        facts.append(("next try", f"{until(at)} ({clock_time(at)})" if at else "-"))
        if task.get("waits"):
            facts.append(("waits for", Painted(wait_reason(task["waits"]), "yellow")))
    if task.get("cancel_requested"):
        facts.append(("cancelled", Painted("no attempt follows the one under way", "yellow")))
    if task.get("partition") is not None:
        facts.append(("partition", compact(task["partition"])))
    if task.get("holds_partition"):
        facts.append(("holds", Painted("its partition, until it is retried or cancelled", "red")))
    facts.append(("created", with_age(task.get("created_at"))))
    if state in FINAL:
        facts.append(("finished", with_age(task.get("finished_at"))))
    if task.get("parent_id") is not None:
        facts.append(("parent", f"task {task['parent_id']}"))
    if task.get("run_id") is not None:
        facts.append(("run", f"{task['run_id']}; show {task.get('id')} --tree shows it"))
    if task.get("replaces") is not None:
        facts.append(("replaces", f"task {task['replaces']}, with other parameters"))
    if task.get("replaced_by") is not None:
        facts.append(("replaced by", f"task {task['replaced_by']}, with other parameters"))
    if task.get("bulk_id") is not None:
        facts.append(("bulk", compact(task["bulk_id"])))
    if task.get("idempotency_key"):
        label = "webhook-id" if task.get("kind") == "webhook" else "Idempotency-Key"
        facts.append((label, compact(task["idempotency_key"])))
    if task.get("client_key"):
        facts.append(("client's key", compact(task["client_key"])))
    facts += [
        (name, cut(compact(task[name]), _PARAMS))
        for name in ("params", "payload")
        if task.get(name)
    ]
    if task.get("last_error"):
        facts.append(("last error", Painted(compact(task["last_error"]), "red")))
    return facts


def _answer(task: dict[str, Any], console: Console) -> list[str]:
    answer = last_answer(task)
    known = [] if answer is None else [answer.headline]
    if (task.get("reason"), task.get("status")) == ("resolved", "succeeded"):  # no receiver said it
        known = [f"resolved as {compact(task.get('last_status_code'))}", *known]
    lines = [f"Last answer: {'; '.join(known) or 'none'}"]
    if answer is None or not answer.body:
        return lines
    beginning, more = answer.beginning(console.width)
    lines += [f"  | {line}".rstrip() for line in beginning]
    if more:
        lines.append("  … only the beginning is shown; -o json shows all.")
    elif answer.truncated:
        lines.append("  … the answer was longer; the daemon has kept its beginning.")
    return lines


# -- its attempts --------------------------------------------------------------------------------


def timeline(log: Sequence[dict[str, Any]], console: Console, state: object) -> list[str]:
    """The lines of the attempts, oldest first.

    Each attempt has a line with its number, start, duration, status code, and what followed:
    the delay that was chosen and why, or, for the last one, how the task ended. An error stands
    on a line below. On a screen that is too narrow the reason goes on below itself.

    Args:
        log: the entries of `attempt_log`.
        state: the task's status.
    """
    if not log:
        return ["Attempts: none yet"]
    rows = [_row(entry) for entry in log]
    if state in FINAL and not rows[-1][4]:
        rows[-1][4] = str(state)
    widths = [max(len(title), *(len(row[at]) for row in rows)) for at, title in enumerate(_TITLES)]
    indent = sum(widths[:4]) + 4 * len(GAP)
    room = console.room(indent)
    lines = ["Attempts", console.paint(_line(_TITLES, widths), "dim")]
    for entry, row in zip(log, rows, strict=True):
        first, *rest = wrap(row[4], room)
        colour = STATUS_COLOURS.get(first) if entry is log[-1] else None
        lines.append(_line([*row[:4], console.paint(first, colour)], widths))
        lines += [" " * indent + text for text in rest]
        if entry.get("error"):
            below = widths[0] + len(GAP)
            error = wrap(escape(compact(entry["error"])), console.room(below))
            lines += [" " * below + console.paint(text, "red") for text in error]
    return lines


def _row(entry: dict[str, Any]) -> list[str]:
    took = entry.get("duration_ms")
    cells = (
        compact(entry.get("attempt")),
        short_time(entry.get("started_at")),
        span(took / 1000) if isinstance(took, int | float) else compact(took),
        compact(entry.get("status_code")),
        _then(entry),
    )
    return [escape(cell) for cell in cells]


def _then(entry: dict[str, Any]) -> str:
    delay, why = entry.get("delay"), entry.get("why")
    if delay is None:
        return compact(why) if why else ""
    wait = f"wait {span(delay) if isinstance(delay, int | float) else compact(delay)}"
    return f"{wait}: {compact(why)}" if why else wait


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells[:4], widths, _RIGHT, strict=False)
    ]
    return GAP.join([*parts, cells[4]]).rstrip()


# -- its last answer -----------------------------------------------------------------------------


class LastAnswer:
    """What a task's endpoint or receiver answered last.

    Attributes:
        headline: its status, type and size, as `503, text/plain, 120 characters`.
        body: its text; empty where there was none.
        binary: whether it was no text, and `body` is its base64.
        truncated: whether the daemon kept only the beginning.
    """

    def __init__(self, response: Any) -> None:
        self.binary = self.truncated = False
        facts = []
        body = response
        if isinstance(response, dict) and "body" in response:
            body = response["body"]
            self.truncated = bool(response.get("truncated"))
            self.binary = response.get("encoding") == "base64"
            facts = [response.get("status_code"), _header(response.get("headers"), "content-type")]
            facts += ["not text: this is its base64"] if self.binary else []
        elif isinstance(response, dict) and "headers" in response:
            body = None
            facts = [response.get("status_code")]
        self.body = _text(body)
        length = f"{number(len(self.body))} characters" if self.body else "empty"
        known = [compact(fact) for fact in facts if fact is not None]
        self.headline = escape(", ".join([*known, length]))

    def beginning(self, width: int | None) -> tuple[list[str], bool]:
        """The body's first screenful, harmless, and whether there is more of it."""
        rows: list[str] = []
        room = _LINE if width is None else max(width - 4, 20)
        for line in body_lines(self.body.rstrip()):
            flat = line.expandtabs(4)
            rows += [flat[at : at + room] for at in range(0, len(flat), room)] or [""]
            if len(rows) > SCREENFUL:
                return rows[:SCREENFUL], True
        return rows, False


def last_answer(task: dict[str, Any]) -> LastAnswer | None:
    """The task's last answer, or None where no answer ever came."""
    response = task.get("response")
    return None if response is None else LastAnswer(response)


def print_answer(task: dict[str, Any], console: Console) -> None:
    """Writes the whole body to stdout."""
    answer = last_answer(task)
    if answer is None or not answer.body:
        return
    lines = body_lines(answer.body)
    console.lines(lines[:-1] if lines[-1] == "" else lines)
    if answer.binary:
        console.say("The answer is not text; this is its base64.")
    if answer.truncated:
        console.say("The answer was longer; the daemon has kept its beginning.")


def _text(body: Any) -> str:
    if body is None:
        return ""
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def _header(headers: Any, name: str) -> Any:
    pairs = headers.items() if isinstance(headers, dict) else headers
    try:
        return next((value for key, value in pairs if str(key).lower() == name), None)
    except (TypeError, ValueError):
        return None
