"""An endpoint's file, over what its API shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from orchestratord.config.inherit import Inherited, SharedReader
from orchestratord.config.key_reader import KeyReader
from orchestratord.config.params import fill, fitted, from_text
from orchestratord.config.show.merged_endpoint import (
    masked,
    shown_api,
    shown_endpoint,
    shown_params,
)
from orchestratord.config.validate.node_reader import ReadNode
from orchestratord.config.validate.problems import KeyProblems
from orchestratord.config.validate.request_rules import path_problem
from orchestratord.config.validate.schedule_rules import schedule_problems
from orchestratord.config.validate.secret_keys import secret_values
from orchestratord.config.validate.shapes import fields_of, leaves_of
from orchestratord.config.validate.undefined_names import undeclared, undefined, unknown_yet
from orchestratord.config.yaml.document import YamlDocument
from orchestratord.config.yaml.nodes import MapNode, Node, Scalar, Spot, locate, mapping_of
from orchestratord.config.yaml_keys import HTTP, EndpointKeys, Shared, shared_keys
from orchestratord.errors import InvalidParams, InvalidPayload
from orchestratord.model.endpoint import Endpoint, Param, PartitionRule, Schedule
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.test_case import TestCase
from orchestratord.plugin.executor import Executor
from orchestratord.values.secret import Text
from orchestratord.values.suggest import suggest
from orchestratord.values.template import Template, TemplateTree


@dataclass(frozen=True, slots=True)
class _OfApi:
    """What is the same for all endpoints of one API.

    `shown` are its own keys for people, `undefined` is what is wrong with the names in its headers,
    and `uses` are the parameters that these name.
    """

    inherited: Inherited
    shown: Mapping[str, Any]
    undefined: list[str]
    uses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Declared:
    """An endpoint, and the tree that it was read from."""

    endpoint: Endpoint
    spot: Spot
    node: MapNode


class EndpointReader:
    """Reads endpoints, one after the other."""

    def __init__(self, shared: SharedReader) -> None:
        self._shared = shared
        self._reader = shared.reader
        self._registry = shared.reader.registry
        self._problems = shared.reader.problems
        self._keys = KeyReader(shared.reader, shared.cache.blocks)
        self._executors = self._registry.call_executors()
        self._shared_keys = shared_keys(self._registry.settings)
        self._own_keys = fields_of(EndpointKeys).keys() - self._shared_keys
        self._known: dict[str, frozenset[str]] = {}
        """The keys of an endpoint, by its type."""
        self._retries: dict[int, tuple[RetryPolicy, dict[str, Any]]] = {}
        """By identity; the policy is kept with what is shown of it."""
        self._apis: dict[int, _OfApi] = {}
        """What is the same for all endpoints of one API, by the identity of what they inherit."""
        self._params: dict[int, Mapping[str, Param]] = {}
        """By the identity of the node under `params`."""

    def read(self, identity: str, document: YamlDocument, inherited: Inherited) -> Declared | None:
        """The endpoint; None where anything of it, or of what it inherits, is in error."""
        root, spot = document.root, document.spot
        if root is None:
            return None
        type_, executor = self._type(root, spot)
        model = executor.model if executor else None
        if executor is not None:
            root = self._with_known_keys(root, executor)
        merged = self._shared.merger.merge(inherited.node, root.only(self._shared_keys))
        node = MapNode({**root.entries, **merged.entries})
        read = self._shared.read_shared(spot, merged, inherited)
        given = {key: read[key].value for key in fields_of(Shared) if read[key].value is not None}
        own = root.only(self._own_keys)
        keys, data, fields = self._keys.read(spot, own, EndpointKeys, given)
        spec, of_spec = ReadNode(None, {}, {}), MapNode()
        if model is not None:
            of_spec = root.only(fields_of(model))
            spec = self._keys.read(spot, of_spec, model)

        problems = KeyProblems(self._problems, spot, node)
        self._check_spec(model, spec.fields, of_spec, problems, inherited)
        if executor is not None:
            self._check_type(executor, root, fields)
        if type_ == HTTP:
            self._check_url(spec.fields, problems, inherited)
        params, schedule, tests = self._calls(own, fields, data, problems)
        self._check_partition(fields.get("partition"), problems, params, schedule)
        good = all(item.value is not None for item in (*read.values(), *([spec] if model else ())))
        if keys is None or type_ is None or inherited.api is None or not good:
            return None

        settings = {key: read[key].value for key in self._registry.settings if key in read}
        endpoint = Endpoint(
            id=identity,
            api=inherited.api,
            type=type_,
            spec=spec.value,
            retry=keys.retry,
            timeout=keys.timeout,
            idempotent=_idempotent(keys.idempotent, executor, spec.value),
            enabled=keys.enabled,
            params=params,
            schedule=schedule,
            partition=keys.partition,
            settings=MappingProxyType(settings),
            source=document.file,
            shown=(shown := dict[str, Any]()),
            keys=keys,
            tests=tests,
            waits=self._shared.waits(mapping_of(document.root), root) or inherited.waits,
        )
        for key in settings:
            keyed = KeyProblems(self._problems, *node.entries[key])
            self._shared.request_rules.check_urls(read[key].data, inherited.api.egress, keyed)
        written = self._keys.shown(model, of_spec, spec.data)
        written |= self._keys.shown(EndpointKeys, own, data)
        written |= {key: masked(item.data) for key, item in read.items() if key != "retry"}
        written, retry = shown_params(endpoint, data, written), self._retry(endpoint.retry)
        shown.update(shown_endpoint(endpoint, self._of_api(inherited).shown, written, retry))
        return Declared(endpoint, spot, node)

    def _of_api(self, inherited: Inherited) -> _OfApi:
        found = self._apis.get(id(inherited))
        if found is None:
            headers = inherited.headers.values()
            found = self._apis[id(inherited)] = _OfApi(
                inherited,
                shown_api(inherited.data),
                [message for header in headers for message in undefined(header)],
                frozenset(name for header in headers for name in undeclared(header, ())),
            )
        return found

    def _retry(self, retry: RetryPolicy) -> dict[str, Any]:
        """What is shown of a `retry`, once for all endpoints that share it."""
        known = self._retries.get(id(retry))
        if known is None:
            known = self._retries[id(retry)] = retry, retry.written()
        return known[1]

    def _type(self, root: MapNode, spot: Spot) -> tuple[str | None, Executor | None]:
        """The endpoint's type, and what carries it out; (None, None) for an unknown one."""
        place, node = root.entries.get("type", (spot, Scalar(HTTP, HTTP)))
        if not isinstance(node, Scalar):
            return None, None  # the keys' own validation says so
        value = HTTP if node.value is None else self._reader.plain(place, node)
        type_ = value if isinstance(value, str) else node.text  # such as 7 or true
        if type_ in self._executors:
            return type_, self._executors[type_]
        owner = self._registry.absent_owner(type_, self._registry.disabled_types)
        if owner is not None:
            self._problems.warn(
                place,
                f"the type {type_!r} belongs to the plugin {owner[0]}, which {owner[1]}; the tasks "
                "of this endpoint wait",
            )
            return type_, None
        self._problems.error(place, f"unknown type {type_!r}" + suggest(type_, self._executors))
        return None, None

    def _check_type(self, executor: Executor, root: MapNode, fields: Mapping[str, Any]) -> None:
        """Keys of the endpoint's own file that mean nothing for its type, or are missing."""
        for key, remedy in executor.refused.items():
            if key in root.entries:
                at = root.entries[key][0]
                self._problems.error(at, f"means nothing for `type: {executor.type}`: {remedy}")
        tests: tuple[TestCase, ...] = fields.get("tests", ())
        for index, test in enumerate(tests):
            if test.answer is None and not executor.immediate:
                at = locate(root.entries["tests"][0], root, ("tests", index))[0]
                self._problems.error(at.below("answer"), "is required")

    def _with_known_keys(self, root: MapNode, executor: Executor) -> MapNode:
        """The file without keys that are none of its type's, which are reported."""
        known = self._known.get(executor.type)
        if known is None:
            of_type = fields_of(executor.model) if executor.model is not None else ()
            known = frozenset({*self._own_keys, *self._shared_keys, *of_type})
            self._known[executor.type] = known
        if known.issuperset(root.entries):
            return root
        return self._shared.endpoint_keys(root, known, self._elsewhere(executor))

    def _elsewhere(self, executor: Executor) -> dict[str, str]:
        """Keys of other types → what to say of them here."""
        said: dict[str, str] = {}
        for other in self._executors.values():
            if other is not executor and other.model is not None:
                words = f"belongs to endpoints with `type: {other.type}`"
                words += f"; this one has `type: {executor.type}`"
                said |= dict.fromkeys(fields_of(other.model), words)
        return said

    def _check_url(
        self, spec: Mapping[str, Any], problems: KeyProblems, inherited: Inherited
    ) -> None:
        path = spec.get("path")
        if isinstance(path, Template) and (wrong := path_problem(path)) is not None:
            problems.error(wrong, "path")
        if inherited.api is not None and inherited.api.base_url is None:
            self._problems.error(
                inherited.spot.below("base_url"),
                "is required where an endpoint is called by HTTP; "
                "write base_url: https://api.example.com",
            )

    def _check_partition(
        self,
        rule: PartitionRule | None,
        problems: KeyProblems,
        params: Mapping[str, Param],
        schedule: Schedule | None,
    ) -> None:
        """What `partition` uses, and whether it goes with the schedule."""
        if rule is None:
            return
        wrong = [
            *unknown_yet(rule.by),
            *(
                f"'params.{name}' is not declared under params" + suggest(name, params)
                for name in undeclared(rule.by, params)
            ),
        ]
        for message in wrong:
            problems.error(message, "partition", "by")
        if schedule is None or wrong:
            return
        if rule.ordered:
            message = "an endpoint that has a schedule is not ordered, as slots can be skipped; "
            problems.error(message + "take `schedule` or `ordered` out", "partition", "ordered")
            return
        with suppress(InvalidParams):  # which is told of the schedule
            given = fill(params, schedule.params)
            try:
                rule.of({"params": given})
            except InvalidPayload as error:
                message = f"fails for the calls of the schedule: {error}"
                problems.error(message, "partition", "by")

    def _check_spec(
        self,
        model: Any,
        spec: Mapping[str, Any],
        node: MapNode,
        problems: KeyProblems,
        inherited: Inherited,
    ) -> None:
        """Names in templates and headers, of the endpoint and of its API."""
        declared = mapping_of(mapping_of(problems.node).child("params")).entries
        unknown, shared = {}, []
        for key, (_, written) in node.entries.items():
            kept = self._keys.kept(model, written)
            if key in spec and not (kept and kept.checked and kept.uses <= declared.keys()):
                unknown[key] = spec[key]
                shared += [kept] if kept else []
        before = self._problems.mark()
        self._check_templates(unknown, declared, problems, problems.spot.file)
        headers = unknown.get("headers")
        if isinstance(headers, Mapping) and all(isinstance(v, Template) for v in headers.values()):
            self._shared.request_rules.check_headers(headers, problems)
        if self._problems.mark() == before:
            for kept in shared:
                kept.checked = True
        of_api = self._of_api(inherited)
        if of_api.undefined or not of_api.uses <= declared.keys():
            keys = KeyProblems(self._problems, inherited.spot, inherited.own)
            above = {"headers": inherited.headers}
            self._check_templates(above, declared, keys, problems.spot.file)

    def _check_templates(
        self, spec: Mapping[str, Any], declared: Mapping[str, Any], keys: KeyProblems, file: str
    ) -> None:
        """Names that are not known, in templates of an endpoint that `declared` parameters."""
        for path, template in leaves_of(spec):
            if not isinstance(template, Template | TemplateTree):
                continue
            for message in undefined(template):
                keys.error(message, *path)
            for name in undeclared(template, declared):
                self._problems.once(
                    keys.at(*path),
                    f"'params.{name}' is not declared under params of {file}"
                    + suggest(name, declared),
                    about=name,
                )

    def _calls(
        self, own: MapNode, fields: Mapping[str, Any], data: Any, problems: KeyProblems
    ) -> tuple[Mapping[str, Param], Schedule | None, tuple[TestCase, ...]]:
        """What gives calls their parameters; `params` alone once for all files that repeat it."""
        kept = self._keys.kept(EndpointKeys, node := own.child("params"))
        alone = kept is not None and not {"schedule", "tests"} & own.entries.keys()
        if alone and (known := self._params.get(id(node))) is not None:
            return known, None, ()
        before = len(self._problems)
        params, schedule, tests = _Calls(problems).read(fields, data)
        frozen = MappingProxyType(params)
        if alone and len(self._problems) == before:
            self._params[id(node)] = frozen
        return frozen, schedule, tests


