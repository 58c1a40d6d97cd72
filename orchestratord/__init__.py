"""orchestratord calls the APIs that YAML files declare, and does not lose anything.

This module is the public face for plugin authors, and nothing else.
"""

from orchestratord.backoff import Backoff
from orchestratord.control.routes import Answer, Control, Route
from orchestratord.endpoint import Api, Endpoint, Model, RetryPolicy, Schedule, Setting
from orchestratord.errors import (
    Conflict,
    EgressDenied,
    InvalidPayload,
    NotFound,
    OrchestratordError,
    PluginError,
    Problem,
    Reject,
    SendError,
    Snooze,
)
from orchestratord.executor import Doomed, Executor, Parked, Standing, Target
from orchestratord.hookspecs import PHASES, hookimpl
from orchestratord.message import Outcome, Send
from orchestratord.redact import Redactor
from orchestratord.settings import Config
from orchestratord.task import Delete, Effect, NewTask, Reason, Status, Table, Task, Upsert
from orchestratord.template import Template, TemplateTree
from orchestratord.values import Duration, Secret, StatusSet, Text, format_duration, parse_duration

__all__ = [
    "PHASES",
    "Answer",
    "Api",
    "Backoff",
    "Config",
    "Conflict",
    "Control",
    "Delete",
    "Doomed",
    "Duration",
    "Effect",
    "EgressDenied",
    "Endpoint",
    "Executor",
    "InvalidPayload",
    "Model",
    "NewTask",
    "NotFound",
    "OrchestratordError",
    "Outcome",
    "Parked",
    "PluginError",
    "Problem",
    "Reason",
    "Redactor",
    "Reject",
    "RetryPolicy",
    "Route",
    "Schedule",
    "Secret",
    "Send",
    "SendError",
    "Setting",
    "Snooze",
    "Standing",
    "Status",
    "StatusSet",
    "Table",
    "Target",
    "Task",
    "Template",
    "TemplateTree",
    "Text",
    "Upsert",
    "format_duration",
    "hookimpl",
    "parse_duration",
]
