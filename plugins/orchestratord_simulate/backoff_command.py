"""`orchestratord backoff`: the delays of a policy or a strategy, as a table and a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from orchestratord import complete_endpoints, complete_strategies, config_option, output_option

if TYPE_CHECKING:
    from orchestratord import Backoff, OpenedConfig, RetryPolicy

_WIDTH = 80
_HEADS = ("AFTER", "DELAY", "WITH JITTER", "AT")
_BLOCKS = ("█", "▒")
_ASCII = ("#", "-")


def _offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [
        *complete_endpoints(ctx, param, incomplete),
        *complete_strategies(ctx, param, incomplete),
    ]


@click.command()
@config_option
@click.argument("what", metavar="ENDPOINT|STRATEGY", shell_complete=_offered)
@click.option("--webhook", metavar="NAME", help="The deliveries of this webhook of the endpoint.")
@click.option("--max-attempts", metavar="N", help="Instead of the declared value.")
@click.option("--max-delay", metavar="DURATION", help="Instead of the declared value.")
@click.option("--jitter", metavar="PART", help="Instead of the declared value; from 0 to 1.")
@output_option("text", "json", about="The format of the output.")
def backoff(
    config: str | None,
    what: str,
    webhook: str | None,
    max_attempts: str | None,
    max_delay: str | None,
    jitter: str | None,
    output: str,
) -> None:
    """Show when a failing call is tried again.

    Each delay with its jitter range, and the total.

    For an endpoint (API/NAME) by its declaration; for a strategy with its options, such as
    exponential:delay=5s,factor=2 or list:delays=5s,5m,30m, and the defaults of `retry` beside them.
    """
    from orchestratord import opened_config, opened_host, timetable

    given = {"max_attempts": max_attempts, "max_delay": max_delay, "jitter": jitter}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    title: str | None
    policy: RetryPolicy | None
    if "/" in what:
        open_ = opened_config(config)
        backoffs = open_.host.registry.backoffs
        title, policy = _declared(open_, what, webhook)
    else:
        if webhook is not None:
            raise click.UsageError("--webhook belongs to an endpoint, API/NAME")
        backoffs = opened_host(config).registry.backoffs
        title, policy = None, None
        changes["backoff"] = _strategy(what, backoffs)
    policy = _changed(policy, changes, backoffs)
    shown = policy.written()
    del shown["when"]  # which says nothing of delays
    faults: list[str] = []
    delays = timetable(policy, lambda name, fault: faults.append(f"{name}: {fault}"))
    document: dict[str, Any] = {
        "of": title,
        "policy": shown,
        "delays": [
            {
                "after_attempt": wait.after,
                "delay": wait.delay,
                "shortest": wait.shortest,
                "longest": wait.longest,
                "since_first": wait.since,
                "why": wait.why,
            }
            for wait in delays
        ],
        "attempts": len(delays) + 1,
        "expires": len(delays) + 1 < policy.max_attempts,
        "total": sum(wait.delay for wait in delays),
        "shortest_total": sum(wait.shortest for wait in delays),
        "longest_total": sum(wait.longest for wait in delays),
    }
    for fault in dict.fromkeys(faults):
        click.echo(f"the strategy {fault}", err=True)
    click.echo(json.dumps(document, indent=2) if output == "json" else "\n".join(_lines(document)))


def _declared(
    open_: OpenedConfig, endpoint_id: str, webhook: str | None
) -> tuple[str, RetryPolicy]:
    """The policy of an endpoint's calls, or of the deliveries of one of its webhooks."""
    from orchestratord import Conflict, suggest

    endpoint = open_.endpoint(endpoint_id)
    if webhook is None:
        return endpoint.id, endpoint.retry
    names = [str(item.get("name")) for item in endpoint.shown.get("webhooks", ())]
    if webhook not in names:
        message = f"{endpoint.id} has no webhook {webhook!r}{suggest(webhook, names)}"
        click.echo(message, err=True)
        raise SystemExit(open_.NOT_FOUND)
    try:
        _, target = open_.explainer().target(endpoint, webhook)
    except Conflict as conflict:
        raise click.ClickException(f"{webhook}: {conflict}") from None
    return f"{endpoint.id} {webhook}", target.retry


