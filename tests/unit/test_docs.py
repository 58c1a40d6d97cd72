"""The documentation is whole and true: hooks, commands, keys, links, and every example."""

from __future__ import annotations

import base64
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import click
import pytest
import trustme
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import orchestratord
from orchestratorctl.verb_table import VERBS
from orchestratord import Outcome, Secret, SendError
from orchestratord.cli.main import main
from orchestratord.config.load import load
from orchestratord.daemon.bootstrap import ADDRESSES, open_host
from orchestratord.errors import SendErrorKind
from orchestratord.model.task import Reason
from orchestratord.plugin import hookspecs
from orchestratord.queue.daemon_health import Code
from orchestratord.testing import Rig
from scripts.docs import site_hooks
from scripts.docs.package_readme import package_readme

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
LOOSE = ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CODE_OF_CONDUCT")
PAGES = [*(ROOT / f"{name}.md" for name in LOOSE), *DOCS]
PLUGINS = ROOT / "docs" / "plugins.md"
COMMANDS = ROOT / "docs" / "commands.md"

HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "orchestratord_spec")]
DATABASE = '{url: "sqlite:///warehouse.db"}'
VARIABLES = {
    "SALESFORCE_TOKEN": "a-token-of-salesforce",
    "BILLING_PASSWORD": "a-password",
    "CRM_TOKEN": "a-token-of-the-crm",
    "SLACK_HOOK": "T000/B000/XXXXXXXX",
}
CREDENTIALS = (
    "api_token", "api_read_token", "oauth2_secret", "ops_hook", "ops_new", "ops_old", "pager",
    "proxy_password", "salesforce_secret", "slack", "stripe", "subscriptions_key",
)  # fmt: skip


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        text = page.read_text()
        for match in fence.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page.name, line, match[1], match[2]))
    return [block for block in found if block.language == language]


def prose() -> str:
    return "\n".join(page.read_text() for page in DOCS)


def chapter(page: Path, title: str) -> str:
    """What stands below a heading, up to the next one."""
    match = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^#+ |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"{page.name} has no chapter {title!r}"
    return match[2]


# -- hooks ---------------------------------------------------------------------------------------


def test_all_hooks_are_known_here() -> None:
    assert sorted(HOOKS) == sorted(hookspecs.HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_an_example(hook: str) -> None:
    text = chapter(PLUGINS, hook)
    spec = getattr(hookspecs, hook)
    arguments = spec.__code__.co_varnames[: spec.__code__.co_argcount]
    signature = re.search(rf"^    {hook}\((.*?)\)\s+-> ", text, re.MULTILINE | re.DOTALL)
    assert signature is not None, f"the chapter {hook} lacks the signature"
    assert re.findall(r"(\w+)(?:: [^,]+\]?)?(?:,|$)", _without_brackets(signature[1])) == list(
        arguments
    )
    example = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert example is not None, f"the chapter {hook} lacks an example"
    assert re.search(rf"@hookimpl\n(async )?def {hook}\(", example[1])


def _without_brackets(text: str) -> str:
    while "[" in text:
        text = re.sub(r"\[[^\[\]]*\]", "", text)
    return text


def test_every_hook_has_a_test_that_bears_its_name() -> None:
    names = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    assert [hook for hook in HOOKS if not any(hook in name for name in names)] == []


@pytest.mark.parametrize("kind", [Outcome, SendError, Secret], ids=lambda kind: kind.__name__)
def test_what_hooks_work_with_is_documented(kind: type) -> None:
    text = chapter(PLUGINS, kind.__name__)
    names = {name for name in vars(kind) if not name.startswith("_")} - {"json_schema", "parse"}
    names |= set(inspect.signature(kind).parameters) - {"value"}
    assert len(names) > 0
    missing = {name for name in names if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)}
    assert not missing
    if kind is SendError:
        assert all(f"`{word}`" in text for word in get_args(SendErrorKind))


def test_every_name_of_the_public_face_is_documented() -> None:
    text = PLUGINS.read_text()
    code = re.findall(r"^```python\n.*?^```$|`[^`\n]+`", text, re.DOTALL | re.MULTILINE)
    words = set(re.findall(r"\w+", " ".join(code)))
    assert [name for name in orchestratord.__all__ if name not in words] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_example_is_a_plugin_that_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "example.py"
    path.parent.mkdir()
    path.write_text(block.text)
    # There is one editor alone, and an example takes its place.
    plugins = "plugins: {dirs: [plugins], disabled: [editor]}\n"
    (tmp_path / "orchestratord.yaml").write_text(plugins)
    info = open_host(tmp_path).plugins["example"]
    assert info.error is None
    hooks = set(re.findall(r"^@hookimpl\n(?:async )?def (\w+)", block.text, re.MULTILINE))
    assert set(info.hooks) == hooks


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_toml_example_can_be_read(block: Block) -> None:
    assert tomllib.loads(block.text)


