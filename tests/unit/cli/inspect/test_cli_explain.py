"""`orchestratord explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result

from orchestratord.cli.main import main

EXAMPLE = Path(__file__).parents[4] / "config"
ORDER = ("shop/getOrder", "-p", "id=1001")


def explain(*arguments: str, folder: Path = EXAMPLE, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["explain", "--config", str(folder), *arguments], input=stdin)


def document(*arguments: str, folder: Path = EXAMPLE) -> dict[str, Any]:
    result = explain(*arguments, "-o", "json", folder=folder)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_all_of_it_as_text() -> None:
    result = explain(*ORDER, "--status-code", "503")
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    assert text.startswith("shop/getOrder, attempt 1 of 5, status code 503\n")
    assert "  GET http://127.0.0.1:8421/shop/orders/1001?expand=lines\n" in text
    assert "  Authorization: ***\n" in text
    assert "  curl 'http://127.0.0.1:8421/shop/orders/1001?expand=lines' \\\n" in text
    assert "503 Service Unavailable: retry.when covers 503, so it is tried again\n" in text
    assert "  in 1s (900ms to 1.1s with jitter): exponential 1s·2^0=1s\n" in text
    assert "What follows in before_request, after_request and on_retry\n" in text
    assert "webhook ops fires: phase is after_request, status_code 5xx,error covers 503\n" in text
    assert '    {"text":"shop/getOrder answered 503 at attempt 1"}\n' in text
    assert "    webhook-signature: (made when it is sent)\n" in text
    assert "webhook order-missing does not fire: status_code 404 does not cover 503\n" in text
    assert "a-token-for-the-demo" not in text


def test_a_rate_limit_is_named(tmp_path: Path) -> None:
    for name, text in (("api", "rate_limit: 100/min"), ("endpoints/get", "path: /x")):
        file = tmp_path / "apis" / "crm" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"base_url: https://crm.example.com\n{text}\n" if name == "api" else text)
    assert document("crm/get", folder=tmp_path)["rate_limit"] == "100/min"
    assert document(*ORDER)["rate_limit"] is None
    text = " ".join(explain("crm/get", folder=tmp_path).stdout.split())
    assert "rate_limit 100/min: before it is claimed it waits until" in text


def test_partitions_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "apis" / "crm" / "endpoints"
    folder.mkdir(parents=True)
    folder.with_name("api.yaml").write_text("base_url: https://crm.example.com\n")
    (folder / "put.yaml").write_text(
        'path: /x\nparams: {a: {}}\npartition: {by: "{{ params.a }}", ordered: true}\n'
        "webhooks: [{phase: after_request, url: 'https://ops.example.com', "
        'partition: "{{ partition }}-{{ status_code }}"}]\n'
    )
    given = ("crm/put", "-p", "a=acme", "--status-code", "200")
    found = document(*given, folder=tmp_path)
    assert found["partition"] == "acme"
    assert found["consequences"][0]["partition"] == "acme-200"
    text = explain(*given, folder=tmp_path).stdout
    assert "  in the partition 'acme'\n" in text
    assert "    in the partition 'acme-200'\n" in text
    text = explain("crm/put", "-p", f"a={'a' * 201}", folder=tmp_path).stdout
    assert "Note: such a call is refused: partition: 'aaa" in " ".join(text.split())


def test_what_an_answer_says_is_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "apis" / "soap" / "endpoints"
    folder.mkdir(parents=True)
    folder.with_name("api.yaml").write_text("base_url: https://soap.example.com\n")
    (folder / "book.yaml").write_text("path: /x\nmethod: POST\nretry: {if: body.Fault}\n")
    (tmp_path / "fault.xml").write_text("<s:Fault xmlns:s='urn:s'>busy</s:Fault>")
    given = ("--header", "content-type:text/xml", "--body", f"@{tmp_path}/fault.xml")
    text = explain("soap/book", "--status-code", "200", *given, folder=tmp_path).stdout
    assert '  retry.if: body.Fault finds "busy"\n' in text
    assert "  200, and retry.if holds: body.Fault: busy, so it is tried again\n" in text


def test_a_success_and_a_failure() -> None:
    assert "\nWhat becomes of it\n  succeeded\n" in explain(*ORDER, "--status-code", "200").stdout
    text = explain(*ORDER, "--status-code", "404").stdout
    assert "  404 Not Found: it failed for good, not_retryable\n" in text
    assert "  retry.when does not cover 404\n" in text


def test_without_an_answer_there_is_only_the_request() -> None:
    text = explain(*ORDER).stdout
    assert "GET http://127.0.0.1:8421" in text
    assert "What becomes of it" not in text
    assert "What follows in before_request\n" in text


def test_attempts_errors_and_phases() -> None:
    found = document(*ORDER, "--status-code", "error", "--attempt", "3")
    assert (found["attempt"], found["status_code"]) == (3, "error")
    assert found["decision"]["delay"] == 4.0
    order = ("shop/createOrder", "-p", "item=hat")
    assert document(*order, "--error", "connect")["decision"]["outcome"] == "retry"
    assert document(*order, "--error", "timeout")["decision"]["reason"] == "ambiguous"
    found = document(*ORDER, "--status-code", "503", "--phase", "on_success")
    assert found["phases"] == ["on_success"]
    text = explain(*ORDER, "--status-code", "503", "--phase", "on_success").stdout
    assert "on_success is not reached: this goes through before_request, after_request" in text


def test_parameters(tmp_path: Path) -> None:
    given = document("shop/createOrder", "--params", '{"item": "hat", "quantity": 3}')
    assert given["request"]["body"] == '{"item":"hat","quantity":3}'
    (tmp_path / "params.json").write_text('{"item": "cap"}')
    file = f"@{tmp_path / 'params.json'}"
    given = document("shop/createOrder", "--params", file, "-p", "quantity=2")
    assert given["params"] == {"item": "cap", "quantity": 2}
    result = explain("shop/createOrder", "--params", "@-", stdin='{"item": "from stdin"}')
    assert "from stdin" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ORDER, "--status-code", "5xx"], "'5xx' is not one status code"),
        ([*ORDER, "--error", "refused"], "--error: unknown kind 'refused', did you mean 'reset'?"),
        ([*ORDER, "--error", "dns", "--status-code", "200"], "--status-code that 200 does"),
        ([*ORDER, "--phase", "on_sucess"], "unknown phase 'on_sucess', did you mean 'on_success'?"),
        ([*ORDER, "--phase", "on_retry"], "on_retry comes after an answer: say which"),
        ([*ORDER, "--attempt", "0"], "--attempt"),
        ([*ORDER, "--body", "{}"], "--body is that of an answer: say which with --status-code"),
        ([*ORDER, "--body", "{}", "--status-code", "error"], "--body is that of an answer, and"),
        ([*ORDER, "--body", "@/nowhere", "--status-code", "200"], "--body: "),
        (["shop/getOrder"], "-p id: is required"),
        (["shop/getOrder", "-p", "id=one"], "id: expected a whole number"),
        (["shop/getOrder", "-p", "id"], "-p: 'id' is not KEY=VALUE"),
        ([*ORDER, "-p", "id=2"], "-p id: is given twice"),
        ([*ORDER, "--params", '{"id": 2}'], "id: is given twice"),
        ([*ORDER, "--params", "[1]"], "--params: parameters are a JSON object"),
        ([*ORDER, "--params", "{"], "--params: "),
        ([*ORDER, "--params", "@/nowhere/at/all"], "--params: "),
        ([*ORDER, "-p", "idd=2"], "idd: there is no such parameter, did you mean 'id'?"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], message: str) -> None:
    result = explain(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_there_is_no_such_endpoint() -> None:
    result = explain("shop/getOrdr")
    assert result.exit_code == 4
    assert result.stderr == "there is no endpoint 'shop/getOrdr', did you mean 'shop/getOrder'?\n"


def write(folder: Path, **files: str) -> Path:
    texts = {"api": "base_url: https://a.test\n", **files}
    (folder / "apis/a/endpoints").mkdir(parents=True)
    (folder / "apis/a/api.yaml").write_text(texts.pop("api"))
    if "daemon" in texts:
        (folder / "orchestratord.yaml").write_text(texts.pop("daemon"))
    for name, text in texts.items():
        (folder / f"apis/a/endpoints/{name}.yaml").write_text(text)
    return folder


def test_a_bad_configuration(tmp_path: Path) -> None:
    result = explain("a/x", folder=write(tmp_path, x="pth: /x\n"))
    assert result.exit_code == 78
    assert "apis/a/endpoints/x.yaml:1:1: pth: unknown key" in result.stderr


def test_plugins_that_may_decide_otherwise_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, x="path: /x\n", daemon="plugins: {dirs: [plugins]}\n")
    (folder / "plugins").mkdir()
    (folder / "plugins/mine.py").write_text(
        "from orchestratord import hookimpl\n"
        "@hookimpl\ndef before_request(request): raise SystemExit('it was run')\n"
        "@hookimpl\ndef after_request(outcome): raise SystemExit('it was run')\n"
        "@hookimpl\ndef explain(phase): 1 / 0\n"
    )
    result = explain("a/x", "--status-code", "200", folder=folder)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "mine may still change or refuse it (before_request); that is not shown." in text
    assert "mine may decide otherwise (after_request)." in text
    assert "Note: the plugin mine: explain: ZeroDivisionError: division by zero" in text


def test_a_disabled_endpoint_and_a_disabled_type(tmp_path: Path) -> None:
    folder = write(tmp_path, x="path: /x\nenabled: false\n")
    text = explain("a/x", folder=folder).stdout
    assert "Its calls are refused, and tasks wait: enabled is false.\n" in text


def test_a_request_that_cannot_be_made(tmp_path: Path) -> None:
    text = "path: '/{{ params.a.b }}'\nparams: {a: {type: object, default: {c: 1}}}\n"
    result = explain("a/x", "--status-code", "200", folder=write(tmp_path, x=text))
    assert "cannot be made: in the template {{ params.a.b }}: there is no 'b'" in result.stdout
    assert "it failed for good, invalid_payload" in " ".join(result.stdout.split())


def test_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    text = "method: POST\npath: /x\nbody: {text: '{{ params.a }}'}\nparams: {a: {}}\n"
    result = explain("a/x", "-p", "a=\x1b[31mred", folder=write(tmp_path, x=text))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\\u001b[31mred" in result.stdout


THEN = """
path: /users
then:
  - {call: crm/get, each: body.users, params: {id: item.id}}
