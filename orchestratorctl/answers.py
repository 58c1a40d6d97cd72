"""The last answer of a task: its status line and its body."""

from __future__ import annotations

import json

from orchestratorctl.render import compact, number
from orchestratorctl.screen import Screen
from orchestratorctl.text import body_lines, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCREENFUL = 20
_LINE = 78


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
            facts += ["no text: this is its base64"] if self.binary else []
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
    """The task's last answer, or None where nobody ever answered."""
    response = task.get("response")
    return None if response is None else LastAnswer(response)


def print_answer(task: dict[str, Any], screen: Screen) -> None:
    """Writes the whole body to stdout."""
    answer = last_answer(task)
    if answer is None or not answer.body:
        return
    lines = body_lines(answer.body)
    screen.lines(lines[:-1] if lines[-1] == "" else lines)
    if answer.binary:
        screen.say("The answer is no text; this is its base64.")
    if answer.truncated:
        screen.say("The answer was longer; the daemon has kept its beginning.")


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
