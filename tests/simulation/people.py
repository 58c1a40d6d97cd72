"""What people do in a universe, at moments that the seed says: by the methods of the service that
the API calls.

What is done is a function here of the `Hand` that does it, with its row in `DEEDS`. Each is noted
in `Universe.deeds`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from orchestratord.errors import OrchestratordError
from orchestratord.queue.batch import Rank, writes
from orchestratord.queue.operations import chores, manual
from orchestratord.queue.records import CANCEL, RETRY
from tests.simulation.configuration import Configuration, has
from tests.simulation.records import ACKNOWLEDGED, Deed

if TYPE_CHECKING:
    from orchestratord.queue.records import Chore
    from orchestratord.queue.session import Session
    from tests.simulation.process import Process, SimulatedDaemon
    from tests.simulation.universe import Universe

LISTED = 30
"""Tasks that a person looks at before choosing one."""
LOOKS = 10
"""How often, where there is none such."""
LOOK_AFTER = 10.0
"""Seconds between two times at which what waits for a person is looked after in the end."""


@writes(Rank.KEEP)
def _try_again(session: Session, chore: Chore) -> None:
    session.db.run("UPDATE chores SET due = 0, deaths = 0 WHERE id = ?", (chore.id,))


@dataclass(slots=True)
class Hand:
    """A person who does one thing, at one daemon."""

    people: People
    process: Process
    daemon: SimulatedDaemon
    verb: str
    task: Any
    """The document of a task that was looked at; None where there is none."""

    @property
    def service(self) -> Any:
        return self.daemon._service

    async def does(self, asking: Awaitable[Any], target: Any, **arguments: Any) -> Deed:
        """Do it, and note it; the note."""
        universe = self.people.universe
        deed = Deed(
            universe.baton.now, self.process.name, verb=self.verb, target=target,
            arguments=arguments,
        )  # fmt: skip
        universe.deeds.append(deed)
        universe.trace.note("person", "begins to", self.verb, target, arguments)
        await universe.answered("person", deed, asking, self.verb, target)
        return deed


# -- one task --------------------------------------------------------------------------------------


async def retry(hand: Hand, chance: Random) -> None:
    force = has(chance, 0.2)
    id_ = hand.task["id"]
    await hand.does(hand.service.trigger(id_, force=force), id_, force=force)


async def replace(hand: Hand, chance: Random) -> None:
    """Retry with other parameters."""
    id_, force = hand.task["id"], has(chance, 0.2)
    params: dict[str, Any] = {"items": chance.randint(0, 3)}
    if has(chance, 0.2):
        params["account"] = chance.choice("abc")
    asking = hand.service.one.replace(id_, params, {}, force=force)
    await hand.does(asking, id_, params=params, force=force)


async def cancel(hand: Hand, chance: Random) -> None:
    id_ = hand.task["id"]
    await hand.does(hand.service.cancel(id_), id_)


async def resolve(hand: Hand, chance: Random) -> None:
    id_, status = hand.task["id"], chance.choice(("succeeded", "failed"))
    body: dict[str, Any] = {"items": []}
    asking = hand.service.one.resolve(id_, status, note="by a person", body=body)
    await hand.does(asking, id_, status=status, body=body)


# -- many ------------------------------------------------------------------------------------------


def _filter(hand: Hand, chance: Random) -> dict[str, Any]:
    by: tuple[dict[str, Any], ...] = ({"status": "failed"}, {"kind": "call"}, {"kind": "webhook"})
    if hand.task is not None:
        by = (*by, {"endpoint": hand.task["endpoint"]}, {"reason": "exhausted"})
    return chance.choice(by)


async def retry_many(hand: Hand, chance: Random) -> None:
    wanted: dict[str, Any] = {
        "rate": chance.choice((None, 2.0, 20.0)),
        "include_ambiguous": has(chance, 0.3),
        "stop_after": chance.choice((0, 0, 3)),
    }
    filter_ = _filter(hand, chance)
    asking = hand.service.many.begin(RETRY, filter_, **wanted)
    _begun(hand, await hand.does(asking, None, filter=filter_, **wanted))


async def cancel_many(hand: Hand, chance: Random) -> None:
    filter_ = {**_filter(hand, chance), "status": chance.choice(("pending", "failed"))}
    asking = hand.service.many.begin(CANCEL, filter_)
    _begun(hand, await hand.does(asking, None, filter=filter_))


def _begun(hand: Hand, deed: Deed) -> None:
    if deed.outcome == ACKNOWLEDGED:
        hand.people.bulks.append(deed.answer["bulk"])


async def end_bulk(hand: Hand, chance: Random) -> None:
    if hand.people.bulks:
        bulk = chance.choice(hand.people.bulks)
        await hand.does(hand.service.many.cancel(bulk), bulk)


async def resume_bulk(hand: Hand, chance: Random) -> None:
    if hand.people.bulks:
        bulk = chance.choice(hand.people.bulks)
        await hand.does(hand.service.many.resume(bulk), bulk)


# -- endpoints and webhooks ------------------------------------------------------------------------


async def pause(hand: Hand, chance: Random) -> None:
    """Have the calls of an endpoint wait, mostly of one of which some are to be sent."""
    endpoints = hand.people.universe.configurations[-1].endpoints
    waits = hand.task is not None and hand.task["endpoint"] in endpoints and has(chance, 0.8)
    endpoint = hand.task["endpoint"] if waits else chance.choice(list(endpoints))
    await hand.does(hand.service.pause(endpoint), endpoint)


async def resume(hand: Hand, chance: Random) -> None:
    endpoint = chance.choice(list(hand.people.universe.configurations[-1].endpoints))
    await hand.does(hand.service.pause(endpoint, False), endpoint)


async def lift(hand: Hand, chance: Random) -> None:
    """Have a lane go on whose breaker is open, or which waits."""
    lane = f"api:{chance.choice(list(hand.people.universe.configurations[-1].apis))}"
    await hand.does(hand.service.lift(lane), lane)


async def enable(hand: Hand, chance: Random) -> None:
    """Enable a webhook that was disabled."""
    configuration = hand.people.universe.configurations[-1]
    endpoint = chance.choice(list(configuration.endpoints))
    webhooks = list(configuration.webhooks(endpoint))
    if not webhooks:
        return
    webhook = chance.choice(webhooks)
    asking = hand.process.plugins["webhooks"].health.enable((endpoint, webhook), hand.service)
    await hand.does(asking, f"{endpoint}#{webhook}")


DEEDS: dict[Callable[[Hand, Random], Awaitable[None]], float] = {
    retry: 4,
    replace: 3,
    cancel: 3,
    resolve: 2,
    retry_many: 3,
    cancel_many: 0.6,
    end_bulk: 0.5,
    resume_bulk: 0.5,
    pause: 1.5,
    resume: 1,
    lift: 0.5,
    enable: 1,
}
"""Each, and how often it comes in comparison with the others."""
OF_A_TASK = (retry, replace, cancel, resolve)


class People:
    """All who are there, in one universe."""

    def __init__(self, universe: Universe, chance: Random) -> None:
        self.universe = universe
        self._chance = chance
        self.bulks: list[int] = []
        """That were begun."""
        self._gives_up = has(chance, 0.4)
        """They cancel some of what may have been carried out, once no fault comes any more."""

    def plan(self, until: float) -> None:
        """Say what they will do, until a time."""
        chance, plan, now = self._chance, self.universe.plan, self.universe.baton.now
        if has(chance, 0.7):
            for _ in range(chance.randint(8, 24)):
                plan.add(chance.uniform(now + 2.0, until), "a person does something", self._act)
        if has(chance, 0.4):
            for _ in range(chance.randint(1, 2)):
                plan.add(chance.uniform(now + 2.0, until), "a person edits", self._edit)

    def _process(self) -> Process | None:
        serving = [one for one in self.universe.living if one.answers]
        return self._chance.choice(serving) if serving else None

    def _act(self) -> None:
        """One person does something, or several at once with the same."""
        process, chance = self._process(), self.universe.chance
        if process is None:
            return
        wanted = chance.choices(list(DEEDS), list(DEEDS.values()), k=1)
        if wanted[0] in OF_A_TASK and has(chance, 0.3):
            wanted += chance.choices(OF_A_TASK, k=chance.randint(1, 2))

        async def look(daemon: SimulatedDaemon) -> None:
            statuses = ("pending", "failed", "cancelled", "running", "succeeded")
            usual = "failed"
            if wanted[0] is cancel:
                usual = chance.choice(("pending", "running", "running"))
            elif wanted[0] is pause:
                usual = "pending"
            filter_ = {"status": usual if has(chance, 0.7) else chance.choice(statuses)}
            if has(chance, 0.25):
                filter_ = {"reason": "ambiguous"}
            tasks: list[Any] = []
            with suppress(OrchestratordError):  # nothing can be looked at now
                ask = daemon._service.retries
                for _ in range(LOOKS):
                    tasks = tasks or (await ask(filter_, limit=LISTED))["retries"]
                    if not tasks:
                        await asyncio.sleep(0.1)
                if wanted[0] is replace:  # mostly what others wait behind
                    waiting = (await ask({"status": "pending"}, limit=100))["retries"]
                    lines = {_part(one) for one in waiting if one["partition"] is not None}
                    tasks = [one for one in tasks if _part(one) in lines] or tasks
                tasks = tasks or (await ask({}, limit=LISTED))["retries"]
            task = chance.choice(tasks) if tasks else None
            for deed in wanted:
                if task is not None or deed not in OF_A_TASK:
                    self._do(deed, task)

        process.do(look, "person")

    def _do(self, deed: Callable[[Hand, Random], Awaitable[None]], task: Any) -> None:
        process = self._process()
        if process is not None:
            chance = Random(self._chance.getrandbits(64))
            process.do(
                lambda daemon: deed(Hand(self, process, daemon, deed.__name__, task), chance),
                "person",
            )

    # -- the configuration -------------------------------------------------------------------------

    def _edit(self) -> None:
        universe = self.universe
        self.write(universe.drawing.next(universe.configurations[-1]))

    def write(self, configuration: Configuration) -> None:
        """Have the files say something else, and each daemon read them."""
        universe, chance = self.universe, self._chance
        universe.configurations.append(configuration)
        configuration.write(universe.folder)
        universe.trace.note("person", "writes configuration", configuration.number)
        for place in range(universe.count):
            universe.baton.at(
                universe.baton.now + chance.uniform(0, 3.0), partial(self._reload, place)
            )

    def _reload(self, place: int) -> None:
        number = self.universe.configurations[-1].number

        async def read(daemon: SimulatedDaemon) -> None:
            hand = Hand(self, process, daemon, "reload", None)
            await hand.does(daemon._service.reload(accept_removals=True), number)

        for process in self.universe.living:
            if process.place == place and process.answers:
                process.do(read, "person")

    # -- the end -----------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """From now on they only have everything go on that waits for a person."""
        universe = self.universe
        self.write(universe.drawing.last(universe.configurations[-1]))
        universe.baton.at(universe.baton.now + LOOK_AFTER, self._look_after)

    def _look_after(self) -> None:
        universe, process = self.universe, self._process()
        for one in universe.living:  # as the watcher does, which is not in it
            if one.answers and one.configuration is not universe.configurations[-1]:
                self._reload(one.place)
        if process is not None:
            process.do(lambda daemon: self._have_go_on(process, daemon), "person")
        universe.baton.at(universe.baton.now + LOOK_AFTER, self._look_after)

    async def _have_go_on(self, process: Process, daemon: SimulatedDaemon) -> None:
        with suppress(OrchestratordError):  # it is tried again
            await self._go_on(process, daemon)

    async def _go_on(self, process: Process, daemon: SimulatedDaemon) -> None:
        service = daemon._service
        for endpoint in sorted(await daemon._store.read(manual.paused())):
            hand = Hand(self, process, daemon, "resume", None)
            await hand.does(service.pause(endpoint, False), endpoint)
        for bulk in await service.bulks():
            if bulk["status"] == "paused":
                hand = Hand(self, process, daemon, "resume_bulk", None)
                await hand.does(service.many.resume(bulk["id"]), bulk["id"])
        if self._gives_up:
            self._gives_up = False
            doubtful = {"status": "failed", "reason": "ambiguous"}
            for task in (await service.retries(doubtful, limit=5))["retries"]:
                hand = Hand(self, process, daemon, "cancel", task)
                await hand.does(service.cancel(task["id"]), task["id"])
        for chore in await daemon._store.read(chores.stuck()):  # as `doctor` advises
            await daemon._store.write(_try_again(chore))
        waiting = await service.retries({"status": "pending"}, limit=100)
        held = {_part(one) for one in waiting["retries"] if one["partition"] is not None}
        if not held:
            return
        failed = await service.retries({"status": "failed"}, limit=200)
        for task in failed["retries"]:
            if _part(task) in held and task["reason"] != "resolved":
                await self._let_others_go_on(process, daemon, task)

    async def _let_others_go_on(self, process: Process, daemon: SimulatedDaemon, task: Any) -> None:
        """Correct or give up a task behind which others may wait."""
        id_, one = task["id"], daemon._service.one
        if has(self._chance, 0.5) and task["kind"] == "call":
            params = {"items": 0}
            hand = Hand(self, process, daemon, "replace", task)
            await hand.does(one.replace(id_, params, {}), id_, params=params, force=False)
            return
        hand = Hand(self, process, daemon, "resolve", task)
        asking = one.resolve(id_, "failed", note="let the others go on")
        await hand.does(asking, id_, status="failed", body=None)


def _part(task: Any) -> tuple[str, str | None, str | None]:
    """The partition of a task."""
    return task["endpoint"], task["webhook"], task["partition"]
