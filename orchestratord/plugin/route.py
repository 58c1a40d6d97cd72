"""What a plugin's routes are made of: a `Route`, its `Answer`, and the daemon as they see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestratord.errors import OrchestratordError, UniqueKeyReused
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.event import Event
from orchestratord.model.settings import Config
from orchestratord.model.task import Accepted, Action, Effect, NewTask, QueueRows, Upsert
from orchestratord.plugin.metric import MetricSamples

if TYPE_CHECKING:
    from markupsafe import Markup


class Control(Protocol):
    """The running daemon, as a plugin's routes see it."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    async def status(self, *, all_lanes: bool = False) -> Mapping[str, Any]:
        """How the daemon is: the document of `GET /v1/status`, of the lanes only the busiest."""

    async def retries(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        limit: int = 100,
        after: int | str | None = None,
        bounded: bool = False,
        order: str = "newest",
    ) -> Mapping[str, Any]:
        """A page of tasks: the document of `GET /v1/retries`.

        Args:
            filter: by the names of its parameters; what is empty counts as left out.
            limit: at most 1,000.
            after: the `next` of the page before.
            bounded: look at so many tasks only, so that a page may be short, or even empty, though
                it has a `next`; what people wait for is best asked for so.
            order: `newest`, or `ended`: those that have ended, the last one first.

        Raises:
            InvalidParams.
        """

    async def retry(self, task_id: int) -> Mapping[str, Any]:
        """One task in full: the document of `GET /v1/retries/{id}`. Raises NotFound."""

    async def request(self, task_id: int) -> Mapping[str, Any]:
        """What a task would send: the document of `GET /v1/retries/{id}/request`.

        Raises NotFound, and Conflict where nothing would be sent as things stand.
        """

    async def run(self, run_id: int, limit: int = 100) -> Mapping[str, Any]:
        """A run, with its first tasks: the document of `GET /v1/runs/{id}`. Raises NotFound."""

    async def newest_runs(
        self, *, limit: int = 100, after: int | None = None, status: str | None = None
    ) -> Mapping[str, Any]:
        """A page of runs, the newest first: the document of `GET /v1/runs`.

        Args:
            limit: at most 1,000.
            after: the `next` of the page before.
            status: `running` or `ended`; None for both.
        """

    async def bulk(self, bulk_id: int) -> Mapping[str, Any]:
        """A bulk: the document of `GET /v1/bulks/{id}`. Raises NotFound."""

    async def bulks(self) -> Sequence[Mapping[str, Any]]:
        """The latest of them, as `GET /v1/bulks` lists them."""

    async def actions(self, *, limit: int = 100, after: int | None = None) -> Mapping[str, Any]:
        """What was done manually: the document of `GET /v1/actions`."""

    async def endpoints(self, ids: Iterable[str] | None = None) -> Sequence[Mapping[str, Any]]:
        """These endpoints, or all of them, as `GET /v1/endpoints` lists them. Raises NotFound."""

    async def endpoint(self, endpoint_id: str) -> Mapping[str, Any]:
        """One endpoint: the document of `GET /v1/endpoints/{api}/{name}`. Raises NotFound."""

    def waits(self, endpoint_id: str) -> list[dict[str, Any]]:
        """What lies between the attempts of a call that fails again and again.

        Of each wait: `after` (the attempt before it), `delay`, `shortest` and `longest` (what
        jitter makes of it), `since` (from the first attempt to the next), in seconds, and `why`.
        Raises NotFound.
        """

    def runs(self, endpoint_id: str, count: int) -> list[str]:
        """The next runs of an endpoint's schedule, none where it has none. Raises NotFound."""

    async def due_next(self, limit: int) -> list[dict[str, Any]]:
        """Whose tasks are due next: `endpoint`, `webhook` and `next_try` of up to `limit`.

        Of each endpoint, and of each of its webhooks, only the earliest one counts.
        """

    async def explain(self, endpoint_id: str, **asked: Any) -> Mapping[str, Any]:
        """What would follow from an answer: as `POST /v1/endpoints/{api}/{name}/explain` says it.

        Args:
            endpoint_id: `api/name`.
            **asked: the keys of its body.

        Raises:
            InvalidParams, NotFound, Conflict, ConfigError.
        """

    async def accept(
        self, endpoint_id: str, params: Mapping[str, Any], once: Upsert | None = None
    ) -> int | None:
        """Make a call, which is on disk when this returns; its id.

        Args:
            endpoint_id: `api/name`.
            params: by their names, as JSON values.
            once: a row of one of the plugin's own tables that is written with it. Where a row with
                its key is there already, neither is written, and the answer is None.

        Raises:
            NotFound, Conflict (the endpoint is disabled), InvalidParams, StorageFull, Unreachable.
        """

    async def checked_call(
        self,
        endpoint_id: str,
        params: Mapping[str, Any] | bytes,
        *,
        delay: float = 0.0,
        at: float | None = None,
        key: str | None = None,
    ) -> NewTask:
        """A call that is checked as the API checks it, and not made: `accept_each` makes it. The
        function `rule_problems` then asks those rules of many calls that are costly.

        Args:
            endpoint_id: `api/name`.
            params: by their names, as JSON values; or JSON.
            delay: seconds until the first try.
            at: when that is due instead, milliseconds since the epoch.
            key: its idempotency key.

        Raises:
            NotFound, Conflict (the endpoint is disabled), InvalidParams; Refusal for what is not
            JSON.
        """

    async def accept_each(
        self, calls: Sequence[NewTask], rows: QueueRows | None = None, keys: Sequence[str] = ()
    ) -> list[Accepted | UniqueKeyReused | None]:
        """Make calls together, in one transaction, each by itself; what became of each, in order.

        None stands for one whose row of `once` was there already, or whose row of `rows` is not to
        be had, since it is gone or others have locked it just now; UniqueKeyReused for one whose
        key was used with other parameters. What keeps one back keeps back no other.

        Args:
            calls: as `checked_call` returns them, perhaps with `once`.
            rows: what they are made of, in the queue's own database: each goes with its call.
            keys: of these, one for each call.

        Raises:
            StorageFull, Unreachable, RoleLost; Unstorable, ValueError and the like where the queue
            can never take one of them: then none is made.
        """

    async def waiting(self, endpoint_id: str, most: int) -> int:
        """How many calls of an endpoint wait, counted up to `most`."""

    async def grouped(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        by: Sequence[str] = ("endpoint", "reason", "status_code"),
    ) -> Mapping[str, Any]:
        """How many tasks there are: the document of `GET /v1/retries/groups`.

        Args:
            filter: as `retries` takes it.
            by: what they are grouped by.

        Raises:
            InvalidParams.
        """

    async def batch(self, batch_id: int, limit: int = 100, after: int = 0) -> Mapping[str, Any]:
        """What a batch tells of, up to `limit` members `after` the `next` of the page before: the
        document of `GET /v1/batches/{id}`. Raises NotFound."""

    async def backlog(self, keys: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """What waits of each of these endpoints (`api/name`, with an empty text) and webhooks
        (`api/name`, name), in their order: `waiting`, how many tasks, 500 standing for 500 or more;
        and `oldest`, when the first of them was made."""

    async def schedules(self) -> Sequence[Mapping[str, Any]]:
        """All schedules, as `GET /v1/schedules` lists them."""

    def metrics(self) -> Sequence[MetricSamples]:
        """What plugins count and measure, as it is now: `register_metrics`."""

    def pages(self) -> Sequence[Page]:
        """The pages that plugins have beside those of the dashboard: `register_pages`."""

    def last_successes(self) -> Mapping[str, float]:
        """When each endpoint's last call began that succeeded: seconds since the epoch."""

    async def outbox(
        self, *, limit: int = 100, after: int | None = None, refused: bool | None = None
    ) -> Mapping[str, Any]:
        """A page of the rows in the outbox, newest first, as `GET /v1/outbox` lists them.

        Args:
            limit: how many at most.
            after: the `next` of the page before.
            refused: only those that were refused, or that were not.

        Raises NotFound where there is no outbox, Unreachable.
        """

    async def rows(
        self,
        table: str,
        where: Mapping[str, Any] = MappingProxyType({}),
        *,
        after: Mapping[str, Any] = MappingProxyType({}),
        order: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of one of the plugin's own tables.

        Args:
            table: its name.
            where: only rows whose columns of these names have these values, of the column's type;
                None is NULL, and a list stands for any of its values.
            after: only rows in which this column is greater than this value: for a page, the last
                column of the key.
            order: the column that they are sorted by, instead of the key.
            limit: how many at most; None for all.
        """

    def ago(self, seconds: float) -> int:
        """The time so many seconds ago, milliseconds since the epoch, as the daemon counts with it:
        what its clock has jumped over does not count."""

    def begin_trouble(self, code: str, why: str) -> None:
        """Something keeps this daemon from its work: `readyz`, the status and an event say so, by
        this code, until `end_trouble`."""

    def end_trouble(self, code: str) -> None:
        """It is over, if it was."""

    async def trim(
        self, reason: str, keeps: Callable[[str, str], tuple[float, int] | None]
    ) -> Mapping[tuple[str, str], int]:
        """Delete the oldest deliveries that failed for a reason; how many of which endpoint and
        webhook.

        Args:
            reason: such as `webhook_disabled`.
            keeps: for how many seconds a webhook of an endpoint keeps them, and how many; None for
                as long as `retention` says.

        Raises Unreachable.
        """

    async def write(
        self,
        effects: Sequence[Effect],
        events: Sequence[Event] = (),
        expected: Sequence[Upsert] = (),
    ) -> list[int]:
        """Write in one transaction; the ids of the new tasks, in order.

        Args:
            effects: what to write.
            events: what `on_event` returns of these is written with it; their types are `recorded`.
                To `publish` them has no hook return anything.
            expected: rows as they have to stand: where one has other `values` by now, nothing is
                written. A row that is not there has None in each column.

        Raises:
            Conflict: a row is not as it is `expected`.
            InvalidParams: a text of a row cannot be stored; Unstorable, ValueError and the like:
                the queue will never take one of `effects`. Nothing is written then. What hooks
                return of `events` is left out instead, and logged.
        """

    async def retry_all(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        force: bool = False,
    ) -> Mapping[str, Any]:
        """Have all tasks tried that a filter matches: the answer of `POST /v1/retries/trigger`.

        Args:
            filter: as `retries` takes it.
            force: repeat what has succeeded too, where the filter says so.

        Raises:
            InvalidParams.
        """

    def standing_changed(self, endpoint_id: str, webhook: str | None = None) -> None:
        """Look again at where the tasks of this endpoint stand, or with `webhook` only those of its
        webhook of this name: something about them changed."""

    def publish(self, event: Event) -> None:
        """Tell of what happened, once it is written."""

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under a key of the plugin's that is united by name.

        Raises NotFound, ConfigError, and Conflict where no plugin edits files.
        """

    async def edit(
        self,
        endpoint_id: str,
        key: str,
        value: Any,
        *,
        etag: str | None,
        dry_run: bool = False,
        who: str = "",
    ) -> Edit:
        """Have the endpoint's file say something else under such a key, and take it up.

        Args:
            endpoint_id: `api/name`.
            key: the key.
            value: the whole list; an empty one takes the key out of the file.
            etag: what If-Match says.
            dry_run: try it, and write nothing.
            who: the caller, for the log.

        Raises:
            Unconditional, Outdated, NotWritable, InvalidParams, ConfigError, NotFound, and Conflict
            where no plugin edits files.
        """


JSON = "application/json"


@dataclass(slots=True)  # not frozen: each request makes one, and a field takes a call then
class Answer:
    """What a route answers.

    Args:
        body: what becomes JSON; of another `media_type`, a text or bytes that are sent as they are.
        status: the status code.
        headers: further headers.
        media_type: such as `text/plain`.
        done: what was done manually, for the action log; it is written down before this is sent.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON
    done: Action | None = None


H = TypeVar("H", bound=Callable[..., Awaitable[Answer]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Decorates a handler with what `/openapi.json` is to say of it; its docstring is the summary.

    Args:
        query: the query parameters, a `TypedDict` (of `typing_extensions`) whose docstrings
            describe them.
        headers: request headers that mean something here, and what.
        body: the JSON body, a model of pydantic or a `TypedDict`.
        answers: status → what the body of that answer is, a `TypedDict`; or its media type, such as
            `text/plain`.
        problems: the errors that it raises beside those that any route may raise.
    """

    query: type | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: type | None = None
    answers: Mapping[int, Any]
    problems: Sequence[type[OrchestratordError] | str] = ()

    def __call__(self, handler: H) -> H:
        """The handler, so described."""
        setattr(handler, DESCRIPTION, self)
        return handler


described = Description
DESCRIPTION = "__description__"
"""The attribute of a handler that holds its `Description`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The client that sent the request.

    Args:
        name: for the log.
        headers: those of the request, in small letters.
        writes: whether a request that changes something would be let through.
        session: whether it comes with the session of a browser, which can be ended at `/logout`.
    """

    name: str
    headers: Mapping[str, str]
    writes: bool = True
    session: bool = False


@dataclass(frozen=True, slots=True)
class PortRequest:
    """A request at a port of a plugin's own.

    Args:
        method: such as `POST`.
        path: as it was sent.
        query: the parameters of the query, in their order.
        headers: in their order, the names in small letters.
        peer: the address that it came from.
        body: the bytes as they were sent; none of them before `PortHandler.admit` has answered.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Sequence[tuple[str, str]]
    peer: str
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first header of this name, which is in small letters."""
        return next((value for found, value in self.headers if found == name), None)


@dataclass(frozen=True, slots=True)
class PortHandler:
    """What answers the requests at a port of a plugin's own.

    Args:
        key: of `orchestratord.yaml`, under which a `Port` says where it is; of one within another
            setting with a dot, such as `shop.hooks`.
        admit: a `def` of the request without its body: how many bytes that may have, or what is
            answered instead. Raises NotFound and the like for errors.
        handler: an `async def` of the request; raises as that of a `Route` does.
        refused: a `def` that is told of a request, without its body, that the daemon refuses, and
            why: `too_large` (413), `timeout` (408), `busy` (503: there is no room for its body),
            `unavailable` (503: `handler` took longer than `plugins.timeout`).
    """

    key: str
    admit: Callable[[PortRequest], int | Answer]
    handler: Callable[[PortRequest], Awaitable[Answer]]
    refused: Callable[[PortRequest, str], None] = lambda request, reason: None


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the API.

    Args:
        method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
        path: with `{names}` in braces, such as `/v1/endpoints/{api}/{name}/webhooks`.
        handler: an `async def` of (path parameters, query parameters, JSON body or None); raises
            NotFound, Conflict and the like for errors.
        caller: the handler takes a fourth argument, the `Caller`.
        confidential: a token that may only look is refused, though it is a `GET`.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Answer]]
    caller: bool = False
    confidential: bool = False


