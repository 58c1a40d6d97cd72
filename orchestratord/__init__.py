"""orchestratord calls the APIs that YAML files declare, and does not lose anything.

This module is the public face for plugin authors, and nothing else. A name is loaded when it is
first asked for: a command that needs none of them starts at once.
"""

import re
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratorctl.argument_types import json_object as json_object
    from orchestratorctl.argument_types import key_value as key_value
    from orchestratorctl.argument_types import text_or_file as text_or_file
    from orchestratord.api.bodies import RequestBody as RequestBody
    from orchestratord.api.server.problem_json import Refusal as Refusal
    from orchestratord.cli.argument_completion import complete_endpoints as complete_endpoints
    from orchestratord.cli.argument_completion import complete_strategies as complete_strategies
    from orchestratord.cli.config_folder import ConfigFolder as ConfigFolder
    from orchestratord.cli.opened_config import OpenedConfig as OpenedConfig
    from orchestratord.cli.opened_config import opened_config as opened_config
    from orchestratord.cli.opened_config import opened_host as opened_host
    from orchestratord.cli.options import config_option as config_option
    from orchestratord.cli.options import folder_of as folder_of
    from orchestratord.cli.options import output_option as output_option
    from orchestratord.cli.options import pretend_secrets_option as pretend_secrets_option
    from orchestratord.cli.options import unwritable as unwritable
    from orchestratord.config.database_url import queue_url as queue_url
    from orchestratord.config.endpoint_file import EndpointFile as EndpointFile
    from orchestratord.config.params import check_params as check_params
    from orchestratord.config.params import fitted as fitted
    from orchestratord.config.params import rule_problems as rule_problems
    from orchestratord.config.show.json_schema import json_schema as json_schema
    from orchestratord.config.validate.bind_address import parse_bind as parse_bind
    from orchestratord.config.validate.error_text import validated as validated
    from orchestratord.config.validate.request_rules import host_and_port as host_and_port
    from orchestratord.config.validate.request_rules import url_problem as url_problem
    from orchestratord.config.validate.secret_keys import is_named_for_secret as is_named_for_secret
    from orchestratord.config.validate.secret_keys import is_secret_key as is_secret_key
    from orchestratord.config.validate.undefined_names import misused as misused
    from orchestratord.config.yaml import flow_yaml as flow_yaml
    from orchestratord.config.yaml import nodes as nodes
    from orchestratord.config.yaml.plain_yaml import parse_yaml as parse_yaml
    from orchestratord.engine.answer_rules import AnswerRules as AnswerRules
    from orchestratord.errors import ConfigError as ConfigError
    from orchestratord.errors import Conflict as Conflict
    from orchestratord.errors import EgressDenied as EgressDenied
    from orchestratord.errors import InvalidParams as InvalidParams
    from orchestratord.errors import InvalidPayload as InvalidPayload
    from orchestratord.errors import NotFound as NotFound
    from orchestratord.errors import NotWritable as NotWritable
    from orchestratord.errors import OrchestratordError as OrchestratordError
    from orchestratord.errors import OutboxUnusable as OutboxUnusable
    from orchestratord.errors import Outdated as Outdated
    from orchestratord.errors import PluginError as PluginError
    from orchestratord.errors import Problem as Problem
    from orchestratord.errors import QueueError as QueueError
    from orchestratord.errors import Reject as Reject
    from orchestratord.errors import RoleLost as RoleLost
    from orchestratord.errors import SchemaTooCostly as SchemaTooCostly
    from orchestratord.errors import SendError as SendError
    from orchestratord.errors import Snooze as Snooze
    from orchestratord.errors import Unconditional as Unconditional
    from orchestratord.errors import UniqueKeyReused as UniqueKeyReused
    from orchestratord.errors import Unreachable as Unreachable
    from orchestratord.errors import Unstorable as Unstorable
    from orchestratord.http.answer_view import UnreadableBody as UnreadableBody
    from orchestratord.http.answer_view import read_body as read_body
    from orchestratord.http.answer_view import read_text as read_text
    from orchestratord.http.answer_view import reads_quickly as reads_quickly
    from orchestratord.http.egress import Egress as Egress
    from orchestratord.log import escape as escape
    from orchestratord.model.auth import Auth as Auth
    from orchestratord.model.backoff import Backoff as Backoff
    from orchestratord.model.declared import Model as Model
    from orchestratord.model.edit import Declaration as Declaration
    from orchestratord.model.edit import Edit as Edit
    from orchestratord.model.edit import Editor as Editor
    from orchestratord.model.endpoint import OWN_ENDPOINT as OWN_ENDPOINT
    from orchestratord.model.endpoint import Api as Api
    from orchestratord.model.endpoint import BreakerKey as BreakerKey
    from orchestratord.model.endpoint import Endpoint as Endpoint
    from orchestratord.model.endpoint import Guards as Guards
    from orchestratord.model.endpoint import Pace as Pace
    from orchestratord.model.endpoint import Param as Param
    from orchestratord.model.endpoint import ParamRules as ParamRules
    from orchestratord.model.endpoint import PartitionKey as PartitionKey
    from orchestratord.model.endpoint import Schedule as Schedule
    from orchestratord.model.endpoint import Setting as Setting
    from orchestratord.model.event import SAME_MS as SAME_MS
    from orchestratord.model.event import BreakerEvent as BreakerEvent
    from orchestratord.model.event import BulkEvent as BulkEvent
    from orchestratord.model.event import ClockEvent as ClockEvent
    from orchestratord.model.event import ConfigEvent as ConfigEvent
    from orchestratord.model.event import DaemonEvent as DaemonEvent
    from orchestratord.model.event import EndpointEvent as EndpointEvent
    from orchestratord.model.event import Event as Event
    from orchestratord.model.event import EventType as EventType
    from orchestratord.model.event import FailingEvent as FailingEvent
    from orchestratord.model.event import InboundEvent as InboundEvent
    from orchestratord.model.event import OutboxEvent as OutboxEvent
    from orchestratord.model.event import PartitionEvent as PartitionEvent
    from orchestratord.model.event import PluginEvent as PluginEvent
    from orchestratord.model.event import ScheduleEvent as ScheduleEvent
    from orchestratord.model.event import TaskEvent as TaskEvent
    from orchestratord.model.event import ThrottleEvent as ThrottleEvent
    from orchestratord.model.event import TroubleEvent as TroubleEvent
    from orchestratord.model.event import WebhookEvent as WebhookEvent
    from orchestratord.model.http_message import Form as Form
    from orchestratord.model.http_message import Request as Request
    from orchestratord.model.http_message import Response as Response
    from orchestratord.model.http_message import header_items as header_items
    from orchestratord.model.http_message import put_headers as put_headers
    from orchestratord.model.http_message import url_text as url_text
    from orchestratord.model.outcome import Outcome as Outcome
    from orchestratord.model.outcome import Send as Send
    from orchestratord.model.outcome import Statement as Statement
    from orchestratord.model.partition_turn import Partition as Partition
    from orchestratord.model.recurring_rows import DECIDED_ABOUT as DECIDED_ABOUT
    from orchestratord.model.recurring_rows import DECIDED_AT as DECIDED_AT
    from orchestratord.model.recurring_rows import RecurringRows as RecurringRows
    from orchestratord.model.retry_policy import RetryPolicy as RetryPolicy
    from orchestratord.model.settings import Config as Config
    from orchestratord.model.settings import DaemonSetting as DaemonSetting
    from orchestratord.model.settings import Port as Port
    from orchestratord.model.task import MOST_MEMBERS as MOST_MEMBERS
    from orchestratord.model.task import Accepted as Accepted
    from orchestratord.model.task import Action as Action
    from orchestratord.model.task import BatchEntry as BatchEntry
    from orchestratord.model.task import BatchMember as BatchMember
    from orchestratord.model.task import ClosedBatch as ClosedBatch
    from orchestratord.model.task import Delete as Delete
    from orchestratord.model.task import Effect as Effect
    from orchestratord.model.task import Explanation as Explanation
    from orchestratord.model.task import NewChore as NewChore
    from orchestratord.model.task import NewTask as NewTask
    from orchestratord.model.task import QueueRows as QueueRows
    from orchestratord.model.task import Reason as Reason
    from orchestratord.model.task import RunError as RunError
    from orchestratord.model.task import RunSummary as RunSummary
    from orchestratord.model.task import Status as Status
    from orchestratord.model.task import Table as Table
    from orchestratord.model.task import TableStep as TableStep
    from orchestratord.model.task import Task as Task
    from orchestratord.model.task import Upsert as Upsert
    from orchestratord.model.test_case import FakeAnswer as FakeAnswer
    from orchestratord.model.test_case import TestCase as TestCase
    from orchestratord.model.test_case import parse_code as parse_code
    from orchestratord.plugin.background_service import Service as Service
    from orchestratord.plugin.doctor_check import Check as Check
    from orchestratord.plugin.executor import Doomed as Doomed
    from orchestratord.plugin.executor import Executor as Executor
    from orchestratord.plugin.executor import Need as Need
    from orchestratord.plugin.executor import Parked as Parked
    from orchestratord.plugin.executor import Standing as Standing
    from orchestratord.plugin.executor import Target as Target
    from orchestratord.plugin.hook_marks import hookimpl as hookimpl
    from orchestratord.plugin.hook_marks import only_for as only_for
    from orchestratord.plugin.hook_marks import pure as pure
    from orchestratord.plugin.hook_marks import required as required
    from orchestratord.plugin.hookspecs import HOOKS as HOOKS
    from orchestratord.plugin.hookspecs import PHASES as PHASES
    from orchestratord.plugin.long_work import off_loop as off_loop
    from orchestratord.plugin.metric import Counter as Counter
    from orchestratord.plugin.metric import Gauge as Gauge
    from orchestratord.plugin.metric import MetricSamples as MetricSamples
    from orchestratord.plugin.registry import ChoreStep as ChoreStep
    from orchestratord.plugin.registry import Reference as Reference
    from orchestratord.plugin.route import Answer as Answer
    from orchestratord.plugin.route import Caller as Caller
    from orchestratord.plugin.route import Control as Control
    from orchestratord.plugin.route import Page as Page
    from orchestratord.plugin.route import PageVisit as PageVisit
    from orchestratord.plugin.route import PortHandler as PortHandler
    from orchestratord.plugin.route import PortRequest as PortRequest
    from orchestratord.plugin.route import Route as Route
    from orchestratord.plugin.route import StatusPart as StatusPart
    from orchestratord.plugin.route import described as described
    from orchestratord.plugin.verb_row import VerbRow as VerbRow
    from orchestratord.queue.postgres.postgres_database import PostgresServer as PostgresServer
    from orchestratord.simulate.report import Report as Report
    from orchestratord.simulate.timetable import timetable as timetable
    from orchestratord.values import world as world
    from orchestratord.values.attached_file import Attachment as Attachment
    from orchestratord.values.budget import INLINE_STEPS as INLINE_STEPS
    from orchestratord.values.budget import Budget as Budget
    from orchestratord.values.budget import TooCostly as TooCostly
    from orchestratord.values.budget import within_budget as within_budget
    from orchestratord.values.clock import parse_first_try as parse_first_try
    from orchestratord.values.clock import rfc3339 as rfc3339
    from orchestratord.values.durations import Duration as Duration
    from orchestratord.values.durations import Size as Size
    from orchestratord.values.durations import format_duration as format_duration
    from orchestratord.values.durations import parse_duration as parse_duration
    from orchestratord.values.durations import rough_duration as rough_duration
    from orchestratord.values.jmespath_expression import Expression as Expression
    from orchestratord.values.json_body import INLINE_BYTES as INLINE_BYTES
    from orchestratord.values.json_body import MAX_DEPTH as MAX_DEPTH
    from orchestratord.values.json_body import free_json as free_json
    from orchestratord.values.json_body import is_shallow as is_shallow
    from orchestratord.values.json_body import parse_json as parse_json
    from orchestratord.values.rate_limit import RateLimit as RateLimit
    from orchestratord.values.redact import MASK as MASK
    from orchestratord.values.redact import Redactor as Redactor
    from orchestratord.values.redact import is_secret_header as is_secret_header
    from orchestratord.values.secret import Secret as Secret
    from orchestratord.values.secret import Text as Text
    from orchestratord.values.status_set import StatusSet as StatusSet
    from orchestratord.values.suggest import suggest as suggest
    from orchestratord.values.template import Template as Template
    from orchestratord.values.template import TemplateTree as TemplateTree
    from orchestratord.values.template import to_text as to_text

with open(__file__, encoding="utf-8") as _file:  # pathlib takes long to load
    # The imports above are the one list of names: type checkers read it, and so does this.
    _HOMES = {
        name: home
        for home, name in re.findall(r"^    from (\S+) import (\w+) as", _file.read(), re.M)
    }

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # else every name would pass for one that is there

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(home := _HOMES[name])
        here = hasattr(module, name)
        value = getattr(module, name) if here else import_module(f"{home}.{name}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
