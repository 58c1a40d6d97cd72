"""`check` finds parameters that no call has, and values that are compared with another type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.test_newcomers import API, GOOD, HOOK, P, X, said_of

ID = "params: {id: {}, total: {type: number}}\n"


@pytest.mark.parametrize(
    "keys",
    [
        f"{HOOK}, payload: {{a: '{{{{ params.idd }}}}'}}",
        "url: 'https://ops.example.com/{{ params.idd }}'",
        f"{HOOK}, headers: {{X-A: '{{{{ params.idd }}}}'}}",
        f"{HOOK}, partition: '{{{{ params.idd }}}}'",
        f"{HOOK}, when: params.idd == 'x'",
    ],
)
def test_a_webhook_uses_declared_parameters(keys: str, tmp_path: Path) -> None:
    said = said_of(tmp_path, {X: f"{P}{ID}webhooks: [{{phase: on_success, {keys}}}]\n"})
    assert said.startswith(f"{X}:3:")
    assert "did you mean 'id'?" in said


def test_a_number_is_compared_with_a_number(tmp_path: Path) -> None:
    hook = f"webhooks: [{{phase: on_success, {HOOK}, when: params.total > '100'}}]\n"
    assert "write `100`" in said_of(tmp_path, {X: f"{P}{ID}{hook}"})


def test_what_is_shared_is_a_warning_once(tmp_path: Path) -> None:
    hook = f"webhooks: [{{phase: on_success, {HOOK}, payload: {{a: '{{{{ params.b }}}}'}}}}]\n"
    said = said_of(tmp_path, {API: GOOD[API] + hook, X: f"{P}{ID}"})
    assert said.count("'params.b' is not declared") == 1
    assert said.startswith(f"warning: {API}:2:")


def test_a_template_that_does_without_is_a_warning(tmp_path: Path) -> None:
    hook = f"{HOOK}, payload: {{a: '{{{{ params.b | default(1) }}}}'}}"
    said = said_of(tmp_path, {X: f"{P}{ID}webhooks: [{{phase: on_success, {hook}}}]\n"})
    assert said.startswith("warning: ")


def test_inbound_of_a_call_is_one_error(tmp_path: Path) -> None:
    inbound = "inbound: {path: /in/x, verify: github, secret: '${X:-a-secret}'}\n"
    said = said_of(tmp_path, {X: f"{P}{inbound}params: {{id: {{required: true}}}}\n"})
    assert "2:1: inbound: an inbound endpoint is an event: write type: event" in said
    assert said.endswith("1 error\n")
