"""Commands that plugins bring: found, refused where disabled, and errors that name the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.cli_parts import GOOD, run, write

GREET = """
import click
from orchestratord import config_option, hookimpl

@hookimpl
def register_commands():
    @click.command()
    @config_option
    def greet(config):
        "Say hello."
        click.echo("hello")

    return [greet]
"""


def folder_with(tmp_path: Path, settings: str = "dirs: [plugins]", **plugins: str) -> Path:
    files = {f"plugins/{name}.py": text for name, text in plugins.items()}
    return write(tmp_path, {**GOOD, "orchestratord.yaml": f"plugins: {{{settings}}}\n", **files})


def test_register_commands_of_a_single_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, greet=GREET)
    assert run("greet", "--config", folder).stdout == "hello\n"
    assert run("greet", f"--config={folder}").stdout == "hello\n"
    env = {"ORCHESTRATORD_CONFIG": str(folder)}
    assert run("greet", env=env).stdout == "hello\n"
    assert "greet           Say hello." in run("--help", env=env).stdout
    assert run("check", "--config", folder).exit_code == 0


@pytest.mark.parametrize(
    ("words", "plugin"), [(("demo",), "demo"), (("import", "openapi", "x.json"), "openapi")]
)
def test_the_command_of_a_disabled_plugin_refuses(
    tmp_path: Path, words: tuple[str, ...], plugin: str
) -> None:
    folder = folder_with(tmp_path, f"disabled: [{plugin}]")
    result = run(*words, "--config", folder)
    assert result.exit_code == 2
    assert f"{words[0]} is a command of the plugin {plugin}, which is disabled" in result.stderr
    assert str(folder / "orchestratord.yaml") in result.stderr


def test_a_name_that_two_plugins_register(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, one=GREET, two=GREET)
    result = run("greet", "--config", folder)
    assert (result.exit_code, "of the plugins one and two" in result.stderr) == (2, True)
    assert (
        "the command 'greet' is registered by one and by two"
        in run("check", "--config", folder).stderr
    )


SHARED = """
import click
from orchestratord import hookimpl

@hookimpl
def register_commands():
    @click.group()
    def take():
        "Take over what another system has."

    @take.command()
    def one():
        click.echo("one took")

    return [take]
"""


def test_plugins_share_a_group_of_commands(tmp_path: Path) -> None:
    two = SHARED.replace("one", "two")
    folder = folder_with(tmp_path, one=SHARED, two=two)
    env = {"ORCHESTRATORD_CONFIG": str(folder)}
    for name in ("one", "two"):
        assert run("take", name, env=env).stdout == f"{name} took\n"
    assert run("check", "--config", folder).exit_code == 0
    folder_with(tmp_path, "dirs: [plugins], disabled: [two]", one=SHARED, two=two)
    assert run("take", "one", env=env).stdout == "one took\n"
    assert "of the plugin two, which is disabled" in run("take", "two", env=env).stderr
    twice = tmp_path / "twice"
    folder = folder_with(twice, one=SHARED, two=SHARED)
    env = {"ORCHESTRATORD_CONFIG": str(folder)}
    assert "take one is a command of the plugins" in run("take", "one", env=env).stderr
    said = run("check", "--config", folder).stderr
    assert "the command 'take one' is registered by one and by two" in said
    folder = folder_with(tmp_path / "plain", one=SHARED, two=GREET.replace("greet", "take"))
    said = run("check", "--config", folder).stderr
    assert "the command 'take' is registered by one and by two" in said


def test_a_name_of_the_core_stays_the_cores(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, greet=GREET.replace("greet", "check"))
    result = run("check", "--config", folder)
    assert result.exit_code == 78
    assert "the command 'check' is registered by orchestratord and by greet" in result.stderr


@pytest.mark.parametrize(
    ("plugin", "why"),
    [
        ("raise SystemExit(3)  # register_commands", "SystemExit: 3"),
        (
            GREET.replace("def register", "async def register"),
            "register_commands is an `async def`",
        ),
        (GREET.replace("[greet]", "[7]"), "returned 7, which is no Command"),
        (GREET.replace("[greet]", "7"), "TypeError"),
    ],
)
def test_a_plugin_whose_commands_cannot_be_had(tmp_path: Path, plugin: str, why: str) -> None:
    folder = folder_with(tmp_path, greet=plugin)
    result = run("greet", "--config", folder)
    assert result.exit_code == 2
    assert "plugin greet has no commands here" in result.stderr
    assert "No such command 'greet'" in result.stderr
    assert why in result.stderr
    checked = run("check", "--config", folder)
    assert (checked.exit_code, why in checked.stderr) == (78, True)


def test_settings_that_cannot_be_read_hide_no_installed_command(tmp_path: Path) -> None:
    folder = write(tmp_path, {"orchestratord.yaml": "plugins: {dirs: ["})
    env = {"ORCHESTRATORD_CONFIG": str(folder)}
    assert "Show a daemon at work" in run("demo", "--help", env=env).stdout


def test_marks_are_needed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, greet=GREET.replace("@hookimpl", ""))
    assert "No such command 'greet'" in run("greet", "--config", folder).stderr
