"""Which keys stand in which file: the models that the files are validated and described by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from orchestratord.config.validate.shapes import fields_of
from orchestratord.model.declared import Model, descriptions
from orchestratord.model.endpoint import Api, Guards, Param, PartitionKey, Schedule, Setting
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import DaemonSetting, DaemonSettings, EgressSettings
from orchestratord.model.test_case import TestCase
from orchestratord.plugin.executor import Executor
from orchestratord.values.durations import Duration

HTTP = "http"


class Shared(Model):
    """What an endpoint says, or api.yaml or `defaults` for all of theirs."""

    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """How long an attempt may take, from connecting to the last byte: 30s."""
    retry: RetryPolicy = Field(default_factory=dict, validate_default=True)
    """When, and how often, to try a failed call again."""


class EndpointKeys(Shared):
    """An endpoint's keys, but for those of its `type` and of plugins."""

    type: str = HTTP
    """The kind of endpoint: `http`, or a type of a plugin, such as `sql`."""
    idempotent: bool | None = None
    """A repeat of the call is safe. By default, the method decides."""
    enabled: bool = True
    """`false`: the API refuses calls, and tasks wait."""
    params: Mapping[str, Param] = {}
    """The parameters of a call and their types."""
    schedule: Schedule | None = None
    """When the daemon calls it by itself."""
    partition: PartitionKey | None = None
    """Divides its calls into partitions with fair turns, or an order: a template over `params`, or
    `{by, ordered, concurrency, on_failure}`."""
    tests: tuple[TestCase, ...] = ()
    """Test cases for `orchestratord test`: answers and their expected consequences."""


_NOT_WRITTEN = ("name", "egress")
"""Of an API's: its folder has the name, and `egress` is more in the end than what is written."""


def _fields(infos: Mapping[str, FieldInfo]) -> dict[str, Any]:
    return {name: (info.annotation, info) for name, info in infos.items()}


ApiKeys: type[BaseModel] = create_model(
    "ApiKeys",
    __base__=Model,
    __doc__="What the endpoints of one API share.",
    **{key: field for key, field in _fields(Api.model_fields).items() if key not in _NOT_WRITTEN},
    egress=(
        EgressSettings,
        Field(EgressSettings(), description="More private addresses that this API may use."),
    ),
)
"""The keys of api.yaml, but for the defaults that it gives its endpoints."""


def shared_keys(settings: Mapping[str, Setting[Any]]) -> set[str]:
    """The keys that api.yaml and `defaults` may give to endpoints."""
    return {*fields_of(Shared), *settings}


def endpoint_model(executor: Executor, settings: Iterable[Setting[Any]]) -> type[BaseModel]:
    """An endpoint's file of one type, all keys in one model."""
    model = executor.model
    title = f"An endpoint with `type: {executor.type}`."
    return _described("Endpoint", EndpointKeys, title, _of(settings), *([model] if model else ()))


def api_model(settings: Iterable[Setting[Any]]) -> type[BaseModel]:
    """api.yaml, all keys in one model."""
    return _described("Api", ApiKeys, ApiKeys.__doc__, _of(settings), Shared)


def daemon_model(
    settings: Iterable[Setting[Any]], own: Iterable[DaemonSetting[Any]]
) -> type[BaseModel]:
    """orchestratord.yaml, all keys in one model; `own` are the keys of plugins in that file."""
    title = "Values for endpoints that neither they nor their api.yaml set."
    defaults = _described("Defaults", Shared, title, _of(settings), Guards)
    about = "Values for all endpoints that neither they nor their api.yaml set."
    empty = Field(default_factory=lambda: defaults.model_construct(), description=about)
    fields = {"defaults": (defaults, empty), **_of(own)}
    return _described("Daemon", DaemonSettings, DaemonSettings.__doc__, fields)


def _described(
    name: str, base: type[Any], doc: str | None, fields: dict[str, Any], *others: type[BaseModel]
) -> type[Any]:
    """A model with all keys of several, and some more, for its JSON Schema."""
    said: dict[str, str] = {}
    for other in others:
        fields = {**_fields(other.model_fields), **fields}
        said |= descriptions(other)
    if base is ApiKeys:
        said |= descriptions(Api)  # whose fields it has
    made = create_model(name, __base__=base, __doc__=doc, **fields)
    for key, info in made.model_fields.items():
        info.description = info.description or said.get(key)
    made.model_rebuild(force=True)
    return made


def _of(settings: Iterable[Setting[Any] | DaemonSetting[Any]]) -> dict[str, Any]:
    return {
        setting.key: (
            setting.type,
            Field(
                default_factory=lambda value=setting.default: value,
                description=setting.description or None,
            ),
        )
        for setting in settings
    }
