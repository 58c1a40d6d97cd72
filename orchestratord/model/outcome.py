"""What goes out and comes back: the outcome of an attempt, a statement for a database, and how a
request is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import httpx

from orchestratord.errors import SendError, SendErrorKind
from orchestratord.model.http_message import MAX_RESPONSE, header
from orchestratord.model.quota import CODES
from orchestratord.model.task import thawed
from orchestratord.values.status_set import StatusCode, StatusSet

A_HOOK = "a hook"
"""Who decided, until the host puts its plugin's name there."""

_UNREACHED: frozenset[SendErrorKind] = frozenset(
    {"dns", "connect", "tls", "certificate", "access", "timeout"}
)
"""In which ways no connection came to stand, where nothing was sent."""

Verdict = Literal["success", "retry", "failure"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. Deciding `after_` hooks may return another one.

    `maybe_done` is True when the request can have been carried out although no answer says so;
    `decided_by` names the plugin whose hook gave the verdict; `final_reason` is set where the
    executor or a hook knows why a failure is final. `shortage` is True where this machine lacked
    what it takes to send: nothing was sent then, and the attempt is given back; with
    `receiver_only` to this receiver alone, whose lane waits then, and no other. `unreached` is True
    where no connection stood: that says nothing of the endpoint, and much of the receiver. `look`
    is True where the answer says that it is not done yet, and is to be asked for again (`poll`).
    `lost` is True where the daemon died during the attempt, or lost its claim: that says nothing of
    the receiver.
    `quota_until` is when there is more (milliseconds) where the answer says that nothing is left of
    the API's `quota`.
    """

    verdict: Verdict
    status_code: StatusCode
    response: httpx.Response | None = None
    error: str | None = None
    maybe_done: bool = False
    answered: bool = False
    retry_after: str | None = None
    final_reason: str | None = None
    delay: float | None = None
    decided_by: str | None = None
    shortage: bool = False
    receiver_only: bool = False
    unreached: bool = False
    look: bool = False
    lost: bool = False
    quota_until: int | None = None

    def success(self) -> Outcome:
        """This outcome as a success."""
        return self._decided("success", error=None)

    def retry(self, error: str | None = None, *, delay: float | None = None) -> Outcome:
        """This outcome as a retry; after `delay` seconds if given, else by the backoff."""
        return self._decided("retry", error=error or self.error, delay=delay)

    def failure(self, error: str | None = None, *, reason: str | None = None) -> Outcome:
        """This outcome as a final failure, for one of the documented reasons (`not_retryable`)."""
        return self._decided("failure", error=error or self.error, final_reason=reason)

    def _decided(
        self, verdict: Verdict, *, final_reason: str | None = None, **others: Any
    ) -> Outcome:
        """This outcome with what a hook has made of it."""
        return replace(
            self,
            verdict=verdict,
            final_reason=final_reason,
            look=False,
            decided_by=A_HOOK,
            **others,
        )

    @classmethod
    def from_response(
        cls, response: httpx.Response, *, success: StatusSet, when: StatusSet
    ) -> Outcome:
        """Judge an answer by its status code alone."""
        code = response.status_code
        verdict: Verdict = "success" if code in success else "retry" if code in when else "failure"
        error = None if verdict == "success" else f"{code} {response.reason_phrase}".rstrip()
        # These three say that something behind the server failed, maybe after it had done it.
        maybe_done = code in (500, 502, 504)
        retry_after = header(response, "retry-after")
        outcome: Any = _Thawed(verdict, code, response, error, maybe_done, True, retry_after)
        outcome.__class__ = Outcome
        return outcome  # type: ignore[no-any-return]

    @classmethod
    def from_error(cls, error: SendError, *, when: StatusSet) -> Outcome:
        """Judge a request that got no answer."""
        if error.kind == "egress":
            return cls("failure", "error", error=str(error), final_reason="rejected")
        verdict: Verdict = "retry" if "error" in when else "failure"
        return cls(
            verdict,
            "error",
            error=str(error),
            maybe_done=error.sent,
            shortage=error.shortage and not error.sent,
            receiver_only=error.receiver_only,
            unreached=error.kind in _UNREACHED and not error.sent,
        )


_Thawed = thawed(Outcome)


def is_over_quota(outcome: Outcome) -> bool:
    """Whether the answer was a refusal since nothing is left of the API's `quota`."""
    return outcome.quota_until is not None and outcome.status_code in CODES


def is_down_code(code: StatusCode) -> bool:
    """Whether the answer to a task that is to be tried again, by its status code, speaks of a
    receiver that is down."""
    return code == "error" or (isinstance(code, int) and code >= 500 and code != 501)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one attempt executes. A `before_execute` hook may return another one.

    Args:
        database: the name of the database, as the configuration has it.
        text: the statement, in which `:name` stands for a parameter.
        params: name → value; values are bound, and never become a part of the text.
    """

    database: str
    text: str
    params: Mapping[str, Any]


class Send(Protocol):
    """The client as an executor sees it: behind the egress check, within the attempt's deadline."""

    async def __call__(
        self,
        request: httpx.Request,
        *,
        fresh: bool = False,
        follow_redirects: bool = False,
        max_response: int = MAX_RESPONSE,
    ) -> httpx.Response:
        """Send once. Raises SendError. See `http.client.SendOptions` for the arguments."""
        ...
