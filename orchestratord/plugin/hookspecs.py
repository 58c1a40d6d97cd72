"""The hooks that a plugin can implement.

A hook registers, decides, tells or observes; never two of these.

*Registrations* are plain `def`, called once when plugins load. A name given twice is an error
that names both plugins.

*Deciding* hooks change the request or the outcome. They run one after the other, each seeing what
the one before returned; None leaves it as it is. An after_ hook that only looks at its arguments
says so by `@pure`, and is then run where it is asked what would happen, too.

*Telling* hooks run after the decision and return what is to be written with it: `NewTask`,
`BatchMember`, `Upsert` and `Delete`, in the same transaction as the change they follow from; for a
`before_` phase, before the first byte is sent. `explain` is the one of them that nothing is written
of: it says what the others would return, and why.

`BatchMember` is what is told of together with others: once its batch has closed, `batch_closed` is
asked for the one delivery that tells of it. It is a `def`.

`on_event` is a `def` too, and is asked about all that happens, not to tasks alone.

*Observing*, `observe` learns afterwards what happened. It is a `def`, and what it returns is not
looked at.

Deciding and telling hooks may be `def` or `async def` (`explain` is a `def`), and may leave out
arguments that they do not need. Hooks run for calls and for deliveries alike; `task.kind` tells
which it is. One that raises, exits, cancels itself, takes longer than `plugins.timeout` or returns
something else than documented is logged with its plugin's name and passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import pluggy

from orchestratord.errors import Problem
from orchestratord.model.backoff import Backoff
from orchestratord.model.edit import Editor
from orchestratord.model.endpoint import Endpoint, Setting
from orchestratord.model.event import Event
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.settings import Config, DaemonSetting
from orchestratord.model.task import (
    ClosedBatch,
    Delete,
    Effect,
    Explanation,
    NewTask,
    RunSummary,
    Status,
    Table,
    Task,
    Upsert,
)
from orchestratord.plugin.executor import Executor

if TYPE_CHECKING:
    import click

    from orchestratord.plugin.background_service import Service
    from orchestratord.plugin.doctor_check import Check
    from orchestratord.plugin.metric import Counter, Gauge
    from orchestratord.plugin.registry import Reference
    from orchestratord.plugin.route import (
        Control,
        Page,
        PortHandler,
        PortRequest,
        Route,
        StatusPart,
    )
    from orchestratord.plugin.verb_row import VerbRow

hookspec = pluggy.HookspecMarker("orchestratord")

REGISTRATIONS = (
    "register_settings",
    "register_daemon_settings",
    "register_backoff",
    "register_executor",
    "register_tables",
    "register_routes",
    "register_ports",
    "register_services",
    "register_pages",
    "register_metrics",
    "register_references",
    "register_checks",
    "register_status",
    "register_commands",
    "register_verbs",
    "register_editor",
    "example_request",
    "check_endpoint",
    "check_config",
    "config_adopted",
)
DECIDING = ("before_request", "after_request", "before_execute", "after_execute")
END_PHASES = {
    Status.SUCCEEDED: "on_success",
    Status.PENDING: "on_retry",
    Status.FAILED: "on_final_failure",
}
"""The phase that each decision reaches, by what becomes of the task."""
RUN_END = "on_run_end"
"""The phase that a run reaches once all of its calls have ended."""
ANNOUNCE = "announce"
"""The hook that is told of each phase."""
TELLING = (ANNOUNCE, *END_PHASES.values(), RUN_END, "explain")
BATCHING = ("batch_closed",)
RECORD = "on_event"
"""What is returned of it is written with what an event tells of."""
OBSERVING = ("observe",)
ALL = (*REGISTRATIONS, *DECIDING, *TELLING, RECORD, *BATCHING, *OBSERVING)
PHASES = (*DECIDING, *END_PHASES.values(), RUN_END)
"""The eight phases of the lifecycle, in order."""


@hookspec
def register_settings() -> Iterable[Setting[Any]]:
    """Keys that the plugin adds to the YAML, each with its pydantic type and its default."""


@hookspec
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    """Keys that the plugin adds to `orchestratord.yaml`, each with its type and its default."""


@hookspec
def register_backoff() -> Mapping[str, type[Backoff]]:
    """Backoff strategies, by the name that `retry.backoff` uses."""


@hookspec
def register_executor() -> Iterable[Executor]:
    """Executors: kinds of task, or for calls the `type` of an endpoint."""


@hookspec
def register_tables() -> Iterable[Table]:
    """Tables of the plugin's own, kept in the queue's database and written by Upsert and Delete."""


@hookspec
def register_routes(control: Control) -> Iterable[Route]:
    """Routes of the plugin's own for the API, answered through `control`."""


