"""A hook's fault is its plugin's own: named in the log, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import inspect
import math
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from orchestratord.errors import Reject, Snooze
from orchestratord.model.event import EventType, ScheduleEvent
from orchestratord.model.http_message import Response
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import BatchMember, Delete, NewTask, Table, Upsert
from orchestratord.plugin.hook_marks import hookimpl, required
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import HookFault, call, check_sizes
from orchestratord.plugin.long_work import off_loop
from orchestratord.testing import task as a_task
from orchestratord.values.redact import Redactor

REQUEST = httpx.Request("GET", "http://x/")
OUTCOME = Outcome("retry", 503, error="503 Service Unavailable", answered=True)
TASK = NewTask("call", "a/b")
HOOK = NewTask("webhook", "a/b", webhook="ops")
CONFIG = Config(Path(), DaemonSettings(), {}, {}, Redactor(), "")

BEFORE = ("before_request", "request", {"request": REQUEST, "task": None, "endpoint": None})
AFTER = ("after_request", "outcome", {"outcome": OUTCOME, "request": REQUEST, "task": None,
                                      "endpoint": None})  # fmt: skip


class Plugin:
    """An object with hooks; each function is one by its name."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            setattr(self, name, hookimpl(function))


@pytest.fixture
def host() -> Host:
    return Host(timeout=0.2)


def add(host: Host, **plugins: Callable[..., Any]) -> None:
    """`add(host, name=function)`: a plugin of that name with the hook that the function names."""
    for name, function in plugins.items():
        host.register(Plugin(**{function.__name__: function}), name)


async def fold(host: Host, case: tuple[str, str, dict[str, Any]]) -> Any:
    hook, name, arguments = case
    return await host.fold(hook, name, dict(arguments))


async def tell(host: Host, hook: str = "on_success") -> list[Any]:
    return await host.collect(hook, Reached(a_task(), None, CONFIG, OUTCOME))


OWN = {"name": "a"}


