"""The command `orchestratord` itself, what all commands have in common, and `run`."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestratord.cli.main import LazyCommands, main
from tests.unit.cli.cli_parts import GOOD, run, write


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert importlib.metadata.version("orchestratord") in result.stdout


@pytest.mark.parametrize(
    ("words", "first", "command"),
    [
        ("explain", "Missing argument 'ENDPOINT'.", "main explain"),
        ("check --nope", "No such option", "main check"),
        ("expl", "No such command 'expl'", "main"),
        ("--nope", "No such option", "main"),
        ("config nope", "No such command 'nope'", "main config"),
        ("check -o xml", "'xml' is not one of", "main check"),
    ],
)
def test_an_error_of_usage_is_two_lines(words: str, first: str, command: str) -> None:
    result = run(*words.split())  # which calls the program `main`
    assert (result.exit_code, result.stdout) == (2, "")
    said, see = result.stderr.splitlines()
    assert said.startswith(f"{command}: ")
    assert first in said
    assert see == f"See: {command} --help"


def test_a_group_without_a_command_shows_its_help() -> None:
    result = run("config")
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in main.list_commands(click.Context(main)):
        assert f"\n  {name} " in result.stdout


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())
        else:
            yield name, command


def test_every_command_takes_config() -> None:
    commands = dict(every_command())
    assert {"run", "check", "schema", "plugins", "demo", "init", "doctor"} <= set(commands)
    assert {"new endpoint", "new plugin", "import openapi"} <= set(commands)
    for name, command in commands.items():
        options = {option for param in command.params for option in param.opts}
        assert "--config" in options, name


def test_help_and_completion_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\n"
        "from orchestratord.cli.main import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert [main.commands[name].get_short_help_str() for name in main.commands]\n"
        "assert 'orchestratord_demo.demo_command' in sys.modules\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pydantic", "httpx", "jinja2", "peewee", "yaml", "orchestratord.values.world"}
    assert not heavy & set(done.stdout.split())


def loaded_by_check(folder: Path) -> set[str]:
    code = (
        "import sys\nfrom click.testing import CliRunner\n"
        "from orchestratord.cli.main import main\n"
        f"done = CliRunner().invoke(main, ['check', '--config', {str(folder)!r}])\n"
        "assert done.exit_code == 0, done.output\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_check_loads_no_database_and_no_server(tmp_path: Path) -> None:
    (tmp_path / "apis").mkdir()
    (tmp_path / "plugins").mkdir()
    loaded = loaded_by_check(tmp_path)
    assert not {"peewee", "psycopg", "uvicorn", "starlette", "orchestratord.api"} & loaded
    assert not [name for name in loaded if name.endswith("_command") and "orchestratord_" in name]
    (tmp_path / "plugins/own.py").write_text("")
    (tmp_path / "orchestratord.yaml").write_text("plugins: {dirs: [plugins]}\n")
    loaded = loaded_by_check(tmp_path)
    asked = {"orchestratord_webhooks.routes", "orchestratord_dashboard.page_renderer"}
    assert asked < loaded  # for their routes, which another plugin may have as well
    assert "orchestratord_demo.demo_command" in loaded
    assert not {"peewee", "psycopg", "uvicorn", "orchestratord.api.service"} & loaded


def test_a_command_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, orchestratord.cli.main\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "orchestratord.cli.inspect.check_command" not in done.stdout.split()


def test_a_command_of_the_core_looks_for_no_plugin() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\n"
        "from orchestratord.cli.main import main\n"
        "for words in (['--version'], *([name, '--help'] for name in main.commands)):\n"
        "    assert CliRunner().invoke(main, words).exit_code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "orchestratord.cli.plugin_commands" not in loaded
    assert not [name for name in loaded if name.startswith("orchestratord_")]


def test_commands_are_a_mapping() -> None:
    commands = LazyCommands({"check": "inspect.check_command"})
    commands["other"] = main.commands["run"]
    assert (sorted(commands), len(commands)) == (["check", "other"], 2)
    assert commands["check"] is main.commands["check"]
    assert commands["other"] is main.commands["run"]
    del commands["other"]
    assert "other" not in commands


def test_usage_errors_exit_with_2() -> None:
    assert run("no-such-command").exit_code == 2
    assert run("schema", "no-such-file").exit_code == 2
    assert run("check", "-o", "xml").exit_code == 2


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestratord", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("orchestratord, version ")


def test_the_folder_comes_from_the_environment(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", GOOD), write(tmp_path / "second", GOOD)
    env = {"ORCHESTRATORD_CONFIG": str(first), "CONFIGURATION_DIRECTORY": str(second)}
    assert str(first) in run("check", env=env).stdout
    assert str(second) in run("check", env={**env, "ORCHESTRATORD_CONFIG": ""}).stdout
    assert str(second) in run("check", "--config", second, env=env).stdout


def test_a_missing_folder(tmp_path: Path) -> None:
    result = run("check", "--config", tmp_path / "nowhere")
    assert result.exit_code == 78
    assert str(tmp_path / "nowhere") in result.stderr


def test_run_refuses_a_bad_configuration(tmp_path: Path) -> None:
    write(tmp_path, {"apis/shop/endpoints/a.yaml": "pth: /a\n"})
    done = subprocess.run(
        [sys.executable, "-m", "orchestratord", "run", "--config", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert "apis/shop/endpoints/a.yaml:1:1: pth: " in done.stderr