_RENDERED = "write it into path, query, headers or body, which are rendered for each attempt"


class _Calls:
    """Reads the parameters of one endpoint, and what gives them values: the schedule and the tests.

    Values become what the declared types make of them.
    """

    def __init__(self, problems: KeyProblems) -> None:
        self._problems = problems
        self._params: dict[str, Param] = {}

    def read(
        self, fields: Mapping[str, Any], data: Any
    ) -> tuple[dict[str, Param], Schedule | None, tuple[TestCase, ...]]:
        """What the endpoint's own keys say, by their fields and their data; problems are reported.

        A parameter's value is a part of each task's row, and must not hold a secret.
        """
        stored = (
            "a secret here would be stored in the database; put the reference into headers, "
            "query or body"
        )
        for path in secret_values(data):
            self._problems.error(stored, *path)
        for name, param in fields.get("params", {}).items():
            self._params[name] = self._with_default(name, param)
        schedule: Schedule | None = fields.get("schedule")
        if schedule is not None:
            for key, message in schedule_problems(schedule):
                self._problems.error(message, "schedule", *([key] if key else []))
        tests: tuple[TestCase, ...] = fields.get("tests", ())
        if "params" in fields:
            if schedule is not None:
                self._problems.no_template(_RENDERED, "schedule", "params")
                values = self._given(schedule.params, "schedule", "params")
                schedule = schedule.model_copy(update={"params": values})
            tests = tuple(
                test.model_copy(update={"params": self._given(test.params, "tests", i, "params")})
                for i, test in enumerate(tests)
            )
        return self._params, schedule, tests

    def _with_default(self, name: str, param: Param) -> Param:
        """The parameter with its default as the declared type has it."""
        if "default" not in param.model_fields_set:
            return param
        path = ("params", name, "default")
        if param.required:
            self._problems.warn("is never used, as the parameter is required", *path)
        try:
            value = _as_declared(param, param.default, self._problems.located(*path)[1])
        except ValueError as error:
            self._problems.error(str(error), *path)
            return param
        if value is param.default:
            return param
        return param.model_copy(update={"default": value})

    def _given(self, given: Mapping[str, Any], *path: str | int) -> dict[str, Any]:
        """What the YAML gives for parameters at `path`; the endpoint can be called with it."""
        values = dict(given)
        for name, value in given.items():
            if name in self._params:
                try:
                    node = self._problems.located(*path, name)[1]
                    values[name] = _as_declared(self._params[name], value, node)
                except ValueError as error:
                    self._problems.error(str(error), *path, name)
        try:
            fill(self._params, values)
        except InvalidParams as invalid:
            for name, message in invalid.problems.items():
                at, _, skipped = self._problems.located(*path, name)
                if not skipped and name in self._params:
                    continue  # a wrong type, which was said where it was read
                for part in skipped:
                    at = at.below(part)
                self._problems.problems.error(at, message)
        return values


def _as_declared(param: Param, value: Any, node: Node) -> Any:
    """A value of the YAML as the parameter's type. Raises ValueError."""
    if isinstance(value, Text):
        return from_text(param, str(value))
    if param.type == "string" and isinstance(node, Scalar) and node.value is not None:
        return node.text if not isinstance(value, str) else value
    return fitted(param, value)


def _idempotent(written: bool | None, executor: Executor | None, spec: Any) -> bool:
    if written is not None:
        return written
    return executor is not None and spec is not None and executor.default_idempotent(spec)
