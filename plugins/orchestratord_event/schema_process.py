"""The process that checks data by their schemas, as the daemon knows it.

One for all schemas, started by the first event that has one, and kept. Requests are written to it
as they come, and it answers them in their order: those that come together cost one turn of the
loop. When it ends, the request that it was at is to blame; the others go to the next process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestratord import SchemaTooCostly, world
from orchestratord_event import schema_check
from orchestratord_event.schema_check import CPU_SECONDS, SchemaCheck

SILENCE = 4.0
"""Seconds without an answer after which it is ended although it has not used its share of the
processor: it was stopped, cannot read a schema, or the machine or this process stood still. All
`TRIES` together take less than `plugins.timeout`."""
TRIES = 2
"""How often a request is tried that the process has died of by something else, such as a lack of
memory, or its silence."""
LONGEST = 16 << 20
"""Bytes of an answer, at most."""
SMALL = 4096
"""Characters of JSON up to which data are looked at here, too: most are good, and to ask another
process for that takes ten times as long."""
AT_ONCE = 0.01
"""Seconds for which events are written as JSON, until others on the loop have their turn."""
_INHERITED = ("PYTHON", "LD_", "LC_", "LANG")
"""How variables of the environment begin that it is given; others hold secrets."""


@dataclass(slots=True)
class _Asked:
    check: SchemaCheck
    events: bytes
    answer: asyncio.Future[list[tuple[int, dict[str, str]]]]
    deaths: int = field(default=0)


class SchemaProcess:
    """Checks data in a process of its own."""

    _process: subprocess.Popen[bytes]
    """The last one."""
    _silence: asyncio.TimerHandle
    """What ends it, unless it answers before."""

    def __init__(self) -> None:
        self._waiting: deque[_Asked] = deque()
        """What is not answered yet; the process is at the first."""
        self._serving: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._numbers: dict[str, int] = {}
        """Of the schemas that the process knows."""

    async def problems(
        self, check: SchemaCheck, events: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, str]]:
        """What is wrong with the data of each event; with no events, only have a process ready that
        has read the schema. Raises SchemaTooCostly, and OSError where none can be started."""
        pieces, places, breathed = [], [], world.monotonic()
        for place, event in enumerate(events):
            text = json.dumps(event)
            if len(text) > SMALL or not check.is_surely_good(event):
                pieces.append(text.encode())
                places.append(place)
            if world.monotonic() - breathed > AT_ONCE:
                await asyncio.sleep(0)
                breathed = world.monotonic()
        if events and not pieces:
            return [{} for _ in events]
        loop = asyncio.get_running_loop()
        asked = _Asked(check, b",".join(pieces), loop.create_future())
        self._waiting.append(asked)
        if self._serving is None or self._serving.done():
            self._serving = loop.create_task(self._serve())
        elif self._writer is not None:
            self._write(self._writer, asked)
        found = {places[number]: problems for number, problems in await asked.answer}
        return [found.get(place, {}) for place in range(len(events))]

    async def close(self) -> None:
        """End the process."""
        if self._serving is not None:
            self._serving.cancel()
            with suppress(asyncio.CancelledError):
                await self._serving

    async def _serve(self) -> None:
        """Have one process after the other answer, while something waits."""
        try:
            while self._waiting:
                await self._run()
        except Exception as error:  # it cannot be started: no descriptor, no memory
            while self._waiting:
                self._fail(error)

    async def _run(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603  # itself, at once
                [sys.executable, "-P", schema_check.__file__],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in os.environ if name.startswith(_INHERITED)},
                start_new_session=True,  # what a terminal sends is for the daemon
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST)
        self._silence = asyncio.get_running_loop().call_later(SILENCE, self._process.kill)
        try:
            self._writer, self._numbers = writer, {}
            for asked in self._waiting:
                self._write(writer, asked)
            while line := await reader.readline():  # also what came just before its end
                answered = self._waiting.popleft()
                self._wait_on()
                if not answered.answer.done():
                    answered.answer.set_result(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self._silence.cancel()
            self._writer = None
            writer.close()
            self._process.kill()
            status = self._process.wait()
        if self._waiting:
            self._waiting[0].deaths += 1
            if status == -signal.SIGPROF or self._waiting[0].deaths == TRIES:
                name = self._waiting[0].check.name
                self._fail(SchemaTooCostly(f"cannot be held against {name} in {CPU_SECONDS:g} s"))

    def _write(self, writer: asyncio.StreamWriter, asked: _Asked) -> None:
        check = asked.check
        if (number := self._numbers.get(check.content)) is None:
            number = self._numbers[check.content] = len(self._numbers)
            schema = {"name": check.name, "content": check.content}
            writer.write(json.dumps(schema).encode() + b"\n")
        writer.write(b"[%d,[%b]]\n" % (number, asked.events))
        if asked is self._waiting[0]:
            self._wait_on()

    def _wait_on(self) -> None:
        """The process begins with the next request, if there is one."""
        self._silence.cancel()
        if self._waiting:
            self._silence = asyncio.get_running_loop().call_later(SILENCE, self._process.kill)

    def _fail(self, error: Exception) -> None:
        answer = self._waiting.popleft().answer
        if not answer.done():
            answer.set_exception(error)
