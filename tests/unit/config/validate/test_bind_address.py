"""`http` in orchestratord.yaml: what it may say, and what a reload does with it."""

from __future__ import annotations

import pytest
from config_parts import ConfigFolder

from orchestratord.config.loader import Loader
from orchestratord.config.validate.bind_address import allowed_hosts, parse_bind
from orchestratord.errors import ConfigError

TOKEN = "${secret:TOKEN}"
VALUES = {"TOKEN": "the-token-of-the-operators", "READ": "the-token-of-the-spectators"}


@pytest.fixture
def config(config: ConfigFolder) -> ConfigFolder:
    config.environ |= VALUES
    return config


def test_it_is_off_where_it_is_missing(config: ConfigFolder) -> None:
    config.daemon("concurrency: 3\n")
    assert config.load().daemon.http is None
    config.daemon("http:\n")
    assert config.load().daemon.http is None


def test_defaults(config: ConfigFolder) -> None:
    config.daemon(f"http: {{token: '{TOKEN}'}}\n")
    loaded = config.load()
    http = loaded.daemon.http
    assert http is not None
    assert (http.bind, http.read_token, http.hosts) == ("127.0.0.1:8420", None, ())
    assert http.token.reveal() == VALUES["TOKEN"]
    assert loaded.warnings == ()
    assert loaded.redactor.text(VALUES["TOKEN"]) == "***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8420", ("127.0.0.1", 8420)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("127.0.0.1", 1)),
    ],
)
def test_binds(text: str, expected: tuple[str, int]) -> None:
    address, port = parse_bind(text)
    assert (str(address), port) == expected


@pytest.mark.parametrize(
    "text",
    ["", "8420", ":8420", "127.0.0.1", "127.0.0.1:", "::1:8420", "[::1]", "[127.0.0.1]:1",
     "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "example.com:80", "127.1:80",
     "[fe80::1%eth0]:80", "http://127.0.0.1:80", "127.0.0.1:٨", "*:80"],
)  # fmt: skip
def test_what_is_no_bind(config: ConfigFolder, text: str) -> None:
    config.daemon(f"http:\n  token: {TOKEN}\n  bind: '{text}'\n")
    with pytest.raises(ConfigError) as caught:
        config.load()
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (3, 3, "http.bind")
    assert "expected" in problem.message


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("http: {}\n", "http.token", "required"),
        ("http: {token: ''}\n", "http.token", "not empty"),
        ("http: {token: 'with a blank in it'}\n", "http.token", "ASCII"),
        ("http: {token: '123456789012345'}\n", "http.token", "needs 16 or more characters"),
        (f"http: {{token: '{TOKEN}', read_token: 'too-short'}}\n", "http.read_token", "guessed"),
        (f"http: {{token: '{TOKEN}', read_token: '{TOKEN}'}}\n", "http.read_token", "differ"),
        (f"http: {{token: '{TOKEN}', port: 1}}\n", "http.port", "unknown key"),
        (f"http: {{token: '{TOKEN}', hosts: [a, 'b c']}}\n", "http.hosts.1", "as browsers"),
        (f"http: {{token: '{TOKEN}', hosts: ['http://a']}}\n", "http.hosts.0", "as browsers"),
        (f"http: {{token: '{TOKEN}', hosts: ['*.a']}}\n", "http.hosts.0", "as browsers"),
    ],
)
def test_what_is_refused(config: ConfigFolder, text: str, key: str, message: str) -> None:
    config.daemon(text)
    with pytest.raises(ConfigError) as caught:
        config.load()
    found = {p.key: p.message for p in caught.value.problems if p.severity == "error"}
    assert message in found[key]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("bind: 0.0.0.0:8420, hosts: [queue.lan]", "http.bind", "nothing encrypts"),
        ("bind: 0.0.0.0:8420", "http.bind", "http.hosts"),
        ("bind: 10.1.2.3:8420", "http.bind", "nothing encrypts"),
        ("read_token: written-out-in-the-file", "http.read_token", "written out"),
    ],
)
def test_what_is_warned_of(config: ConfigFolder, text: str, key: str, message: str) -> None:
    config.daemon(f"http: {{token: '{TOKEN}', {text}}}\n")
    assert any(p.key == key and message in p.message for p in config.load().warnings)


def test_hosts() -> None:
    assert allowed_hosts((), "127.0.0.1", 8420) == {"127.0.0.1:8420", "localhost:8420"}
    assert allowed_hosts((), "::1", 80) == {"[::1]:80", "localhost:80", "[::1]", "localhost"}
    assert allowed_hosts(("Queue.LAN",), "127.0.0.1", 8420) == {"queue.lan"}


# -- reloads ---------------------------------------------------------------------------------------


def http(config: ConfigFolder, loader: Loader, text: str) -> tuple[object, ...]:
    """Reload with this; (restart_required, bind, token, hosts) then."""
    config.daemon(text)
    result = loader.reload("x")
    assert result.problems == ()
    assert not any(value in repr(result.differences) for value in VALUES.values())
    found = result.config.daemon.http
    if found is None:
        return (result.restart_required, None)
    return (result.restart_required, found.bind, found.token.reveal(), found.hosts)


def test_a_reload_changes_all_but_bind(config: ConfigFolder) -> None:
    config.daemon(f"http: {{token: '{TOKEN}', bind: '127.0.0.1:1'}}\n")
    loader = Loader(config.path, config.host, environ=config.environ)
    token, other = VALUES["TOKEN"], VALUES["READ"]
    text = "http: {token: '${secret:READ}', bind: '127.0.0.1:2', hosts: [a]}\n"
    assert http(config, loader, text) == (("http.bind",), "127.0.0.1:1", other, ("a",))
    text = "http: {token: '${secret:READ}', bind: '127.0.0.1:1'}\n"
    assert http(config, loader, text) == ((), "127.0.0.1:1", other, ())
    # What is gone goes on as it was: it could not be asked for otherwise.
    assert http(config, loader, "log: {level: debug}\n") == (
        ("http.bind",), "127.0.0.1:1", other, ()
    )  # fmt: skip
    text = f"http: {{token: '{TOKEN}', bind: '127.0.0.1:1'}}\n"
    assert http(config, loader, text) == ((), "127.0.0.1:1", token, ())


def test_what_was_off_stays_off(config: ConfigFolder) -> None:
    loader = Loader(config.path, config.host, environ=config.environ)
    assert http(config, loader, f"http: {{token: '{TOKEN}'}}\n") == (("http.bind",), None)
