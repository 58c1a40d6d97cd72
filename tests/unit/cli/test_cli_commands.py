"""The commands of `orchestratord` that need no daemon."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from orchestratord.cli.main import LazyCommands, main

EXAMPLE = Path(__file__).parents[3] / "config"

GOOD = {
    "apis/shop/api.yaml": "base_url: https://shop.example.com\n",
    "apis/shop/endpoints/getOrder.yaml": "path: /orders\n",
}


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# -- main ----------------------------------------------------------------------------------------


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert importlib.metadata.version("orchestratord") in result.stdout


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in main.commands:
        assert f"\n  {name} " in result.stdout


def every_command() -> Iterator[tuple[str, click.Command]]:
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())
        else:
            yield name, command


def test_every_command_takes_config() -> None:
    commands = dict(every_command())
    assert {"run", "check", "schema", "plugins", "demo", "init", "doctor"} <= set(commands)
    assert {"new endpoint", "new plugin"} <= set(commands)
    for name, command in commands.items():
        options = {option for param in command.params for option in param.opts}
        assert "--config" in options, name


def test_help_and_completion_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\n"
        "from orchestratord.cli.main import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert [main.commands[name].get_short_help_str() for name in main.commands]\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "httpx", "jinja2", "peewee", "yaml"} & set(done.stdout.split())


def test_a_command_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, orchestratord.cli.main\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "orchestratord.cli.inspect.check_command" not in done.stdout.split()


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


# -- check ---------------------------------------------------------------------------------------


def test_check_of_the_example() -> None:
    result = run("check", "--config", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{EXAMPLE} is good: 3 APIs, 7 endpoints\n"
    assert result.stderr == ""


def test_check_reports_every_error_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(
        tmp_path,
        {
            "orchestratord.yaml": "log: {level: loud}\n",
            "apis/shop/endpoints/a.yaml": "path: /a\nretry:\n  backoff: expo\n",
            "apis/shop/endpoints/b.yaml": "pth: /b\n",
        },
    )
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 78
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert any(line.startswith("orchestratord.yaml:1:7: log.level: ") for line in lines)
    assert (
        "apis/shop/endpoints/a.yaml:3:3: retry.backoff: unknown strategy 'expo', "
        "did you mean 'exponential'?"
    ) in lines
    assert any(line.startswith("apis/shop/endpoints/b.yaml:1:1: pth: ") for line in lines)
    errors = [line for line in lines if re.match(r"(orchestratord|apis/.*)\.yaml:", line)]
    assert lines[-1] == f"{len(errors)} errors"


def test_check_in_json(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    result = run("check", "--config", tmp_path, "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "problems": [], "apis": 1, "endpoints": 1}

    write(tmp_path, {"apis/shop/endpoints/getOrder.yaml": "path: /a\nretry: {backoff: expo}\n"})
    result = run("check", "--config", tmp_path, "-o", "json")
    assert result.exit_code == 78
    document = json.loads(result.stdout)
    assert document["ok"] is False
    (problem,) = document["problems"]
    assert problem["file"] == "apis/shop/endpoints/getOrder.yaml"
    assert (problem["line"], problem["key"]) == (2, "retry.backoff")
    assert problem["severity"] == "error"
    assert problem["message"] in result.stderr


def test_check_shows_warnings_and_is_content(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(
        tmp_path,
        {
            "apis/shop/api.yaml": "base_url: https://shop.example.com\nauth: {bearer: abcdefgh}\n",
            "orchestratord.yaml": "plugins: {dirs: [plugins], disabled: [nobody]}\n",
            "plugins/broken.py": "raise RuntimeError('no\\nway')\n",
        },
    )
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 0
    assert "1 API, 1 endpoint; 3 warnings" in result.stdout
    lines = result.stderr.splitlines()
    assert sum(line.startswith("warning: ") for line in lines) == 3
    assert any(
        "the plugin broken cannot be loaded: RuntimeError: no\\nway" in line for line in lines
    )
    assert any("'nobody'" in line for line in lines)
    assert "abcdefgh" not in result.output


def test_check_knows_where_requests_may_go(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, {"apis/shop/api.yaml": "base_url: http://127.0.0.1:9\n"})
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 0
    assert "warning: apis/shop/api.yaml:1:1: base_url: 127.0.0.1 is a loopback" in result.stderr
    assert "egress: {allow: [127.0.0.1:9]}" in result.stderr

    write(tmp_path, {"orchestratord.yaml": "egress: {allow: [127.0.0.1:9]}\n"})
    assert run("check", "--config", tmp_path).stderr == ""

    write(tmp_path, {"orchestratord.yaml": "egress: {allow: [localhost]}\n"})
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 78
    assert "orchestratord.yaml:1:18: egress.allow.0: 'localhost' is not a rule" in result.stderr


def test_check_names_two_plugins_that_claim_one_name(tmp_path: Path) -> None:
    plugin = (
        "from orchestratord import Backoff, hookimpl\n"
        "class Mine(Backoff):\n    def seconds(self, n): return 1\n"
        "@hookimpl\ndef register_backoff(): return {'linear': Mine}\n"
    )
    write(tmp_path, GOOD)
    write(
        tmp_path,
        {"orchestratord.yaml": "plugins: {dirs: [plugins]}\n", "plugins/mine.py": plugin},
    )
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 78
    assert "'linear' is registered by backoff and by mine" in result.stderr


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


# -- schema --------------------------------------------------------------------------------------


def schema(file: str) -> dict[str, Any]:
    result = run("schema", file, "--config", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    return document


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("endpoint", "apis/*/endpoints/*.yaml"),
        ("api", "apis/*/api.yaml"),
        ("daemon", "orchestratord.yaml"),
    ],
)
def test_the_example_fits_the_schema(file: str, pattern: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(file))
    paths = sorted(EXAMPLE.glob(pattern))
    assert paths
    for path in paths:
        validator.validate(yaml.safe_load(path.read_text()))


def test_the_schema_refuses_what_check_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema("endpoint"))
    assert not validator.is_valid({"path": "/a", "retry": {"max_attempts": "many"}})
    assert not validator.is_valid({"path": "/a", "no_such_key": 1})


def test_the_schema_has_the_keys_of_plugins() -> None:
    assert "webhooks" in json.dumps(schema("endpoint"))


# -- plugins -------------------------------------------------------------------------------------


def test_plugins_in_json(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "orchestratord.yaml": "plugins: {dirs: [plugins], disabled: [backoff]}\n",
            "plugins/mine.py": (
                "from orchestratord import hookimpl\n@hookimpl\ndef on_success(task): return []\n"
            ),
            "plugins/broken.py": "1/0\n",
        },
    )
    result = run("plugins", "--config", tmp_path, "-o", "json")
    assert result.exit_code == 0
    found = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    assert found["webhooks"]["status"] == "loaded"
    assert found["webhooks"]["version"] == importlib.metadata.version("orchestratord")
    assert "announce" in found["webhooks"]["hooks"]
    assert found["backoff"]["status"] == "disabled"
    assert found["mine"]["hooks"] == ["on_success"]
    assert found["mine"]["source"] == str(tmp_path / "plugins" / "mine.py")
    assert found["broken"]["status"] == "failed"
    assert found["broken"]["error"] == "ZeroDivisionError: division by zero"
    assert "the plugin broken cannot be loaded" in result.stderr


def test_plugins_as_a_table(tmp_path: Path) -> None:
    result = run("plugins", "--config", tmp_path, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["PLUGIN", "VERSION", "STATUS", "SOURCE", "HOOKS"]
    assert any(row.startswith("webhooks ") and "loaded" in row for row in rows)
    assert "register_backoff" in result.stdout


# -- run -----------------------------------------------------------------------------------------


def test_run_refuses_a_bad_configuration(tmp_path: Path) -> None:
    write(tmp_path, {"apis/shop/endpoints/a.yaml": "pth: /a\n"})
    done = subprocess.run(
        [sys.executable, "-m", "orchestratord", "run", "--config", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert "apis/shop/endpoints/a.yaml:1:1: pth: " in done.stderr