@dataclass(frozen=True, slots=True)
class StatusPart:
    """What `GET /v1/status` says of the plugin.

    Args:
        key: under which it stands there, one that nothing else has.
        read: a quick `def`: what JSON can say, without secrets.
    """

    key: str
    read: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class PageVisit:
    """A request for a page.

    Args:
        path: the names in braces of the page's path.
        query: the query's parameters; one that was given twice is joined by a comma.
        caller: who asks. A page that offers something which `caller.writes` does not allow says
            so instead.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    caller: Caller


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Args:
        path: where it is, with `{names}` in braces.
        title: what it is called; the same names in braces stand for what they are in the address.
        show: an `async def` of the visit: what stands below the heading, as HTML that is a
            `markupsafe.Markup`; a plain text is escaped. It raises NotFound, InvalidParams and the
            like, which become a page that says so.
        menu: whether the menu has an entry of it; or the name of the dashboard's own entry that it
            belongs to, such as `endpoints`.
        files: styles (`.css`) and scripts (`.js`) that it loads; the latter where the visitor may
            write. One that is imported as `./name.js` stands beside the script, or is one of the
            dashboard's.
        live: the types of events after which it is shown anew, with commas, such as `config.*`.
    """

    path: str
    title: str
    show: Callable[[PageVisit], Awaitable[Markup | str]]
    menu: bool | str = True
    files: Sequence[Path] = ()
    live: str = ""