def test_the_example_of_a_test_passes() -> None:
    (block,) = (item for item in blocks("python") if "orchestratord.testing" in item.text)
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    names["test_errors_are_failures"]()
    assert Rig(names["Plugin"]()).host.plugins["plugin"].hooks == ("after_request",)


def test_the_example_of_verifying_a_signature_is_right() -> None:
    (block,) = (item for item in blocks("python") if "def verify" in item.text)
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,bm90IHRoaXMgb25l v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert names["verify"](secret, headers, b'{"test": 2432232314}')
    assert not names["verify"](secret, headers, b'{"test": 2432232315}')
    other = base64.b64encode(b"another-secret-of-24-byte").decode()
    assert not names["verify"](other, headers, b'{"test": 2432232314}')


# -- commands ------------------------------------------------------------------------------------


def test_every_command_is_documented() -> None:
    text = COMMANDS.read_text()
    context = click.Context(main)
    known = {name: main.get_command(context, name) for name in main.list_commands(context)}
    commands = {name: command for name, command in known.items() if command is not None}
    for name, command in [*commands.items()]:
        if isinstance(command, click.Group):
            del commands[name]
            commands |= {f"{name} {inner}": one for inner, one in command.commands.items()}
    for name, command in commands.items():
        assert f"`orchestratord {name}" in text
        for param in command.params:
            if getattr(param, "hidden", False):
                continue  # one version asks another by it
            long = [option for option in param.opts if option.startswith("--")]
            names = [*param.opts, *([param.metavar] if param.metavar else [])]
            assert any(option in text for option in names), f"{name} {long}"


def test_every_verb_and_its_options_are_documented() -> None:
    text = chapter(COMMANDS, "orchestratorctl")
    for verb in VERBS:
        assert re.search(rf"^\| .*`{verb.name}[` ]", text, re.MULTILINE), f"{verb.name}"
        for one in (verb, *verb.verbs):
            assert re.search(rf"\b{one.name}\b", text), f"{verb.name} {one.name}"
            for option in (option for option in one.arguments if option.is_option):
                assert option.names[-1] in text, f"{verb.name} {option.names[-1]}"
    assert "`--socket PATH`" in text
    assert "`-o table|json|yaml`" in text


def test_every_verb_that_is_documented_exists() -> None:
    table = chapter(COMMANDS, "orchestratorctl").partition("| verb | |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| ", table.replace("\\|", "/"), re.MULTILINE)
    named = {code.split()[0] for row in rows for code in re.findall(r"`([^`]+)`", row)}
    assert named == {verb.name for verb in VERBS}


def test_exit_codes_are_documented() -> None:
    from orchestratorctl import exit_codes

    text = chapter(COMMANDS, "orchestratorctl")
    for name in ("OK", "FAILED", "USAGE", "NO_DAEMON", "NOT_FOUND", "CONFLICT", "TIMED_OUT"):
        assert f"\n| {getattr(exit_codes, name)} |" in text
    assert "\n| 78 |" in text


# -- keys ----------------------------------------------------------------------------------------


def keys_of(schema: Any, root: Any, seen: set[str] | None = None) -> Iterator[str]:
    """Every key that a JSON Schema knows, at any depth."""
    seen = set() if seen is None else seen
    if isinstance(schema, list):
        for item in schema:
            yield from keys_of(item, root, seen)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if reference and reference not in seen:
            seen.add(reference)
            target = root
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            yield from keys_of(target, root, seen)
        for name, value in schema.get("properties", {}).items():
            yield name
            yield from keys_of(value, root, seen)
        for name, value in schema.items():
            if name not in ("properties", "$ref", "$defs", "default", "examples"):
                yield from keys_of(value, root, seen)


@pytest.mark.parametrize("file", ["endpoint", "api", "daemon"])
def test_every_key_is_documented(file: str) -> None:
    result = CliRunner().invoke(main, ["schema", file, "--config", str(ROOT / "config")])
    schema = json.loads(result.stdout)
    keys = set(keys_of(schema, schema))
    assert len(keys) > 10
    code = "\n".join(re.findall(r"`[^`\n]+`", prose()))
    missing = sorted(key for key in keys if not re.search(rf"\b{re.escape(key)}\b", code))
    assert missing == []


