"""The one table of the verbs: their words, options, help, and the function that each runs.

The parser, the help, the completion of shells and the tests of the documentation are made from
it. A new verb is a row here and a function in `verbs/`; a new option is a `VerbArgument` here.
"""

from __future__ import annotations

import argparse
from collections import namedtuple
from functools import partial

from orchestratorctl import argument_types as types
from orchestratorctl.console import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Check = Callable[[argparse.Namespace], None]

SHELLS = ("bash", "zsh", "fish")


class ArgumentValue(namedtuple("ArgumentValue", ["metavar", "type", "complete"], defaults=[()])):
    """What may stand for an argument.

    Args:
        metavar: what the help calls it.
        type: reads the word, as argparse has it.
        complete: what a shell offers: these words, or the name of a source in `shell_completion`.
    """

    __slots__ = ()


class VerbArgument:
    """A word or an option of a verb.

    Args:
        names: one word, or an option's names, with a blank between them.
        about: what the help says of it.
        takes: its value; an option without one is a switch.
        group: the heading below which the help shows it.
        settings: everything else that argparse is told; `choices` take the place of `takes`.
    """

    def __init__(
        self,
        names: str,
        about: str | None = None,
        takes: ArgumentValue | None = None,
        group: str = "",
        **settings: Any,
    ) -> None:
        self.names = names.split()
        self.is_option = names.startswith("-")
        self.group = group
        self.complete = takes.complete if takes else settings.get("choices", ())
        self.takes_value = takes is not None or "choices" in settings
        if takes is not None:
            settings = {"metavar": takes.metavar, "type": takes.type, **settings}
        elif not self.takes_value:
            settings = {"action": "store_true", **settings}
        self.settings = {"help": about, **settings}
        self.dest: str = settings.get("dest") or self.names[-1].lstrip("-").replace("-", "_")


class Verb:
    """A row of the table.

    Args:
        name: the word that stands on the command line.
        run: `module:function` below `orchestratorctl`, imported when the verb is said; empty for
            one that only has verbs below it.
        about: what it does, in a few words; a sentence for the whole command.
        arguments: its words and options, beside those that every verb takes.
        checks: what arguments make no sense together; each raises `ArgumentTypeError`.
        verbs: the verbs below it.
        defaults: arguments that only verbs below it take.
        offline: it needs no daemon.
        start_timeout: seconds to wait for a daemon that starts, without `--connect-timeout`.
    """

    def __init__(
        self,
        name: str,
        run: str,
        about: str,
        *arguments: VerbArgument,
        checks: tuple[Check, ...] = (),
        verbs: tuple[Verb, ...] = (),
        defaults: dict[str, object] | None = None,
        offline: bool = False,
        start_timeout: float = 0.0,
    ) -> None:
        self.name = name
        self.run = run
        self.about = about
        self.arguments = arguments
        self.checks = checks
        self.verbs = verbs
        self.defaults = defaults or {}
        self.offline = offline
        self.start_timeout = start_timeout


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        try:
            version = metadata.version("orchestratord")
        except metadata.PackageNotFoundError:
            version = "(version unknown)"
        print(f"{PROGRAM} {version}")
        parser.exit()


