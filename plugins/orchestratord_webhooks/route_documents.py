"""What the routes take and answer: their fields, and what each of them says."""

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class HealthQuery(TypedDict, total=False):
    """Which webhooks."""

    endpoint: str
    """Those of this endpoint, `api/name`, alone; `orchestratord` for operational webhooks."""


class WebhookHealth(TypedDict):
    """A webhook, and how it fares."""

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
    """The last time, also where that was lifted."""
    missed: int
    """Deliveries that it missed while it was disabled, and that can be replayed."""
    missed_deleted: int
    """Those that were deleted since it was disabled last, as `keep_missed` says."""
    last_status_code: int | str | None
    last_error: str | None
    last_attempt_at: Time | None
    last_success_at: Time | None
    failures: int
    """Deliveries that failed in a row."""
    counted_since: Time
    """When the last hour of the clock began, from which on the three that follow count: of all
    daemons, also before they were started."""
    attempts: int
    failed_attempts: int
    success_rate: Annotated[float | None, Field(examples=[0.975])]
    """The part of these attempts that succeeded, from 0 to 1; null where there were none."""


class ReplayFilter(TypedDict):
    """Finds deliveries that have failed because their webhook was disabled; for a retry of many."""

    kind: str
    endpoint: str
    webhook: str
    status: str
    reason: str
    ended_since: Time


class EnabledWebhook(WebhookHealth):
    """A webhook that is enabled again."""

    replay: ReplayFilter | None
    """Finds what has failed since it was disabled last; null where it never was."""


class WebhooksHealth(TypedDict):
    """Webhooks, and how they fare."""

    webhooks: list[WebhookHealth]


class InheritedWebhook(TypedDict):
    """A webhook of api.yaml or of the defaults."""

    origin: str
    overridden: bool
    """One of the endpoint's own has its name."""
    webhook: Any


class DeclaredWebhooks(TypedDict):
    """The webhooks that an endpoint's own file declares."""

    webhooks: list[Any]
    """As they stand in the file; a secret that is written out is `***`."""
    names: list[str]
    """Of each its name, also where that is derived."""
    references: list[list[str]]
    """Of each the references that it may hold."""
    inherited: list[InheritedWebhook]
    file: str
    writable: bool
    reason: str | None
    """Why it cannot be written."""
    etag: str


class ProblemOfEdit(TypedDict):
    """Something wrong in the configuration, and its place."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    hint: str | None


class EditedWebhooks(DeclaredWebhooks):
    """The webhooks of an endpoint after an edit."""

    diff: str
    """What changed in the file, or would change."""
    written: bool
    problems: list[ProblemOfEdit]
    """Why what was written could not be taken up, or would be refused."""
    generation: NotRequired[int]
    """Of the configuration that is in force now; not where it was only tried."""


class WriteQuery(TypedDict, total=False):
    """How to write."""

    dry_run: bool
    """Write nothing: say what would change, and why it would be refused."""


class WrittenWebhooks(TypedDict):
    """The list that takes the place of the one in the file; what was read beside it is passed
    over."""

    webhooks: Annotated[list[Any], Field(examples=[[]])]
    """The whole list; an empty one takes the key out of the file."""
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
