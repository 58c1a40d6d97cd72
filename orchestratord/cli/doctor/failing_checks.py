"""The endpoints and webhooks that fail now, as the daemon tells it, and what to say next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from orchestratord.cli.doctor.installation import Findings, Installation, fail, ok, warn
from orchestratord.cli.options import counted
from orchestratord.model.task import DOUBTFUL, Reason


def check_failing(installed: Installation) -> Findings:
    """Who fails, since when and why, and which tasks wait for a person?"""
    status = installed.status
    if status is None or "failing_counts" not in status:  # an older daemon does not know
        return
    failing = status["failing"]
    for item in failing:
        yield fail(_what(item), _remedy(item), trouble=item["reason"])
    if more := sum(status["failing_counts"].values()) - len(failing):
        yield fail(
            f"{more:,} more of them fail",
            "orchestratorctl list --status failed --by endpoint,webhook",
        )
    left = status["queue"]["failed"] - sum(item["failed"] for item in failing)
    if left > 0 and all(item["complete"] for item in failing) and not more:
        yield warn(
            f"{counted(left, 'task')} failed earlier; their endpoints work again, or are gone",
            "orchestratorctl list --status failed --by endpoint,reason,status_code; retry them, "
            "or cancel what is not needed",
        )
    if not failing:
        yield ok("no endpoint and no webhook fails")


def _what(item: Mapping[str, Any]) -> str:
    name = f"deliveries of {item['webhook']} of " if item["webhook"] else "calls of "
    least = "" if item["complete"] else "at least "
    numbers = [f"{least}{item['failed']:,} failed"] if item["failed"] else []
    numbers += [f"{least}{item['waiting']:,} tried again"] if item["waiting"] else []
    reason = (item["reason"] or "").replace("_", " ")
    why = [reason] if reason else []
    if item["error"]:
        why.append(item["error"])
    elif item["status_code"] is not None:
        why.append(str(item["status_code"]))
    said = f": {', '.join(why)}" if why else ""
    return f"{name}{item['endpoint']} fail since {item['since']}: {', '.join(numbers)}{said}"


def _remedy(item: Mapping[str, Any]) -> str:
    endpoint = item["endpoint"]
    which = f"--endpoint {endpoint} "
    which += f"--webhook {shlex.quote(item['webhook'])}" if item["webhook"] else "--kind call"
    if item["reason"] == Reason.WEBHOOK_DISABLED:
        return f"orchestratorctl webhooks enable {endpoint} {shlex.quote(item['webhook'])} --replay"
    if item["reason"] in DOUBTFUL:
        return (
            f"orchestratorctl list {which} --reason {item['reason']} --params: they may have been "
            "carried out, so look before you retry or cancel one"
        )
    if item["failed"]:
        return (
            f"after a correction: orchestratorctl retry --all {which} --status failed --rate 10/s"
        )
    return f"the daemon tries them again: orchestratorctl list {which} --status pending"