# -- links ---------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def test_the_readme_is_short_and_leads_to_the_first_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 120
    assert "](docs/index.md)" in readme


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_the_first_page_and_the_menu_lead_to_every_page(page: Path) -> None:
    name = page.relative_to(ROOT / "docs").as_posix()
    assert name == "index.md" or f"]({name})" in (ROOT / "docs" / "index.md").read_text()
    assert re.search(
        rf"(?:- |: ){re.escape(name)}$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )


def test_what_can_go_wrong_has_a_place_in_troubleshooting() -> None:
    found = anchors(ROOT / "docs" / "troubleshooting.md")
    assert {str(reason) for reason in Reason} <= found
    assert {str(code) for code in Code} <= found


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        needed
        for extra, all_needed in project["optional-dependencies"].items()
        if extra != "test"
        for needed in all_needed
    ]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    for needed in [*project["dependencies"], *extras]:
        name = re.split(r"[<>=\[]", needed)[0]
        assert re.search(rf"\| {name}[ ,]", text), f"docs/dependencies.md has no line of {name}"


def test_the_locked_versions_are_those_that_the_tests_ran_with() -> None:
    pin = re.compile(r"^([\w-]+)==([\w.]+)", re.MULTILINE)
    ran = {
        (name.lower().replace("_", "-"), version)
        for name, version in pin.findall((ROOT / "constraints.txt").read_text())
    }
    locked = set(pin.findall((ROOT / "requirements.lock").read_text()))
    assert len(locked) > 20
    assert locked <= ran, "run: just lock"


def test_the_site_shows_pages_as_github_does() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/alerts.md"))
    text = "| `a\\|b` | `c` or \\| |\n`a\\|b` [x](../../README.md) [y](../api.md)"
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    assert site_hooks.on_page_markdown(text, page) == (
        f"| `a|b` | `c` or \\| |\n`a\\|b` [x]({source}/blob/main/README.md) [y](../api.md)"
    )


def test_links_of_the_readme_work_on_a_package_index() -> None:
    readme = (ROOT / "README.md").read_text()
    text = package_readme(readme, "https://git.test/x", "1.2.3")
    assert "](https://git.test/x/raw/v1.2.3/docs/images/overview.png)" in text
    assert "](https://git.test/x/blob/v1.2.3/docs/tutorial.md)" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", readme))
    assert all(re.match(r"https://|#", link) for link in links)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:orchestratord|orchestratorctl|plugins|tests|docs)/[\w/.-]+)`", (page.read_text())
    ):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


# -- words ---------------------------------------------------------------------------------------

GLOSSARY = ROOT / "docs" / "glossary.md"
OLD_WORDS = {
    "adoption": "reload",
    "by hand": "manually; manual retry",
    "claim(?:s|ed)? ahead": "prefetch",
    "complaints?": "problem",
    "forgo": "release",
    "gates?": "throttle",
    "hub": "event bus",
    "intake": "enqueue",
    "(?:asks?|asked) for patience|patience": "throttled; told by Retry-After",
    "pretence|pretended": "simulated",
    "prospects?": "simulated",
    "scoreboard": "stats",
    "standings": "placement",
    "suspects?": "poison candidate",
    "trials?": "test case",
    "verdicts": "outcome",
    "vigil": "service",
    "wait(?:ing|s)? lanes?|lanes? that waits?": "throttled lane",
    "what (?:it|they) caused": "child tasks",
    "withdrawn": "released",
}
"""What was said before, and the word of the glossary for it."""


def prose_of(text: str) -> str:
    """A page without its code, in which a name of a file or an option may hold any word."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"(`+).+?\1", "", text).split())