"""


def test_the_calls_that_follow_from_a_body(tmp_path: Path) -> None:
    api = tmp_path / "apis" / "crm"
    (api / "endpoints").mkdir(parents=True)
    (api / "api.yaml").write_text("base_url: https://crm.test\n")
    (api / "endpoints" / "list.yaml").write_text(THEN)
    (api / "endpoints" / "get.yaml").write_text("path: /users/{{ params.id }}\nparams: {id: {}}\n")
    body = json.dumps({"users": [{"id": number} for number in range(9)]})
    answer = tmp_path / "answer.json"
    answer.write_text(body)
    for given in (body, f"@{answer}"):
        text = explain("crm/list", "--status-code", "200", "--body", given, folder=tmp_path).stdout
        assert "  call crm/get follows: each of 9 in body.users\n" in text
        assert [line for line in text.splitlines() if "GET https://crm.test/users/" in line] == [
            f"    GET https://crm.test/users/{number}" for number in range(3)
        ]
        assert "  and 6 more of call crm/get\n" in text
    stdin = explain(
        "crm/list", "--status-code", "200", "--body", "@-", folder=tmp_path, stdin='{"users": []}'
    )
    assert "call crm/get does not follow: body.users is empty\n" in stdin.stdout
    text = explain("crm/list", "--status-code", "200", folder=tmp_path).stdout
    assert "  then.0: the answer has no body: it failed for good, not_retryable\n" in text
    assert "may decide otherwise" not in text


def test_how_an_api_is_reached(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name, text in {
        "tls/ca.pem": authority.cert_pem.bytes().decode(),
        "tls/both.pem": authority.issue_cert("x").private_key_and_cert_chain_pem.bytes().decode(),
        "bodies/order.xml": "<order/>",
        "apis/shop/api.yaml": (
            "base_url: https://a.example\ntls: {ca: tls/ca.pem, cert: tls/both.pem}\n"
            "proxy: http://me:written-out@proxy.example:3128\nauth: {oauth2: {token_url: "
            "'https://l.example/t', client_id: x, client_secret: also-written-out}}\n"
        ),
        "apis/shop/endpoints/put.yaml": (
            "path: /o\nmethod: PUT\nbody: {file: bodies/order.xml}\nsuccess_if: '!errors'\n"
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    request = document("shop/put", folder=tmp_path)["request"]
    assert request["headers"]["Authorization"] == "***"
    assert (request["body"], request["body_file"]) == (None, "bodies/order.xml")
    curl = request["curl"].replace("\\\n  ", "")
    assert (
        "--proxy 'http://me:***@proxy.example:3128' --cacert tls/ca.pem --cert tls/both.pem "
        "--data-binary @bodies/order.xml"
    ) in curl
    text = explain("shop/put", "--error", "certificate", folder=tmp_path).stdout
    assert "  (what is in bodies/order.xml)\n" in text
    assert "it failed for good, not_retryable" in " ".join(text.split())
    assert "written-out" not in text
    shown = CliRunner().invoke(main, ["config", "show", "--config", str(tmp_path), "shop/put"])
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for line in (
        'client_secret: "***" # apis/shop/api.yaml:4',
        "ca: tls/ca.pem # apis/shop/api.yaml:2",
        'proxy: "http://me:***@proxy.example:3128" # apis/shop/api.yaml:3',
        'success_if: "!errors" # apis/shop/endpoints/put.yaml:4',
        "file: bodies/order.xml # apis/shop/endpoints/put.yaml:3",
    ):
        assert line in lines
    assert "written-out" not in shown.stdout
