"""Events: `type: event`.

An event is a call of an endpoint for which nothing is sent: it has happened. Once it is accepted it
has succeeded, and what `on_success` and `then` make of it is written in the same transaction, so
that one event goes to all its webhooks, each with retries of its own.

    data_schema      `schema: {file: …}`, by which the data are checked
    schema_check     one schema; run as a program, what checks data beside the daemon
    schema_process   that process, as the daemon knows it
    event_executor   the keys of the endpoint, and what becomes of an event that had to wait
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestratord import Executor, hookimpl
from orchestratord_event.event_executor import EventExecutor


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (EventExecutor(),)