def _strategy(text: str, backoffs: Mapping[str, type[Backoff]]) -> dict[str, Any]:
    """`exponential:delay=5s,factor=2` as it would stand in the YAML. Raises UsageError."""
    from orchestratord import suggest

    name, _, rest = text.partition(":")
    if name not in backoffs:
        near = suggest(name, backoffs)
        raise click.UsageError(f"unknown strategy {name!r}{near}")
    options: dict[str, list[str]] = {}
    last = ""
    for piece in rest.split(",") if rest else ():
        key, equals, value = piece.partition("=")
        if equals:
            last = key.strip()
            if last in options:
                raise click.UsageError(f"{last} is given twice")
            options[last] = [value.strip()]
        elif last:
            options[last].append(piece.strip())
        else:
            raise click.UsageError(f"{piece!r}: write KEY=VALUE, such as {name}:delay=5s")
    keys = backoffs[name].model_json_schema()["properties"]
    declared: dict[str, Any] = {"strategy": name}
    for key, values in options.items():
        forms = (keys.get(key, {}), *keys.get(key, {}).get("anyOf", ()))
        listed = len(values) > 1 or any(form.get("type") == "array" for form in forms)
        declared[key] = values if listed else values[0]
    return declared


def _changed(
    policy: RetryPolicy | None, changes: dict[str, Any], backoffs: Mapping[str, type[Backoff]]
) -> RetryPolicy:
    """The policy with what the command line says. Raises UsageError."""
    from orchestratord import RetryPolicy, validated

    given: dict[str, Any] = changes
    if policy is not None:
        fields = type(policy).model_fields
        given = {one.alias or name: getattr(policy, name) for name, one in fields.items()} | changes
    type_ = type(policy) if policy is not None else RetryPolicy
    try:
        return validated(type_, given, {"backoffs": backoffs})
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """A table of delays with a picture, no wider than a terminal of 80 columns."""
    from orchestratord import rough_duration

    policy, delays = document["policy"], document["delays"]
    options = ", ".join(f"{key} {_plain(value)}" for key, value in policy["backoff"].items())
    title = "" if document["of"] is None else f"{document['of']}: "
    yield f"{title}{options.removeprefix('strategy ')}"
    said = [f"{key} {_plain(policy[key])}" for key in ("max_attempts", "max_delay", "jitter")]
    if policy["give_up_after"] is not None:
        said.append(f"give_up_after {policy['give_up_after']}")
    yield ", ".join(said)
    if delays:
        yield ""
        yield from _table(delays)
    yield ""
    attempts = f"{document['attempts']} attempt{'s' * (document['attempts'] != 1)}"
    if document["expires"]:
        yield f"The next attempt would lie past give_up_after: {attempts}."
    else:
        yield f"Then it has failed for good (exhausted): {attempts}."
    total = f"Total: {rough_duration(document['total'])}"
    if document["shortest_total"] != document["longest_total"]:
        span = rough_duration(document["shortest_total"], document["longest_total"])
        total += f" ({span} with jitter)"
    yield f"{total}, and the time that the attempts take."


def _table(delays: list[Mapping[str, Any]]) -> Iterator[str]:
    from orchestratord import rough_duration

    rows = [
        (
            str(item["after_attempt"]),
            rough_duration(item["delay"]),
            rough_duration(item["shortest"], item["longest"]),
            rough_duration(item["since_first"]),
        )
        for item in delays
    ]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    yield "  ".join(head.ljust(width) for head, width in zip(_HEADS, widths, strict=True)).rstrip()
    room = _WIDTH - sum(widths) - 2 * len(widths)
    longest = max(item["longest"] for item in delays)
    for row, item in zip(rows, delays, strict=True):
        cells = [row[0].rjust(widths[0]), row[1].rjust(widths[1])]
        cells += [row[2].ljust(widths[2]), row[3].rjust(widths[3])]
        yield f"{'  '.join(cells)}  {_bar(item, longest, room)}".rstrip()


def _bar(item: Mapping[str, Any], longest: float, room: int) -> str:
    """As long as the longest delay; what only jitter can add is lighter."""
    if longest <= 0:
        return ""
    full, light = _characters()
    sure = round(item["shortest"] / longest * room)
    whole = round(item["longest"] / longest * room)
    bar = full * sure + light * (whole - sure)
    return bar or (light if item["longest"] > 0 else "")


def _characters() -> tuple[str, str]:
    try:
        "".join(_BLOCKS).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _BLOCKS


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
