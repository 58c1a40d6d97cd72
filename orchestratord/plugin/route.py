"""What a plugin's routes are made of: a `Route`, its `Answer`, and the daemon as they see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.event import Event
from orchestratord.model.settings import Config
from orchestratord.model.task import Action, Effect


class Control(Protocol):
    """The running daemon, as a plugin's routes see it."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    async def status(self, *, all_lanes: bool = False) -> dict[str, Any]:
        """How the daemon is: the document of `GET /v1/status`, of the lanes only the busiest."""

    async def retries(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        limit: int = 100,
        after: int | str | None = None,
        bounded: bool = False,
        order: str = "newest",
    ) -> dict[str, Any]:
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

    async def retry(self, task_id: int) -> dict[str, Any]:
        """One task in full: the document of `GET /v1/retries/{id}`. Raises NotFound."""

    async def request(self, task_id: int) -> dict[str, Any]:
        """What a task would send: the document of `GET /v1/retries/{id}/request`.

        Raises NotFound, and Conflict where nothing would be sent as things stand.
        """

    async def bulk(self, bulk_id: int) -> dict[str, Any]:
        """A retry or cancel of many: the document of `GET /v1/bulks/{id}`. Raises NotFound."""

    async def bulks(self) -> list[dict[str, Any]]:
        """The latest of them, as `GET /v1/bulks` lists them."""

    async def actions(self, *, limit: int = 100, after: int | None = None) -> dict[str, Any]:
        """What was done manually: the document of `GET /v1/actions`."""

    async def endpoints(self, ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """These endpoints, or all of them, as `GET /v1/endpoints` lists them. Raises NotFound."""

    async def endpoint(self, endpoint_id: str) -> dict[str, Any]:
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

    async def explain(self, endpoint_id: str, **asked: Any) -> dict[str, Any]:
        """What would follow from an answer: as `POST /v1/endpoints/{api}/{name}/explain` says it.

        Args:
            endpoint_id: `api/name`.
            **asked: the keys of its body.

        Raises:
            InvalidParams, NotFound, Conflict, ConfigError.
        """

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one of the plugin's own tables."""

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write in one transaction; the ids of the new tasks, in order."""

    def standing_changed(self, endpoint_id: str) -> None:
        """Look again at where the tasks of this endpoint stand: something about them changed."""

    def publish(self, event: Event) -> None:
        """Tell of what happened, once it is written."""

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under a key of the plugin's that is united by name.

        Raises NotFound, ConfigError.
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
            Unconditional, Outdated, NotWritable, InvalidParams, ConfigError, NotFound.
        """


JSON = "application/json"


@dataclass(frozen=True, slots=True)
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
class Route:
    """One route of the API.

    Args:
        method: `GET`, `POST` or `PUT`.
        path: with `{names}` in braces, such as `/v1/endpoints/{api}/{name}/webhooks`.
        handler: an `async def` of (path parameters, query parameters, JSON body or None); raises
            NotFound, Conflict and the like for errors.
        caller: the handler takes a fourth argument, the `Caller`.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Answer]]
    caller: bool = False
