"""The client of programs with threads."""

from __future__ import annotations

import os
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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
_CONNECTING = (httpx.ConnectError, httpx.ConnectTimeout)


class Client:
    """Speaks to a daemon; threads may share it. Close it, or use it in a `with`.

    Every method is repeated while the daemon restarts: it is not there, is being stopped, or went
    away before it had answered. None of them does a thing twice by that: calls carry a key, by
    which the daemon knows them again.

    Args:
        address: the path of the control socket, or the URL of the API over TCP, such as
            `http://127.0.0.1:8420`. Left out: `$ORCHESTRATORD_SOCKET`, else
            `/run/orchestratord/control.sock`.
        token: of the API over TCP, without white space around it, as a file has a line end.
        deadline: seconds for which a method is repeated while no answer comes.
        tls: what an `https` URL's certificate is verified with; left out: certifi's authorities.

    Every method raises:
        DaemonUnreachable: no answer came, up to the deadline; at once where waiting is of no use,
            as without the right to open the socket.
        Unavailable: the daemon said up to the deadline that it cannot do it now.
        Refused: the daemon refused it; each `code` of the API has a subclass.
        UnexpectedAnswer: what answers there is no orchestratord.
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
        self._http = httpx.Client(
            transport=self._address.transport(httpx.HTTPTransport, tls),
            base_url=self._address.url,
            headers=self._address.headers(),
        )

    def call(
        self,
        endpoint: str,
        params: Mapping[str, Any] | None = None,
        *,
        delay: Delay | None = None,
        at: Moment | None = None,
        key: str | None = None,
    ) -> Accepted:
        """Make a call. It is on the daemon's disk when this returns.

        Args:
            endpoint: `api/name`.
            params: its parameters: what JSON can say.
            delay: until the first try: seconds, a duration such as `5m`, or a timedelta.
            at: when the first try is due, instead of `delay`: a datetime with its zone, or a text
                in RFC 3339; what is past is due now.
            key: its Idempotency-Key, 1 to 255 characters. For 24 hours, the same key at the same
                endpoint is the same call, whichever process makes it. Left out: a new one.

        Raises:
            NotFound: there is no such endpoint.
            Conflict: it is disabled.
            InvalidParams: parameters do not fit.
            IdempotencyKeyReused: the key has been used with other parameters.
            StorageFull: the daemon's disk is full.
            ValueError: `endpoint` has no `/`, or `at` no zone.
        """
        return self._run(protocol.call(self._begin(), endpoint, params, delay, at, key))

    def call_many(
        self,
        endpoint: str,
        batch: Iterable[Mapping[str, Any]],
        *,
        delay: Delay | None = None,
        at: Moment | None = None,
        key: str | None = None,
    ) -> Sequence[int]:
        """Make up to 10,000 calls of one endpoint, all or none.

        Args:
            endpoint: `api/name`.
            batch: the parameters of each call.
            delay: as of `call`, for all of them.
            at: as of `call`, for all of them.
            key: of the batch; the calls get keys of their own from it, by their place.

        Returns:
            The ids of the tasks, in the order of `batch`.

        Raises what `call` raises; the keys in `errors` begin with `batch.N.`, N from 0.
        """
        return self._run(protocol.call_many(self._begin(), endpoint, batch, delay, at, key))

    def wait(self, task_id: int, *, timeout: float | None = None) -> TaskDetail:
        """Wait until a task has succeeded, failed for good or was cancelled; the task.

        `timeout`: seconds; left out: as long as it takes. Raises WaitTimeout, NotFound.
        """
        return self._run(protocol.wait(self._begin(), task_id, timeout))

    def get(self, task_id: int) -> TaskDetail:
        """A task in full: with its last answer and its attempts. Raises NotFound."""
        return self._run(protocol.get(self._begin(), task_id))

    def list(self, *, page_size: int = 100, **filters: FilterValue) -> Iterator[Task]:
        """Tasks, newest first, page after page as they are iterated over.

        Args:
            page_size: tasks that are asked for at once, at most 1,000.
            **filters: which tasks, by the names of `GET /v1/retries`: `status`, `status_code`,
                `reason`, `endpoint` (`shop/*`), `kind`, `since` and `until` (a time, or a duration
                before now), `text`, `id`, `parent`, and those of newer daemons; `order="ended"`
                for those that ended last. Several values of one are an iterable.

        Raises:
            InvalidParams: a filter is unknown to the daemon, or its value does not fit.
        """
        after: int | str | None = None
        while True:
            page = self._run(protocol.page(self._begin(), filters, page_size, after))
            yield from page.tasks
            if page.following is None:
                return
            after = page.following

    def retry(self, task_id: int, *, force: bool = False) -> Task:
        """Have a task tried now; the task.

        `force`: also one that has succeeded. Where the answer to that gets lost, it is not
        repeated, but DaemonUnreachable is raised: the call would be made twice. Without `force` it
        is repeated, which costs a task at most an attempt that fails again.

        Raises:
            NotFound: there is no such task.
            Conflict: it runs, has succeeded, or would not be sent.
        """
        return self._run(protocol.retry(self._begin(), task_id, force))

    def cancel(self, task_id: int) -> Task:
        """Give a task up; one that runs is only not tried again. The task.

        Raises NotFound, and Conflict where it has succeeded.
        """
        return self._run(protocol.cancel(self._begin(), task_id))

    def put_tenant(self, tenant: str, name: str | None = None) -> Tenant:
        """Make a tenant, or rename it; the tenant."""
        return self._run(protocol.put_tenant(self._begin(), tenant, name))

    def tenant(self, tenant: str) -> Tenant:
        """One tenant. Raises NotFound."""
        return self._run(protocol.tenant(self._begin(), tenant))

    def tenants(self) -> Iterator[Tenant]:
        """All tenants, page after page as they are iterated over."""
        return self._listed(Tenant.of)

    def remove_tenant(self, tenant: str) -> None:
        """Remove a tenant with its subscriptions; deliveries that wait fail. Raises NotFound."""
        self._run(protocol.remove(self._begin(), tenant))

    def portal(self, tenant: str) -> str:
        """A link to the portal of a tenant, good for 15 minutes. Raises NotFound, and Conflict
        where there is no portal."""
        return self._run(protocol.portal(self._begin(), tenant))

    def subscribe(
        self, tenant: str, url: str, *, key: str | None = None, **keys: Any
    ) -> Subscription:
        """Make a subscription; with its secret.

        Args:
            tenant: whose.
            url: where its deliveries go.
            key: its Idempotency-Key: for 24 hours, the same key is the same subscription. Left out:
                a new one.
            **keys: `events`, `when`, `headers`, `description`, `enabled`, `rate`.

        Raises NotFound, InvalidParams, IdempotencyKeyReused, and Conflict where it has too many.
        """
        return self._run(protocol.subscribe(self._begin(), tenant, key, {"url": url, **keys}))

    def subscriptions(self, tenant: str) -> Iterator[Subscription]:
        """All subscriptions of a tenant, page after page as they are iterated over."""
        return self._listed(Subscription.of, tenant, "subscriptions")

    def subscription(self, tenant: str, subscription_id: str) -> Subscription:
        """One subscription. Raises NotFound."""
        return self._run(protocol.subscription(self._begin(), tenant, subscription_id))

    def change_subscription(self, tenant: str, subscription_id: str, **keys: Any) -> Subscription:
        """Change keys of a subscription, as of `subscribe`. Raises NotFound, InvalidParams."""
        steps = protocol.change_subscription(self._begin(), tenant, subscription_id, keys)
        return self._run(steps)

    def unsubscribe(self, tenant: str, subscription_id: str) -> None:
        """Remove a subscription; deliveries that wait fail. Raises NotFound."""
        self._run(protocol.remove(self._begin(), tenant, subscription_id))

    def secret(self, tenant: str, subscription_id: str) -> str:
        """The secret of a subscription, `whsec_…`. Raises NotFound."""
        return self._run(protocol.secret(self._begin(), tenant, subscription_id))

    def rotate_secret(self, tenant: str, subscription_id: str) -> str:
        """Make a new secret; the old one signs as well for 24 hours. The new one.

        It is sent again only where it has not reached the daemon: a second rotation would end the
        secret that the receiver knows. Raises NotFound.
        """
        return self._run(protocol.rotate_secret(self._begin(), tenant, subscription_id))

    def test_subscription(self, tenant: str, subscription_id: str) -> int:
        """Send an example; the id of its task. Raises NotFound, and Conflict for too many."""
        return self._run(protocol.test_subscription(self._begin(), tenant, subscription_id))

    def replay_subscription(
        self, tenant: str, subscription_id: str, *, since: str = "1d", only_failed: bool = True
    ) -> int:
        """Send deliveries again; how many.

        Args:
            tenant: whose.
            subscription_id: of the subscription.
            since: those made since then: a duration back from now, or a time.
            only_failed: whether those that succeeded are left out.

        Raises:
            NotFound, InvalidParams.
        """
        body = {"since": since, "only_failed": only_failed}
        steps = protocol.replay_subscription(self._begin(), tenant, subscription_id, body)
        return self._run(steps)

    def events(self, **filters: FilterValue) -> Generator[Event, None, None]:
        """What happens from now on, as it happens, over restarts of the daemon.

        Args:
            **filters: which events, by the names of `GET /v1/events`: `endpoint`, `kind`,
                `status`, `type` (`task.*`).

        It ends when it is closed, or with an error where the daemon is away for longer than the
        deadline. Events are news and no record: where some are missing, one of type `missed` says
        so.
        """
        stream = protocol.EventStream(self._begin(), filters)
        while True:
            try:
                with self._http.stream(**stream.request().options()) as answer:
                    if not answer.is_success:
                        protocol.check(_whole(answer))
                    for piece in answer.iter_raw():
                        yield from stream.feed(piece)
                pause = stream.pause(None)
            except (httpx.TransportError, Unavailable) as error:
                _close_unconnected(error)
                pause = stream.pause(error)
            time.sleep(pause)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _listed(self, kind: Callable[[Mapping[str, Any]], T], *path: str) -> Iterator[T]:
        after: str | None = None
        while True:
            found, after = self._run(protocol.listed(self._begin(), kind, path, after))
            yield from found
            if after is None:
                return

    def _begin(self) -> Deadline:
        return Deadline(self._address, self._deadline)

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, protocol.Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    with self._http.stream(**step.options()) as opened:
                        answer = _whole(opened)
                except httpx.TransportError as error:
                    _close_unconnected(error)
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result


def _whole(answer: httpx.Response) -> httpx.Response:
    content = protocol.Content(answer)
    for piece in answer.iter_raw():
        content.add(piece)
    return content.whole()


def _close_unconnected(error: Exception) -> None:
    """Close the socket that did not connect: httpcore leaves it to the garbage collector, which may
    take its time while the daemon is away."""
    cause: BaseException | None = error if isinstance(error, _CONNECTING) else None
    while cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            unconnected = frame.f_locals.get("sock")
            if isinstance(unconnected, socket.socket):
                unconnected.close()
        cause = cause.__cause__ or cause.__context__
