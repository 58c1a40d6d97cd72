"""orchestratord calls the APIs that YAML files declare, and does not lose anything.

This module is the public face for plugin authors, and nothing else. A name is loaded when it is
first asked for: a command that needs none of them starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratord.config.params import check_params
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
    from orchestratord.model.backoff import Backoff
    from orchestratord.model.declared import Model
    from orchestratord.model.edit import Declaration, Edit
    from orchestratord.model.endpoint import Api, Endpoint, Schedule, Setting
    from orchestratord.model.event import (
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
    from orchestratord.model.http_message import (
        Form,
        Request,
        Response,
        header_items,
        put_headers,
        url_text,
    )
    from orchestratord.model.outcome import Outcome, Send
    from orchestratord.model.retry_policy import RetryPolicy
    from orchestratord.model.settings import Config, DaemonSetting
    from orchestratord.model.statement import Statement
    from orchestratord.model.task import (
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
    from orchestratord.plugin.executor import Doomed, Executor, Need, Parked, Standing, Target
    from orchestratord.plugin.hookspecs import PHASES, hookimpl, only_for, pure
    from orchestratord.plugin.route import Answer, Caller, Control, Route
    from orchestratord.values.durations import Duration, format_duration, parse_duration
    from orchestratord.values.jmespath_expression import Expression
    from orchestratord.values.rate_limit import RateLimit
    from orchestratord.values.redact import Redactor
    from orchestratord.values.secret import Secret, Text
    from orchestratord.values.status_set import StatusSet
    from orchestratord.values.suggest import suggest
    from orchestratord.values.template import Template, TemplateTree

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
    "orchestratord.config.params": "check_params",
    "orchestratord.errors": (
        "ConfigError Conflict EgressDenied InvalidParams InvalidPayload NotFound NotWritable "
        "OrchestratordError Outdated PluginError Problem Reject SendError Snooze Unconditional"
        " Unreachable "
    ),
    "orchestratord.model.backoff": "Backoff",
    "orchestratord.model.declared": "Model",
    "orchestratord.model.edit": "Declaration Edit",
    "orchestratord.model.endpoint": "Api Endpoint Schedule Setting",
    "orchestratord.model.event": (
        "BreakerEvent ConfigEvent DaemonEvent EndpointEvent Event EventType PluginEvent "
        "TaskEvent WebhookEvent "
    ),
    "orchestratord.model.http_message": (
        "Form Request Response header_items put_headers url_text "
    ),
    "orchestratord.model.outcome": "Outcome Send",
    "orchestratord.model.retry_policy": "RetryPolicy",
    "orchestratord.model.settings": "Config DaemonSetting",
    "orchestratord.model.statement": "Statement",
    "orchestratord.model.task": (
        "Action Delete Effect Explanation NewTask Reason Status Table Task Upsert "
    ),
    "orchestratord.plugin.executor": "Doomed Executor Need Parked Standing Target",
    "orchestratord.plugin.hookspecs": "PHASES hookimpl only_for pure",
    "orchestratord.plugin.route": "Answer Caller Control Route",
    "orchestratord.values.durations": "Duration format_duration parse_duration",
    "orchestratord.values.jmespath_expression": "Expression",
    "orchestratord.values.rate_limit": "RateLimit",
    "orchestratord.values.redact": "Redactor",
    "orchestratord.values.secret": "Secret Text",
    "orchestratord.values.status_set": "StatusSet",
    "orchestratord.values.suggest": "suggest",
    "orchestratord.values.template": "Template TemplateTree",
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
