"""The client of programs with asyncio: each method is as that of `Client`, which describes it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from orchestratord_client import protocol
from orchestratord_client.errors import Unavailable
from orchestratord_client.protocol import (
    DEFAULT_DEADLINE,
    Deadline,
    Delay,
    FilterValue,
    Moment,
    Steps,
)
from orchestratord_client.results import Accepted, Event, Subscription, Task, TaskDetail, Tenant

T = TypeVar("T")


class AsyncClient:
    """As `Client`, with the same arguments and errors; the tasks of one event loop may share it.

    Close it by `aclose`, or use it in an `async with`.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        token: str | None = None,
        deadline: float = DEFAULT_DEADLINE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = protocol.Address.of(address, token)
        self._deadline = deadline
        self._http = httpx.AsyncClient(
            transport=self._address.transport(httpx.AsyncHTTPTransport, tls),
            base_url=self._address.url,
            headers=self._address.headers(),
        )

    async def call(
        self,
        endpoint: str,
        params: Mapping[str, Any] | None = None,
        *,
        delay: Delay | None = None,
        at: Moment | None = None,
        key: str | None = None,
    ) -> Accepted:
        """As `Client.call`."""
        return await self._run(protocol.call(self._begin(), endpoint, params, delay, at, key))

    async def call_many(
        self,
        endpoint: str,
        batch: Iterable[Mapping[str, Any]],
        *,
        delay: Delay | None = None,
        at: Moment | None = None,
        key: str | None = None,
    ) -> Sequence[int]:
        """As `Client.call_many`."""
        return await self._run(protocol.call_many(self._begin(), endpoint, batch, delay, at, key))

    async def wait(
        self,
        task_id: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # by the server, as in `Client`
    ) -> TaskDetail:
        """As `Client.wait`."""
        return await self._run(protocol.wait(self._begin(), task_id, timeout))

    async def get(self, task_id: int) -> TaskDetail:
        """As `Client.get`."""
        return await self._run(protocol.get(self._begin(), task_id))

    async def list(
        self, *, page_size: int = 100, **filters: FilterValue
    ) -> AsyncGenerator[Task, None]:
        """As `Client.list`."""
        after: int | str | None = None
        while True:
            page = await self._run(protocol.page(self._begin(), filters, page_size, after))
            for task in page.tasks:
                yield task
            if page.following is None:
                return
            after = page.following

    async def retry(self, task_id: int, *, force: bool = False) -> Task:
        """As `Client.retry`."""
        return await self._run(protocol.retry(self._begin(), task_id, force))

    async def cancel(self, task_id: int) -> Task:
        """As `Client.cancel`."""
        return await self._run(protocol.cancel(self._begin(), task_id))

    async def put_tenant(self, tenant: str, name: str | None = None) -> Tenant:
        """As `Client.put_tenant`."""
        return await self._run(protocol.put_tenant(self._begin(), tenant, name))

    async def tenant(self, tenant: str) -> Tenant:
        """As `Client.tenant`."""
        return await self._run(protocol.tenant(self._begin(), tenant))

    def tenants(self) -> AsyncGenerator[Tenant, None]:
        """As `Client.tenants`."""
        return self._listed(Tenant.of)

    async def remove_tenant(self, tenant: str) -> None:
        """As `Client.remove_tenant`."""
        await self._run(protocol.remove(self._begin(), tenant))

    async def portal(self, tenant: str) -> str:
        """As `Client.portal`."""
        return await self._run(protocol.portal(self._begin(), tenant))

    async def subscribe(
        self, tenant: str, url: str, *, key: str | None = None, **keys: Any
    ) -> Subscription:
        """As `Client.subscribe`."""
        return await self._run(protocol.subscribe(self._begin(), tenant, key, {"url": url, **keys}))

    def subscriptions(self, tenant: str) -> AsyncGenerator[Subscription, None]:
        """As `Client.subscriptions`."""
        return self._listed(Subscription.of, tenant, "subscriptions")

    async def subscription(self, tenant: str, subscription_id: str) -> Subscription:
        """As `Client.subscription`."""
        return await self._run(protocol.subscription(self._begin(), tenant, subscription_id))

    async def change_subscription(
        self, tenant: str, subscription_id: str, **keys: Any
    ) -> Subscription:
        """As `Client.change_subscription`."""
        steps = protocol.change_subscription(self._begin(), tenant, subscription_id, keys)
        return await self._run(steps)

    async def unsubscribe(self, tenant: str, subscription_id: str) -> None:
        """As `Client.unsubscribe`."""
        await self._run(protocol.remove(self._begin(), tenant, subscription_id))

    async def secret(self, tenant: str, subscription_id: str) -> str:
        """As `Client.secret`."""
        return await self._run(protocol.secret(self._begin(), tenant, subscription_id))

    async def rotate_secret(self, tenant: str, subscription_id: str) -> str:
        """As `Client.rotate_secret`."""
        return await self._run(protocol.rotate_secret(self._begin(), tenant, subscription_id))

    async def test_subscription(self, tenant: str, subscription_id: str) -> int:
        """As `Client.test_subscription`."""
        return await self._run(protocol.test_subscription(self._begin(), tenant, subscription_id))

    async def replay_subscription(
        self, tenant: str, subscription_id: str, *, since: str = "1d", only_failed: bool = True
    ) -> int:
        """As `Client.replay_subscription`."""
        body = {"since": since, "only_failed": only_failed}
        steps = protocol.replay_subscription(self._begin(), tenant, subscription_id, body)
        return await self._run(steps)

    async def events(self, **filters: FilterValue) -> AsyncGenerator[Event, None]:
        """As `Client.events`; who leaves it early closes it, as by `contextlib.aclosing`."""
        stream = protocol.EventStream(self._begin(), filters)
        while True:
            try:
                async with self._http.stream(**stream.request().options()) as answer:
                    if not answer.is_success:
                        protocol.check(await _whole(answer))
                    async for piece in answer.aiter_raw():
                        for event in stream.feed(piece):
                            yield event
                pause = stream.pause(None)
            except (httpx.TransportError, Unavailable) as error:
                pause = stream.pause(error)
            await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _listed(
        self, kind: Callable[[Mapping[str, Any]], T], *path: str
    ) -> AsyncGenerator[T, None]:
        after: str | None = None
        while True:
            found, after = await self._run(protocol.listed(self._begin(), kind, path, after))
            for one in found:
                yield one
            if after is None:
                return

    def _begin(self) -> Deadline:
        return Deadline(self._address, self._deadline)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, protocol.Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    async with self._http.stream(**step.options()) as opened:
                        answer = await _whole(opened)
                except httpx.TransportError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


async def _whole(answer: httpx.Response) -> httpx.Response:
    content = protocol.Content(answer)
    async for piece in answer.aiter_raw():
        content.add(piece)
    return content.whole()
