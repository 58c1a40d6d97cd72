"""Every hook does what its specification says. A test for each, named for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import httpx
import pytest

from orchestratord import (
    Answer,
    Backoff,
    Config,
    Control,
    Delete,
    Endpoint,
    Executor,
    Explanation,
    Model,
    NewTask,
    Outcome,
    PluginError,
    Problem,
    Reject,
    Request,
    Response,
    Route,
    Setting,
    Snooze,
    Standing,
    Statement,
    Table,
    Target,
    Task,
    Upsert,
    header_items,
    hookimpl,
    put_headers,
    url_text,
)
from orchestratord.http.request_bytes import encode
from orchestratord.model.endpoint import SUCCESS
from orchestratord.model.retry_policy import CALL_WHEN
from orchestratord.plugin.served import plugin_routes as collect
from orchestratord.testing import Rig, answered, task, unanswered


class Limit(Model):
    """A plugin's own key."""

    calls: int = 1


LIMIT: Setting[Limit] = Setting("limit", Limit, default=Limit())
TABLE = Table("seen", {"endpoint": "TEXT NOT NULL", "count": "INTEGER"}, key=("endpoint",))


def test_register_settings() -> None:
    class Plugin:
        @hookimpl
        def register_settings(self) -> Iterable[Setting[Any]]:
            return [LIMIT]

    rig = Rig(Plugin())
    assert rig.endpoint()[LIMIT] == Limit(calls=1)
    assert rig.endpoint(limit={"calls": 3})[LIMIT].calls == 3
    with pytest.raises(ValueError, match="unknown"):
        rig.endpoint(limit={"unknown": 3})
    with pytest.raises(PluginError, match="'limit' is registered by beside_1 and by plugin"):
        Rig(Plugin(), beside=[Plugin()])


def test_register_backoff() -> None:
    class Halves(Backoff):
        start: float = 8.0

        def seconds(self, n: int) -> float:
            return self.start / 2**n

    class Plugin:
        @hookimpl
        def register_backoff(self) -> dict[str, type[Backoff]]:
            return {"halves": Halves}

    rig = Rig(Plugin())
    strategy = rig.backoff("halves", start=4)
    assert [strategy.seconds(n) for n in (1, 2)] == [2.0, 1.0]
    assert strategy.explain(1) == "halves 2s"
    with pytest.raises(PluginError, match="'halves' is registered by"):
        Rig(Plugin(), beside=[Plugin()])


class Echo(Executor):
    """Carries out calls of a type of its own."""

    type: ClassVar[str] = "echo"
    phases: ClassVar[tuple[str, str]] = ("before_execute", "after_execute")

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        return Target(endpoint, endpoint.retry, 1.0, True, "echo", 1, ())

    def prepare(self, task: Task, target: Target, now: float) -> Any:
        return dict(task.params)

    async def execute(self, request: Any, task: Task, target: Target, send: Any) -> Outcome:
        return Outcome("success", "ok")


class OfOneType(Echo):
    """Delivers for an endpoint of its own."""

    kind: ClassVar[str] = "webhook"
    own_endpoints: ClassVar[tuple[str, ...]] = ("echo",)


class OfAllTypes(OfOneType):
    type: ClassVar[str] = ""


def test_who_delivers_for_an_endpoint_of_a_type() -> None:
    def registry(*executors: Executor) -> Any:
        class Plugin:
            @hookimpl
            def register_executor(self) -> Iterable[Executor]:
                return executors

        return Rig(Plugin()).host.registry

    assert registry(OfOneType()).executor("webhook", "http") is None
    both = registry(OfOneType(), OfAllTypes())
    assert type(both.executor("webhook", "http")) is OfAllTypes
    assert type(both.executor("webhook", "echo")) is OfOneType


def test_register_executor() -> None:
    class Plugin:
        @hookimpl
        def register_executor(self) -> Iterable[Executor]:
            return [Echo()]

    rig = Rig(Plugin())
    assert isinstance(rig.host.registry.executor("call", "echo"), Echo)
    assert rig.host.registry.executor("call", "http") is None
    with pytest.raises(PluginError, match="executor 'call echo' is registered by"):
        Rig(Plugin(), beside=[Plugin()])