def filters(arguments: argparse.Namespace) -> dict[str, str]:
    """The filters that were given, named as the API names them."""
    given = {
        argument.dest: getattr(arguments, argument.dest)
        for argument in arguments.verb.arguments
        if argument.group == "filters"
    }
    return {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def _check_waiting(arguments: argparse.Namespace) -> None:
    if arguments.timeout is not None and not arguments.wait:
        raise argparse.ArgumentTypeError("--timeout needs --wait")


def _check_bulk(arguments: argparse.Namespace) -> None:
    message = None
    if not arguments.all:
        options = [
            option.names[0]
            for option in (*_FILTERS, *_BULK, _DOUBTFUL, _STOP_AFTER)
            if getattr(arguments, option.dest, None) not in (None, False)
        ]
        if not arguments.ids:
            message = "name the tasks by ID, or choose them with --all and a filter"
        elif options:
            message = f"{', '.join(options)}: only with --all"
    elif arguments.ids:
        message = "--all chooses by filters; leave the IDs out"
    elif getattr(arguments, "text_params", None) or getattr(arguments, "params", None):
        message = "-p and --params are for tasks named by ID, not for --all"
    elif getattr(arguments, "body", None) is not None:
        message = "--body is for tasks named by ID, not for --all"
    elif not filters(arguments):
        message = "--all needs a filter, such as --status failed or --endpoint API/NAME"
    if message is not None:
        raise argparse.ArgumentTypeError(message)


def _check_one_bulk(arguments: argparse.Namespace) -> None:
    asked = [name for name in ("cancel", "resume", "wait") if getattr(arguments, name)]
    if asked and arguments.id is None:
        raise argparse.ArgumentTypeError(f"--{asked[0]} needs the ID of the bulk")
    if arguments.cancel and len(asked) > 1:
        raise argparse.ArgumentTypeError(f"--cancel and --{asked[1]} do not go together")


def _check_reload(arguments: argparse.Namespace) -> None:
    if arguments.folder is not None and not arguments.dry_run:
        raise argparse.ArgumentTypeError("a folder is only for --dry-run")


def _check_grouped(arguments: argparse.Namespace) -> None:
    if arguments.by is not None and arguments.params:
        raise argparse.ArgumentTypeError("--by counts tasks; leave --params out")


def _check_first_try(arguments: argparse.Namespace) -> None:
    if arguments.at is not None and arguments.delay is not None:
        raise argparse.ArgumentTypeError("--at and --delay do not go together: give one of them")


def _check_params(arguments: argparse.Namespace) -> None:
    names = [name for name, _ in arguments.text_params]
    twice = {name for name in names if names.count(name) > 1 or name in (arguments.params or {})}
    if twice:
        raise argparse.ArgumentTypeError(f"given twice: {', '.join(sorted(twice))}")


# -- what several verbs take ---------------------------------------------------------------------

_API_NAME = ArgumentValue("API/NAME", types.endpoint_id, "endpoints")
_API_OWN = ArgumentValue("API/NAME", types.endpoint_or_own, f"endpoints {types.OWN_ENDPOINT}")
_API_ALL = ArgumentValue("API/NAME", types.endpoint_or_api, "endpoints")
_API_ANY = ArgumentValue("API/NAME", types.endpoint_filter, "endpoints")
_STATUS = ArgumentValue("STATUS", types.statuses, types.STATUSES)
_REASON = ArgumentValue("REASON", types.reasons, types.REASONS)
_GROUPS = ArgumentValue("NAMES", types.groups, types.GROUPS)
_TASK_KIND = ArgumentValue("KIND", types.utf8_text, types.KINDS)
_WHEN = ArgumentValue("WHEN", types.since)
_DURATION = ArgumentValue("DURATION", types.duration)
_TIME = ArgumentValue("TIME", types.moment)
_CODE = ArgumentValue("CODE", types.utf8_text)
_TEXT = ArgumentValue("TEXT", types.utf8_text)
_RATE = ArgumentValue("N/s", types.utf8_text)
_INTERVAL = ArgumentValue("DURATION", types.interval)
_COUNT = ArgumentValue("N", types.whole_number)
_NUMBER = ArgumentValue("N", types.number_from_0)
_BULK_ID = ArgumentValue("ID", types.numbered_id)
_BODY = ArgumentValue("TEXT|@FILE", types.body)
_EVENT_TYPE = ArgumentValue("TYPE", types.event_types, types.EVENTS)
_PARAM = ArgumentValue("KEY=VALUE", types.key_value, "params")
_JSON = ArgumentValue("JSON|@FILE", types.json_object)
_FOLDER = ArgumentValue("DIR", str, "files")
_KEY = ArgumentValue("KEY", types.header_value)

EVERYWHERE = (
    VerbArgument("-h --help", "show this help and exit", action="help"),
    # Suppressed defaults: what stands before the verb is not undone by the verb's own parser.
    VerbArgument(
        "--socket",
        "the daemon's control socket",
        ArgumentValue("PATH", str, "files"),
        "everywhere",
        default=argparse.SUPPRESS,
    ),
    VerbArgument(
        "--connect-timeout",
        "wait this long for a daemon that starts (5s in call, retry and status, else 0s)",
        _DURATION,
        "everywhere",
        default=argparse.SUPPRESS,
    ),
    VerbArgument(
        "-o --output",
        "the format of data (table)",
        group="everywhere",
        choices=("table", "json", "yaml"),
        default=argparse.SUPPRESS,
    ),
)
"""What every verb takes."""

_ENDPOINT = VerbArgument("endpoint", None, _API_NAME)
_LIMIT = VerbArgument("--limit", "at most this many (100)", _COUNT, default=100)
_WHOSE = "the webhook's endpoint; orchestratord for operational webhooks"
_WEBHOOK = VerbArgument(
    "webhook", "its name", ArgumentValue("WEBHOOK", types.utf8_text, "webhooks")
)
_filter = partial(VerbArgument, group="filters")
_repeated = partial(_filter, action="append")
_OF_ENDPOINT = _filter("--endpoint", "of one endpoint, or of all of an api: 'API/*'", _API_ANY)
_OF_KIND = _filter("--kind", " or ".join(types.KINDS), _TASK_KIND)
_FILTERS = (
    _repeated("--status", f"{', '.join(types.STATUSES)}; several with commas", _STATUS),
    _repeated("--status-code", "of the last answer: 503, 5xx, error", _CODE),
    _repeated("--reason", "why it failed: exhausted, ambiguous, …; several with commas", _REASON),
    _OF_ENDPOINT,
    _OF_KIND,
    _filter("--since", "created within 2h, or after a time", _WHEN),
    _filter("--until", "created before that", _WHEN),
    _filter("--ended-since", "ended within 2h, or after a time", _WHEN),
    _filter("--text", "in parameters, answer, last error or name", _TEXT),
    _filter("--partition", "of the partition of this name", _TEXT),
    _filter("--bulk", "moved by this bulk, and by none after it", _BULK_ID),
    _filter("--run", "calls of the run that began with this one", _BULK_ID),
    _filter("--parent", "child tasks of this call, and its deliveries", _BULK_ID),
    _filter("--webhook", "deliveries of the webhook of this name", _TEXT),
    _filter("--tenant", "deliveries to the subscriptions of this tenant", _TEXT),
    _filter("--batch", "announced by the delivery of this batch", _COUNT),
)
_EVENT_FILTERS = (
    _repeated("--type", "such as task.failed or 'task.*'; several with commas", _EVENT_TYPE),
    _OF_ENDPOINT,
    _OF_KIND,
    _repeated("--status", "the task's from then on; several with commas", _STATUS),
)
_BULK = (
    VerbArgument("--dry-run", "with --all: count them, change nothing"),
    VerbArgument("--rate", "with --all: at most this many a second, as 10/s", _RATE),
)
_DOUBTFUL = VerbArgument(
    "--include-ambiguous", "with --all: also what is ambiguous or poisoned, else left out"
)
_STOP_AFTER = VerbArgument(
    "--stop-after", "with --all: pause after so many failures (50); 0 for never", _NUMBER
)
_CHANGED = (
    VerbArgument(
        "-p",
        "a parameter; its text becomes the type that the endpoint declares",
        _PARAM,
        dest="text_params",
        action="append",
        default=[],
    ),
    VerbArgument("--params", "parameters as a JSON object; @- stdin", _JSON),
)
_SOON: dict[str, Any] = {"start_timeout": 5.0}
"""Of verbs that scripts say right after the start of a daemon."""
_WAITING = (
    VerbArgument("--wait", "wait for the end, print the answer, exit 1 on failure"),
    VerbArgument("--timeout", "with --wait: exit 6 after this long", _DURATION),
)


def _task_id(statuses: str = "") -> ArgumentValue:
    """The id of a task, of which a shell offers those of these statuses."""
    return ArgumentValue("ID", types.numbered_id, f"tasks {statuses}")


def _webhook_verb(name: str, about: str, *options: VerbArgument) -> Verb:
    """What is done with one webhook, by the function of this name."""
    endpoint = VerbArgument("endpoint", _WHOSE, _API_OWN)
    return Verb(name, f"verbs.webhook_verbs:{name}", about, endpoint, _WEBHOOK, *options)


# -- the table -----------------------------------------------------------------------------------

VERBS = (
    Verb("status", "verbs.daemon_verbs:status", "show the state of the daemon", **_SOON),
    Verb(
        "endpoints",
        "verbs.endpoint_verbs:endpoints",
        "list the endpoints, or show one",
        VerbArgument("id", None, _API_NAME, nargs="?"),
    ),
    Verb(
        "list",
        "verbs.task_verbs:list_tasks",
        "list calls and deliveries, newest first",
        *_FILTERS,
        _LIMIT,
        VerbArgument("--params", "show their parameters, too"),
        VerbArgument("--by", "count them by these, as endpoint,reason,status_code", _GROUPS),
        checks=(_check_grouped,),
    ),
    Verb("events", "verbs.daemon_verbs:events", "follow the events", *_EVENT_FILTERS),
    Verb(
        "watch",
        "verbs.daemon_verbs:watch",
        "show the state of the daemon, and redraw it",
        VerbArgument("--interval", "the time between two pictures (1s)", _INTERVAL, default=1.0),
        VerbArgument("--once", "show one picture and exit"),
    ),
    Verb(
        "show",
        "verbs.task_verbs:show",
        "show a task, its last answer and its attempts, or its run",
        VerbArgument("id", None, _task_id()),
        VerbArgument("--tree", "its whole run as a tree, deliveries too"),
    ),
    Verb(
        "call",
        "verbs.task_verbs:call",
        "call an endpoint",
        _ENDPOINT,
        *_CHANGED,
        VerbArgument("--delay", "wait this long before the first attempt", _DURATION),
        VerbArgument("--at", "make the first attempt at this time, not now", _TIME),
        VerbArgument(
            "--idempotency-key",
            "the same key at the same endpoint is the same call for 24 hours",
            _KEY,
        ),
        *_WAITING,
        checks=(_check_waiting, _check_params, _check_first_try),
        **_SOON,
    ),
    Verb(
        "retry",
        "verbs.task_verbs:retry",
        "retry tasks now, also with other parameters",
        VerbArgument("ids", None, _task_id("pending,failed,cancelled"), nargs="*"),
        *_CHANGED,
        VerbArgument("--force", "repeat tasks that succeeded, too"),
        *_WAITING,
        VerbArgument("--all", "all that the filters match; failed without --status"),
        *_FILTERS,
        *_BULK,
        _STOP_AFTER,
        _DOUBTFUL,
        checks=(_check_waiting, _check_params, _check_bulk),
        **_SOON,
    ),
    Verb(
        "resolve",
        "verbs.task_verbs:resolve",
        "say how tasks ended; their child tasks and webhooks follow",
        VerbArgument("ids", None, _task_id("pending,failed"), nargs="*"),
        VerbArgument("--as", "how", dest="outcome", required=True, choices=("succeeded", "failed")),
        VerbArgument("--note", "why, for the action log", _TEXT),
        VerbArgument("--body", "of the answer: JSON or a text; @- stdin", _BODY),
        VerbArgument("--all", "all that the filters match; failed without --status"),
        *_FILTERS,
        *_BULK,
        checks=(_check_bulk,),
    ),
    Verb(
        "cancel",
        "verbs.task_verbs:cancel",
        "cancel tasks",
        VerbArgument("ids", None, _task_id("pending,running"), nargs="*"),
        VerbArgument("--all", "all that the filters match; pending without --status"),
        *_FILTERS,
        *_BULK,
        checks=(_check_bulk,),
    ),
    Verb(
        "runs",
        "verbs.run_tree:list_runs",
        "list runs: a call with all that follows from it",
        VerbArgument("--status", "only these", choices=("running", "ended")),
        _LIMIT,
    ),
    Verb(
        "schedules",
        "verbs.endpoint_verbs:schedules",
        "list the schedules: the next slot, the last one, those that were missed",
    ),
    Verb(
        "pause",
        "verbs.endpoint_verbs:pause",
        "hold back the calls of an endpoint until you resume it",
        VerbArgument("endpoint", "or all of an api: 'API/*'", _API_ALL),
    ),
    Verb(
        "resume",
        "verbs.endpoint_verbs:resume",
        "resume a paused endpoint or API/*, or lift a throttle: of a lane, a URL, an endpoint",
        VerbArgument(
            "name",
            "as `status` shows it: api:shop, hooks.example.com:443, a URL, API/NAME#WEBHOOK",
            ArgumentValue("API/NAME", types.scope, "endpoints"),
        ),
    ),
    Verb(
        "bulks",
        "verbs.bulk_verbs:bulks",
        "list the bulk operations of --all, show, end or resume one",
        VerbArgument("id", "the number that `retry --all` prints", _BULK_ID, nargs="?"),
        VerbArgument("--cancel", "change no more tasks"),
        VerbArgument("--resume", "go on after a pause"),
        VerbArgument("--wait", "wait for the end of all its tasks, exit 1 on failure"),
        _WAITING[1],
        checks=(_check_waiting, _check_one_bulk),
    ),
    Verb(
        "reload",
        "verbs.daemon_verbs:reload",
        "read the configuration again",
        VerbArgument(
            "folder", "with --dry-run: in the place of the daemon's own", _FOLDER, nargs="?"
        ),
        VerbArgument("--diff", "show the changes, key by key"),
        VerbArgument("--dry-run", "change nothing: check the files"),
        VerbArgument(
            "--accept-removals", "accept the removal of most endpoints that tasks wait for"
        ),
        checks=(_check_reload,),
    ),
    Verb(
        "upgrade",
        "verbs.daemon_verbs:upgrade",
        "let the installed version take over, without a refusal",
    ),
    Verb(
        "webhooks",
        "verbs.webhook_verbs:list_webhooks",
        "list, enable, disable and test webhooks",
        verbs=(
            Verb(
                "list",
                "verbs.webhook_verbs:list_webhooks",
                "list webhooks and their state",
                VerbArgument("endpoint", _WHOSE, _API_OWN, nargs="?"),
            ),
            _webhook_verb(
                "enable",
                "enable a disabled webhook; --replay sends what it missed",
                VerbArgument("--replay", "send the deliveries that failed while it was disabled"),
            ),
            _webhook_verb("disable", "stop deliveries to a webhook"),
            _webhook_verb("test", "send a test delivery to a webhook, and say how it went"),
        ),
        defaults={"endpoint": None},
    ),
    Verb("actions", "verbs.daemon_verbs:actions", "list what people did, newest first", _LIMIT),
    Verb(
        "outbox",
        "verbs.outbox_verbs:list_outbox",
        "list rows that applications committed and that are not tasks yet",
        verbs=(
            Verb(
                "list",
                "verbs.outbox_verbs:list_outbox",
                "list the waiting and refused rows, newest first",
                VerbArgument("--status", "only these", choices=("waiting", "refused")),
                _LIMIT,
            ),
        ),
        defaults={"status": None, "limit": 100},
    ),
    Verb(
        "completion",
        "shell_completion:print_script",
        "print the script that lets a shell complete",
        VerbArgument("shell", "the name of your shell", choices=SHELLS),
        offline=True,
    ),
)

COMMAND = Verb(
    PROGRAM,
    "",
    "Operates a running orchestratord over its control socket.",
    VerbArgument("--version", "print the version and exit", action=_Version, nargs=0),
    verbs=VERBS,
)
"""The whole command: a row whose verbs are the table."""