@hookspec
def register_ports(control: Control) -> Iterable[PortHandler]:
    """What answers at ports of the plugin's own, each under a key of `orchestratord.yaml` whose
    `register_daemon_settings` has the type `Port`. No token is asked for there."""


@hookspec
def register_services(control: Control) -> Iterable[Service]:
    """What the plugin has beside the worker for as long as the daemon runs: begun again where it
    ends, and stopped when the daemon drains."""


@hookspec
def register_pages(control: Control) -> Iterable[Page]:
    """Pages of the plugin's own in the dashboard, within its layout, behind its login."""


@hookspec
def register_metrics() -> Iterable[Counter | Gauge]:
    """What the plugin counts and measures, for `/metrics`."""


@hookspec
def register_references() -> Mapping[str, Reference]:
    """Kinds of references: `${vault:path}` in the YAML is what the function of `vault` returns for
    `path`, and secret. It is called once for each in a reading of the configuration."""


@hookspec
def register_checks() -> Iterable[Check]:
    """What `orchestratord doctor` looks at for the plugin."""


@hookspec
def register_status(control: Control) -> Iterable[StatusPart]:
    """What `GET /v1/status` says of the plugin."""


@hookspec
def register_commands() -> Iterable[click.Command]:
    """Commands of the plugin's own for `orchestratord`, by their names. They need no daemon, and
    this hook is called where one of them, or `--help`, is asked for: import what takes its time
    within them."""


@hookspec
def register_verbs() -> Iterable[VerbRow]:
    """Verbs of the plugin's own for `orchestratorctl`, each of which asks one of its routes."""


@hookspec
def register_editor() -> Iterable[Editor]:
    """What writes lists of endpoints back to their files, for `Control.edit`. One plugin has one;
    where none does, files are not edited."""


@hookspec
def example_request(endpoint: Endpoint, body: bytes | None) -> Iterable[PortRequest]:
    """What a sender would send to an endpoint at the plugin's port, signed, for `orchestratord
    inbound test`; nothing where it takes nothing in. `body`: what is sent; None for an example."""


@hookspec
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    """Problems that only the plugin can see, for `check` and for each (re)load.

    `Problem.key` is the dotted path below the endpoint (`webhooks.0.url`); file and line are found
    from it. An error refuses the configuration, a warning is shown.
    """


@hookspec
def check_config(config: Config) -> Iterable[Problem]:
    """As `check_endpoint`, of `orchestratord.yaml`: `Problem.key` is the dotted path in that."""


@hookspec
def config_adopted(
    config: Config, tables: Mapping[str, list[dict[str, Any]]], elsewhere: Collection[str]
) -> Iterable[Upsert | Delete | None]:
    """A configuration was adopted, at start and at each reload; or another daemon of the queue
    has changed what stands in plugins' tables.

    `tables` holds the rows of the plugin's own tables as they stand; what is returned is written.
    `elsewhere` names the endpoints that other daemons declare, whose rows are not this one's alone.
    Best a generator: whatever it yields, None too, gives everything else its turn.
    """


@hookspec
def before_request(
    request: httpx.Request, task: Task, endpoint: Endpoint, config: Config, send: Send
) -> httpx.Request | None:
    """Before each HTTP attempt: return another request, or None to leave it.

    `send` sends other requests, such as one for a token, as this one will be: by the rules of
    egress, the TLS and the proxy of its API.

    May raise `Reject` (the task fails, `rejected`, nothing is sent) or `Snooze(delay)` (later, at
    no cost of an attempt).
    """


