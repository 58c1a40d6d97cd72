from __future__ import annotations

import os
from pathlib import Path

import pytest
from config_parts import ConfigFolder

from orchestratord.config.yaml.references import MAX_BYTES, References, Resolved
from orchestratord.values.template import Template

ENVIRON = {"NAME": "value", "EMPTY": "", "BRACES": "{{ params.x }} ${OTHER}", "LATIN": "\udce9"}


@pytest.fixture
def references(tmp_path: Path) -> References:
    (tmp_path / "hook").write_text("from a credential\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "lines").write_text("one\ntwo\r\n\n")
    os.mkfifo(tmp_path / "fifo")
    return References({**ENVIRON, "CREDENTIALS_DIRECTORY": str(tmp_path)})


def resolve(references: References, text: str) -> Resolved:
    found = references.resolve(text)
    assert found is not None
    return found


@pytest.mark.parametrize("text", ["", "plain", "$NAME", "$$", "100 $", "{NAME}", "{{ x }}"])
def test_texts_without_references(references: References, text: str) -> None:
    assert references.resolve(text) is None


@pytest.mark.parametrize(
    ("text", "expected", "secret"),
    [
        ("${NAME}", "value", False),
        ("a${NAME}b${NAME}", "avaluebvalue", False),
        ("${EMPTY}", "", False),
        ("${NAME:-other}", "value", False),
        ("${EMPTY:-other}", "other", False),
        ("${NOPE:-other}", "other", False),
        ("${NOPE:-}", "", False),
        ("${NOPE:-a:-b /c}", "a:-b /c", False),
        ("${secret:NAME}", "value", True),
        ("${credential:hook}", "from a credential", True),
        ("${credential:lines}", "one\ntwo", True),
        ("$${NAME}", "${NAME}", False),
        ("$${", "${", False),
        ("$$${NAME}", "$${NAME}", False),
        ("$$ ${NAME}", "$$ value", False),
        ("x $${secret:NAME} ${NAME}", "x ${secret:NAME} value", False),
        ("${BRACES}", "{{ params.x }} ${OTHER}", False),
    ],
)
def test_what_references_stand_for(
    references: References, text: str, expected: str, secret: bool
) -> None:
    found = resolve(references, text)
    assert found.problems == ()
    assert found.text == expected
    assert found.text.secret is secret
    assert found.text.source == text
    assert bool(found.secrets) is secret


def test_a_file_is_read(references: References, tmp_path: Path) -> None:
    found = resolve(references, f"Bearer ${{file:{tmp_path}/hook}}")
    assert found.text == "Bearer from a credential"
    assert found.text.parts == (("Bearer ", False), ("from a credential", True))
    assert found.secrets == ("from a credential",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${NOPE}", "the environment variable NOPE is not set; write ${NOPE:-default}"),
        ("${secret:NOPE}", "the environment variable NOPE is not set; set it for the daemon"),
        (
            "${secret:NAME:-x}",
            "${secret:…} needs the name of one environment variable, no default",
        ),
        ("${LATIN}", "the environment variable LATIN is not UTF-8"),
        ("${file:hook}", "${file:…} needs an absolute path, such as ${file:/run/secrets/x}"),
        (
            "${file:/no/such}",
            "${file:/no/such}: /no/such cannot be read: No such file or directory",
        ),
        ("${file:/dev/zero}", "${file:/dev/zero}: /dev/zero is not a file"),
        ("${file:/etc}", "${file:/etc}: /etc is not a file"),
        ("${credential:../hook}", "${credential:…} needs the plain name of a credential"),
        ("${credential:}", "${credential:…} needs the plain name of a credential"),
        (
            "${secrt:NAME}",
            "unknown kind of reference 'secrt', did you mean 'secret'?",
        ),
        (
            "${1X}",
            "this is not a reference: write ${NAME}, ${NAME:-default}, or $${ for the characters "
            "themselves",
        ),
        (
            "${}",
            "this is not a reference: write ${NAME}, ${NAME:-default}, or $${ for the characters "
            "themselves",
        ),
        ("a ${NAME", "'${' is not closed; write ${NAME}, or $${ for the characters themselves"),
    ],
)
def test_complaints(references: References, text: str, problem: str) -> None:
    assert resolve(references, text).problems == (problem,)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("empty", "is empty"),
        ("binary", "is not a text in UTF-8"),
        ("large", "is larger than 65536 bytes"),
        ("fifo", "is not a file"),
        ("missing", "cannot be read: No such file or directory"),
    ],
)
def test_credentials_that_are_no_text(
    references: References, tmp_path: Path, name: str, problem: str
) -> None:
    found = resolve(references, f"${{credential:{name}}}")
    assert found.problems == (f"${{credential:{name}}}: {tmp_path}/{name} {problem}",)


