"""The handlers of plugins' routes, kept from harming anything but themselves."""

from __future__ import annotations

from dataclasses import replace
from functools import update_wrapper

from orchestratord.api.serialize import json_bytes
from orchestratord.api.server.handler import Asked
from orchestratord.api.server.problem_json import SHORTAGE, Refusal
from orchestratord.errors import OrchestratordError
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import HookFault, call
from orchestratord.plugin.route import DESCRIPTION, JSON, Answer, Caller, Route

FAULT = "plugin_fault"
"""The `code` of what a plugin did wrong."""


class Contained:
    """The handler of a plugin's route: what it does wrong is its plugin's fault and a 500."""

    def __init__(self, host: Host, plugin: str, route: Route) -> None:
        self._host = host
        self._plugin = plugin
        self._route = route
        # What is said of the handler is said of this.
        update_wrapper(self, route.handler)
        if (found := getattr(route.handler, DESCRIPTION, None)) is not None:
            setattr(self, DESCRIPTION, replace(found, problems=(*found.problems, FAULT)))

    async def __call__(self, asked: Asked) -> Answer:
        """Call it. Raises the errors that a handler may raise, and Refusal for all others."""
        if self._route.confidential and not asked.writes:
            raise Refusal("read_only", "this token is for looking only, and this is confidential")
        caller = Caller(asked.who, asked.headers, asked.writes, asked.session)
        try:
            given = [asked.path, asked.query, asked.body]
            given += [caller] if self._route.caller else []
            answer = await call(self._route.handler, given, self._host.timeout)
            if not isinstance(answer, Answer):
                raise HookFault(f"returned {type(answer).__name__}, not an Answer")
            _check_body(answer)
        except HookFault as fault:
            if isinstance(fault.__cause__, OrchestratordError):
                raise fault.__cause__ from None
            raise self._refusal(fault) from fault
        except OrchestratordError as error:
            raise self._refusal(error) from error
        return answer

    def _refusal(self, error: Exception) -> Refusal:
        if (meaning := Refusal.of(error)).code == SHORTAGE:
            return meaning  # which is no fault of the plugin's
        self._host.fault(self._plugin, f"{self._route.method} {self._route.path}", error)
        text = f"the plugin {self._plugin} failed; the daemon's log says more"
        return Refusal(FAULT, text)


def _check_body(answer: Answer) -> None:
    if answer.media_type != JSON:
        if not isinstance(answer.body, str | bytes):
            kind = type(answer.body).__name__
            raise HookFault(f"returned a {kind} as {answer.media_type}, not a text or bytes")
        return
    try:
        json_bytes(answer.body)
    except (TypeError, ValueError, RecursionError) as error:
        raise HookFault(f"returned what is not JSON: {error}") from None