def old_words(text: str) -> list[str]:
    return [
        f"{found[0]}: write {instead}"
        for word, instead in OLD_WORDS.items()
        for found in re.finditer(rf"\b(?:{word})\b", text, re.IGNORECASE)
    ]


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    terms = re.findall(r"^## (.+)$", GLOSSARY.read_text(), re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(set(terms), key=str.casefold)
    for term in terms:
        assert chapter(GLOSSARY, term).strip(), f"{term} is not explained"


def test_pages_lead_to_the_glossary() -> None:
    pages = [page.name for page in DOCS if "](glossary.md" in page.read_text()]
    assert len(pages) > 10
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_words_of_the_glossary(page: Path) -> None:
    assert old_words(prose_of(page.read_text())) == []


def test_old_words_are_found() -> None:
    text = "It is retried by\nhand; `suspects` are not.\n```python\ngate = 1\n```\nPatience!\n"
    assert len(old_words(prose_of(text))) == 2


# -- examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_example_is_good(
    block: Block, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A block's first line names its file; `part of` means that more belongs to it."""
    match = re.match(r"# (part of )?([\w./-]+)\n", block.text)
    assert match is not None, f"{block} does not name its file"
    partial, name = match[1] is not None, match[2]
    for file in re.findall(r"\$\{file:(/var/lib/.*?)\}", block.text):
        _write(tmp_path, file[1:], "what the file holds")
        block = block._replace(text=block.text.replace(file, f"{tmp_path}{file}"))
    if "/srv/" in block.text:  # the folders that files are sent from, and saved to
        files = tmp_path_factory.mktemp("files")
        block = block._replace(text=block.text.replace("/srv/", f"{files}/"))
        for folder in ("scans", "reports"):
            (files / folder).mkdir()
        if name != "orchestratord.yaml":
            folders = f"{{read: [{files}/scans], write: [{files}/reports]}}"
            _write(tmp_path, "orchestratord.yaml", f"files: {folders}\n")
    _write(tmp_path, name, block.text)
    for folder in re.findall(r"\bdirs: \[([\w-]+)\]", block.text):
        (tmp_path / folder).mkdir()
    if "postgresql://" in block.text:
        pytest.importorskip("psycopg")
    page = "".join(other.text for other in blocks("yaml") if other.page == block.page)
    if "database:" in (page if "then:" in block.text else block.text):
        _write(tmp_path, "orchestratord.yaml", f"databases: {{warehouse: {DATABASE}}}\n")
    if "inbound:" in page and name != "orchestratord.yaml":
        _write(tmp_path, "orchestratord.yaml", "inbound: {bind: 127.0.0.1:8430}\n")
    if "subscribers:" in block.text:
        key = base64.b64encode(bytes(32)).decode()
        _write(tmp_path, "orchestratord.yaml", f"subscriptions: {{key: {key}}}\n")
    for file in re.findall(r"schema: \{file: ([\w./-]+)\}", page):
        _write(tmp_path, file, "{}")
    if partial and "/endpoints/" in name:
        _write(tmp_path, name, f"{block.text}\npath: /a\n")
    if "/endpoints/" in name:
        api = f"{name.split('/endpoints/')[0]}/api.yaml"
        # Where it may call a private address, the page's own file of the API says so.
        beside = [b.text for b in blocks("yaml") if b.page == block.page and "egress:" in b.text]
        of_page = [text for text in beside if text.startswith(f"# {api}\n")]
        _write(tmp_path, api, (of_page or ["base_url: https://a.test\n"])[0])
        if "then:" in block.text:  # what it calls stands beside it
            for other in blocks("yaml"):
                found = re.match(r"# ([\w./-]+/endpoints/[\w.-]+)\n", other.text)
                if other.page == block.page and found is not None and found[1] != name:
                    _write(tmp_path, found[1], other.text)
                    api = f"{found[1].split('/endpoints/')[0]}/api.yaml"
                    _write(tmp_path, api, "base_url: https://a.test\n")
    elif name.endswith("api.yaml"):
        _write(tmp_path, name.replace("api.yaml", "endpoints/x.yaml"), "path: /a\n")
        if partial:
            _write(tmp_path, name, f"{block.text}\nbase_url: https://a.test\n")
    if "plugins" not in block.text:
        for number, example in enumerate(blocks("python")):
            if "@hookimpl" in example.text and re.search(r"register_(\w+_)?settings", example.text):
                _write(tmp_path, f"plugins/example{number}.py", example.text)
        settings = tmp_path / "orchestratord.yaml"
        text = settings.read_text() if settings.exists() else ""
        settings.write_text(f"{text}\nplugins: {{dirs: [plugins]}}\n")
    for credential in CREDENTIALS:
        key = base64.b64encode(credential.ljust(32).encode()).decode()
        _write(tmp_path, f"credentials/{credential}", key)
    if "service_account_key" in block.text:
        _write(tmp_path, "credentials/service_account_key", signing_key())
    if "\ntls:" in block.text:
        authority = trustme.CA()
        client = authority.issue_cert("daemon.example")
        _write(tmp_path, "tls/ca.pem", authority.cert_pem.bytes().decode())
        _write(tmp_path, "tls/client.pem", client.cert_chain_pems[0].bytes().decode())
        _write(tmp_path, "tls/client.key", client.private_key_pem.bytes().decode())
    (tmp_path / "apis").mkdir(exist_ok=True)
    environ = {**VARIABLES, "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    config = load(tmp_path, open_host(tmp_path), environ=environ, addresses=ADDRESSES)
    assert config.warnings == ()


def signing_key() -> str:
    """An RSA key in PEM."""
    key = rsa.generate_private_key(65537, 2048)
    how = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.private_bytes(*how).decode()


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_every_json_example_is_json(block: Block) -> None:
    json.loads(block.text)


def test_the_readmes_commands_are_those_that_ci_runs() -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert ".venv/bin/pip install -q -c constraints.txt . && .venv/bin/orchestratord demo" in readme
    assert "pip install -q -c constraints.txt -e '.[test]' && .venv/bin/pytest" in readme
    assert "-c constraints.txt" in script
    assert "-e '.[test]'" in script
    assert 'bin/orchestratord" demo' in script
