"""`check`: each error is one clear line, with its place."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestratorctl.formats import excerpt
from orchestratord.cli.main import main
from orchestratord.errors import Problem
from tests.unit.cli.cli_parts import EXAMPLE, GOOD, run, write

BAD = "path: /x\nretry:\n  backoff: expo\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    endpoints = tmp_path / "apis/shop/endpoints"
    endpoints.mkdir(parents=True)
    (endpoints.parent / "api.yaml").write_text("base_url: https://api.example.com\n")
    (endpoints / "get.yaml").write_text(BAD)
    return tmp_path


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["check", "--config", str(folder), *options])


def drawn(problem: Problem) -> list[str]:
    found = excerpt(problem.source, problem.line, problem.column, problem.hint)
    return [line for _, line in found]


def test_the_first_line_is_for_editors_and_then_comes_the_place(folder: Path) -> None:
    ended = check(folder)
    assert ended.exit_code == 78
    assert ended.stderr.splitlines() == [
        "apis/shop/endpoints/get.yaml:3:3: retry.backoff: unknown strategy 'expo', "
        "did you mean 'exponential'?",
        "    3 |   backoff: expo",
        "      |   ^~~~~~~",
        "      = known are exponential, fixed, linear, list",
        "1 error",
    ]
    assert ended.stdout == ""


def test_no_colour_without_a_terminal(folder: Path) -> None:
    assert "\x1b" not in check(folder).output


def test_the_json_holds_all_of_it(folder: Path) -> None:
    (problem,) = json.loads(check(folder, "-o", "json").stdout)["problems"]
    assert problem == {
        "message": "unknown strategy 'expo', did you mean 'exponential'?",
        "file": "apis/shop/endpoints/get.yaml",
        "line": 3,
        "column": 3,
        "key": "retry.backoff",
        "severity": "error",
        "hint": "known are exponential, fixed, linear, list",
        "source": "  backoff: expo",
    }


def test_github_gets_annotations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "apis/shop/api.yaml").write_text("base_url: http://127.0.0.1\n")
    ended = check(folder, "-o", "github")
    assert ended.exit_code == 78
    name = folder.name
    assert ended.stdout.splitlines() == [
        f"::error file={name}/apis/shop/endpoints/get.yaml,line=3,col=3,title=retry.backoff::"
        "retry.backoff: unknown strategy 'expo', did you mean 'exponential'?"
        "%0Aknown are exponential, fixed, linear, list",
        f"::warning file={name}/apis/shop/api.yaml,line=1,col=1,title=base_url::base_url: "
        "127.0.0.1 is a loopback address; to allow it, add  egress: {allow: [127.0.0.1:80]}",
    ]


def test_what_means_something_to_github_is_escaped(folder: Path) -> None:
    (folder / "apis/shop/endpoints/get.yaml").write_text(
        "path: /x\nquery: {'a:b,c%0A::error::d': '{{ nope }}'}\n"
    )
    (line,) = check(folder, "-o", "github").stdout.splitlines()
    assert line.startswith(f"::error file={folder}/apis/shop/endpoints/get.yaml,line=2,col=9,")
    title = "query.a%3Ab%2Cc%250A%3A%3Aerror%3A%3Ad"
    assert f",title={title}::query.a:b,c%250A::error::d: 'nope' is not known" in line


def test_a_problem_without_a_place_has_no_line_of_a_file() -> None:
    assert drawn(Problem("is gone", "orchestratord.yaml")) == []
    assert drawn(Problem("is gone", hint="look")) == ["      = look"]


@pytest.mark.parametrize(
    ("line", "column", "lines"),
    [
        ("\tkey: x", 2, ["    7 | \tkey: x", "      | \t^~~"]),
        ("日本: k: x", 5, ["    7 | 日本: k: x", "      |       ^"]),
        ("key:", 9, ["    7 | key:", "      |         ^"]),
    ],
)
def test_the_caret_stands_below_its_place(line: str, column: int, lines: list[str]) -> None:
    assert drawn(Problem("bad", "f.yaml", 7, column, source=line)) == lines


def test_of_a_long_line_the_part_is_shown_that_matters() -> None:
    line = "x" * 150 + " here: " + "y" * 150
    source, caret = drawn(Problem("bad", "f.yaml", 7, 152, source=line))
    assert len(source) == 80
    assert source[caret.index("^") :].startswith("here")
    assert "…" in source[: caret.index("^")]
    assert source.endswith("…")


GET = "apis/shop/endpoints/get.yaml"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        (GET, "pth: /x\npath: /x\n", f"{GET}:1:1: pth: unknown key, did you mean 'path'?"),
        (GET, "path: /x\ntimeout: []\n", f"{GET}:2:1: timeout: [] is not a duration: write 500ms,"),
        (GET, BAD, f"{GET}:3:3: retry.backoff: unknown strategy 'expo', did you mean 'expone"),
        (
            GET,
            "path: /x\nwebhooks: [{phase: after_requst, url: 'https://a.example/'}]\n",
            f"{GET}:2:13: webhooks.0.phase: unknown phase 'after_requst', did you mean 'after_r",
        ),
        (
            GET,
            "path: /x\nwebhooks:\n"
            "- {phase: before_request, status_code: 200, url: 'https://a.example/'}\n",
            f"{GET}:3:27: webhooks.0.status_code: before_request comes before there is a status c",
        ),
        (GET, "path: /{{ parms.id }}\n", f"{GET}:1:1: path: 'parms' is not known in a template, d"),
        (
            GET,
            "path: /${NOT_SET}\n",
            f"{GET}:1:1: path: the environment variable NOT_SET is not se",
        ),
        ("apis/shop/endpoints/get.yml", "path: /x\n", "apis/shop/endpoints/get.yml: the same end"),
        (GET, b"path: /\xff\n", f"{GET}:1:8: is not UTF-8 here; save the file as UTF-8"),
        (GET, "path: /x\npath: /y\n", f"{GET}:2:1: path: stands here twice, first in line 1; keep"),
        (GET, BOMB, f"{GET}:6:29: f.7: the aliases repeat too much; write it out, or share"),
        (
            GET,
            "path: /x\nbody: {json: {{ params }}}\nmethod: POST\n",
            f"{GET}:2:15: body.json: a template needs",
        ),
    ],
)
def test_each_mistake_is_one_clear_line(
    folder: Path, file: str, content: str | bytes, line: str
) -> None:
    (folder / GET).write_text("path: /x\n")
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = check(folder)
    assert ended.exit_code == 78
    shown = ended.stderr.splitlines()
    assert shown[0].startswith(line)
    assert shown[-1] == "1 error"
    assert all(re.match(r" +(\d+ )?[|=] ", below) for below in shown[1:-1])


def test_a_file_of_100_mb_is_one_clear_line(folder: Path) -> None:
    with (folder / GET).open("wb") as file:
        file.truncate(100_000_000)
    assert check(folder).stderr.splitlines() == [
        f"{GET}: larger than 1048576 bytes (1 MiB): split it",
        "1 error",
    ]


def test_a_template_of_a_webhook_is_read_though_something_else_is_wrong(folder: Path) -> None:
    (folder / GET).write_text(
        "path: /x\nmethod: GTE\nheaders: {X: '${NOT_SET}'}\nwebhooks:\n"
        "- {phase: on_success, url: 'https://a.example/', payload: {a: '{{ statuscode }}'}}\n"
    )
    errors = [line for line in check(folder).stderr.splitlines() if line.startswith(GET)]
    assert [error.split(": ")[1] for error in errors] == [
        "method", "headers.X", "webhooks.0.payload"
    ]  # fmt: skip


def test_an_address_that_egress_denies_is_a_warning(folder: Path) -> None:
    (folder / GET).write_text(
        "path: /x\nwebhooks:\n- {phase: on_success, url: 'http://169.254.169.254/x'}\n"
    )
    ended = check(folder)
    assert ended.exit_code == 0
    (first, *_) = ended.stderr.splitlines()
    assert first.startswith(f"warning: {GET}:3:23: webhooks.0.url: 169.254.169.254 is ")


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
            "orchestratord.yaml": (
                "plugins: {dirs: [p], disabled: [nobody], optional: [broken]}\n"
            ),
            "p/broken.py": "raise RuntimeError('no\\nway')\n",
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


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can come to, as those of pytest are not."""
    path = Path(tempfile.mkdtemp(prefix="check-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_what_every_user_can_change_is_warned_of(public: Path) -> None:
    folder = write(public / "config", GOOD)
    (folder / "apis/shop/api.yaml").chmod(0o666)
    (folder / "apis/shop/endpoints").chmod(0o777)
    ended = check(folder)
    assert ended.exit_code == 0
    assert [line.partition("; ")[0] for line in ended.stderr.splitlines()] == [
        "warning: apis/shop/api.yaml: every user can change it",
        "warning: apis/shop/endpoints: every user can change it",
    ]
    assert "2 warnings" in ended.stdout


BROKEN = "from orchestratord import hookimpl\n\n\n@hookimpl\ndef on_success(tsk): ...\n"


@pytest.mark.parametrize("place", ["plugins", "../beside"])
def test_a_plugin_that_does_not_load_is_an_error(tmp_path: Path, place: str) -> None:
    files = {**GOOD, "orchestratord.yaml": f"plugins: {{dirs: [{place}]}}\n"}
    folder = write(tmp_path / "config", {**files, f"{place}/guard.py": BROKEN})
    ended = check(folder)
    assert ended.exit_code == 78
    file = "plugins/guard.py" if place == "plugins" else str(tmp_path / "beside/guard.py")
    assert ended.stderr.splitlines()[0].endswith(
        f"{file}:4:1: the plugin guard cannot be loaded: on_success has no argument 'tsk', did you "
        "mean 'task'?; correct it, or name it in plugins.disabled or plugins.optional"
    )
    write(folder, {"orchestratord.yaml": f"plugins: {{dirs: [{place}], optional: [guard]}}\n"})
    ended = check(folder)
    assert ended.exit_code == 0
    assert ended.stderr.startswith("warning: ")
    assert "the daemon goes without it" in ended.stderr


@pytest.mark.parametrize("name", ["gone", "x" * 300], ids=["no such", "too long"])
def test_a_folder_of_plugins_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    text = f"plugins:\n  dirs:\n    - {name}\n  optional: [nothing]\n"
    folder = write(tmp_path / "config", {**GOOD, "orchestratord.yaml": text})
    ended = check(folder)
    assert ended.exit_code == 78
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("orchestratord.yaml:3:7: plugins.dirs.0: there is no folder ")
    assert any("no plugin 'nothing' is installed" in line for line in lines)


def test_a_socket_whose_path_is_too_long_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, {"orchestratord.yaml": f"control_socket: /run/{'x' * 120}\n"})
    result = run("check", "--config", tmp_path)
    assert result.exit_code == 78
    assert "orchestratord.yaml:1:1: control_socket: the path /run/xxx" in result.stderr
    assert "has 125 bytes, and that of a socket at most 107" in result.stderr

    # Relative to the config folder, and by default: it is the whole path that counts.
    write(tmp_path, {"orchestratord.yaml": f"control_socket: {'x' * 100}\n"})
    assert "at most 107" in run("check", "--config", tmp_path).stderr
    write(tmp_path, {"orchestratord.yaml": "{}\n"})
    session = {"XDG_RUNTIME_DIR": f"/run/{'y' * 100}", "RUNTIME_DIRECTORY": ""}
    result = run("check", "--config", tmp_path, env=session)
    assert result.exit_code == 78
    assert "set control_socket to a shorter one" in result.stderr


SECRETS = {
    "apis/shop/api.yaml": """\
base_url: ${secret:SHOP_URL}/v1
auth: {bearer: "${SHOP_TOKEN}"}
tls: {cert: client.pem, key: "${credential:shop_key}"}
proxy: ${file:/run/secrets/proxy}
""",
    "apis/shop/endpoints/getOrder.yaml": """\
path: /orders/{{ params.id }}
params: {id: {required: true}}
headers: {X-Key: "${secret:SHOP_KEY}"}
webhooks:
  - {name: ops, phase: after_request, url: "${credential:hook_url}", secret: "${secret:HOOK}"}
tests:
  - {params: {id: 7}, answer: {status_code: 200}, expect: {outcome: succeeded}}
""",
    "orchestratord.yaml": """\
http: {token: "${credential:token}", read_token: "${credential:read_token}"}
databases: {warehouse: {url: "${secret:WAREHOUSE}"}}
database: ${secret:QUEUE}
""",
}


@pytest.mark.parametrize("command", ["check", "test"])
def test_a_pull_request_is_checked_without_its_secrets(tmp_path: Path, command: str) -> None:
    write(tmp_path, SECRETS)
    refused = run(command, "--config", tmp_path)
    assert refused.exit_code == 78
    assert "SHOP_KEY is not set" in refused.stderr

    result = run(command, "--pretend-secrets", "--config", tmp_path)
    assert result.exit_code == 0, result.output
    for name in ("${secret:SHOP_URL}", "${SHOP_TOKEN}", "${credential:shop_key}", "${secret:HOOK}"):
        assert name in result.stderr
    assert "note: pretended, not checked: $" in result.stderr

    # What is not about a secret is an error as ever.
    write(tmp_path, {"apis/shop/api.yaml": "base_url: https://${HOST}/\nretry: {backoff: expo}\n"})
    result = run(command, "--pretend-secrets", "--config", tmp_path)
    assert result.exit_code == 78
    assert "the environment variable HOST is not set" in result.stderr
    assert "did you mean 'exponential'?" in result.stderr


def test_a_secret_that_is_there_is_not_pretended(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, {"orchestratord.yaml": 'http: {token: "${secret:TOKEN}"}\n'})
    given = run("check", "--pretend-secrets", "--config", tmp_path, env={"TOKEN": "k\u00e4se" * 9})
    assert given.exit_code == 78
    assert "http.token: expected letters, digits and signs of ASCII" in given.stderr
    assert "pretended" not in given.stderr