@pytest.mark.parametrize(
    ("rows", "until", "words"),
    [([Upsert("other", OWN, {})], 1, "writes the table 'other'"),
     ([Upsert("own", OWN, {})], None, "returned RecurringRows until None"),
     ([Upsert("own", OWN, {}, {"n": "2"})], 1, "returned RecurringRows that add what is no number"),
     ([Upsert("own", OWN, {"n": 0}, {"n": 1})], 1, "returned RecurringRows that set and add one"),
     ([Upsert("own", OWN, {})] * 101, 1, "returned RecurringRows with more than 100 rows"),
     ([Delete("own", OWN)], 1, "raised AttributeError")],
)  # fmt: skip
async def test_rows_that_may_not_recur(
    host: Host, rows: list[Any], until: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def register_tables() -> list[Table]:
        return [Table("own", {"name": "TEXT NOT NULL", "n": "INTEGER"}, key=("name",))]

    def tells() -> RecurringRows:
        return RecurringRows(rows, until)

    host.register(Plugin(register_tables=register_tables, on_success=tells), "steady")
    recurring: list[RecurringRows] = []
    reached = Reached(a_task(), None, CONFIG, OUTCOME)
    assert await host.collect("on_success", reached, recurring) == recurring == []
    assert f"plugin steady: on_success {words}" in caplog.text


async def test_only_successes_recur(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    def on_retry() -> RecurringRows:
        return RecurringRows([], 1)

    add(host, steady=on_retry)
    assert await tell(host, "on_retry") == []
    assert "plugin steady: on_retry returned RecurringRows, not a list of" in caplog.text


def both(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The same hook as a `def` and as an `async def`."""

    async def as_coroutine(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    as_coroutine.__name__ = function.__name__
    as_coroutine.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return [function, as_coroutine]


# -- deciding -------------------------------------------------------------------------------------


async def test_each_sees_what_the_one_before_returned(host: Host) -> None:
    seen: list[str] = []

    def hook(mark: str, *, wait: bool) -> Callable[..., Any]:
        def before_request(request: httpx.Request) -> httpx.Request:
            seen.append(str(request.url))
            return httpx.Request("GET", f"{request.url}{mark}")

        async def before_request_async(request: httpx.Request) -> httpx.Request:
            await asyncio.sleep(0)
            return before_request(request)

        before_request_async.__name__ = "before_request"
        return before_request_async if wait else before_request

    add(host, a=hook("a", wait=False), b=hook("b", wait=True), c=hook("c", wait=False))
    result = await fold(host, BEFORE)
    assert len(seen) == 3
    marks = str(result.url).removeprefix("http://x/")
    assert sorted(marks) == ["a", "b", "c"]
    assert seen == [f"http://x/{marks[:n]}" for n in range(3)]


async def test_none_leaves_it_as_it_is(host: Host) -> None:
    def before_request() -> None: ...

    async def after_request() -> None: ...

    add(host, a=before_request, b=after_request)
    assert await fold(host, BEFORE) is REQUEST
    assert await fold(host, AFTER) is OUTCOME
    assert all(info.faults == 0 for info in host.plugins.values())


async def test_nobody_leaves_it_as_it_is(host: Host) -> None:
    assert await fold(host, BEFORE) is REQUEST
    assert await tell(host) == []


async def test_who_returns_what_it_was_given_decided_nothing(host: Host) -> None:
    def after_request(outcome: Outcome) -> Outcome:
        return outcome

    add(host, idle=after_request)
    assert await fold(host, AFTER) is OUTCOME


async def test_who_changed_the_verdict_is_named(host: Host) -> None:
    def after_request(outcome: Outcome) -> Outcome:
        return outcome.failure("the body says so", reason="not_retryable")

    add(host, strict=after_request)
    outcome = await fold(host, AFTER)
    assert (outcome.verdict, outcome.decided_by) == ("failure", "strict")
    assert outcome.error == "the body says so"


async def test_who_says_the_same_verdict_on_purpose_decided_it(host: Host) -> None:
    def after_request(outcome: Outcome) -> Outcome:
        return outcome.retry("it says so itself", delay=3)

    add(host, sure=after_request)
    outcome = await fold(host, AFTER)
    assert (outcome.verdict, outcome.decided_by, outcome.delay) == ("retry", "sure", 3)


@pytest.mark.parametrize("refusal", [Reject("no"), Snooze(30), Snooze(0), Snooze(0.5, "later")])
async def test_a_before_hook_may_refuse(host: Host, refusal: Exception) -> None:
    def before_request() -> None:
        raise refusal

    for name, hook in zip("ab", both(before_request), strict=True):
        single = Host(timeout=0.2)
        add(single, **{name: hook})
        with pytest.raises(type(refusal)) as caught:
            await fold(single, BEFORE)
        assert caught.value is refusal
        assert single.plugins[name].faults == 0


@pytest.mark.parametrize(
    "refusal", [Reject("no"), Snooze(30)], ids=lambda refusal: type(refusal).__name__
)
async def test_no_other_hook_may_refuse(
    host: Host, refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def after_request() -> None:
        raise refusal

    def on_success() -> None:
        raise refusal

    async def on_retry() -> None:
        raise refusal

    def good() -> list[NewTask]:
        return [TASK]

    good.__name__ = "on_success"
    add(host, late=after_request, teller=on_success, good=good, sleeper=on_retry)
    assert await fold(host, AFTER) is OUTCOME
    assert await tell(host) == [TASK]
    assert await tell(host, "on_retry") == []
    for name, hook in (
        ("late", "after_request"),
        ("teller", "on_success"),
        ("sleeper", "on_retry"),
    ):
        assert f"plugin {name}: {hook} {type(refusal).__name__}" in caplog.text


class Guard:
    def __init__(self, on_fault: Any, given: Any = None) -> None:
        def before_request() -> Any:
            if given is None:
                raise RuntimeError("who knows")
            return given

        async def after_request() -> Any:
            await asyncio.sleep(5)

        mark = hookimpl(on_fault=on_fault)
        self.before_request, self.after_request = mark(before_request), mark(after_request)


@pytest.mark.parametrize("given", [None, "no request"])
async def test_the_fault_of_a_guard_says_what_becomes_of_the_attempt(given: Any) -> None:
    for on_fault, raised, verdict in [
        ("pass", None, "retry"),
        ("retry", HookFault, "retry"),
        ("reject", Reject, "failure"),
    ]:
        host = Host(timeout=0.05)
        host.register(Guard(on_fault, given), "guard")
        if raised is None:
            assert await fold(host, BEFORE) is REQUEST
        else:
            with pytest.raises(raised, match="before_request of the plugin guard was at fault"):
                await fold(host, BEFORE)
        outcome = await fold(host, AFTER)
        assert outcome.verdict == verdict
        assert host.plugins["guard"].faults == 2
        if raised is not None:
            assert outcome.error == "after_request of the plugin guard was at fault"
            assert outcome.decided_by == "guard"
            assert outcome.final_reason == ("rejected" if verdict == "failure" else None)


def test_marks_that_mean_nothing(host: Host) -> None:
    with pytest.raises(ValueError, match="on_fault='stop'; write pass, retry or reject"):
        Guard("stop")

    def observe() -> None: ...

    class Watcher:
        pass

    setattr(Watcher, "observe", staticmethod(hookimpl(on_fault="retry")(observe)))  # noqa: B010
    host.register(Watcher(), "watcher")
    assert host.plugins["watcher"].error == "observe is marked with on_fault, but decides nothing"


@pytest.mark.parametrize(
    "given",
    [{"delay": 1, "until": 1}, {}, {"until": math.nan}, {"until": "soon"}, {"until": True},
     {"until": 1e300}],
)  # fmt: skip
async def test_a_snooze_until_no_time_is_a_fault(host: Host, given: dict[str, Any]) -> None:
    def before_request() -> None:
        raise Snooze(**given)

    add(host, sleepy=before_request)
    assert await fold(host, BEFORE) is REQUEST
    assert host.plugins["sleepy"].faults == 1


@pytest.mark.parametrize("until", [0, 1, 1.5, 1_900_000_000_000])
async def test_a_snooze_until_a_time(host: Host, until: float) -> None:
    def before_request() -> None:
        raise Snooze(until=until, why="lunch")

    add(host, sleepy=before_request)
    with pytest.raises(Snooze, match="lunch") as caught:
        await fold(host, BEFORE)
    assert (caught.value.until, caught.value.delay) == (until, None)


@pytest.mark.parametrize("delay", [math.nan, math.inf, -math.inf, -1, -0.001, 1e300, True, 4e8])
async def test_a_snooze_that_cannot_be_waited_for_is_a_fault(
    host: Host, delay: float, caplog: pytest.LogCaptureFixture
) -> None:
    def before_request() -> None:
        raise Snooze(delay)

    add(host, sleepy=before_request)
    assert await fold(host, BEFORE) is REQUEST
    assert "plugin sleepy: before_request Snooze" in caplog.text


async def test_a_snooze_of_a_text_is_the_plugins_mistake(host: Host) -> None:
    def before_request() -> None:
        raise Snooze("10s")  # type: ignore[arg-type]

    add(host, texty=before_request)
    assert await fold(host, BEFORE) is REQUEST
    assert host.plugins["texty"].faults == 1


# -- what hooks do wrong --------------------------------------------------------------------------


class BadStr(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


def raises() -> Any:
    raise ValueError("no")


def raises_unprintable() -> Any:
    raise BadStr


def exits() -> Any:
    sys.exit(3)


def cancels() -> Any:
    raise asyncio.CancelledError


def ends_generators() -> Any:
    raise GeneratorExit


def cancels_its_task() -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    task.cancel()


def cancels_its_task_and_raises() -> Any:
    cancels_its_task()
    raise ValueError("no")


def cancels_everything() -> Any:
    for task in asyncio.all_tasks():
        if task is asyncio.current_task():
            task.cancel("from a hook")


def generates_and_exits() -> Any:
    yield TASK
    sys.exit(4)


class ExitsWhenAskedForItems:
    def __iter__(self) -> Iterator[Any]:
        sys.exit(5)


class ExitsWhenAskedForTheNext:
    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        sys.exit(6)


def exits_lazily() -> Any:
    return ExitsWhenAskedForItems()


def exits_more_lazily() -> Any:
    return ExitsWhenAskedForTheNext()


def times_out() -> Any:
    raise TimeoutError


FAULTS = [
    raises, raises_unprintable, exits, cancels, ends_generators, cancels_its_task_and_raises,
    generates_and_exits, exits_lazily, exits_more_lazily, times_out,
]  # fmt: skip
HARMLESS_IN_DEF = [cancels_its_task, cancels_everything]


def named(hook: str, function: Callable[[], Any], *, coroutine: bool) -> Callable[..., Any]:
    if coroutine:

        async def run() -> Any:
            await asyncio.sleep(0)
            result = function()
            await asyncio.sleep(0)
            return result
    else:

        def run() -> Any:
            return function()

    run.__name__ = hook
    return run


@pytest.mark.parametrize("coroutine", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize("wrong", FAULTS + HARMLESS_IN_DEF, ids=lambda function: function.__name__)
@pytest.mark.parametrize("hook", ["before_request", "after_request", "on_success"])
async def test_whatever_a_hook_does_the_others_run_and_the_task_goes_on(
    wrong: Callable[[], Any], coroutine: bool, hook: str, host: Host,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ran: list[str] = []

    def good(name: str) -> Callable[..., Any]:
        def run() -> Any:
            ran.append(name)

        run.__name__ = hook
        return run

    add(host, first=good("first"), bad=named(hook, wrong, coroutine=coroutine), last=good("last"))
    if hook == "before_request":
        assert await fold(host, BEFORE) is REQUEST
    elif hook == "after_request":
        assert await fold(host, AFTER) is OUTCOME
    else:
        assert await tell(host) == []
    assert sorted(ran) == ["first", "last"]
    # The task that it ran in is as it was: nothing of a cancellation is left behind.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    if coroutine or wrong not in HARMLESS_IN_DEF:
        assert f"plugin bad: {hook}" in caplog.text
        assert host.plugins["bad"].faults == 1
        record = next(record for record in caplog.records if "bad" in record.getMessage())
        assert (record.__dict__["plugin"], record.__dict__["hook"]) == ("bad", hook)
    assert host.plugins["first"].faults == host.plugins["last"].faults == 0


@pytest.mark.parametrize("coroutine", [False, True], ids=["def", "async def"])
async def test_what_is_computed_only_when_asked_for_cannot_cancel_either(
    host: Host, coroutine: bool
) -> None:
    def cancels_lazily() -> Any:
        def generate() -> Iterator[NewTask]:
            cancels_its_task()
            yield TASK

        return generate()

    add(host, lazy=named("on_success", cancels_lazily, coroutine=coroutine))
    effects = await tell(host)
    assert effects == ([] if coroutine else [TASK])
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)


async def test_a_refusal_of_a_hook_that_cancelled_its_task_is_heard(host: Host) -> None:
    def before_request() -> None:
        cancels_its_task()
        raise Reject("no")

    add(host, odd=before_request)
    with pytest.raises(Reject):
        await fold(host, BEFORE)
    await asyncio.sleep(0)


async def test_an_async_hook_that_hangs_is_left_behind(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def before_request() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    add(host, slow=before_request)
    assert await fold(host, BEFORE) is REQUEST
    assert "plugin slow: before_request took longer than plugins.timeout (0.2s)" in caplog.text
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


async def test_a_hook_that_waits_for_its_turn_off_the_loop_is_not_late(host: Host) -> None:
    gate = threading.Event()
    first = asyncio.create_task(off_loop(gate.wait, 10))

    async def before_request(request: httpx.Request) -> httpx.Request:
        return await off_loop(lambda: httpx.Request("PUT", request.url))

    add(host, patient=before_request)
    folding = asyncio.create_task(fold(host, BEFORE))
    await asyncio.sleep(host.timeout * 2.5)
    assert not folding.done()
    gate.set()
    assert (await folding).method == "PUT"
    await first


async def test_a_hook_whose_work_off_the_loop_does_not_end_is_late(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    async def endless() -> None:
        await off_loop(gate.wait, 10)

    async def before_request(request: httpx.Request) -> httpx.Request:
        return await off_loop(lambda: httpx.Request("PUT", request.url))

    host.register(Plugin(before_request=endless), "slow")
    add(host, patient=before_request)
    assert (await fold(host, BEFORE)).method == "PUT"
    assert "plugin slow: before_request took longer than plugins.timeout (0.2s)" in caplog.text
    assert (host.plugins["slow"].faults, host.plugins["patient"].faults) == (1, 0)
    gate.set()


async def test_a_hook_that_does_one_thing_after_the_other_off_the_loop_is_late(host: Host) -> None:
    async def before_request() -> None:
        while True:
            await off_loop(time.sleep, host.timeout / 4)

    add(host, slow=before_request)
    assert await asyncio.wait_for(fold(host, BEFORE), 60) is REQUEST
    assert host.plugins["slow"].faults == 1


async def test_an_async_hook_that_hangs_and_will_not_be_cancelled(host: Host) -> None:
    enough = asyncio.Event()

    async def before_request() -> None:
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue

    add(host, stubborn=before_request)
    assert await fold(host, BEFORE) is REQUEST
    assert host.plugins["stubborn"].faults == 1
    enough.set()
    await asyncio.sleep(0.01)


async def test_the_daemons_own_cancellation_goes_through(host: Host) -> None:
    reached = asyncio.Event()
    ended: list[str] = []

    async def before_request() -> None:
        reached.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    host = Host(timeout=60)
    add(host, slow=before_request)
    attempt = asyncio.create_task(fold(host, BEFORE))
    await reached.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await asyncio.sleep(0)
    assert ended == ["cancelled"]
    assert host.plugins["slow"].faults == 0


async def test_a_keyboard_interrupt_is_the_operators() -> None:
    def hook() -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            await call(hook, [], 1.0)
    finally:
        signal.signal(signal.SIGINT, before)


async def test_in_a_daemon_it_is_the_plugins(host: Host) -> None:
    def on_success() -> None:
        raise KeyboardInterrupt

    async def on_success_too() -> None:
        raise KeyboardInterrupt

    on_success_too.__name__ = "on_success"
    add(host, one=on_success, two=on_success_too)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert await tell(host) == []
    finally:
        signal.signal(signal.SIGINT, before)
    assert host.plugins["one"].last_fault == "on_success: raised KeyboardInterrupt: "
    assert host.plugins["two"].last_fault == "on_success: raised KeyboardInterrupt: "


def endless() -> Iterator[NewTask]:
    while True:
        yield TASK


class Endless:
    def __iter__(self) -> Iterator[NewTask]:
        return endless()


@pytest.mark.parametrize("much", [endless, lambda: Endless(), lambda: [TASK] * 200_000])
async def test_what_a_hook_returns_is_bounded(host: Host, much: Callable[[], Any]) -> None:
    async def on_success() -> Any:
        return much()

    add(host, late=on_success)
    host.register(Plugin(on_success=much), "much")
    host.register(Plugin(on_success=lambda: [TASK] * 100_000), "enough")
    assert len(await tell(host)) == 100_000
    for name in ("much", "late"):
        assert host.plugins[name].last_fault == "on_success: returned more than 100,000 items"


LARGE = "x" * 70_000


@pytest.mark.parametrize(
    ("effects", "fault"),
    [
        (
            [replace(TASK, params={"a": LARGE * 4})],
            "params are larger, as JSON, than max_params: 262",
        ),
        (
            [replace(TASK, params={"a": [1] * 200_000})],
            "params are larger, as JSON, than max_params",
        ),
        (
            [replace(TASK, asked={"a": LARGE * 4})],
            "params are larger, as JSON, than max_params: 262",
        ),
        ([replace(TASK, endpoint_id=LARGE)], "a NewTask whose endpoint_id is longer than 512"),
        ([replace(TASK, unique_key=LARGE)], "a NewTask whose unique_key is longer than 512"),
        ([replace(HOOK, payload=LARGE * 16)], "the payload of a NewTask of more than 1 MiB"),
        ([replace(HOOK, params={"a": LARGE * 300})], "larger, as JSON, than any may be: 16777216"),
        ([replace(TASK, params={"a": LARGE})] * 1000, "returned more than 64 MiB"),
        ([replace(HOOK, payload=LARGE)] * 1000, "returned more than 64 MiB"),
        ([Upsert("much", {"name": "n"}, {"note": "ä" * 600_000})], "a text in much.note of more"),
        ([Upsert("much", {"name": LARGE * 16}, {})], "a text in much.name of more than 1 MiB"),
        ([Delete("much", {"name": LARGE * 16})], "a text in much.name of more than 1 MiB"),
    ],
)
async def test_how_large_it_may_be(host: Host, effects: list[Any], fault: str) -> None:
    table = Table("much", {"name": "TEXT NOT NULL", "note": "TEXT"}, ("name",))
    host.register(Plugin(on_success=lambda: effects, register_tables=lambda: [table]), "much")
    assert await tell(host) == []
    assert fault in (host.plugins["much"].last_fault or "")


async def test_a_delivery_has_the_parameters_of_its_call(host: Host) -> None:
    """Which may have been accepted as `max_params` was larger."""
    host.register(Plugin(on_success=lambda: [replace(HOOK, params={"a": LARGE * 16})] * 100), "ok")
    assert len(await tell(host)) == 100


async def test_an_endless_check_is_ended(host: Host) -> None:
    host.register(Plugin(check_endpoint=lambda endpoint, config: endless()), "much")
    assert host.ask("check_endpoint", {"endpoint": None, "config": CONFIG}) == []
    assert host.plugins["much"].last_fault is not None
    assert "more than 100,000 items" in host.plugins["much"].last_fault


async def test_a_hook_may_return_any_awaitable(host: Host) -> None:
    def before_request(request: httpx.Request) -> asyncio.Future[httpx.Request]:
        future: asyncio.Future[httpx.Request] = asyncio.get_running_loop().create_future()
        future.get_loop().call_soon(future.set_result, httpx.Request("GET", "http://y/"))
        return future

    add(host, futuristic=before_request)
    assert (await fold(host, BEFORE)).url == "http://y/"


# -- what deciding hooks return -------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense", ["text", 5, True, [], {}, OUTCOME, object(), [REQUEST], lambda: REQUEST]
)
async def test_a_before_hook_returns_a_request(
    host: Host, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def before_request() -> Any:
        return nonsense

    add(host, odd=before_request)
    assert await fold(host, BEFORE) is REQUEST
    expected = (
        f"plugin odd: before_request returned {type(nonsense).__name__}, not an httpx.Request"
    )
    assert expected in caplog.text


async def test_a_deciding_generator_is_no_request(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    def before_request() -> Any:
        yield REQUEST

    async def after_request() -> AsyncIterator[Outcome]:
        yield OUTCOME

    add(host, lazy=before_request, lazier=after_request)
    assert await fold(host, BEFORE) is REQUEST
    assert await fold(host, AFTER) is OUTCOME
    assert "plugin lazy: before_request returned list" in caplog.text
    assert "plugin lazier cannot be loaded: after_request is an `async def` that" in caplog.text


UNREAD = httpx.ByteStream(b"nobody has read this")
WRONG_OUTCOMES = [
    "success",
    True,
    REQUEST,
    httpx.Response(200),
    replace(OUTCOME, verdict="maybe"),  # type: ignore[arg-type]
    replace(OUTCOME, verdict=None),  # type: ignore[arg-type]
    replace(OUTCOME, verdict=["retry"]),  # type: ignore[arg-type]
    replace(OUTCOME, error=ValueError("an exception is no text")),  # type: ignore[arg-type]
    replace(OUTCOME, error=b"bytes"),  # type: ignore[arg-type]
    replace(OUTCOME, status_code=[503]),  # type: ignore[arg-type]
    replace(OUTCOME, status_code=5.5),  # type: ignore[arg-type]
    replace(OUTCOME, status_code="\ud800"),
    replace(OUTCOME, status_code="a\0b"),
    replace(OUTCOME, status_code="9" * 5000),
    replace(OUTCOME, response=b"body"),  # type: ignore[arg-type]
    replace(OUTCOME, response=httpx.Response(200, stream=UNREAD)),
    replace(OUTCOME, delay="5s"),  # type: ignore[arg-type]
    replace(OUTCOME, delay=math.nan),
    replace(OUTCOME, delay=-1),
    replace(OUTCOME, delay=10**400),
    replace(OUTCOME, retry_after=5),  # type: ignore[arg-type]
    replace(OUTCOME, final_reason=5),  # type: ignore[arg-type]
    # The same of one that has an answer of the client's own.
    *(
        replace(
            OUTCOME, response=Response(503, [], b"", httpx.Request("GET", "http://h/"), {}), **wrong
        )
        for wrong in (
            {"error": 5},
            {"retry_after": 5},
            {"final_reason": 5},
            {"delay": "soon"},
            {"verdict": "perhaps"},
            {"status_code": 10**40},
            {"status_code": 5.5},
        )
    ),
]


@pytest.mark.parametrize("nonsense", WRONG_OUTCOMES, ids=range(len(WRONG_OUTCOMES)))
@pytest.mark.parametrize("hook", ["after_request", "after_execute"])
async def test_an_after_hook_returns_an_outcome_that_can_be_written_down(
    host: Host, hook: str, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(outcome: Outcome) -> Any:
        return nonsense

    odd.__name__ = hook
    add(host, odd=odd)
    arguments = {**AFTER[2], "statement": None}
    assert await host.fold(hook, "outcome", arguments) is OUTCOME
    words = "OverflowError" if nonsense == replace(OUTCOME, delay=10**400) else "returned"
    assert f"plugin odd: {hook} {words}" in caplog.text
    assert host.plugins["odd"].faults == 1


@pytest.mark.parametrize("delay", [None, 0, 5, 0.5, math.inf])
async def test_a_delay_beyond_its_bounds_is_bounded_later(host: Host, delay: float | None) -> None:
    def after_request(outcome: Outcome) -> Outcome:
        return outcome.retry(delay=delay)

    add(host, quick=after_request)
    assert (await fold(host, AFTER)).delay == delay
    assert host.plugins["quick"].faults == 0


# -- what telling hooks return --------------------------------------------------------------------

MINE = Table("mine", {"id": "INTEGER", "n": "INTEGER", "text": "TEXT"}, ("id",))


class Owner(Plugin):
    @hookimpl
    def register_tables(self) -> list[Table]:
        return [MINE]


def teller(result: Any) -> Callable[..., Any]:
    def on_success() -> Any:
        return result

    return on_success


GOOD_EFFECTS = [
    TASK,
    NewTask("webhook", "a/b", {"a": [1, None, "é"]}, webhook="ops", phase="on_success",
            payload="{}", parent_id=7, delay=2.5, max_attempts=10, scheduled_at=5),
    Upsert("mine", {"id": 1}, {"n": None, "text": "x"}),
    Upsert("mine", {"id": 1}, {"text": "x"}, {"n": 1}),
    Upsert("mine", {"id": 1}, {}),
    Delete("mine", {"id": 1}),
]  # fmt: skip


@pytest.mark.parametrize("form", [list, tuple, iter, lambda items: (item for item in items)])
async def test_effects_are_gathered_from_all(host: Host, form: Callable[..., Any]) -> None:
    host.register(Owner(on_success=teller(form(GOOD_EFFECTS))), "owner")
    host.register(Plugin(on_success=teller(None)), "silent")
    host.register(Plugin(on_success=teller(form([TASK]))), "other")
    effects = await tell(host)
    assert len(effects) == len(GOOD_EFFECTS) + 1
    assert [effect for effect in effects if effect in GOOD_EFFECTS] == effects


async def test_an_async_teller_may_return_a_generator(host: Host) -> None:
    async def on_success() -> Any:
        return (effect for effect in [TASK, TASK])

    add(host, lazy=on_success)
    assert await tell(host) == [TASK, TASK]


class NotCompared:
    """As an array of numbers is."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of this is ambiguous")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise ValueError("and of this as well")


class NotCounted(list[Any]):
    def __bool__(self) -> bool:
        raise ValueError("nobody counts me")

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("nor goes through me")


class NotAMap(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


WRONG_EFFECTS = [
    NotCompared(),
    NotCounted([TASK]),
    [NewTask("call", "a/b", NotAMap(a=1))],
    [Upsert("mine", None, {})],  # type: ignore[arg-type]
    [Upsert("mine", {"id": 1}, None)],  # type: ignore[arg-type]
    [Upsert("mine", {"id": 1}, {}, 5)],  # type: ignore[arg-type]
    [Upsert(["mine"], {"id": 1}, {})],  # type: ignore[arg-type]
    [Delete("mine", 5)],  # type: ignore[arg-type]
    [Delete({}, {"id": 1})],  # type: ignore[arg-type]
    "text",
    b"bytes",
    {"kind": "call"},
    5,
    True,
    TASK,  # not in a list
    [None],
    ["a/b"],
    [TASK, {"kind": "call"}],
    [[TASK]],
    [NewTask("pigeon", "a/b")],
    [NewTask("webhook", "a/b")],
    [NewTask("call", "a/b", webhook="ops")],
    [NewTask("call", ["a/b"])],  # type: ignore[arg-type]
    [NewTask("call", None)],  # type: ignore[arg-type]
    [NewTask("call", "a/b", [1])],  # type: ignore[arg-type]
    [NewTask("call", "a/b", {"a": {1, 2}})],
    [NewTask("call", "a/b", {"a": math.nan})],
    [NewTask("call", "a/b", {(1, 2): 3})],  # type: ignore[dict-item]
    [NewTask("call", "a/b", MappingProxyType({"a": 1}))],
    [NewTask("call", "a/b", delay=math.nan)],
    [NewTask("call", "a/b", delay=-1)],
    [NewTask("call", "a/b", delay=math.inf)],
    [NewTask("call", "a/b", delay=1e300)],
    [NewTask("call", "a/b", delay="5s")],  # type: ignore[arg-type]
    [NewTask("call", "a/b", delay=True)],
    [NewTask("call", "a/b", payload={"a": 1})],  # type: ignore[arg-type]
    [NewTask("call", "a/b", parent_id="7")],  # type: ignore[arg-type]
    [NewTask("call", "a/b", max_attempts=None)],  # type: ignore[arg-type]
    [NewTask("call", "a/b", unique_key=5)],  # type: ignore[arg-type]
    [Upsert("theirs", {"id": 1}, {})],
    [Upsert("retry_schedule", {"id": 1}, {"status": "succeeded"})],
    [Delete("theirs", {"id": 1})],
    [Delete("retry_schedule", {"id": 1})],
    [Upsert("mine", {}, {"n": 1})],
    [Upsert("mine", {"n": 1}, {})],
    [Upsert("mine", {"id": 1}, {"nope": 1})],
    [Upsert("mine", {"id": 1}, {}, {"nope": 1})],
    [Upsert("mine", {"id": 1}, {"text": ["x"]})],
    [Upsert("mine", {"id": 1}, {"text": b"x"})],
    [Upsert("mine", {"id": object()}, {})],
    [Delete("mine", {"id": 1, "n": 2})],
]


@pytest.mark.parametrize("nonsense", WRONG_EFFECTS, ids=range(len(WRONG_EFFECTS)))
async def test_effects_that_cannot_be_written_are_a_fault(
    host: Host, nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    host.register(Owner(on_success=teller(nonsense)), "bad")
    host.register(Plugin(on_success=teller([TASK])), "good")
    assert await tell(host) == [TASK]
    assert "plugin bad: on_success" in caplog.text
    assert host.plugins["bad"].faults == 1
    assert host.plugins["good"].faults == 0


async def test_a_table_of_another_plugin_cannot_be_written(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    row = Upsert("mine", {"id": 1}, {"n": 1})
    host.register(Owner(on_success=teller([row])), "owner")
    assert await tell(host) == [row]  # such a row is known from here on
    host.register(Plugin(on_success=teller([row])), "thief")
    assert await tell(host) == [row]
    assert "plugin thief: on_success writes the table 'mine', which is not its own" in caplog.text


async def test_nothing_of_a_wrong_list_is_written(host: Host) -> None:
    host.register(Plugin(on_success=teller([TASK, "text"])), "half")
    assert await tell(host) == []


def generates_nothing() -> Any:
    yield from ()


@pytest.mark.parametrize(
    "function", [lambda: None, list, tuple, set, lambda: iter(()), generates_nothing],
    ids=["None", "list", "tuple", "set", "iterator", "generator"],
)  # fmt: skip
@pytest.mark.parametrize("coroutine", [False, True], ids=["def", "async def"])
async def test_nothing_is_nothing_in_whatever_form(
    host: Host, function: Callable[[], Any], coroutine: bool
) -> None:
    add(host, silent=named("on_success", function, coroutine=coroutine))
    host.register(Plugin(on_success=teller([TASK])), "good")
    assert await tell(host) == [TASK]
    assert all(info.faults == 0 for info in host.plugins.values())


@pytest.mark.parametrize("answer", [None, [], [TASK], (TASK,), OUTCOME, REQUEST, {}, 0, "text"])
async def test_a_call_gives_what_the_hook_returned(answer: Any) -> None:
    for hook in (lambda: answer, named("x", lambda: answer, coroutine=True)):
        assert await call(hook, [], 1.0) is answer


async def test_arguments_are_given_in_order_and_generators_are_run_through() -> None:
    def hook(one: int, two: int) -> Iterator[int]:
        yield one
        yield two

    assert await call(hook, [1, 2], 1.0) == [1, 2]


async def test_a_cancel_that_came_before_the_hook_is_not_taken_back() -> None:
    """Only what the hook itself has cancelled is."""
    running = asyncio.current_task()
    assert running is not None
    began = asyncio.Event()

    async def attempt() -> int:
        task = asyncio.current_task()
        assert task is not None
        try:
            began.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await call(cancels_its_task, [], 1.0)
            return task.cancelling()
        return -1

    task = asyncio.create_task(attempt())
    await began.wait()
    task.cancel()
    assert await task == 1


async def test_hooks_take_the_arguments_that_they_want(host: Host) -> None:
    seen: dict[str, Any] = {}

    def on_success() -> None:
        seen["none"] = ()

    def some(task: Any, outcome: Outcome) -> None:
        seen["some"] = (task, outcome)

    some.__name__ = "on_success"
    add(host, none=on_success, some=some)
    await tell(host)
    assert seen == {"none": (), "some": (a_task(), OUTCOME)}


async def test_the_plugin_that_holds_up_the_loop_is_found_by_its_frame(host: Host) -> None:
    frames: list[Any] = []

    def on_success() -> None:
        def deeper() -> None:
            frames.append(host.owner_of(sys._getframe()))

        deeper()

    add(host, slow=on_success)
    await tell(host)
    assert frames == [("slow", "on_success")]
    assert host.owner_of(None) is None
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    assert host.owner_of(sys._current_frames()[other.ident or 0]) is None
    ended.set()
    other.join()


async def test_so_is_one_whose_own_code_does(host: Host) -> None:
    def not_a_hook() -> Any:
        raise SystemExit(3)

    host.register(Plugin(), "slow")
    with pytest.raises(SystemExit) as caught:
        not_a_hook()
    owner = host.raiser_of(caught.value)
    assert owner is not None
    assert owner[0] == "slow"
    assert owner[1].endswith("not_a_hook")


@pytest.mark.parametrize(
    "answer",
    [
        Upsert("rows", {"id": "a"}, {"x": "b"}, None),  # type: ignore[arg-type]
        Upsert([], {"id": "a"}, {}),  # type: ignore[arg-type]
        Upsert("rows", None, {}),  # type: ignore[arg-type]
    ],
)
async def test_what_on_event_makes_up_is_a_fault_of_its_plugin_alone(
    host: Host, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def register_tables() -> list[Table]:
        return [Table("rows", {"id": "TEXT NOT NULL", "x": "TEXT"}, ("id",))]

    def on_event(event: Any) -> Any:
        return [answer]

    host.register(Plugin(on_event=on_event, register_tables=register_tables), "odd")
    began = ScheduleEvent(EventType.SCHEDULE_MISSED, 0, "a/b", 0, False, 0, 1)
    assert host.record(began, CONFIG, 0.0) == []
    assert "odd" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"once": 7}, {"since": "x"}, {"most": 0}, {"every": math.nan}, {"ended_by": ("a",)},
        {"ended_by": (b"a", 1)}, {"ended_by": ("a" * 10**6, 1)}, {"ended_by": ("a", 10**30)},
    ],
)  # fmt: skip
def test_a_member_that_is_none_is_refused_before_it_is_written(wrong: dict[str, Any]) -> None:
    """Those of `Control.write`, too: the thread that writes takes them as they are."""
    given = {"every": 60.0, "most": 10, "reason": "r"} | wrong
    with pytest.raises(HookFault, match="BatchMember"):
        check_sizes([BatchMember("g", "a/b", "ops", "p", **given)], 1000)


def test_required_belongs_to_a_telling_hook() -> None:
    class Decider:
        @hookimpl
        @required
        def before_request(self) -> None: ...

    host = Host()
    host.register(Decider(), "decider")
    wrong = "before_request is marked required, but tells nothing of a task"
    assert host.plugins["decider"].error == wrong