class WithTable:
    """A plugin that counts what it sees in a table of its own."""

    @hookimpl
    def register_tables(self) -> Iterable[Table]:
        return [TABLE]

    @hookimpl
    def on_success(self, task: Task) -> Iterable[Upsert]:
        return [Upsert("seen", {"endpoint": task.endpoint_id}, {}, add={"count": 1})]

    @hookimpl
    def config_adopted(
        self, config: Config, tables: dict[str, list[dict[str, Any]]]
    ) -> Iterable[Delete]:
        for row in tables["seen"]:
            if row["endpoint"] not in config.endpoints:
                yield Delete("seen", {"endpoint": row["endpoint"]})


async def test_register_tables() -> None:
    rig = Rig(WithTable())
    assert rig.host.registry.tables == {"seen": TABLE}
    upsert = Upsert("seen", {"endpoint": "demo/get"}, {}, add={"count": 1})
    assert await rig.tell("on_success", answered(200)) == [upsert]

    class Other:
        @hookimpl
        def on_success(self, task: Task) -> Iterable[Upsert]:
            return [upsert]

    with pytest.raises(PluginError, match="'seen', which is not its own"):
        await Rig(Other(), beside=[WithTable()]).tell("on_success", answered(200))


async def test_register_routes() -> None:
    async def handler(path: Any, query: Any, body: Any) -> Answer:
        return Answer({"hello": path["name"]})

    class Plugin:
        @hookimpl
        def register_routes(self, control: Control) -> Iterable[Route]:
            assert control.config.endpoints == {}
            return [Route("GET", "/v1/hello/{name}", handler)]

    rig = Rig(Plugin())

    class Daemon:
        config = rig.config()

    control: Any = Daemon()
    found = list(collect(rig.host, control, set()))
    assert [(plugin, route.path) for plugin, route in found] == [("plugin", "/v1/hello/{name}")]
    assert (await found[0][1].handler({"name": "you"}, {}, None)).body == {"hello": "you"}


def test_check_endpoint() -> None:
    class Plugin:
        @hookimpl
        def check_endpoint(self, endpoint: Endpoint, config: Config) -> Iterable[Problem]:
            assert endpoint.id in config.endpoints
            if endpoint.timeout > 10:
                yield Problem("is long", key="timeout", severity="warning")

    rig = Rig(Plugin())
    assert rig.check(rig.endpoint(timeout=5.0)) == []
    (problem,) = rig.check(rig.endpoint(timeout=50.0))
    assert (problem.key, problem.severity) == ("timeout", "warning")


def test_config_adopted() -> None:
    rig = Rig(WithTable())
    config = rig.config(rig.endpoint("demo/get"))
    rows = [{"endpoint": "demo/get", "count": 1}, {"endpoint": "demo/gone", "count": 2}]
    assert rig.adopt(config, {"seen": rows}) == [Delete("seen", {"endpoint": "demo/gone"})]
    assert rig.adopt(config) == []


class Deciding:
    """Every deciding hook; `before_` ones look at `mood`."""

    mood: Exception | None = None

    @hookimpl
    async def before_request(self, request: httpx.Request, task: Task) -> httpx.Request | None:
        if self.mood is not None:
            raise self.mood
        request.headers["x-task"] = str(task.id)
        return None

    @hookimpl
    def after_request(self, outcome: Outcome, endpoint: Endpoint) -> Outcome | None:
        if outcome.response is not None and b"error" in outcome.response.content:
            return outcome.failure(f"{endpoint.id} answered an error")
        if outcome.status_code == "error":
            return outcome.retry("no answer", delay=7)
        return outcome.success() if outcome.status_code == 404 else None

    @hookimpl
    def before_execute(self, statement: dict[str, Any]) -> dict[str, Any]:
        if self.mood is not None:
            raise self.mood
        return {**statement, "limit": 10}

    @hookimpl
    async def after_execute(self, outcome: Outcome, statement: Any) -> Outcome | None:
        return outcome.failure("empty") if statement == {} else None