@hookspec
def after_request(
    outcome: Outcome, request: httpx.Request, task: Task, endpoint: Endpoint, config: Config
) -> Outcome | None:
    """After each HTTP attempt, with an answer or with the error that came instead.

    Return `outcome.success()`, `outcome.retry(...)` or `outcome.failure(...)`, or None.
    """


@hookspec
def before_execute(statement: Any, task: Task, endpoint: Endpoint, config: Config) -> Any:
    """Before each attempt of a database operation; like `before_request`."""


@hookspec
def after_execute(
    outcome: Outcome, statement: Any, task: Task, endpoint: Endpoint, config: Config
) -> Outcome | None:
    """After each attempt of a database operation; like `after_request`."""


@hookspec
def announce(
    phase: str,
    outcome: Outcome | None,
    request: Any,
    task: Task,
    endpoint: Endpoint,
    next_try: int | None,
    config: Config,
) -> Iterable[Effect]:
    """Any of the phases of a task has been reached and decided: all but `on_run_end`, which is of
    a run. The webhooks plugin hangs here.

    `outcome` is None in a `before_` phase. `request` is None where none was made. `next_try` is
    in milliseconds since the epoch, None unless the task will be tried again.
    """


@hookspec
def on_success(
    outcome: Outcome, task: Task, endpoint: Endpoint, config: Config
) -> Iterable[Effect] | RecurringRows:
    """The task succeeded. Return tasks that follow from it; or `RecurringRows` in the place of a
    list, where the hook would return the same rows for the next one."""


@hookspec
def on_retry(
    outcome: Outcome, task: Task, endpoint: Endpoint, next_try: int, config: Config
) -> Iterable[Effect]:
    """The attempt failed, and the task will be tried again at `next_try` (milliseconds)."""


@hookspec
def on_final_failure(
    outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Iterable[Effect]:
    """The task failed for good; `task.reason` says why.

    `endpoint` is None where the task's endpoint is no longer declared.
    """


@hookspec
def on_run_end(
    run: RunSummary, outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Iterable[Effect]:
    """All calls of a run have ended: succeeded, failed for good or cancelled.

    A run is a call that nothing caused, `task`, with all calls that follow from it; one without
    child tasks is told of as well. Deliveries do not count. What is returned begins new runs. Where
    a manual retry opens the run again, it ends again, and `run.end` counts that. `outcome` is a
    success with the status code `ok` where all calls succeeded, else a failure with `error`.
    `endpoint` is None where it is no longer declared. A run whose row of the table is gone has a
    `task` without parameters.
    """


@hookspec
def explain(
    phase: str,
    outcome: Outcome | None,
    request: Any,
    task: Task,
    endpoint: Endpoint,
    next_try: int | None,
    config: Config,
    now: float,
    run: RunSummary | None,
) -> Iterable[Explanation]:
    """What would follow from this phase, what would not, and by which rule.

    It is only asked; nothing has happened, and nothing is written or remembered. The arguments are
    those of `announce`, and `now`, when it is supposed to happen (seconds since the epoch); for
    `on_run_end` also `run`, which is None in other phases.
    """


@hookspec
def on_event(event: Event, config: Config, now: float) -> Iterable[Effect]:
    """Something has happened; `now` in seconds since the epoch. Of what `EventType.recorded` is
    true, what is returned is written in the transaction that notes it (of the outbox: before that);
    what several daemons find out begins to throttle is written by the first of them, that it ended,
    by each one: a `BatchMember` with `once` and `since` is written once. Of all else, in a
    transaction of its own soon after, by the first worker of the daemon where it happened, and not
    where that dies before. With `@only_for(lambda type: …)` it is asked about some types alone."""


@hookspec
def batch_closed(batch: ClosedBatch, config: Config) -> Iterable[NewTask]:
    """A batch of `BatchMember`s has closed: return the one delivery that tells of it, and nothing
    for a batch of another plugin's members.

    It is asked again, also after a restart, until the delivery is written.
    """


@hookspec
def observe(events: Sequence[Event]) -> None:
    """What happened since the last call, in order, each after it was committed (of breakers
    and throttles: before).

    Called about twenty times a second while something happens, and holds up the whole daemon while
    it runs. The events and their fields are described in `orchestratord.events`.
    """
