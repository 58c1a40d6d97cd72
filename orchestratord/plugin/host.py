"""Finding, loading and isolating plugins, and calling a phase.

A phase is compiled once into a tuple of (plugin, function, argument names), and is None where
no plugin implements it. Each function is called by itself, so that its fault is its plugin's alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import inspect
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pluggy

from orchestratord.errors import PluginError, Reject, Snooze
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.event import Event, EventType, PluginEvent
from orchestratord.model.outcome import A_HOOK, Outcome
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.settings import Config
from orchestratord.model.task import Effect, Reason, RunSummary, Task
from orchestratord.plugin import hookspecs
from orchestratord.plugin.event_bus import EventBus, Observe
from orchestratord.plugin.executor import Executor
from orchestratord.plugin.isolation import (
    PLAIN_ANSWERS,
    HookFault,
    ask,
    check_decision,
    check_effects,
    check_recurring,
    is_ctrl_c,
    listed,
    settle,
    valid_refusal,
    words,
)
from orchestratord.plugin.load_watch import watched
from orchestratord.plugin.long_work import off_loop
from orchestratord.plugin.plugin_sources import PluginSource, installed_plugins, single_files
from orchestratord.plugin.registry import CORE, PluginInfo, Registry, plain
from orchestratord.values import doc_links, world
from orchestratord.values.redact import Redactor
from orchestratord.values.suggest import suggest

log = logging.getLogger("orchestratord.plugins")

_AT_ONCE = 100
"""Effects that are checked on the loop; ten thousand take a tenth of a second."""
_QUOTED = re.compile(r"""["']([A-Za-z][\w.-]*)["']""")
"""A word in quotes, as the names are that a plugin registers."""
AGAIN_AT_MOST = 60.0
"""Seconds until a hook that is required is asked again; it begins with one, and doubles."""
_TOLD = 2_000
"""Characters of a fault that are told of."""


class Implementation(NamedTuple):
    plugin: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    given: Callable[[Reached], Sequence[Any]]
    """What a telling hook is called with, of what it is told of."""

    def concerns(self, kind: str, endpoint: Endpoint, phase: str | None) -> bool:
        """Whether it wants to be asked about the tasks of a kind of an endpoint; `phase`: the one
        that is announced, None for other hooks."""
        only_for = self.only_for
        if only_for is None:
            return True
        if phase is not None and len(inspect.signature(only_for).parameters) > 2:
            return bool(plain(only_for(kind, endpoint, phase)))
        return bool(plain(only_for(kind, endpoint)))

    @property
    def only_for(self) -> Callable[..., object] | None:
        """What it was marked with, None for nothing."""
        found: Callable[..., object] | None
        found = getattr(self.function, "orchestratord_only_for", None)
        return found

    @property
    def on_fault(self) -> str:
        """What its fault makes of the attempt: `pass`, `retry` or `reject`."""
        return str(getattr(self.function, "orchestratord_on_fault", "pass"))

    @property
    def required(self) -> bool:
        """Whether nothing is written without its answer."""
        return getattr(self.function, "orchestratord_required", False) is True

    @property
    def pure(self) -> bool:
        """Whether it only looks at its arguments, and can be run where nothing happens."""
        return getattr(self.function, "orchestratord_pure", False) is True


@dataclass(slots=True)  # not frozen: one is made for each attempt, which takes twice as long then
class Reached:
    """A phase that a task has reached: what the telling hooks are told of it, by their names.

    Args:
        task: as the hook shall see it.
        endpoint: as it was when the attempt began; None where it is gone.
        config: the configuration in force.
        outcome: how the attempt ended; None where it has not yet.
        request: what is sent, or was; None for nothing.
        running: the asyncio task that this runs in, where the caller knows it.
        phase: its name.
        next_try: when the task is tried again, milliseconds since the epoch; None for never.
        run: of `on_run_end`: the run that has ended.
        waits: it waits until hooks that are `required` have answered.
    """

    task: Task
    endpoint: Endpoint | None
    config: Config
    outcome: Outcome | None = None
    request: Any = None
    running: asyncio.Task[Any] | None = None
    phase: str = ""
    next_try: int | None = None
    run: RunSummary | None = None
    waits: bool = False


def _attributes(names: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    """What gets these attributes of an object; in C where there are several, as nearly always."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda owner: [getattr(owner, name) for name in names]


class _Manager(pluggy.PluginManager):
    """Passes quickly over what a plugin's module has imported: most of its names."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        with suppress(Exception):  # a lazy value may raise anything
            if inspect.ismodule(plugin) and not hasattr(vars(plugin)[name], "orchestratord_impl"):
                return None
        return super().parse_hookimpl_opts(plugin, name)


class Host:
    """All plugins of one daemon, loaded once. The core's own registrations come first."""

    def __init__(self, *, timeout: float = 10.0) -> None:
        """`timeout`: seconds that an `async def` hook may take."""
        self.timeout = timeout
        self._dirs: list[Path] = []
        self._digests: dict[str, str] = {}
        self._versions: dict[str, str] | None = None
        """Of the plugins that packages bring, as they were loaded; None where none were."""
        self.max_params = 256 << 10
        """Bytes that the parameters of a call may have which a hook returns."""
        self.redactor = Redactor()
        """What is masked in the faults that are told of."""
        self.events = EventBus()
        self.plugins: dict[str, PluginInfo] = {}
        self.registry = Registry()
        self.taken: list[PluginError] = []
        """What plugins would serve where another one does: no daemon starts with these."""
        self._manager = _Manager("orchestratord")
        self._manager.add_hookspecs(hookspecs)
        self._compiled: dict[str, tuple[Implementation, ...] | None] = {}
        self._repeated: dict[tuple[object, ...], tuple[int, tuple[str, str, str]]] = {}
        """How often each kind of fault has come again since it was logged, and what it is."""
        self.loaded = object()
        """The plugins as they are now: another one where that changes."""

    # -- loading ---------------------------------------------------------------------------

    def load(self, dirs: Iterable[Path] = (), disabled: Iterable[str] = ()) -> None:
        """Load the entry points and the single files of `dirs`.

        A plugin that cannot be loaded is logged and listed as `failed`; the others load, and
        whether they are needed is for the configuration to say. One that is disabled is imported
        only to know what its keys are. Raises PluginError where two plugins claim one name.
        """
        off = set(disabled)
        self._dirs = list(dirs)
        self._digests = _digests(self._dirs)
        packages = list(installed_plugins())
        versions = self._versions = _versions(packages)
        for source in (*packages, *single_files(self._dirs)):
            version = versions[source.name] if source.module else "file"
            info = PluginInfo(
                source.name, version, source.place, home=source.home, requires=source.requires
            )
            if source.name in off:
                info.status = "disabled"
            self._add(info, watched(source.name)(source.load), source.text)
        for name in sorted(off - set(self.plugins)):
            log.warning("plugins.disabled names %r, which is not installed", name)

    def changed(self) -> list[str]:
        """What is another by now than what was loaded: `plugins.dirs` for single files, and
        `plugin NAME` for each that a package brings."""
        names: list[str] = []
        if self._versions is not None:
            found = _versions(installed_plugins())
            names = sorted(dict(found.items() ^ self._versions.items()))
        files = ["plugins.dirs"] if _digests(self._dirs) != self._digests else []
        return [*files, *(f"plugin {name}" for name in names)]

    def register(self, plugin: object, name: str, *, version: str = "built in") -> None:
        """Register an object as a plugin, as tests and the core itself do."""
        self._add(PluginInfo(name, version, "object"), lambda: plugin, str)

    def _add(self, info: PluginInfo, load: Callable[[], Any], text: Callable[[], str]) -> None:
        if info.name in self.plugins:
            both = (self.plugins[info.name], info)
            places = " and ".join(of.source for of in both)
            homes = [of.home for of in both if of.home not in ("", of.source)]
            why = f"two plugins are named {info.name!r}: {places}"
            raise PluginError(f"{why} ({', '.join(homes)})" if homes else why)
        if info.name == CORE:
            raise PluginError(f"{info.source}: no plugin can be named {CORE!r}")
        self.plugins[info.name] = info
        if info.home:
            self.registry.homes[info.name] = info.home
        try:
            plugin = load()
            _check_hooks(plugin)
            self._manager.register(plugin, info.name)
            implementations = self._manager.get_hookcallers(plugin) or []
            info.hooks = tuple(sorted(caller.name for caller in implementations))
            if info.status == "disabled":
                decides = any(hook in hookspecs.DECIDING for hook in info.hooks)
                self._forget(info)
                self.registry.remember_disabled(plugin, info.name, decides=decides)
                return
            self.registry.add(plugin, info.name)
        except PluginError:
            self._forget(info)
            raise
        except BaseException as error:  # a plugin's import may raise anything, SystemExit too
            if is_ctrl_c(error):
                raise
            self._forget(info)
            info.error = str(error) if isinstance(error, WrongHook) else words(error)
            info.line = _line_of(error, info.source)
            if isinstance(error, ImportError) and (error.name or "").startswith(CORE):
                asked = f"; it asks for {info.requires}" if info.requires else ""
                installed = importlib.metadata.version(CORE)
                info.error += f"{asked}; {CORE} {installed} is installed, which has no such name"
            why = "is disabled" if info.status == "disabled" else f"cannot be loaded: {info.error}"
            quoted = set(_QUOTED.findall(written := text()))
            decides = any(hook in written for hook in hookspecs.DECIDING)
            self.registry.remember_failed(info.name, why, quoted, decides=decides)
            if info.status == "disabled":
                log.warning(
                    "plugin %s is disabled; its keys are not known: %s", info.name, info.error
                )
            else:
                info.status = "failed"
                info.faults, info.last_fault = 1, f"loading: {info.error}"
                log.error("plugin %s cannot be loaded: %s", info.name, info.error, exc_info=error)
        finally:
            self._compiled.clear()
            self.loaded = object()

    def _forget(self, info: PluginInfo) -> None:
        if self._manager.has_plugin(info.name):
            self._manager.unregister(name=info.name)
        self.registry.forget(info.name)
        info.hooks = ()

    # -- calling ---------------------------------------------------------------------------

    def compiled(self, hook: str) -> tuple[Implementation, ...] | None:
        """The implementations of `hook` in the order in which they run, None for none."""
        try:
            return self._compiled[hook]
        except KeyError:
            caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
            found = tuple(
                Implementation(
                    impl.plugin_name, impl.function, impl.argnames, _attributes(impl.argnames)
                )
                for impl in reversed(caller.get_hookimpls())
            )
            self._compiled[hook] = found or None
            return self._compiled[hook]

    def concerned(
        self, hook: str, kind: str, endpoint: Endpoint | None, phase: str | None = None
    ) -> tuple[Implementation, ...] | None:
        """Those of a hook's implementations that want to be asked about the tasks of a kind of an
        endpoint, None for none; of `announce`, about this phase. Of an endpoint that is gone, all
        are asked."""
        if endpoint is None:
            return self.compiled(hook)
        question = self.loaded, hook, kind, phase
        try:
            known: tuple[Implementation, ...] | None = endpoint.remembered[question]
        except KeyError:
            known = self._ask(hook, lambda item: item.concerns(kind, endpoint, phase))
            endpoint.remembered[question] = known
        return known

    def concerned_by_end(
        self, kind: str, endpoint: Endpoint | None, after: str | None, phase: str | None
    ) -> tuple[Sequence[str], int]:
        """What is asked about an end of tasks of a kind of an endpoint: the phases that are
        announced, of an `after` and an end `phase`; and how many implementations of the latter."""
        if endpoint is None:  # where no phase is reached
            told = self.compiled(phase) if phase == "on_final_failure" else None
            return (), len(told or ())
        question = self.loaded, kind, after, phase
        known: tuple[Sequence[str], int] | None = endpoint.remembered.get(question)
        if known is None:
            announced = [
                name
                for name in (after, phase)
                if name is not None and self.concerned(hookspecs.ANNOUNCE, kind, endpoint, name)
            ]
            told = None if phase is None else self.concerned(phase, kind, endpoint)
            known = endpoint.remembered[question] = announced, len(told or ())
        return known

    def recorders(self, type_: EventType) -> tuple[Implementation, ...] | None:
        """Those of `on_event` that want to be asked about events of a type; None for none."""
        question = f"{hookspecs.RECORD} {type_}"
        if question not in self._compiled:

            def wants(item: Implementation) -> bool:
                return item.only_for is None or bool(plain(item.only_for(type_)))

            self._compiled[question] = self._ask(hookspecs.RECORD, wants)
        return self._compiled[question]

    def _ask(
        self, hook: str, concerned: Callable[[Implementation], bool]
    ) -> tuple[Implementation, ...] | None:
        asked: list[Implementation] = []
        for item in self.compiled(hook) or ():
            try:
                if concerned(item):
                    asked.append(item)
            except BaseException as fault:  # a plugin may raise anything
                if is_ctrl_c(fault):
                    raise
                self.fault(item.plugin, hook, fault)
                asked.append(item)
        return tuple(asked) or None

    def _asked(self, hook: str, arguments: Mapping[str, Any]) -> tuple[Implementation, ...] | None:
        if hook == hookspecs.RECORD:
            return self.recorders(arguments["event"].type)
        task, endpoint = arguments.get("task"), arguments.get("endpoint")
        if task is None or endpoint is None:
            return self.compiled(hook)
        return self.concerned(hook, task.kind, endpoint)

    def owner_of(self, frame: FrameType | None) -> tuple[str, str] | None:
        """The plugin and the hook that this stack is in, or what else of the plugin's; None for
        none."""
        frames = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return self._owner(frames)

    def raiser_of(self, error: BaseException) -> tuple[str, str] | None:
        """The plugin and the hook that an exception has come through; None for none."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return self._owner(frames[::-1])

    def _owner(self, frames: Sequence[FrameType]) -> tuple[str, str] | None:
        codes = {
            function.__code__: (item.plugin, hook)
            for hook in hookspecs.HOOKS
            for item in self.compiled(hook) or ()
            for function in (item.function, item.only_for)
            if function is not None and hasattr(function, "__code__")
        }
        for frame in frames:
            if frame.f_code in codes:
                return codes[frame.f_code]
        for frame in frames:
            for name, plugin in self._manager.list_name_plugin():
                own = getattr(plugin, "__name__", type(plugin).__module__)
                module = f"{frame.f_globals.get('__name__')}."
                if module.startswith(f"{own}.") and not own.startswith(f"{CORE}."):
                    return name, frame.f_code.co_qualname
        return None

    async def fold_after(self, phase: str, reached: Reached, *, pure: bool = False) -> Outcome:
        """The outcome that was `reached`, as the hooks of an after_ phase leave it; see `fold`."""
        arguments = {
            "outcome": reached.outcome, "request": reached.request, "statement": reached.request,
            "task": reached.task, "endpoint": reached.endpoint, "config": reached.config,
        }  # fmt: skip
        changed: Outcome = await self.fold(phase, "outcome", arguments, pure=pure)
        return changed

    async def fold(
        self, hook: str, name: str, arguments: dict[str, Any], *, pure: bool = False
    ) -> Any:
        """Run a deciding hook: `arguments[name]` goes through all of them and is returned.

        `pure`: only through those that do nothing but look at it.

        Raises Reject and Snooze where a `before_` hook does, and HookFault where one is at fault
        that is marked so that the attempt fails by that.
        """
        may_refuse = hook.startswith("before_")
        running = asyncio.current_task()
        before = running.cancelling() if running else 0
        for item in self._asked(hook, arguments) or ():
            if pure and not item.pure:
                continue
            try:
                given = [arguments[name] for name in item.arguments]
                result, raised = ask(item.function, given)
                cancelled = running is not None and running.cancelling() > before
                if raised is not None or cancelled or type(result) not in PLAIN_ANSWERS:
                    result = await settle(result, raised, self.timeout, running, before)
                if result is None:
                    continue
                check_decision(hook, result, arguments[name])
            except Exception as fault:  # what it returned may fail the one who looks at it
                if may_refuse and isinstance(fault, Reject | Snooze) and valid_refusal(fault):
                    raise
                self.fault(item.plugin, hook, fault)
                arguments[name] = _after_fault(item, hook, arguments[name])
                continue
            if isinstance(result, Outcome) and _gave_verdict(result, arguments[name]):
                result = replace(result, decided_by=item.plugin)
            arguments[name] = result
        return arguments[name]

    async def collect(
        self, hook: str, reached: Reached, recurring: list[RecurringRows] | None = None
    ) -> list[Effect]:
        """Run a telling hook and gather what all of them return.

        `recurring`: where such rows go; None where the hook may return none. Raises HookFault where
        one that is `required` is at fault, unless what was reached waits for it.
        """
        effects: list[Effect] = []
        running = reached.running or asyncio.current_task()
        before = running.cancelling() if running else 0
        phase = reached.phase if hook == hookspecs.ANNOUNCE else None
        for item in self.concerned(hook, reached.task.kind, reached.endpoint, phase) or ():
            timeout = self.timeout
            while True:
                result, raised = ask(item.function, item.given(reached))
                try:
                    if (
                        raised is not None
                        or type(result) not in PLAIN_ANSWERS
                        or (running is not None and running.cancelling() > before)
                    ):
                        result = await settle(result, raised, timeout, running, before)
                    if not result and (result is None or type(result) is list):
                        break
                    given = result, self.registry, item.plugin
                    if recurring is not None and type(result) is RecurringRows:
                        check_recurring(*given)
                        recurring.append(result)
                    elif type(result) is list and len(result) > _AT_ONCE:
                        effects += await off_loop(check_effects, *given, self.max_params)
                    else:
                        effects += check_effects(*given, self.max_params)
                    break
                except Exception as fault:  # what it returned may fail the one who looks at it
                    self.fault(item.plugin, hook, fault)
                    if not item.required:
                        break
                    if not reached.waits:
                        raise HookFault(f"{hook} of the plugin {item.plugin} failed") from fault
                    await asyncio.sleep(min(timeout / self.timeout, AGAIN_AT_MOST))
                    timeout *= 2  # what takes too long may only have much to do
        return effects

    def ask(self, hook: str, arguments: dict[str, Any]) -> list[tuple[str, Any]]:
        """Call a plain `def` hook of each plugin; (plugin, what it returned as a list)."""
        answers: list[tuple[str, Any]] = []
        for item in self._asked(hook, arguments) or ():
            try:
                result = plain(item.function(*[arguments[name] for name in item.arguments]))
                found = [value for value in listed(result or ()) if value is not None]
                answers.append((item.plugin, found))
            except BaseException as error:  # a plugin may raise anything
                if is_ctrl_c(error):
                    raise
                self.fault(item.plugin, hook, error)
        return answers

    def record(self, event: Event, config: Config, now: float) -> list[Effect]:
        """What is to be written with what an event tells of: by `on_event`. `now` in seconds."""
        effects: list[Effect] = []
        given = {"event": event, "config": config, "now": now}
        for plugin, found in self.ask(hookspecs.RECORD, given):
            try:
                effects += check_effects(found, self.registry, plugin, self.max_params)
            except Exception as fault:  # what it returned may fail the one who looks at it
                self.fault(plugin, hookspecs.RECORD, fault)
        return effects

    def observer(self) -> Observe | None:
        """What hands events to the hook `observe`, and contains its faults; None where no plugin
        has that hook."""
        return self._observe if self.compiled("observe") is not None else None

    def _observe(self, events: Sequence[Event]) -> None:
        for item in self.compiled("observe") or ():
            try:
                plain(item.function(*([events] if item.arguments else ())))
            except BaseException as error:  # a plugin may raise anything
                if is_ctrl_c(error):
                    raise
                self.fault(item.plugin, "observe", error)

    def executor_fault(self, executor: Executor, doing: str, error: BaseException) -> None:
        """Log an executor's fault under the name of the plugin that registered it."""
        self.fault(self.registry.owner_of(executor), f"executor ({doing})", error)

    def backoff_fault(self, strategy: str, error: BaseException | str) -> None:
        """Log a strategy's fault under the name of the plugin that registered it."""
        plugin = self.registry.owners.get(("backoff", strategy), strategy)
        fault = error if isinstance(error, BaseException) else ValueError(error)
        self.fault(plugin, f"backoff {strategy}", fault)

    async def log_repeated(self) -> None:
        """Log how often each fault has come again since this was called last, in a line."""
        repeated = {kind: found for kind, found in self._repeated.items() if found[0]}
        self._repeated = {kind: (0, said) for kind, (_, said) in repeated.items()}
        for kind, (count, said) in repeated.items():
            log.error("plugin %s: %s %s (%s)", *said, f"{count} times more", extra=_about(*kind))

    def fault(self, plugin: str, hook: str, error: BaseException) -> None:
        """Log a plugin's fault under its name, count it and tell of it; one that comes again is
        counted for `log_repeated`."""
        info = self.plugins.get(plugin)
        text = str(error) if isinstance(error, HookFault) else words(error)
        if info is not None:
            info.faults += 1
            info.last_fault = f"{hook}: {text}"
        cause = error.__cause__ if isinstance(error, HookFault) else error
        lines = [line for _, line in traceback.walk_tb(cause.__traceback__)] if cause else []
        # The same, whatever it says of its task: raised in the same line.
        kind = plugin, hook.partition(" (")[0], type(cause), lines[-1] if lines else text
        count = self._repeated[kind][0] + 1 if kind in self._repeated else 0
        self._repeated[kind] = count, (plugin, hook, text)
        if not count:
            log.error("plugin %s: %s %s", plugin, hook, text, exc_info=cause, extra=_about(*kind))
        said = self.redactor.text(" ".join(self.redactor.text(text).split()))[:_TOLD]
        at = int(world.time() * 1000)
        self.events.report(PluginEvent(EventType.PLUGIN_FAULT, at, plugin, hook, said))


def _about(plugin: object, hook: object, *_: object) -> dict[str, object]:
    """What the log has beside a fault."""
    more = doc_links.page(doc_links.MESSAGES, doc_links.anchor("a plugin did something wrong"))
    return {"plugin": plugin, "hook": hook, "help": more}


def _after_fault(item: Implementation, hook: str, decided: Any) -> Any:
    """What stands where a deciding hook was at fault: what it was marked with says that."""
    if item.on_fault == "pass":
        return decided
    said = f"{hook} of the plugin {item.plugin} was at fault"
    if hook.startswith("before_"):
        raise Reject(said) if item.on_fault == "reject" else HookFault(said)
    rejected = decided.failure(said, reason=Reason.REJECTED)
    return replace(
        decided.retry(said) if item.on_fault == "retry" else rejected, decided_by=item.plugin
    )


class WrongHook(TypeError):
    """A plugin's hooks are not what there is. `line` is where the first of them stands."""

    def __init__(self, wrong: Sequence[tuple[str, Any]]) -> None:
        super().__init__("; ".join(message for message, _ in wrong))
        code = getattr(inspect.unwrap(wrong[0][1]), "__code__", None)
        self.line: int | None = code.co_firstlineno if code is not None else None


def _check_hooks(plugin: Any) -> None:
    """Raise WrongHook for what would never be called, or not with what it asks for."""
    wrong = []
    for name in dir(plugin):
        function = marks = None
        with suppress(Exception):  # a property of the plugin's may raise anything
            function = getattr(plugin, name)
            marks = getattr(function, "orchestratord_impl", None)
        if (marks is not None or name in hookspecs.HOOKS) and inspect.isroutine(function):
            wrong += [(message, function) for message in _wrong_with(name, function, marks)]
    if wrong:
        raise WrongHook(wrong)


@cache
def _arguments(hook: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(hookspecs, hook)).parameters


_GATHERING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _wrong_with(name: str, function: Any, marks: Mapping[str, Any] | None) -> Iterator[str]:
    if marks is None:
        if name in hookspecs.HOOKS:
            yield f"{name} has the name of a hook, but no @hookimpl above it"
        return
    hook = marks.get("specname") or name
    if hook not in hookspecs.HOOKS:
        if not marks.get("optionalhook"):
            yield f"there is no hook {hook!r}{suggest(hook, hookspecs.HOOKS)}"
        return
    if marks.get("wrapper") or marks.get("hookwrapper"):
        yield f"{hook} is a hook wrapper; write a plain hook"
    of_tasks = (*hookspecs.DECIDING, *hookspecs.TELLING, hookspecs.RECORD)
    if hook not in of_tasks and hasattr(function, "orchestratord_only_for"):
        yield f"{hook} is marked only_for, but is not called for tasks"
    waits = inspect.iscoroutinefunction(function)
    if hook not in (*hookspecs.DECIDING, *hookspecs.TELLING) or hook == "explain":
        if waits or inspect.isasyncgenfunction(function):
            yield f"{hook} is an `async def`; write a `def`"
    elif inspect.isasyncgenfunction(function):
        yield f"{hook} is an `async def` that yields; return a list"
    if hook not in hookspecs.DECIDING and hasattr(function, "orchestratord_on_fault"):
        yield f"{hook} is marked with on_fault, but decides nothing"
    if hook not in hookspecs.TELLING and hasattr(function, "orchestratord_required"):
        yield f"{hook} is marked required, but tells nothing of a task"
    known = _arguments(hook)
    for argument in inspect.signature(function).parameters.values():
        if argument.default is not argument.empty or argument.kind in _GATHERING:
            continue
        if argument.name not in known:
            yield f"{hook} has no argument {argument.name!r}{suggest(argument.name, known)}"
        elif argument.kind is argument.KEYWORD_ONLY:
            yield f"{hook} is given {argument.name} by its position; leave the * before it out"


def _line_of(error: BaseException, source: str) -> int | None:
    """The line of a file that an error is in, or came out of last."""
    if isinstance(error, WrongHook):
        return error.line
    if isinstance(error, SyntaxError) and error.filename == source:
        return error.lineno
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == source
    ]
    return lines[-1] if lines else None


def _versions(packages: Iterable[PluginSource]) -> dict[str, str]:
    """The version of each plugin that a package brings."""
    return {source.name: source.version for source in packages}


def _digests(folders: Iterable[Path]) -> dict[str, str]:
    """The single files of plugins in these folders, in order, with what each holds."""
    return {source.place: _digest(source.place) for source in single_files(folders)}


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # its import tells
        return ""


def _gave_verdict(result: Outcome, before: Outcome) -> bool:
    """True where a hook said what becomes of the task, and did not only change its answer."""
    return result.verdict != before.verdict or result.decided_by == A_HOOK
