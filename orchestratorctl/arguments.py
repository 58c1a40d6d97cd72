"""The command line: verbs, options, and what makes no sense of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestratorctl import words
from orchestratorctl.screen import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

COMPLETION = "completion:script"
"""The one verb that needs no daemon."""

FILTERS = ("status", "status_code", "endpoint", "kind", "since", "until", "text")
EVENT_FILTERS = ("endpoint", "kind", "status", "type")

_EPILOG = """\
the socket: --socket, else $ORCHESTRATORD_SOCKET, else /run/orchestratord/control.sock,
  else $XDG_RUNTIME_DIR/orchestratord/control.sock

exit codes: 0 done, 1 failed, 2 usage, 3 no daemon at the socket, 4 no such thing,
  5 conflict, 6 timed out, 78 bad configuration

Data goes to stdout, words to stderr. Durations are 500ms, 10s, 5m, 2h, 1d, or seconds.
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace, with `run`, the verb's `module:function`.

    Raises:
        SystemExit: the help was asked for (0), or the command line makes no sense (2).
    """
    arguments = build().parse_args(argv)
    arguments.socket = getattr(arguments, "socket", None)
    arguments.output = getattr(arguments, "output", "table")
    for check in _CHECKS.get(arguments.run, ()):
        check(arguments)
    return arguments


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Speaks to a running orchestratord over its control socket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_common(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_looking(verbs)
    _add_doing(verbs)
    _add_webhooks(verbs)
    completion = _verb(
        verbs, "completion", COMPLETION, "print the script that lets a shell complete"
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help="the shell that is yours"
    )
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        try:
            version = metadata.version("orchestratord")
        except metadata.PackageNotFoundError:
            version = "(version unknown)"
        print(f"{PROGRAM} {version}")
        parser.exit()


def _add_common(parser: argparse.ArgumentParser) -> None:
    # Suppressed defaults: what stands before the verb is not undone by the verb's own parser.
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--socket", metavar="PATH", default=argparse.SUPPRESS, help="the daemon's control socket"
    )
    group.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "yaml"),
        default=argparse.SUPPRESS,
        help="how data is written (table)",
    )


def _verb(verbs: Verbs, name: str, run: str, purpose: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(run=run, parser=parser)
    _add_common(parser)
    return parser


def _add_looking(verbs: Verbs) -> None:
    _verb(verbs, "status", "status:status", "show how the daemon is")

    parser = _verb(verbs, "endpoints", "endpoints:endpoints", "list the endpoints, or show one")
    parser.add_argument("id", nargs="?", metavar="API/NAME", type=words.endpoint)

    parser = _verb(verbs, "list", "list:list_tasks", "list calls and deliveries, newest first")
    _add_filters(parser)
    parser.add_argument(
        "--limit", type=words.positive, default=100, metavar="N", help="at most so many (100)"
    )

    parser = _verb(verbs, "events", "events:events", "follow what happens")
    _add_event_filters(parser)

    parser = _verb(verbs, "watch", "watch:watch", "show how the daemon is, again and again")
    parser.add_argument(
        "--interval",
        type=words.interval,
        default=1.0,
        metavar="DURATION",
        help="how long one picture stands (1s)",
    )
    parser.add_argument("--once", action="store_true", help="one picture, and no more")

    parser = _verb(verbs, "show", "show:show", "show a task, its last answer and its attempts")
    parser.add_argument("id", type=words.positive, metavar="ID")


def _add_doing(verbs: Verbs) -> None:
    parser = _verb(verbs, "call", "calls:call", "call an endpoint")
    parser.add_argument("endpoint", metavar="API/NAME", type=words.endpoint)
    parser.add_argument(
        "-p",
        dest="text_params",
        action="append",
        type=words.pair,
        default=[],
        metavar="KEY=VALUE",
        help="a parameter; its text becomes what the endpoint declares",
    )
    parser.add_argument(
        "--params",
        type=words.json_object,
        metavar="JSON|@FILE",
        help="parameters as a JSON object; @- stdin",
    )
    parser.add_argument(
        "--delay", type=words.duration, metavar="DURATION", help="make the first try so much later"
    )
    parser.add_argument(
        "--idempotency-key",
        type=words.header,
        metavar="KEY",
        help="the same key at the same endpoint is the same call for 24 hours",
    )
    _add_waiting(parser)

    parser = _verb(verbs, "retry", "retry:retry", "try tasks again now")
    parser.add_argument("ids", nargs="*", type=words.positive, metavar="ID")
    parser.add_argument(
        "--force", action="store_true", help="repeat what has succeeded already, too"
    )
    _add_waiting(parser)
    parser.add_argument(
        "--all", action="store_true", help="all that the filters match; failed without --status"
    )
    _add_filters(parser)
    _add_bulk(parser)

    parser = _verb(verbs, "cancel", "cancel:cancel", "give tasks up")
    parser.add_argument("ids", nargs="*", type=words.positive, metavar="ID")
    parser.add_argument(
        "--all", action="store_true", help="all that the filters match; pending without --status"
    )
    _add_filters(parser)
    _add_bulk(parser)

    for name, purpose in (
        ("pause", "let an endpoint's calls wait, until it is resumed"),
        ("resume", "let a paused endpoint's calls go on"),
    ):
        parser = _verb(verbs, name, f"endpoints:{name}", purpose)
        parser.add_argument("endpoint", metavar="API/NAME", type=words.endpoint)

    parser = _verb(verbs, "bulks", "bulks:show", "show a retry or cancel of many, or end it early")
    parser.add_argument("id", type=words.positive, metavar="ID", help="as `retry --all` names it")
    parser.add_argument("--cancel", action="store_true", help="move no more tasks")

    parser = _verb(verbs, "reload", "reload:reload", "read the configuration again")
    parser.add_argument("--diff", action="store_true", help="show what differs, key by key")


def _add_webhooks(verbs: Verbs) -> None:
    parser = _verb(verbs, "webhooks", "webhooks:list_webhooks", "list, switch and test webhooks")
    parser.set_defaults(endpoint=None)
    inner = parser.add_subparsers(title="what to do", metavar="VERB")
    listing = _verb(inner, "list", "webhooks:list_webhooks", "list them and how they fare")
    listing.add_argument("endpoint", nargs="?", metavar="API/NAME", type=words.endpoint)
    for name, purpose in (
        ("enable", "deliver to a webhook again"),
        ("disable", "deliver no more to a webhook"),
        ("test", "send a webhook a trial delivery"),
    ):
        verb = _verb(inner, name, f"webhooks:{name}", purpose)
        verb.add_argument("endpoint", metavar="API/NAME", type=words.endpoint)
        verb.add_argument("webhook", type=words.text, metavar="WEBHOOK", help="its name")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--status",
        action="append",
        type=words.statuses,
        metavar="STATUS",
        help=f"{', '.join(words.STATUSES)}; several with commas",
    )
    group.add_argument(
        "--status-code",
        action="append",
        type=words.text,
        metavar="CODE",
        help="of the last answer: 503, 5xx, error",
    )
    group.add_argument(
        "--endpoint",
        type=words.endpoints,
        metavar="API/NAME",
        help="of one endpoint, or of all of an api: 'API/*'",
    )
    group.add_argument("--kind", type=words.text, metavar="KIND", help="call or webhook")
    group.add_argument(
        "--since", type=words.since, metavar="WHEN", help="created within 2h, or after a time"
    )
    group.add_argument("--until", type=words.since, metavar="WHEN", help="created before that")
    group.add_argument(
        "--text", type=words.text, metavar="TEXT", help="in parameters, last error or name"
    )


def _add_bulk(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="with --all: count them, change nothing"
    )
    parser.add_argument(
        "--rate", type=words.text, metavar="N/s", help="with --all: at most so many, as 10/s"
    )


def _add_event_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--type",
        action="append",
        type=words.events,
        metavar="TYPE",
        help="such as task.failed or 'task.*'; several with commas",
    )
    group.add_argument(
        "--endpoint",
        type=words.endpoints,
        metavar="API/NAME",
        help="of one endpoint, or of all of an api: 'API/*'",
    )
    group.add_argument("--kind", type=words.text, metavar="KIND", help="call or webhook")
    group.add_argument(
        "--status",
        action="append",
        type=words.statuses,
        metavar="STATUS",
        help="the task's from then on; several with commas",
    )


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="wait for the end, print the answer, exit 1 on failure"
    )
    parser.add_argument(
        "--timeout",
        type=words.duration,
        metavar="DURATION",
        help="with --wait: exit 6 after so long",
    )


def filters(arguments: argparse.Namespace, names: Sequence[str] = FILTERS) -> dict[str, str]:
    """The filters that were given, named as the API names them."""
    given = {name: getattr(arguments, name) for name in names}
    return {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def _check_waiting(arguments: argparse.Namespace) -> None:
    if arguments.timeout is not None and not arguments.wait:
        arguments.parser.error("--timeout needs --wait")


def _check_bulk(arguments: argparse.Namespace) -> None:
    refuse = arguments.parser.error
    if not arguments.all:
        if not arguments.ids:
            refuse("name the tasks by ID, or choose them with --all and a filter")
        options = [f"--{name.replace('_', '-')}" for name in filters(arguments)]
        options += ["--dry-run"] if arguments.dry_run else []
        options += ["--rate"] if arguments.rate is not None else []
        if options:
            refuse(f"{', '.join(options)}: only with --all")
    elif arguments.ids:
        refuse("--all chooses by filters; leave the IDs out")
    elif getattr(arguments, "wait", False) or getattr(arguments, "force", False):
        refuse("--wait and --force are for tasks named by ID, not for --all")
    elif not filters(arguments):
        refuse("--all needs a filter, such as --status failed or --endpoint API/NAME")


def _check_params(arguments: argparse.Namespace) -> None:
    names = [name for name, _ in arguments.text_params]
    twice = {name for name in names if names.count(name) > 1 or name in (arguments.params or {})}
    if twice:
        arguments.parser.error(f"given twice: {', '.join(sorted(twice))}")


_CHECKS = {
    "calls:call": (_check_waiting, _check_params),
    "retry:retry": (_check_waiting, _check_bulk),
    "cancel:cancel": (_check_bulk,),
}
