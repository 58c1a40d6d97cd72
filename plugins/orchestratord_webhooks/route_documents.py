"""What the routes take and answer: their fields, and what each of them says."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class HealthQuery(TypedDict, total=False):
    """Which webhooks."""

    endpoint: str
    """Only the webhooks of this endpoint, `api/name`; `orchestratord` for operational ones."""


class WebhookHealth(TypedDict):
    """A webhook and its health."""

    endpoint: Annotated[str, Field(examples=["shop/getOrder"])]
    """`orchestratord` for an operational webhook."""
    name: Annotated[str, Field(examples=["ops"])]
    phase: Annotated[str, Field(examples=["after_request"])]
    status_code: str | None
    url: Annotated[str, Field(examples=["https://ops.example.com/hook"])]
    """Secrets masked."""
    enabled: bool
    disabled_at: Time | None
    disabled_reason: str | None
    last_disabled_at: Time | None
    """The last time, even if it is enabled again."""
    missed: int
    """Deliveries that it missed while it was disabled, and that a replay sends."""
    missed_deleted: int
    """Those deleted since it was last disabled, as `keep_missed` says."""
    last_status_code: int | str | None
    last_error: str | None
    last_attempt_at: Time | None
    last_success_at: Time | None
    """Exact to a second, as `last_attempt_at` is after a success."""
    failures: int
    """Failed deliveries in a row."""
    counted_since: Time
    """The start of the last full hour. The next three count since then, for all daemons, restarts
    included."""
    attempts: int
    failed_attempts: int
    success_rate: Annotated[float | None, Field(examples=[0.975])]
    """The successful part of these attempts, 0 to 1; null without attempts."""


class ReplayFilter(TypedDict):
    """A filter for a bulk retry of the deliveries that failed while their webhook was disabled."""

    kind: str
    endpoint: str
    webhook: str
    status: str
    reason: str
    ended_since: Time


class EnabledWebhook(WebhookHealth):
    """A webhook that was enabled again."""

    replay: ReplayFilter | None
    """Finds the deliveries that failed since it was last disabled; null if it never was."""


class WebhooksHealth(TypedDict):
    """Webhooks and their health."""

    webhooks: list[WebhookHealth]


class InheritedWebhook(TypedDict):
    """A webhook of api.yaml or of the defaults."""

    origin: str
    overridden: bool
    """True if the endpoint has its own webhook of this name."""
    webhook: Any


class DeclaredWebhooks(TypedDict):
    """The webhooks in an endpoint's own file."""

    webhooks: list[Any]
    """As in the file; `***` for each secret in clear text."""
    names: list[str]
    """The name of each, also if it is derived."""
    references: list[list[str]]
    """The references that each may hold."""
    inherited: list[InheritedWebhook]
    file: str
    writable: bool
    reason: str | None
    """Why the file is not writable."""
    etag: str


class ProblemOfEdit(TypedDict):
    """A configuration error and its place."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None


class EditedWebhooks(DeclaredWebhooks):
    """The webhooks of an endpoint after an edit."""

    diff: str
    """The change of the file."""
    written: bool
    problems: list[ProblemOfEdit]
    """Why the daemon refused, or would refuse, the change."""
    generation: NotRequired[int]
    """The current configuration; missing after a dry run."""


class WriteQuery(TypedDict, total=False):
    """How to write."""

    dry_run: bool
    """Write nothing; answer with `diff` and `problems`."""


class WrittenWebhooks(TypedDict):
    """The new list. The daemon ignores the other fields, so you can send back your GET's answer."""

    webhooks: Annotated[list[Any], Field(examples=[[]])]
    """The whole list; an empty one removes the key from the file."""
    names: NotRequired[Any]
    references: NotRequired[Any]
    inherited: NotRequired[Any]
    file: NotRequired[Any]
    writable: NotRequired[Any]
    reason: NotRequired[Any]
    etag: NotRequired[Any]


class TestDelivery(TypedDict):
    """An example on its way."""

    id: Annotated[int, Field(examples=[43])]
    """The task's."""