async def test_before_request() -> None:
    plugin = Deciding()
    request = httpx.Request("GET", "https://a.test/")
    changed = await Rig(plugin).before(request, task=task(id=7))
    assert changed is request
    assert changed.headers["x-task"] == "7"

    another = httpx.Request("GET", "https://b.test/")

    class Replacing:
        @hookimpl
        def before_request(self) -> httpx.Request:
            return another

    assert await Rig(plugin, beside=[Replacing()]).before(request) is another
    for mood in (Reject("closed"), Snooze(30, "later")):
        plugin.mood = mood
        with pytest.raises(type(mood), match=str(mood)):
            await Rig(plugin).before(request)
    plugin.mood = ValueError("a mistake")
    with pytest.raises(PluginError, match="before_request: raised ValueError: a mistake"):
        await Rig(plugin).before(request)


MADE = ("POST", "https://a.test/x?y=1")


def looks(request: httpx.Request) -> None:
    assert request.url.path == "/x"
    assert request.headers["a"] == "1"


def adds_a_header(request: httpx.Request) -> None:
    request.headers["x-signature"] = "s"


def sets_the_url(request: httpx.Request) -> None:
    request.url = httpx.URL("https://a.test/other")


def puts_headers(request: httpx.Request) -> None:
    put_headers(request, {"a": "2", "b": "3"})


def replaces_it(request: httpx.Request) -> httpx.Request:
    return httpx.Request("PUT", request.url, headers=request.headers, content=request.content)


@pytest.mark.parametrize(
    "change", [looks, adds_a_header, sets_the_url, puts_headers, replaces_it],
    ids=lambda change: change.__name__,
)  # fmt: skip
async def test_before_request_and_the_request_that_the_daemon_makes(
    change: Callable[[httpx.Request], httpx.Request | None],
) -> None:
    """What a hook does to it goes out, as it would with one of httpx's own."""

    class Plugin:
        @hookimpl
        def before_request(self, request: httpx.Request) -> httpx.Request | None:
            return change(request)

    rig = Rig(Plugin())
    made = Request(*MADE, headers={"a": "1"}, content=b"c")
    expected = httpx.Request(*MADE, headers={"a": "1"}, content=b"c")
    sent, wanted = await rig.before(made), await rig.before(expected)
    assert (sent is made) is (change is not replaces_it)
    before, after = encode(sent), encode(wanted)
    assert (before.head, before.body) == (after.head, after.body)
    assert url_text(sent) == str(wanted.url)


async def test_before_request_of_two_plugins_and_one_request() -> None:
    class First:
        @hookimpl(tryfirst=True)
        def before_request(self, request: httpx.Request) -> None:
            put_headers(request, {"x-first": "1"})

    class Second:
        @hookimpl(trylast=True)
        def before_request(self, request: httpx.Request) -> None:
            assert request.headers["X-First"] == "1"
            put_headers(request, {"x-second": request.headers["x-first"] + "2"})

    made = Request(*MADE)
    assert await Rig(First(), beside=[Second()]).before(made) is made
    assert encode(made).head.endswith(b"\r\nx-first: 1\r\nx-second: 12\r\n\r\n")


async def test_after_request_and_the_answer_that_the_client_makes() -> None:
    """A hook sees httpx's own answer, and can give back another one."""

    class Plugin:
        @hookimpl
        def after_request(self, outcome: Outcome) -> Outcome | None:
            response = outcome.response
            assert isinstance(response, httpx.Response)
            assert response.json() == {"error": "no"}
            assert response.headers.get_list("x-a") == ["1", "2"]
            assert response.text
            assert list(header_items(response))[-1] == ("x-a", "2")
            return outcome.failure(response.json()["error"])

    fields = [(b"Content-Type", b"application/json"), (b"X-A", b"1"), (b"x-a", b"2")]
    answer = Response(200, fields, b'{"error": "no"}', Request(*MADE), {"truncated": False})
    outcome = Outcome.from_response(answer, success=SUCCESS, when=CALL_WHEN)
    failed = await Rig(Plugin()).after(outcome)
    assert (failed.verdict, failed.error, failed.decided_by) == ("failure", "no", "plugin")


