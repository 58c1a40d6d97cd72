"""The hooks that a plugin can implement.

A hook registers, decides, tells or observes; never two of these.

*Registrations* are plain `def`, called once when plugins load. A name given twice is an error
that names both plugins.

*Deciding* hooks change the request or the outcome. They run one after the other, each seeing what
the one before returned; None leaves it as it is. An after_ hook that only looks at its arguments
says so by `@pure`, and is then run where it is asked what would happen, too.

*Telling* hooks run after the decision and return what is to be written with it: `NewTask`,
`NewChore`, `BatchMember`, `Upsert` and `Delete`, in the same transaction as the change they follow
from; for a `before_` phase, before the first byte is sent. `explain` is the one of them that
nothing is written of: it says what the others would return, and why.

`BatchMember` is what is told of together with others: once its batch has closed, `batch_closed` is
asked for the one delivery that tells of it. It is a `def`.

`on_event` is a `def` too, and is asked about all that happens, not to tasks alone.

*Observing*, `observe` learns afterwards what happened. It is a `def`, and what it returns is not
looked at.

Deciding and telling hooks may be `def` or `async def` (`explain` is a `def`), and may leave out
arguments that they do not need. Hooks run for calls and for deliveries alike; `task.kind` tells
which it is. One that raises, exits, cancels itself, takes longer than `plugins.timeout` or returns
something else than documented is logged with its plugin's name and passed over, unless it is marked
`@required`: then the end of the attempt waits for its answer.
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
    from orchestratord.plugin.registry import ChoreStep, Reference
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
RECORD = "on_event"
"""What is returned of it is written with what an event tells of."""
PHASES = (*DECIDING, *END_PHASES.values(), RUN_END)
"""The eight phases of the lifecycle, in order."""


@hookspec
def register_settings() -> Iterable[Setting[Any]]:
    """Add keys to the YAML of endpoints, each with its pydantic type and default."""


@hookspec
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    """Add keys to `orchestratord.yaml`, each with its type and default."""


@hookspec
def register_backoff() -> Mapping[str, type[Backoff]]:
    """Add backoff strategies, by their names in `retry.backoff`."""


@hookspec
def register_executor() -> Iterable[Executor]:
    """Add executors: kinds of task, or a `type` of endpoint."""


@hookspec
def register_tables() -> Iterable[Table]:
    """Add the plugin's own tables to the queue's database; Upsert and Delete write them."""


@hookspec
def register_routes(control: Control) -> Iterable[Route]:
    """Add routes to the API, which answer through `control`."""


@hookspec
def register_ports(control: Control) -> Iterable[PortHandler]:
    """Add ports, each under a key of `orchestratord.yaml` whose `register_daemon_settings` has the
    type `Port`. The daemon asks for no token there."""


@hookspec
def register_services(control: Control) -> Iterable[Service]:
    """Add background services: the daemon starts them again if they end, and stops them when it
    drains."""


@hookspec
def register_chores() -> Mapping[str, ChoreStep]:
    """Add steps for the chores that the plugin's telling hooks return as `NewChore`, by their
    kinds: each an `async def` that is given the data of a chore, and returns what follows.

    The daemon writes that, and ends the chore, in one transaction. If a step raises, or takes
    longer than `plugins.timeout`, the daemon asks again, after a delay that grows up to a minute;
    the chores behind it in its line wait.
    """


@hookspec
def register_pages(control: Control) -> Iterable[Page]:
    """Add pages to the dashboard, within its layout, behind its login."""


@hookspec
def register_metrics() -> Iterable[Counter | Gauge]:
    """Add metrics to `/metrics`."""


@hookspec
def register_references() -> Mapping[str, Reference]:
    """Add kinds of references: the secret value of `${vault:path}` in the YAML is the result of the
    function `vault` for `path`. Each read of the configuration calls it once for each path."""


@hookspec
def register_checks() -> Iterable[Check]:
    """Add checks to `orchestratord doctor`."""


@hookspec
def register_status(control: Control) -> Iterable[StatusPart]:
    """What `GET /v1/status` says of the plugin."""


@hookspec
def register_commands() -> Iterable[click.Command]:
    """Add commands to `orchestratord`, which need no daemon. An unknown command and `--help` call
    this hook: import slow modules within the commands."""


@hookspec
def register_verbs() -> Iterable[VerbRow]:
    """Add verbs to `orchestratorctl`, each for one of the plugin's routes."""


@hookspec
def register_editor() -> Iterable[Editor]:
    """Add the editor that writes lists of endpoints back to their files, for `Control.edit`. Only
    one plugin has one; without any, the daemon edits no files."""


@hookspec
def example_request(endpoint: Endpoint, body: bytes | None) -> Iterable[PortRequest]:
    """Make a sender's signed request to an endpoint at the plugin's port, for `orchestratord
    inbound test`; none if it accepts none. `body` None asks for an example."""


