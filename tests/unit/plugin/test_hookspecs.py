"""The hooks that are promised to plugin authors are there, documented, and of one kind."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orchestratord.plugin import hookspecs
from orchestratord.plugin.hookspecs import DECIDING, PHASES, TELLING

SPECS: dict[str, Any] = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, "orchestratord_spec")
}


def test_the_eight_phases_in_their_order() -> None:
    assert set(PHASES) == {
        "before_request", "before_execute", "after_request", "after_execute",
        "on_success", "on_retry", "on_final_failure", "on_run_end",
    }  # fmt: skip
    assert len(PHASES) == 8
    positions = [PHASES.index(name) for name in ("before_request", "after_request", "on_success")]
    assert positions == sorted(positions)


def test_every_phase_is_a_hook_and_decides_or_tells() -> None:
    assert set(PHASES) <= SPECS.keys()
    assert not set(DECIDING) & set(TELLING)
    assert set(PHASES) <= {*DECIDING, *TELLING}
    assert all(name.startswith(("before_", "after_")) == (name in DECIDING) for name in PHASES)


@pytest.mark.parametrize("name", SPECS)
def test_a_hook_is_documented_and_typed(name: str) -> None:
    function = SPECS[name]
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("before_request", ["request", "task", "endpoint", "config", "send"]),
        ("after_request", ["outcome", "request", "task", "endpoint", "config"]),
        ("before_execute", ["statement", "task", "endpoint", "config"]),
        ("after_execute", ["outcome", "statement", "task", "endpoint", "config"]),
        ("on_success", ["outcome", "task", "endpoint", "config"]),
        ("on_retry", ["outcome", "task", "endpoint", "next_try", "config"]),
        ("on_final_failure", ["outcome", "task", "endpoint", "config"]),
        (
            "explain",
            ["phase", "outcome", "request", "task", "endpoint", "next_try", "config", "now", "run"],
        ),
        ("on_run_end", ["run", "outcome", "task", "endpoint", "config"]),
    ],
)
def test_the_arguments_of_the_phases(name: str, arguments: list[str]) -> None:
    assert list(inspect.signature(SPECS[name]).parameters) == arguments


def test_registrations_are_there() -> None:
    assert {
        "register_settings", "register_backoff", "register_executor", "register_tables",
        "register_routes", "check_endpoint", "config_adopted", "announce",
    } <= SPECS.keys()  # fmt: skip
