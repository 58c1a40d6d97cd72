"""Makes calls of orchestratord, each exactly once, over restarts of the daemon.

`Client` and `AsyncClient` speak its API; `enqueue` makes a call in a transaction of your own
PostgreSQL. Data goes protocol → a client → the daemon, and back as `results` or `errors`.
"""

from orchestratord_client.async_client import AsyncClient
from orchestratord_client.errors import (
    BadConfig,
    BadRequest,
    ClientError,
    Conflict,
    DaemonFault,
    DaemonUnreachable,
    Forbidden,
    IdempotencyKeyReused,
    Invalid,
    InvalidParams,
    InvalidPayload,
    NotAuthorized,
    NotFound,
    Outdated,
    Overtaken,
    Refused,
    Replaced,
    SchemaTooCostly,
    StorageFull,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    UnknownHost,
    WaitTimeout,
)
from orchestratord_client.outbox import enqueue, enqueue_async
from orchestratord_client.results import (
    Accepted,
    Attempt,
    Event,
    Subscription,
    Task,
    TaskDetail,
    Tenant,
    Wait,
)
from orchestratord_client.sync_client import Client

__all__ = [
    "Accepted",
    "AsyncClient",
    "Attempt",
    "BadConfig",
    "BadRequest",
    "Client",
    "ClientError",
    "Conflict",
    "DaemonFault",
    "DaemonUnreachable",
    "Event",
    "Forbidden",
    "IdempotencyKeyReused",
    "Invalid",
    "InvalidParams",
    "InvalidPayload",
    "NotAuthorized",
    "NotFound",
    "Outdated",
    "Overtaken",
    "Refused",
    "Replaced",
    "SchemaTooCostly",
    "StorageFull",
    "Subscription",
    "Task",
    "TaskDetail",
    "Tenant",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownHost",
    "Wait",
    "WaitTimeout",
    "enqueue",
    "enqueue_async",
]