@hookspec
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    """Report the plugin's own problems of an endpoint, for `check` and each (re)load.

    `Problem.key` is the dotted path below the endpoint (`webhooks.0.url`), for file and line. An
    error refuses the configuration, a warning does not.
    """


@hookspec
def check_config(config: Config) -> Iterable[Problem]:
    """As `check_endpoint`, of `orchestratord.yaml`: `Problem.key` is the dotted path in that."""


@hookspec
def config_adopted(
    config: Config, tables: Mapping[str, list[dict[str, Any]]], elsewhere: Collection[str]
) -> Iterable[Upsert | Delete | None]:
    """Called when a configuration comes into force, at the start and at each reload, and when
    another daemon of the queue has changed plugins' tables.

    `tables` has the rows of the plugin's own tables; the daemon writes the result. `elsewhere`
    names the endpoints that other daemons declare: keep their rows. Best a generator: each yield,
    None too, lets other work run.
    """


@hookspec
def before_request(
    request: httpx.Request, task: Task, endpoint: Endpoint, config: Config, send: Send
) -> httpx.Request | None:
    """Called before each HTTP attempt: return another request, or None to keep it.

    `send` sends other requests, such as one for a token, by the same rules of egress, TLS and
    proxy.

    May raise `Reject` (the task fails as `rejected`, and nothing is sent) or `Snooze(delay)`
    (later, without a lost attempt).
    """


@hookspec
def after_request(
    outcome: Outcome, request: httpx.Request, task: Task, endpoint: Endpoint, config: Config
) -> Outcome | None:
    """Called after each HTTP attempt, with its answer or error.

    Return `outcome.success()`, `outcome.retry(...)` or `outcome.failure(...)`, or None.
    """


@hookspec
def before_execute(statement: Any, task: Task, endpoint: Endpoint, config: Config) -> Any:
    """Called before each attempt of a database statement; like `before_request`."""


@hookspec
def after_execute(
    outcome: Outcome, statement: Any, task: Task, endpoint: Endpoint, config: Config
) -> Outcome | None:
    """Called after each attempt of a database statement; like `after_request`."""


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
    """Called in each phase of a task once it is decided, but not for `on_run_end`. The webhooks
    plugin uses it.

    `outcome` is None in a `before_` phase, `request` None if there is none. `next_try` is in
    milliseconds since the epoch, None unless the task will be tried again.
    """


@hookspec
def on_success(
    outcome: Outcome, task: Task, endpoint: Endpoint, config: Config
) -> Iterable[Effect] | RecurringRows:
    """Called when a task succeeded: return tasks and rows that follow; or `RecurringRows`, if the
    next success would have the same rows."""


@hookspec
def on_retry(
    outcome: Outcome, task: Task, endpoint: Endpoint, next_try: int, config: Config
) -> Iterable[Effect]:
    """Called when an attempt failed; the next one is at `next_try` (milliseconds)."""


@hookspec
def on_final_failure(
    outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Iterable[Effect]:
    """Called when a task failed for good; `task.reason` says why.

    `endpoint` is None if it is no longer declared.
    """


@hookspec
def on_run_end(
    run: RunSummary, outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Iterable[Effect]:
    """Called when all calls of a run have succeeded, failed for good or been cancelled.

    A run is its first call, `task`, with all calls that follow from it, also if none does.
    Deliveries do not count. New tasks begin new runs. A manual retry opens a run again, and
    `run.end` counts its ends. `outcome` is a success with the status code `ok` if all calls
    succeeded, else a failure with `error`. `endpoint` is None if it is no longer declared. If the
    daemon has deleted the first call, `task` has no parameters.
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
    """Predict the consequences of a phase: those that happen, those that do not, and the rules.

    Nothing has happened, and the daemon writes nothing. The arguments are those of `announce`, the
    simulated time `now` (seconds since the epoch), and `run`, None but for `on_run_end`.
    """


@hookspec
def on_event(event: Event, config: Config, now: float) -> Iterable[Effect]:
    """Called for each event; `now` in seconds since the epoch. If `EventType.recorded` is true, the
    daemon writes the result in the transaction that records the event (for the outbox: before it).
    If several daemons find the same throttle, the first one writes its beginning, and each writes
    its end; a `BatchMember` with `once` and `since` is written once. For all other types, the first
    worker writes it soon after, in its own transaction; a crash in between loses it. Choose types
    by `@only_for(lambda type: …)`."""


@hookspec
def batch_closed(batch: ClosedBatch, config: Config) -> Iterable[NewTask]:
    """Called when a batch of `BatchMember`s closes: return its one delivery, and nothing for
    another plugin's batch.

    The daemon calls it again, also after a restart, until the delivery is written.
    """


@hookspec
def observe(events: Sequence[Event]) -> None:
    """Called with the events since the last call, in order, each after its commit (of breakers and
    throttles: before).

    The daemon calls it about twenty times a second while something happens, and waits for it.
    `orchestratord.events` describes the events and their fields.
    """


HOOKS = tuple(name for name, found in globals().items() if hasattr(found, "orchestratord_spec"))
"""All of them, by their names."""
