"""Calls of receivers that do all that receivers do, and what is told of each.

    python -m tests.conformance.transport.receiver_campaign --calls 20000 --seed 7

Receivers in threads answer early, late, in pieces, twice, by halves or not at all; hang up, reset,
fall silent, and talk unasked. What they have seen is held against what the calls' outcomes say: a
request is what its template says, byte for byte; what was seen is not told as not sent; what is not
idempotent comes once; an answer is the one that was given; no connection is used after an answer
that did not end well; and nothing is left when all is over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h11
import httpx
import trustme

from orchestratord.engine.http_executor import HttpExecutor, HttpSpec
from orchestratord.http.api_client import AttemptClient, Sender
from orchestratord.http.client import HttpClient, SendOptions
from orchestratord.http.gathered_writes import GatheredWrites
from orchestratord.http.http1 import Http1Connection
from orchestratord.http.proxy import PoolKey
from orchestratord.http.response_parser import ResponseParser
from orchestratord.model.auth import Proxy
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.http_message import Form, put_headers
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import Task
from orchestratord.plugin.executor import Target
from orchestratord.values.redact import Redactor
from tests.conformance.transport.wild_receiver import (
    BUSY,
    IGNORED,
    NO_ANSWERS,
    Arrival,
    Plan,
    Receiver,
    answer,
)

AT_ONCE = 12
LONG = 300.0
"""Seconds of a call that nothing is to end."""
SIZES = (1, 10, 10, 10, 1000, 65_535, 65_536, 65_537, 200_000)
TASK = Task(
    id=42, kind="call", endpoint_id="shop/get", webhook="", phase=None, status="running",
    reason=None, attempts=1, max_attempts=15, next_try=None, params={}, payload=None,
    parent_id=None, created_at=0, updated_at=0, scheduled_at=0)  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "order": {
        "method": "POST", "path": "/orders?a=b", "headers": {"X-Shop": "é 100%"},
        "body": {"json": {"id": "{{ params.id }}", "pad": "{{ params.pad }}"}},
    },
    "put": {
        "method": "PUT", "path": "/things/{{ params.id }}", "query": {"q": "a b"},
        "body": {"text": "{{ params.pad }}"},
    },
    "get": {"path": "/get", "headers": {"X-Id": "{{ params.id }}"}},
    "head": {"method": "HEAD", "path": "/head/{{ params.id }}"},
    "delivery": {"method": "POST", "path": "/hook", "body": {"text": "{{ params.pad }}"}},
}  # fmt: skip
OWN = (("User-Agent", "orchestratord"), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate"))


@dataclass
class Call:
    """A call, and what its request has to be."""

    id: str
    shape: str
    idempotent: bool
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    route: str
    rude: bool
    """Its receiver hangs up, or speaks, before it has heard anything."""
    hurried: bool = False
    """It may be out of time, or cancelled, at any moment."""
    outcome: Outcome | None = None
    """None for one that was cancelled."""


@dataclass
class Report:
    """What came of it; `wrong` is empty where all is as it should be."""

    calls: int
    seconds: float = 0.0
    told: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"{self.calls} calls in {self.seconds:.1f} s",
            "receivers: " + ", ".join(f"{name} {n}" for name, n in sorted(self.done.items())),
            "told: " + ", ".join(f"{name} {n}" for name, n in self.told.most_common()),
            *(f"WRONG: {text}" for text in self.wrong[:20]),
        ]


def plan_of(chance: random.Random, method: str, size: int) -> Plan:
    """What a receiver does about a request with a body of so many bytes."""
    wire, said, clean, until_close = answer(chance, method)
    plan = Plan(wire, said=said, clean=clean, end="keep" if clean else "close", name="answer")
    plan.until_close = until_close
    plan.pause = chance.choice((0.0, 0.0, 0.0005, 0.002, 0.003, 0.02))
    plan.slow = size > 1000 and chance.random() < 0.1
    if not clean and not until_close and chance.random() < 0.5:
        plan.end = "keep"  # it listens for what may not come
    # Where much is to be sent, an answer mostly comes first.
    kind = chance.choice((0.6, chance.random())) if size > 1_000_000 else chance.random()
    if kind < 0.25:
        return plan
    if kind < 0.35:
        ends = range(1, len(wire)) if len(wire) < 300 else sorted(
            chance.randrange(1, len(wire)) for _ in range(chance.randrange(1, 6))
        )  # fmt: skip
        pause = min(plan.pause, 0.0005)
        return replace(plan, cuts=tuple(ends), pause=pause, name="in pieces")
    if kind < 0.45 and clean:
        end = chance.choice(("close", "reset", "half"))
        return replace(plan, end=end, name=f"{end} afterwards")
    if kind < 0.52 and clean:
        return replace(plan, rest=chance.choice(NO_ANSWERS[:3]), name="garbage afterwards")
    if kind < 0.59 and clean:
        more = chance.choice((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"garbage"))
        return replace(plan, wire=wire + more, clean=False, name="more at once")
    if kind < 0.66:
        reads = chance.choice((0, 300, size // 2))
        end = "close" if until_close else chance.choice(("keep", "close", "close"))
        return replace(plan, reads=reads, end=end, name="early")
    if kind < 0.76:
        head = 0 if method == "HEAD" or said.status in (204, 304) or until_close else len(wire)
        sends = chance.randrange(head) if head else 0
        end = chance.choice(("close", "reset"))
        return replace(plan, sends=sends, end=end, said=None, clean=False, name=f"cut, {end}")
    if kind < 0.84:
        reads = chance.randrange(size + 300)
        end = chance.choice(("close", "reset"))
        return Plan(reads=reads, end=end, clean=False, name=f"no answer, {end}")
    if kind < 0.92:
        # With HEAD the fault of a body does not come up.
        wrong = NO_ANSWERS[: 7 if method == "HEAD" else None]
        return Plan(chance.choice(wrong), end="hold", clean=False, name="no such answer")
    return replace(plan, name="answer")


def call_of(
    chance: random.Random, number: int, host: str, route: str, rude: bool
) -> tuple[Call, Any]:
    """A call, and the parameters that it is made with."""
    name = f"id-{number:08x}"
    shape = chance.choice(tuple(SHAPES))
    pad = chance.choice(("x", "ü")) * chance.choice(SIZES)
    if chance.random() < 0.01:
        pad = "x" * 10_000_000
    method = SHAPES[shape].get("method", "GET")
    target, headers, body = "", [("Host", host), *OWN], pad.encode()
    if shape == "order":
        target = "/orders?a=b"
        body = json.dumps(
            {"id": name, "pad": pad}, ensure_ascii=False, separators=(",", ":")
        ).encode()
        headers += [("X-Shop", "é 100%"), ("Content-Type", "application/json")]
    elif shape == "put":
        target = f"/things/{name}?q=a%20b"
        headers += [("Content-Type", "text/plain; charset=utf-8")]
    elif shape == "delivery":
        target = "/hook"
        headers = [("Host", host), ("content-type", "text/plain"), ("user-agent", "o")]
        headers += [("webhook-id", name), ("webhook-signature", "v1,a=%s")]
    else:
        target, body = ("/get", b"") if shape == "get" else (f"/head/{name}", b"")
        headers += [("X-Id", name)] * (shape == "get")
    if shape in ("order", "put"):
        headers.append(("Idempotency-Key", name))
    if body:
        headers.append(("Content-Length", str(len(body))))
    if route == "proxied":
        target = f"http://{host}{target}"
        headers.append(("Proxy-Authorization", "Basic dTpw"))
    idempotent = shape != "order"
    if shape == "put":
        idempotent = chance.random() < 0.5
    call = Call(name, shape, idempotent, method, target, headers, body, route, rude)
    return call, {"id": name, "pad": pad}


class SmallBuffers(HttpClient):
    """A client of which a third of the connections take little at once."""

    opened = 0

    async def _open(self, key: PoolKey, options: SendOptions, until: float) -> Http1Connection:
        connection = await super()._open(key, options, until)
        self.opened += 1
        if self.opened % 3 == 0:
            connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connection


class Campaign:
    """The calls of one client."""

    def __init__(self, seed: int, gathers: bool) -> None:
        self.seed = seed
        self.report = Report(0)
        self.calls: list[Call] = []
        self._begun = 0
        self._executor = HttpExecutor()
        self._executor.bind("q7", {})
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        self.receivers = {
            "plain": Receiver(), "tls": Receiver(tls=tls), "proxied": Receiver(),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            self.receivers["ipv6"] = Receiver("::1")
        self.client = SmallBuffers()
        self.client._gathered = GatheredWrites() if gathers else None
        self.client._default_context = context = ssl.create_default_context()
        authority.configure_trust(context)
        self._sender = Sender(self.client)
        self._targets: dict[tuple[str, str, str, bool], Target] = {}

    def target(self, route: str, host: str, shape: str, idempotent: bool) -> Target:
        """Where calls go, made once as a daemon does."""
        key = route, host, shape, idempotent
        if key not in self._targets:
            proxy = None
            if route == "proxied":
                proxy = Proxy("http", "127.0.0.1", int(host.rpartition(":")[2]), "u", "p")
            api = Api(
                name="shop", base_url=f"{'https' if route == 'tls' else 'http'}://{host}",
                egress=("127.0.0.1", "::1"), proxy=proxy,
            )  # fmt: skip
            spec = HttpSpec.model_validate(SHAPES[shape])
            endpoint = Endpoint(
                id="shop/get", api=api, type="http", spec=spec, retry=RetryPolicy(jitter=0),
                timeout=LONG, idempotent=idempotent,
            )  # fmt: skip
            config = Config(Path(), DaemonSettings(), {}, {}, Redactor(), "")
            target = self._executor.standing(endpoint, "", config)
            assert isinstance(target, Target)
            self._targets[key] = target
        return self._targets[key]

    async def run(self, calls: int) -> None:
        """Make so many calls, and judge them."""
        self.report.calls = calls
        await asyncio.gather(*(self._work(number, calls) for number in range(AT_ONCE)))
        gc.collect()
        connections = [one for one in gc.get_objects() if type(one) is Http1Connection]
        idle = [one for kept in self.client._pool._idle.values() for one in kept]
        for one in connections:
            if not one.is_closing() and one not in idle:
                self.report.wrong.append("a connection is open that carries nothing, nor is idle")
        await self.client.aclose()

    async def _work(self, worker: int, calls: int) -> None:
        chance = random.Random(f"{self.seed} {worker}")
        while self._begun < calls:
            self._begun += 1
            await self._one(chance, self._begun)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0, 0.0005, 0.002, 0.004)))

    async def _one(self, chance: random.Random, number: int) -> None:
        route = chance.choice(("plain", "plain", *self.receivers))
        receiver = self.receivers[route]
        port = chance.choice((*[receiver.port] * 8, receiver.slow_port, receiver.rude_port))
        host = f"[::1]:{port}" if route == "ipv6" else f"127.0.0.1:{port}"
        call, params = call_of(chance, number, host, route, port == receiver.rude_port)
        plans = [plan_of(chance, call.method, len(call.body)) for _ in range(2)]
        receiver.plans[call.id] = plans
        target = self.target(route, host, call.shape, call.idempotent)
        cancelled = chance.random() < 0.05
        if chance.random() < 0.1 or any(plan.end == "hold" for plan in plans):
            call.hurried = True
            target = replace(target, timeout=chance.choice((0.001, 0.01, 0.1)))
        self.calls.append(call)
        task = replace(TASK, params=params, nonce=call.id)
        if call.shape == "delivery":
            form = Form(
                "POST", f"{target.endpoint.api.base_url}/hook",
                {"content-type": "text/plain", "user-agent": "o"},
            )  # fmt: skip
            request: httpx.Request = form.request(params["pad"].encode())
            signed = {"webhook-id": call.id, "webhook-signature": "v1,a=%s"}
            put_headers(request, signed, instead_of=("webhook-timestamp",))
        else:
            request = self._executor.prepare(task, target, 0.0)
        send = AttemptClient(self._sender.to(target)).send
        sending = asyncio.ensure_future(self._executor.execute(request, task, target, send))
        if cancelled:
            call.hurried = True
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005)))
            sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            call.outcome = await sending
        receiver.plans.pop(call.id)

    # -- what was told, against what was seen -------------------------------------------------

    def judge(self) -> None:
        """Once all receivers have ended."""
        routes = self.receivers.items()
        for receiver in self.receivers.values():
            receiver.close()
            self.report.wrong += receiver.wrong
            self.report.done += receiver.counted
        seen = {name: found for _, one in routes for name, found in one.arrivals.items()}
        last_of: dict[tuple[str, int], Arrival] = {}
        for call in self.calls:
            arrivals = seen.get(call.id, [])
            self.report.told[_told(call.outcome)] += 1
            problem = self._problem(call, arrivals)
            for arrival in arrivals:
                problem = problem or _other_request(call, arrival)
            if problem:
                plans = [(one.plan.name, one.place) for one in arrivals]
                text = f"{call.id} {call.route} {call.method} {call.shape}: {problem}; {plans}"
                self.report.wrong.append(f"{text}; told {_told(call.outcome)}")
        by_id = {call.id: call for call in self.calls}
        for name, one in routes:
            last_of.clear()
            for found in one.arrivals.values():
                for arrival in found:
                    key = name, arrival.connection
                    if key not in last_of or last_of[key].place < arrival.place:
                        last_of[key] = arrival
            for found in one.arrivals.values():
                for arrival in found:
                    if last_of[name, arrival.connection] is arrival:
                        continue
                    outcome = by_id[arrival.id].outcome
                    if outcome is None or outcome.response is None or arrival is not found[-1]:
                        self.report.wrong.append(
                            f"{arrival.id}: its connection went on after {_told(outcome)}"
                        )

    def _problem(self, call: Call, arrivals: list[Arrival]) -> str:
        outcome = call.outcome
        if not call.idempotent:
            if len(arrivals) > 1:
                return f"not idempotent, and sent {len(arrivals)} times"
            if arrivals and arrivals[0].place:
                return "not idempotent, and on a connection that was used before"
        if len(arrivals) > 2 or (len(arrivals) == 2 and not arrivals[0].place):
            return (
                f"sent {len(arrivals)} times, first as request {arrivals[0].place} of a connection"
            )
        if outcome is None:
            return ""
        if outcome.response is None:
            if arrivals and not outcome.maybe_done and not call.idempotent:
                return "told as not sent, and seen"
            return self._error_problem(call, outcome, arrivals)
        response, plan = outcome.response, arrivals[-1].plan if arrivals else IGNORED
        said = BUSY if plan is IGNORED and call.rude else plan.said
        if said is None:
            return "answered, and no answer was given"
        if said is BUSY and call.method == "HEAD":
            said = said._replace(content=b"")
        got = response.status_code, tuple(response.headers.raw), response.content
        if got != said:
            return f"another answer: {str(got)[:300]}, not {str(said)[:300]}"
        return ""

    def _error_problem(self, call: Call, outcome: Outcome, arrivals: list[Arrival]) -> str:
        error = outcome.error or ""
        if "in time" in error or "no time" in error or "no answer within" in error:
            return "" if call.hurried else f"out of time: {error}"
        if call.rude:
            known = ("connection", "TLS", "before the request was sent")
            return "" if any(word in error for word in known) else f"in other words: {error}"
        if not arrivals:
            # On a connection that was reset it is not seen how far it came.
            return "" if outcome.maybe_done or "closed" in error else f"not seen: {error}"
        plan = arrivals[-1].plan
        # A reset takes with it what has not arrived, the end of a body that has no length, and over
        # TLS what has not been read.
        resets = plan.end == "reset" or (plan.name == "early" and plan.end == "close")
        if resets and (
            len(plan.wire) > 4096
            or plan.until_close
            or (plan.name == "early" and call.route == "tls")
        ):
            return "" if "connection was" in error else f"told in other words: {error}"
        if plan.said is not None and plan.end != "hold":
            return f"no answer, though one was given: {error}"
        wanted = {"no such answer": "the answer cannot be used"}.get(plan.name, "connection was")
        return "" if wanted in error else f"told in other words: {error}"


def _told(outcome: Outcome | None) -> str:
    if outcome is None:
        return "cancelled"
    if outcome.response is not None:
        return "answered"
    words = (outcome.error or "").partition(":")[0]
    return words + ("" if outcome.maybe_done else " (not sent)")


def _other_request(call: Call, arrival: Arrival) -> str:
    """Why what came is not what was to be sent."""
    raw = arrival.raw
    if not arrival.whole:
        raw = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw)
    head = peer.next_event()
    if not isinstance(head, h11.Request):
        return f"no request for h11: {raw[:200]!r}"
    target, headers = head.target.decode(), head.headers.raw_items()
    wanted = [(name.encode(), value.encode()) for name, value in call.headers]
    if (head.method.decode(), target, sorted(headers)) != (
        call.method,
        call.target,
        sorted(wanted),
    ):
        return f"another request: {head.method!r} {target} {headers}, not {call.target} {wanted}"
    body = arrival.raw[len(arrival.raw.partition(b"\r\n\r\n")[0]) + 4 :]
    if body != (call.body if arrival.whole else call.body[: len(body)]):
        return f"another body of {len(body)} bytes, not {len(call.body)}"
    return ""


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _alive() -> Counter[str]:
    gc.collect()
    kinds = Http1Connection | ResponseParser | asyncio.Transport | socket.socket
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds))


async def _run(campaign: Campaign, calls: int) -> None:
    loop = asyncio.get_running_loop()

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Where TLS is written to a connection that breaks at this moment, asyncio ends it twice.
        twice = isinstance(context.get("exception"), AttributeError)
        if not (twice and "_call_connection_lost" in context["message"]):
            campaign.report.wrong.append(str(context))

    loop.set_exception_handler(note)
    await campaign.run(calls)
    await asyncio.sleep(0.05)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    campaign.report.wrong += [f"a task is left: {task}" for task in left]


def run(calls: int, seed: int, gathers: bool) -> Report:
    """The campaign over one client; `gathers`: as where the process has one core."""
    warnings, began = _Warnings(), time.monotonic()
    logging.getLogger("asyncio").addHandler(warnings)
    before, alive = len(os.listdir("/proc/self/fd")), _alive()
    campaign = Campaign(seed, gathers)
    report = campaign.report
    try:
        asyncio.run(_run(campaign, calls))
    finally:
        logging.getLogger("asyncio").removeHandler(warnings)
        campaign.judge()
    report.wrong += [f"asyncio says: {text}" for text in sorted(set(warnings.said))]
    del campaign
    left = _alive() - alive
    if left:
        report.wrong.append(f"left in memory: {dict(left)}")
    after = len(os.listdir("/proc/self/fd"))
    if after > before:
        report.wrong.append(f"{after} descriptors are open, {before} were")
    report.seconds = time.monotonic() - began
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = False
    for gathers in (False, True):
        report = run(given.calls, given.seed, gathers)
        print("\n".join([f"gathered writes: {gathers}", *report.lines()]), flush=True)
        wrong |= bool(report.wrong)
    raise SystemExit(wrong)


if __name__ == "__main__":
    main()
