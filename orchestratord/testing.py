"""The rig for plugin authors: a plugin's hooks, run as the daemon runs them, in a plain test.

    rig = Rig(my_plugin)
    endpoint = rig.endpoint("shop/getOrder", my_key={"limit": 3})
    outcome = await rig.after(answered(200, json={"error": "no such order"}), endpoint=endpoint)
    assert outcome.verdict == "failure"

It needs no daemon, no database and no network. A fault that the daemon would log and pass over
fails the test: `PluginError` with what the log would say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import httpx
from pydantic import TypeAdapter
from starlette.routing import compile_path

from orchestratord.engine.new.enqueue import callable_endpoint, fitted_call
from orchestratord.errors import PluginError, Problem, SendError, UniqueKeyReused
from orchestratord.model.backoff import Backoff, Fixed
from orchestratord.model.endpoint import SUCCESS, Api, Endpoint
from orchestratord.model.event import Event
from orchestratord.model.http_message import MAX_RESPONSE
from orchestratord.model.outcome import Outcome, Send
from orchestratord.model.recurring_rows import RecurringRows, upserts_of
from orchestratord.model.retry_policy import CALL_WHEN, RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import (
    Accepted,
    ClosedBatch,
    Delete,
    Effect,
    Explanation,
    NewTask,
    QueueRows,
    RunSummary,
    Task,
    Upsert,
    task_made_of,
)
from orchestratord.plugin.hookspecs import RUN_END
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import HookFault, check_service
from orchestratord.plugin.route import Answer, Caller, Control, PageVisit, PortRequest, StatusPart
from orchestratord.values.clock import Clock
from orchestratord.values.json_body import parse_json
from orchestratord.values.redact import Redactor

START = 1_800_000_000.0
"""Where a `FakeClock` stands at first: 2027-01-15, 08:00 UTC, in seconds since the epoch."""


class FakeClock(Clock):
    """Stands still until it is turned; a `running` one goes on by itself as well."""

    def __init__(self, start: float = START, *, running: bool = False) -> None:
        """`start`: seconds since the epoch."""
        super().__init__()
        self._running = running
        self._now = start - super().now() if running else start

    def now(self) -> float:
        return super().now() + self._now if self._running else self._now

    def now_ms(self) -> int:
        return int(self.now() * 1000)

    def steady(self) -> float:
        return self.now()

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def chance(seed: int = 0) -> Random:
    """Chance that is the same in each run, for whatever draws a jitter."""
    return Random(seed)  # noqa: S311  # a test's


def answered(status_code: int, **content: Any) -> Outcome:
    """The outcome of an attempt that got this answer, judged as a call is by default.

    `content` is what `httpx.Response` takes: `json`, `text`, `content`, `headers`.
    """
    response = httpx.Response(status_code, **content)
    return Outcome.from_response(response, success=SUCCESS, when=CALL_WHEN)


def unanswered(error: str = "connection refused", *, sent: bool = False) -> Outcome:
    """The outcome of an attempt that got none; `sent` tells whether the request went out."""
    failed = SendError(error, kind="reset" if sent else "connect", sent=sent)
    return Outcome.from_error(failed, when=CALL_WHEN)


class Answers:
    """A `send` that follows a script, for what an executor does.

    Args:
        script: for each request in turn a status code, a whole response, or an error to raise.

    `requests` holds what was sent. A request more than the script has fails the test.
    """

    def __init__(self, *script: int | httpx.Response | SendError) -> None:
        self._script = list(script)
        self.requests: list[httpx.Request] = []

    async def __call__(
        self,
        request: httpx.Request,
        *,
        fresh: bool = False,
        follow_redirects: bool = False,
        max_response: int = MAX_RESPONSE,
    ) -> httpx.Response:
        self.requests.append(request)
        if not self._script:
            raise AssertionError(f"one request more than there are answers: {request}")
        answer = self._script.pop(0)
        if isinstance(answer, SendError):
            raise answer
        response = httpx.Response(answer) if isinstance(answer, int) else answer
        response.request = request
        return response


class FakeControl:
    """Stands for the daemon: remembers what a plugin did with it, and has nothing to say.

    What is not here is a coroutine that returns None; set it to what the test wants it to return.

    Args:
        config: the configuration in force.

    Attributes:
        tables: the rows of the plugin's tables, by table; `write` changes them.
        accepted: the calls that were made: endpoint and parameters.
        written: all that `write` was given.
        published: the events that it told of.
        recorded: those that it wrote something with.
        troubles: what it says is wrong now, by its code.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.accepted: list[tuple[str, Mapping[str, Any]]] = []
        self.written: list[Effect] = []
        self.published: list[Event] = []
        self.recorded: list[Event] = []
        self.troubles: dict[str, str] = {}
        self._once: set[tuple[object, ...]] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Control, name):
            raise AttributeError(f"Control has no {name}")

        async def nothing(*args: Any, **kwargs: Any) -> None:
            return None

        return nothing

    async def accept(
        self, endpoint_id: str, params: Mapping[str, Any], once: Upsert | None = None
    ) -> int | None:
        """Remember a call; None where the row of `once` was there already."""
        if once is not None:
            key = (once.table, *sorted(once.key.items()))
            if key in self._once:
                return None
            self._once.add(key)
            await self.write([once])
        self.accepted.append((endpoint_id, params))
        return len(self.accepted)

    async def checked_call(
        self,
        endpoint_id: str,
        params: Mapping[str, Any] | bytes,
        *,
        delay: float = 0.0,
        at: float | None = None,
        key: str | None = None,
    ) -> NewTask:
        """A call that the endpoint takes. Raises NotFound, Conflict and InvalidParams."""
        given = parse_json(params.decode()) if isinstance(params, bytes) else params
        due = None if at is None else round(at)
        endpoint = callable_endpoint(self.config, endpoint_id)
        return await fitted_call(self.config, endpoint, given, delay=delay, at=due, key=key)

    async def accept_each(
        self, calls: Sequence[NewTask], rows: QueueRows | None = None, keys: Sequence[str] = ()
    ) -> list[Accepted | UniqueKeyReused | None]:
        """Remember the calls that no row of `once` keeps back; of `rows`, all are to be had."""
        found: list[Accepted | UniqueKeyReused | None] = []
        for call in calls:
            id_ = await self.accept(call.endpoint_id, call.params, call.once)
            found.append(None if id_ is None else Accepted(id_, "pending"))
        return found

    async def rows(
        self,
        table: str,
        where: Mapping[str, Any] = MappingProxyType({}),
        *,
        order: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of a table whose columns have these values."""
        found = self.tables.get(table, [])
        these = [
            dict(row)
            for row in found
            if all(
                row.get(name) in (value if isinstance(value, list | tuple | set) else (value,))
                for name, value in where.items()
            )
        ]
        return (sorted(these, key=lambda row: row[order]) if order else these)[:limit]

    async def write(self, effects: Sequence[Effect], events: Sequence[Event] = ()) -> list[int]:
        """Change the rows; the ids of new tasks. The events are remembered as `recorded`."""
        self.recorded += events
        self.written += effects
        for effect in effects:
            if isinstance(effect, Upsert | Delete):
                rows = self.tables.setdefault(effect.table, [])
                old = next((row for row in rows if row.items() >= effect.key.items()), None)
                if isinstance(effect, Delete):
                    self.tables[effect.table] = [row for row in rows if row is not old]
                    continue
                if old is None:
                    rows.append(old := {**effect.key})
                old.update(effect.values)
                old.update({name: old.get(name, 0) + by for name, by in effect.add.items()})
        return [n for n, one in enumerate(self.written, 1) if isinstance(one, NewTask)]

    def ago(self, seconds: float) -> int:
        """The time so many seconds before `START`, milliseconds since the epoch."""
        return int((START - seconds) * 1000)

    def begin_trouble(self, code: str, why: str) -> None:
        """Remember a trouble."""
        self.troubles.setdefault(code, why)

    def end_trouble(self, code: str) -> None:
        """Forget it."""
        self.troubles.pop(code, None)

    def publish(self, event: Event) -> None:
        """Remember an event."""
        self.published.append(event)


def task(**fields: Any) -> Task:
    """A call in its first attempt; `fields` are those of `Task` that shall differ."""
    plain = task_made_of(NewTask("call", "demo/get"), 1, int(START * 1000), attempts=1)
    return replace(plain, **fields)


class Rig:
    """One plugin in a host of its own."""

    def __init__(
        self, plugin: object, *, name: str = "plugin", beside: Sequence[object] = ()
    ) -> None:
        """Load `plugin`, and before it whatever it shall find `beside` it.

        Raises PluginError where one cannot be loaded.
        """
        self.host = Host(timeout=2.0)
        for number, other in enumerate(beside, 1):
            self._load(other, f"beside_{number}")
        self._load(plugin, name)

    def _load(self, plugin: object, name: str) -> None:
        self.host.register(plugin, name, version="test")
        if self.host.plugins[name].status == "failed":
            raise PluginError(f"{name}: {self.host.plugins[name].error}")

    # -- what is declared ----------------------------------------------------------------------

    def setting(self, key: str, value: Any) -> Any:
        """What `value` under a key of the YAML becomes. Raises pydantic's ValidationError."""
        adapter = TypeAdapter(self.host.registry.settings[key].type)
        return adapter.validate_python(value, context={"backoffs": self.host.registry.backoffs})

    def backoff(self, strategy: str, **options: Any) -> Backoff:
        """A strategy as the YAML declares it. Raises pydantic's ValidationError."""
        return self.host.registry.backoffs[strategy].model_validate(options)

    def endpoint(
        self,
        id: str = "demo/get",  # noqa: A002  # as Endpoint calls it
        *,
        api: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Endpoint:
        """An endpoint.

        Args:
            id: `api/name`.
            api: keys of its `api.yaml`.
            keys: the plugin's own keys of the YAML, and fields of `Endpoint` as they are.
        """
        ours = {key for key in keys if key in self.host.registry.settings}
        fields: dict[str, Any] = {
            "type": "http",
            "spec": None,
            "retry": RetryPolicy.model_validate({"backoff": Fixed()}),
            "timeout": 30.0,
            "idempotent": True,
            "shown": {key: keys[key] for key in ours},
            **{key: value for key, value in keys.items() if key not in ours},
        }
        return Endpoint(
            id=id,
            api=Api(name=id.split("/")[0], **(api or {})),
            settings={key: self.setting(key, keys[key]) for key in ours},
            **fields,
        )

    def config(
        self,
        *endpoints: Endpoint,
        secrets: Iterable[str] = (),
        daemon: Mapping[str, Any] | None = None,
    ) -> Config:
        """A configuration of these endpoints.

        Args:
            endpoints: all that are declared.
            secrets: what is secret in it.
            daemon: the plugin's own keys of `orchestratord.yaml`.
        """
        known = self.host.registry.daemon_settings
        return Config(
            folder=Path(),
            daemon=DaemonSettings.model_validate({}),
            apis={endpoint.api.name: endpoint.api for endpoint in endpoints},
            endpoints={endpoint.id: endpoint for endpoint in endpoints},
            redactor=Redactor(secrets),
            digest="",
            settings={
                key: TypeAdapter(known[key].type).validate_python(value)
                for key, value in (daemon or {}).items()
            },
        )

    def check(self, endpoint: Endpoint, *, config: Config | None = None) -> list[Problem]:
        """What `check_endpoint` finds; `config` where the endpoint is not alone."""
        arguments = {"endpoint": endpoint, "config": config or self.config(endpoint)}
        return self._ask("check_endpoint", arguments)

    def check_config(self, config: Config) -> list[Problem]:
        """What `check_config` finds."""
        return self._ask("check_config", {"config": config})

    def status(self, control: Control | FakeControl) -> dict[str, Any]:
        """What the plugin says of itself in the status."""
        parts: list[StatusPart] = self._ask("register_status", {"control": control})
        return {part.key: part.read() for part in parts}

    def adopt(
        self,
        config: Config,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
        elsewhere: Collection[str] = (),
    ) -> list[Upsert | Delete]:
        """What `config_adopted` writes; `tables` holds the rows as they stand, none if left out,
        and `elsewhere` names the endpoints that other daemons declare."""
        given = tables or {}
        rows = {name: given.get(name, []) for name in self.host.registry.tables}
        return self._ask(
            "config_adopted", {"config": config, "tables": rows, "elsewhere": elsewhere}
        )

    # -- the phases ------------------------------------------------------------------------------

    async def before(
        self,
        request: Any,
        *,
        task: Task | None = None,
        endpoint: Endpoint | None = None,
        phase: str = "before_request",
        config: Config | None = None,
        send: Send | None = None,
    ) -> Any:
        """The request as the before_ hooks leave it; `send` is an `Answers`, without which they may
        send nothing. Raises `Reject` and `Snooze` as they do."""
        name = "request" if phase == "before_request" else "statement"
        given = {**self._about(task, endpoint, config), "send": send or Answers()}
        result = await self.host.fold(phase, name, {name: request, **given})
        self._fail_on_fault()
        return result

    async def after(
        self,
        outcome: Outcome,
        *,
        request: Any = None,
        task: Task | None = None,
        endpoint: Endpoint | None = None,
        phase: str = "after_request",
        config: Config | None = None,
    ) -> Outcome:
        """The outcome as the after_ hooks leave it."""
        about = self._about(task, endpoint, config)
        reached = Reached(outcome=outcome, request=request, **about)
        result = await self.host.fold_after(phase, reached)
        self._fail_on_fault()
        return result

    async def tell(
        self,
        phase: str,
        outcome: Outcome | None = None,
        *,
        request: Any = None,
        task: Task | None = None,
        endpoint: Endpoint | None = None,
        next_try: int | None = None,
        config: Config | None = None,
        run: RunSummary | None = None,
    ) -> list[Effect]:
        """What `announce` returns in one of the phases, and the telling hook of its name.

        `next_try` is in milliseconds since the epoch; `run`, for `on_run_end`, the one that ended.
        """
        about = self._about(task, endpoint, config)
        reached = Reached(outcome=outcome, request=request, phase=phase, next_try=next_try, **about)
        reached.run = run
        effects: list[Effect] = []
        with suppress(HookFault):  # which is told below
            effects += [] if phase == RUN_END else await self.host.collect("announce", reached)
            if phase.startswith("on_"):
                recurring: list[RecurringRows] | None = [] if phase == "on_success" else None
                effects += await self.host.collect(phase, reached, recurring)
                effects += upserts_of(recurring or (), int(START * 1000))
        self._fail_on_fault()
        return effects

    def explain(
        self,
        phase: str,
        outcome: Outcome | None = None,
        *,
        request: Any = None,
        task: Task | None = None,
        endpoint: Endpoint | None = None,
        next_try: int | None = None,
        config: Config | None = None,
        now: float = START,
        run: RunSummary | None = None,
    ) -> list[Explanation]:
        """What `explain` says of one of the phases; `now` in seconds since the epoch. `run`: for
        `on_run_end`, the one that would end."""
        about = self._about(task, endpoint, config)
        arguments = {
            "phase": phase,
            "outcome": outcome,
            "request": request,
            "next_try": next_try,
            "run": run,
            "now": now,
            **about,
        }
        return self._ask("explain", arguments)

    # -- what is beside the phases ---------------------------------------------------------------

    def observe(self, *events: Event) -> None:
        """Tell the hook `observe` of these."""
        if (observe := self.host.observer()) is not None:
            observe(events)
        self._fail_on_fault()

    def record(
        self, event: Event, *, config: Config | None = None, now: float = START
    ) -> list[Effect]:
        """What `on_event` returns; `now` in seconds since the epoch."""
        effects = self.host.record(event, config or self.config(), now)
        self._fail_on_fault()
        return effects

    def closed(self, batch: ClosedBatch, *, config: Config | None = None) -> list[NewTask]:
        """What `batch_closed` returns."""
        return self._ask("batch_closed", {"batch": batch, "config": config or self.config()})

    async def request(
        self, method: str, path: str, control: FakeControl, body: Any = None, **query: str
    ) -> Answer:
        """What a route answers; raises what it raises. `path`: as a client writes it."""
        for route in self._ask("register_routes", {"control": control}):
            pattern, _, _ = compile_path(route.path)
            match = pattern.match(path)
            if route.method == method and match is not None:
                given = [match.groupdict(), query, body]
                given += [Caller("test", {})] if route.caller else []
                answer: Answer = await route.handler(*given)
                return answer
        raise PluginError(f"no route answers {method} {path}")

    async def send(self, key: str, request: PortRequest, control: FakeControl) -> Answer:
        """What is answered at the port of this key; raises what its handler raises."""
        for handler in self._ask("register_ports", {"control": control}):
            if handler.key == key:
                admitted = handler.admit(replace(request, body=b""))
                if isinstance(admitted, Answer):
                    return admitted
                answer: Answer = await handler.handler(request)
                return answer
        raise PluginError(f"no handler answers at {key}")

    async def visit(self, path: str, control: FakeControl, *, writes: bool = True) -> str:
        """What a page shows; raises what it raises."""
        for page in self._ask("register_pages", {"control": control}):
            pattern, _, _ = compile_path(page.path)
            if (match := pattern.match(path)) is not None:
                visit = PageVisit(match.groupdict(), {}, Caller("test", {}, writes))
                return str(await page.show(visit))
        raise PluginError(f"there is no page {path}")

    @asynccontextmanager
    async def services(self, control: FakeControl) -> AsyncIterator[None]:
        """Run all services, each once, for as long as the block takes; then `stop` is set."""
        stop, found = asyncio.Event(), self._ask("register_services", {"control": control})
        running = [asyncio.ensure_future(check_service(one).run(stop)) for one in found]
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(self.host.timeout):
                await asyncio.gather(*running)

    # -- within ----------------------------------------------------------------------------------

    def _about(
        self, given: Task | None, endpoint: Endpoint | None, config: Config | None
    ) -> dict[str, Any]:
        endpoint = endpoint or self.endpoint(given.endpoint_id if given else "demo/get")
        given = given or task(endpoint_id=endpoint.id)
        return {"task": given, "endpoint": endpoint, "config": config or self.config(endpoint)}

    def _ask(self, hook: str, arguments: dict[str, Any]) -> list[Any]:
        answers = [item for _, found in self.host.ask(hook, arguments) for item in found]
        self._fail_on_fault()
        return answers

    def _fail_on_fault(self) -> None:
        for info in self.host.plugins.values():
            if info.faults:
                info.faults = 0
                raise PluginError(f"plugin {info.name}: {info.last_fault}")
