"""What can go wrong. Refusals of the daemon have a class each, which mirrors the API's `code`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """Base of all errors of this client."""


class DaemonUnreachable(ClientError):
    """No answer of the daemon came, up to the deadline.

    Of `call` and `call_many` it is not known then whether the calls were made. The same again with
    the same `key`, later, is safe: what was made is not made twice.
    """


class UnexpectedAnswer(ClientError):
    """What answers at this address is not orchestratord's API."""


class WaitTimeout(ClientError):
    """The task had not ended in time; it goes on.

    Attributes:
        task_id: its id.
    """

    def __init__(self, task_id: int, seconds: float) -> None:
        self.task_id = task_id
        super().__init__(f"task {task_id} has not ended within {seconds:g} s")


class Refused(ClientError):
    """The daemon refused what was asked, by `application/problem+json`.

    Attributes:
        status: of the answer, such as 422.
        code: a word for programs, such as `invalid_params`; empty where the answer had none.
        detail: one line for a person.
        errors: what is wrong, one by one: each has `key` and `message`, and those of files their
            place.
        retry_after: seconds after which the daemon wants to be asked again; None where it did not
            say.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        named = [f"{one.get('key')}: {one.get('message')}" for one in errors]
        super().__init__("; ".join([f"{status} {detail}", *named]))


class BadRequest(Refused):
    """The request is none, as the daemon understands it (400, 405, 408, 415, 431)."""


class NotAuthorized(Refused):
    """No token was shown, or one that is not known (401)."""


class Forbidden(Refused):
    """The token is for looking only, the request is another site's, or a file is not the daemon's
    to write (403)."""


class NotFound(Refused):
    """There is no such endpoint, task, webhook, bulk or route (404)."""


class Conflict(Refused):
    """The task is running or has succeeded, or the endpoint is disabled (409)."""


class Overtaken(Conflict):
    """A later task of its ordered partition has started, so that it cannot be retried any more."""


class Replaced(Conflict):
    """Another task, which was made of it with other parameters, is carried out in its place."""


class Outdated(Refused):
    """What was to be changed has changed since it was read, or it was not said which state of it
    was (412, 428)."""


class TooLarge(Refused):
    """The body is larger than the daemon takes (413)."""


class UnknownHost(Refused):
    """The host of the URL is none that `http.hosts` of the daemon names (421)."""


class Invalid(Refused):
    """Something in the request does not fit (422); `errors` names everything."""


class InvalidParams(Invalid):
    """Parameters do not fit what the endpoint declares."""


class SchemaTooCostly(InvalidParams):
    """To check the data by the endpoint's `schema` takes too long, or too much memory."""


class InvalidPayload(Invalid):
    """A template of the endpoint or webhook does not render with these parameters."""


class IdempotencyKeyReused(Invalid):
    """The key was used in the last 24 hours for a call with other parameters."""


class BadConfig(Invalid):
    """The daemon's configuration has errors."""


class DaemonFault(Refused):
    """The daemon or one of its plugins failed; its log says more (500)."""


class Unavailable(Refused):
    """The daemon cannot do it now: it is being stopped, is busy, or its database cannot be used
    (502, 503, 504). The client has repeated it up to the deadline."""


class StorageFull(Refused):
    """The disk of the daemon has no room for new work (507)."""


_BY_CODE: dict[str, type[Refused]] = {
    "invalid_params": InvalidParams,
    "schema_too_costly": SchemaTooCostly,
    "invalid_payload": InvalidPayload,
    "idempotency_key_reused": IdempotencyKeyReused,
    "bad_config": BadConfig,
    "overtaken": Overtaken,
    "replaced": Replaced,
}
_BY_STATUS: dict[int, type[Refused]] = {
    **dict.fromkeys((400, 405, 408, 415, 431), BadRequest),
    401: NotAuthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    **dict.fromkeys((412, 428), Outdated),
    413: TooLarge,
    421: UnknownHost,
    422: Invalid,
    500: DaemonFault,
    **dict.fromkeys((502, 503, 504), Unavailable),
    507: StorageFull,
}


def refusal_class(status: int, code: str) -> type[Refused]:
    """The class of a refusal; `Refused` for one that this version of the client does not know."""
    return _BY_CODE.get(code) or _BY_STATUS.get(status, Refused)
