"""orchestratord calls the APIs that YAML files declare, and does not lose anything.

This module is the public face for plugin authors, and nothing else. A name is loaded when it is
first asked for: a command that needs none of them starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratord.backoff import Backoff
    from orchestratord.config.editing.records import Declaration, Edit
    from orchestratord.config.params import check_params
    from orchestratord.config.suggest import suggest
    from orchestratord.control.routes import Answer, Caller, Control, Route
    from orchestratord.endpoint import Api, Endpoint, Model, RetryPolicy, Schedule, Setting
    from orchestratord.errors import (
        ConfigError,
        Conflict,
        EgressDenied,
        InvalidParams,
        InvalidPayload,
        NotFound,
        NotWritable,
        OrchestratordError,
        Outdated,
        PluginError,
        Problem,
        Reject,
        SendError,
        Snooze,
        Unconditional,
        Unreachable,
    )
    from orchestratord.events import (
        BreakerEvent,
        ConfigEvent,
        DaemonEvent,
        EndpointEvent,
        Event,
        EventType,
        PluginEvent,
        TaskEvent,
        WebhookEvent,
    )
    from orchestratord.exchange import (
        Form,
        Request,
        Response,
        header_items,
        put_headers,
        url_text,
    )
    from orchestratord.executor import Doomed, Executor, Need, Parked, Standing, Target
    from orchestratord.expression import Expression
    from orchestratord.hookspecs import PHASES, hookimpl, only_for, pure
    from orchestratord.message import Outcome, Send
    from orchestratord.rate import RateLimit
    from orchestratord.redact import Redactor
    from orchestratord.settings import Config, DaemonSetting
    from orchestratord.statement import Statement
    from orchestratord.task import (
        Action,
        Delete,
        Effect,
        Explanation,
        NewTask,
        Reason,
        Status,
        Table,
        Task,
        Upsert,
    )
    from orchestratord.template import Template, TemplateTree
    from orchestratord.values import (
        Duration,
        Secret,
        StatusSet,
        Text,
        format_duration,
        parse_duration,
    )

__all__ = [
    "PHASES",
    "Action",
    "Answer",
    "Api",
    "Backoff",
    "BreakerEvent",
    "Caller",
    "Config",
    "ConfigError",
    "ConfigEvent",
    "Conflict",
    "Control",
    "DaemonEvent",
    "DaemonSetting",
    "Declaration",
    "Delete",
    "Doomed",
    "Duration",
    "Edit",
    "Effect",
    "EgressDenied",
    "Endpoint",
    "EndpointEvent",
    "Event",
    "EventType",
    "Executor",
    "Explanation",
    "Expression",
    "Form",
    "InvalidParams",
    "InvalidPayload",
    "Model",
    "Need",
    "NewTask",
    "NotFound",
    "NotWritable",
    "OrchestratordError",
    "Outcome",
    "Outdated",
    "Parked",
    "PluginError",
    "PluginEvent",
    "Problem",
    "RateLimit",
    "Reason",
    "Redactor",
    "Reject",
    "Request",
    "Response",
    "RetryPolicy",
    "Route",
    "Schedule",
    "Secret",
    "Send",
    "SendError",
    "Setting",
    "Snooze",
    "Standing",
    "Statement",
    "Status",
    "StatusSet",
    "Table",
    "Target",
    "Task",
    "TaskEvent",
    "Template",
    "TemplateTree",
    "Text",
    "Unconditional",
    "Unreachable",
    "Upsert",
    "WebhookEvent",
    "check_params",
    "format_duration",
    "header_items",
    "hookimpl",
    "only_for",
    "parse_duration",
    "pure",
    "put_headers",
    "suggest",
    "url_text",
]

_HOMES = {
    "orchestratord.backoff": "Backoff",
    "orchestratord.config.editing.records": "Declaration Edit",
    "orchestratord.config.params": "check_params",
    "orchestratord.config.suggest": "suggest",
    "orchestratord.control.routes": "Answer Caller Control Route",
    "orchestratord.endpoint": "Api Endpoint Model RetryPolicy Schedule Setting",
    "orchestratord.errors": (
        "ConfigError Conflict EgressDenied InvalidParams InvalidPayload NotFound NotWritable "
        "OrchestratordError Outdated PluginError Problem Reject SendError Snooze Unconditional "
        "Unreachable"
    ),
    "orchestratord.events": (
        "BreakerEvent ConfigEvent DaemonEvent EndpointEvent Event EventType PluginEvent "
        "TaskEvent WebhookEvent"
    ),
    "orchestratord.exchange": "Form Request Response header_items put_headers url_text",
    "orchestratord.executor": "Doomed Executor Need Parked Standing Target",
    "orchestratord.expression": "Expression",
    "orchestratord.hookspecs": "PHASES hookimpl only_for pure",
    "orchestratord.message": "Outcome Send",
    "orchestratord.rate": "RateLimit",
    "orchestratord.redact": "Redactor",
    "orchestratord.settings": "Config DaemonSetting",
    "orchestratord.statement": "Statement",
    "orchestratord.task": (
        "Action Delete Effect Explanation NewTask Reason Status Table Task Upsert"
    ),
    "orchestratord.template": "Template TemplateTree",
    "orchestratord.values": "Duration Secret StatusSet Text format_duration parse_duration",
}
"""The names of each module, as imported above."""

if not TYPE_CHECKING:  # else every name would pass for one that is there

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names.split():
                value = globals()[name] = getattr(import_module(home), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