async def test_after_request() -> None:
    rig = Rig(Deciding())
    failed = await rig.after(answered(200, text="an error"))
    assert (failed.verdict, failed.error) == ("failure", "demo/get answered an error")
    assert failed.decided_by == "plugin"
    assert (await rig.after(answered(404))).verdict == "success"
    again = await rig.after(unanswered())
    assert (again.verdict, again.delay) == ("retry", 7)
    as_it_was = await rig.after(answered(200))
    assert (as_it_was.verdict, as_it_was.decided_by) == ("success", None)


class Answering:
    @hookimpl
    def before_execute(self, statement: Any) -> Any:
        return {}


async def test_before_execute() -> None:
    plugin = Deciding()
    rig = Rig(plugin)
    with pytest.raises(PluginError, match="returned dict, not a Statement or None"):
        await Rig(Answering()).before(Statement("a", "SELECT 1", {}), phase="before_execute")
    assert await rig.before({"a": 1}, phase="before_execute") == {"a": 1, "limit": 10}
    plugin.mood = Snooze(1)
    with pytest.raises(Snooze):
        await rig.before({}, phase="before_execute")


async def test_after_execute() -> None:
    rig = Rig(Deciding())
    outcome = Outcome("success", "ok")
    assert (await rig.after(outcome, request={}, phase="after_execute")).verdict == "failure"
    assert (await rig.after(outcome, request={"a": 1}, phase="after_execute")) is outcome


class Telling:
    """Every telling hook, each in another way of returning things."""

    @hookimpl
    def announce(
        self, phase: str, outcome: Outcome | None, next_try: int | None, config: Config
    ) -> Iterable[NewTask]:
        assert config.endpoints
        code = outcome.status_code if outcome else None
        return (NewTask("call", "log/add", {"phase": phase, "code": code, "next": next_try}),)

    @hookimpl
    def on_success(self, task: Task) -> Iterable[NewTask]:
        yield NewTask("call", "next/step", parent_id=task.id)

    @hookimpl
    async def on_retry(self, next_try: int) -> list[NewTask]:
        return [NewTask("call", "tell/retry", {"at": next_try})]

    @hookimpl
    def on_final_failure(self, task: Task, endpoint: Endpoint | None) -> list[NewTask] | None:
        return [NewTask("call", "tell/end", {"why": task.reason})] if endpoint else None


@pytest.mark.parametrize("phase", ["before_request", "after_request", "before_execute"])
async def test_announce(phase: str) -> None:
    before = phase.startswith("before_")
    effects = await Rig(Telling()).tell(phase, None if before else answered(503))
    code = None if before else 503
    assert effects == [NewTask("call", "log/add", {"phase": phase, "code": code, "next": None})]


async def test_on_success() -> None:
    announced, followed = await Rig(Telling()).tell("on_success", answered(200), task=task(id=9))
    assert announced == NewTask(
        "call", "log/add", {"phase": "on_success", "code": 200, "next": None}
    )
    assert followed == NewTask("call", "next/step", parent_id=9)


async def test_on_retry() -> None:
    announced, followed = await Rig(Telling()).tell("on_retry", answered(503), next_try=1234)
    assert isinstance(announced, NewTask)
    assert announced.params["next"] == 1234
    assert followed == NewTask("call", "tell/retry", {"at": 1234})


async def test_on_final_failure() -> None:
    effects = await Rig(Telling()).tell(
        "on_final_failure", unanswered(), task=task(reason="exhausted")
    )
    assert effects[1] == NewTask("call", "tell/end", {"why": "exhausted"})


class Explaining:
    """Says of each phase whether it would call another endpoint."""

    @hookimpl
    def explain(self, phase: str, outcome: Outcome | None, now: float) -> Iterable[Explanation]:
        code = outcome.status_code if outcome else None
        yield Explanation("call", "next/step", "on_success", phase == "on_success", f"{code} {now}")


def test_explain() -> None:
    rig = Rig(Explaining())
    (would,) = rig.explain("on_success", answered(200), now=5.0)
    assert would == Explanation("call", "next/step", "on_success", True, "200 5.0")
    (would_not,) = rig.explain("before_request", now=6.0)
    assert (would_not.happens, would_not.why, would_not.task) == (False, "None 6.0", None)

    class Async:
        @hookimpl
        async def explain(self, phase: str) -> list[Explanation]:
            return []

    with pytest.raises(PluginError, match="explain is an `async def`; write a `def`"):
        Rig(Async())
