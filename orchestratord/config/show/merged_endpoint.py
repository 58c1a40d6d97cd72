"""An endpoint as people see it: merged, with what goes without saying, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestratord.config.validate.shapes import fields_of
from orchestratord.model.auth import OAuth2
from orchestratord.model.endpoint import Endpoint
from orchestratord.values.durations import format_duration
from orchestratord.values.redact import MASK
from orchestratord.values.secret import Text

_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})
"""Types of values that are shown as they are, as most are."""
_PLAIN = frozenset(
    {"name"} | {key for key, shape in fields_of(OAuth2).items() if not shape.member("secret")}
)


def shown_endpoint(
    endpoint: Endpoint, api: Mapping[str, Any], written: Mapping[str, Any], retry: dict[str, Any]
) -> dict[str, Any]:
    """The merged declaration as JSON-like data.

    Args:
        endpoint: what came of it.
        api: what is shown of the API's own keys.
        written: the same of the endpoint's keys, with those that it inherits.
        retry: the same of its `retry`.
    """
    shown: dict[str, Any] = {
        "type": endpoint.type,
        **api,
        **written,
        "timeout": format_duration(endpoint.timeout),
        "idempotent": endpoint.idempotent,
        "enabled": endpoint.enabled,
        "retry": retry,
    }
    if isinstance(api.get("headers"), Mapping) and isinstance(written.get("headers"), Mapping):
        shown["headers"] = _headers(api["headers"], written["headers"])
    if "auth" in api:
        shown["auth"] = shown.pop("auth")  # the last, as it always was
    if endpoint.api.proxy is not None:
        shown["proxy"] = str(endpoint.api.proxy)
    return shown


def shown_api(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of api.yaml that are the API's own, by their data."""
    shown = {key: masked(value) for key, value in data.items() if key != "auth"}
    if isinstance(data.get("auth"), Mapping):
        shown["auth"] = _auth(data["auth"])
    return shown


def shown_params(
    endpoint: Endpoint, data: Mapping[str, Any], shown: Mapping[str, Any]
) -> dict[str, Any]:
    """What is shown of the endpoint's keys, with the values of parameters as their declared types
    have them; without its tests, which say nothing of what it is."""
    sent = {key: value for key, value in shown.items() if key != "tests"}
    params = data.get("params")
    if isinstance(params, Mapping) and any("default" in param for param in params.values()):
        sent["params"] = {
            name: {**param, "default": masked(endpoint.params[name].default)}
            if "default" in param
            else param
            for name, param in shown["params"].items()
        }
    if endpoint.schedule is not None and "params" in data["schedule"]:
        params = masked(endpoint.schedule.params)
        sent["schedule"] = {**shown["schedule"], "params": params}
    return sent


def masked(data: Any) -> Any:
    """Data without its secrets; templates stay as they are written."""
    kind = type(data)
    if kind in _AS_THEY_ARE:
        return data
    # An abstract class takes long to answer.
    if kind is dict or isinstance(data, Mapping):
        return {
            str(key): item if type(item) in _AS_THEY_ARE else masked(item)
            for key, item in data.items()
        }
    if isinstance(data, list | tuple):
        return [item if type(item) in _AS_THEY_ARE else masked(item) for item in data]
    return _text(data) if isinstance(data, Text) else data


def _auth(auth: Mapping[str, Any]) -> dict[str, Any]:
    """Everything below `auth` is secret, but for the name of the header that it goes into, and
    for what says of OAuth 2.0 where and for what a token is asked for."""
    return {
        kind: {name: masked(value) if name in _PLAIN else MASK for name, value in part.items()}
        if isinstance(part, Mapping)
        else MASK
        for kind, part in auth.items()
    }


def _headers(api: Mapping[str, Any], endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoint's headers over the API's; how a name is spelled does not matter."""
    own = {name.lower() for name in endpoint}
    return {**{name: api[name] for name in api if name.lower() not in own}, **endpoint}


def _text(text: Text) -> str:
    if not text.secret:
        return str(text)
    return "".join(MASK if referenced else part for part, referenced in text.parts)