def test_there_are_no_credentials() -> None:
    found = resolve(References({}), "${credential:hook}")
    assert found.problems == (
        "${credential:hook}: there are no credentials, as $CREDENTIALS_DIRECTORY is not set; the "
        "unit needs LoadCredential=hook:/path",
    )


def test_every_problem_of_one_text_is_named(references: References) -> None:
    assert len(resolve(references, "${A} ${B} ${").problems) == 3


def test_a_value_is_never_read_as_a_template(references: References) -> None:
    template = Template(resolve(references, "${BRACES} {{ params.x }}").text)
    assert template.render({"params": {"x": 1}}) == "{{ params.x }} ${OTHER} 1"
    assert template.paths == {"params.x"}


# -- in files ----------------------------------------------------------------------------------


def test_values_take_the_type_of_their_key(config: ConfigFolder) -> None:
    config.environ = {
        "PORT": "7", "DELAY": "10s", "FLAG": "false", "CODE": "503", "RATE": "0.5", "NAME": "007",
        "LEVEL": "debug", "STRATEGY": "linear",
    }  # fmt: skip
    config.daemon("concurrency: ${PORT}\nlog: {level: '${LEVEL}'}\n")
    config.endpoint(
        """
        path: /${NAME}
        timeout: ${DELAY}
        enabled: ${FLAG}
        success: ["${CODE}"]
        retry: {max_attempts: "${PORT}", jitter: "${RATE}", backoff: "${STRATEGY}"}
        params:
          n: {type: integer, default: "${PORT}"}
          b: {type: boolean, default: "${FLAG}"}
          s: {type: string, default: "${NAME}"}
          any: {default: "${PORT}"}
        """
    )
    endpoint, loaded = config.one(), config.load()
    assert loaded.daemon.concurrency == 7
    assert loaded.daemon.log.level == "debug"
    assert endpoint.spec.path.source == "/${NAME}"
    assert endpoint.spec.path.render({}) == "/007"
    assert (endpoint.timeout, endpoint.enabled, 503 in endpoint.spec.success) == (10, False, True)
    assert (endpoint.retry.max_attempts, endpoint.retry.jitter) == (7, 0.5)
    assert endpoint.retry.backoff.name == "linear"
    defaults = {name: param.default for name, param in endpoint.params.items()}
    assert defaults == {"n": 7, "b": False, "s": "007", "any": "7"}


def test_a_value_of_the_wrong_type_is_complained_about_where_it_stands(
    config: ConfigFolder,
) -> None:
    config.environ = {"N": "many", "S": "hush-hush"}
    config.endpoint("path: /x\nretry:\n  max_attempts: ${N}\ntimeout: ${secret:S}\n")
    assert config.errors() == [
        "apis/shop/endpoints/get.yaml:3:3: retry.max_attempts: expected a whole number, not 'many'",
        "apis/shop/endpoints/get.yaml:4:1: timeout: '***' is not a duration: write 500ms, 10s, 5m, "
        "2h, 1d, or a number of seconds",
    ]


def test_a_secret_whose_variable_is_empty_is_named(config: ConfigFolder) -> None:
    config.environ = {"TOKEN": ""}
    config.api("base_url: https://a.example\nauth: {bearer: '${secret:TOKEN}'}\n")
    (error,) = config.errors()
    assert error.endswith("auth.bearer: ${secret:TOKEN} is empty; give it the secret")


def test_what_is_not_set_is_reported_once_and_with_everything_else(config: ConfigFolder) -> None:
    config.api("base_url: ${BASE}\nretry: {max_delay: '${MAX}'}\n")
    config.endpoint("path: /${A}/${B}\nretry: {jitter: 7}\n", name="a")
    config.endpoint("path: /x\n", name="b")
    assert config.errors() == [
        "apis/shop/api.yaml:1:1: base_url: the environment variable BASE is not set; write "
        "${BASE:-default}",
        "apis/shop/api.yaml:2:9: retry.max_delay: the environment variable MAX is not set; write "
        "${MAX:-default}",
        "apis/shop/endpoints/a.yaml:1:1: path: the environment variable A is not set; write "
        "${A:-default}",
        "apis/shop/endpoints/a.yaml:1:1: path: the environment variable B is not set; write "
        "${B:-default}",
        "apis/shop/endpoints/a.yaml:2:9: retry.jitter: must be at most 1, not 7",
    ]


def test_credentials_come_from_systemd(config: ConfigFolder, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cr3t-t0ken\n")
    config.environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    config.api("base_url: https://a.example\nauth: {bearer: '${credential:token}'}\n")
    config.endpoint()
    auth = config.one().api.auth
    assert auth is not None
    assert auth.bearer is not None
    assert auth.bearer.reveal() == "s3cr3t-t0ken"
