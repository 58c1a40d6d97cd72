"""`orchestratord import openapi`: good at once, repeatable, and no edit is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestratord.cli.main import main
from orchestratord.config.load import load
from orchestratord.daemon.bootstrap import open_host
from orchestratord.engine.file_transfer import BODY_PARTS
from orchestratord.model.settings import Config
from orchestratord.plugin.executor import Target
from orchestratord.testing import task

PETS: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Pet Store's API", "version": "1.2"},
    "servers": [
        {"url": "https://{region}.pets.test/v1/", "variables": {"region": {"default": "eu"}}}
    ],
    "security": [{"key": []}],
    "paths": {
        "/pets/{petId}": {
            "parameters": [{"$ref": "#/components/parameters/petId"}],
            "get": {
                "operationId": "pets/get pet!",
                "summary": "Find a pet",
                "description": "By its\nnumber.",
                "parameters": [
                    {"name": "expand", "in": "query", "schema": {"type": "array"}},
                    {"name": "tags", "in": "query", "explode": False, "schema": {"type": "array"}},
                    {
                        "name": "limit",
                        "in": "query",
                        "required": True,
                        "schema": {"type": ["integer", "null"], "default": 20, "enum": [20, 50]},
                    },
                    {
                        "name": "filter",
                        "in": "query",
                        "style": "deepObject",
                        "schema": {"type": "object", "properties": {"age": {}, "kind": {}}},
                    },
                    {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                    {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                ],
                "responses": {"200": {}, "304": {}, "404": {}},
            },
            "put": {
                "operationId": "putPet",
                "requestBody": {
                    "required": True,
                    "content": {
                        "text/plain": {},
                        "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}},
                    },
                },
                "responses": {"200": {}},
            },
        },
        "/pets": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {"$ref": "#/components/schemas/Pet"}
                        }
                    }
                },
                "responses": {"201": {}},
            },
            "trace": {"responses": {}},
        },
        "/pets/{petId}/photo": {
            "post": {
                "operationId": "putPet",
                "requestBody": {"required": True, "content": {"multipart/form-data": {}}},
                "responses": {},
            },
        },
    },
    "components": {
        "parameters": {
            "petId": {"name": "petId", "in": "path", "schema": {"type": "integer"}},
        },
        "schemas": {
            "Pet": {
                "allOf": [
                    {"properties": {"id": {"type": "integer", "readOnly": True}}},
                    {"properties": {"name": {"type": "string"}, "tag": {"type": "string"}}},
                ],
                "required": ["name"],
            }
        },
        "securitySchemes": {
            "login": {"type": "http", "scheme": "basic"},
            "robot": {
                "type": "oauth2",
                "flows": {"clientCredentials": {"tokenUrl": "https://login.test/token"}},
            },
            "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
        },
    },
}
API = "apis/pet-store-api"
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    return folder


def run(folder: Path, document: Any, *more: str) -> Result:
    file = folder.parent / "document.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return CliRunner().invoke(
        main, ["import", "openapi", str(file), "--config", str(folder), *more]
    )


def imported(folder: Path, document: Any, *more: str) -> Config:
    result = run(folder, document, *more)
    assert result.exit_code == 0, result.output
    config = load(folder, open_host(folder))
    assert config.warnings == ()
    return config


def request_of(config: Config, endpoint_id: str, **params: Any) -> Any:
    """The request of a call, as it would go out."""
    from orchestratord.config.params import check_params

    endpoint = config.endpoints[endpoint_id]
    executor = open_host(config.folder).registry.executor("call", "http")
    assert executor is not None
    target = executor.standing(endpoint, "", config)
    assert isinstance(target, Target)
    given = check_params(endpoint, params)
    return executor.prepare(task(endpoint_id=endpoint_id, params=given), target, 0.0)


def test_each_operation_is_an_endpoint_that_is_good(folder: Path) -> None:
    result = run(folder, PETS)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"wrote      {API}/api.yaml",
        f"wrote      {API}/endpoints/pets-get-pet.yaml",
        f"wrote      {API}/endpoints/putPet.yaml",
        f"wrote      {API}/endpoints/post-pets.yaml",
        f"wrote      {API}/endpoints/putPet-2.yaml",
        f"note       {API}/endpoints/pets-get-pet.yaml: the cookie parameter session cannot be "
        "sent",
        f"note       {API}/endpoints/putPet-2.yaml: the fields of its form are not declared, so it "
        "is switched off",
        "left out   TRACE /pets: this method cannot be called",
        "",
        f"{API}: 5 new files",
        f"Next, in {API}/api.yaml: set a secret and take the # before `auth` away.",
    ]
    check = CliRunner().invoke(main, ["check", "--config", str(folder)])
    assert check.output == f"{folder} is good: 1 API, 4 endpoints\n"


def test_a_file_says_what_the_document_says(folder: Path) -> None:
    imported(folder, PETS)
    text = (folder / f"{API}/endpoints/pets-get-pet.yaml").read_text()
    first, second, third, rest = text.split("\n", 3)
    assert first == "# yaml-language-server: $schema=../../../.schema/endpoint.json"
    assert second.startswith("# Imported by orchestratord as ")
    assert third == "# Operation: GET /pets/{petId}"
    assert (
        rest
        == """\
#
# Find a pet
#
# By its number.
#
# Documented answers: 200, 304, 404.
#
# Not imported: the cookie parameter session cannot be sent.

path: "/pets/{{ params.petId }}"
params:
  petId:
    type: integer
    required: true
  expand:
    type: array
  tags:
    type: array
  limit:
    type: integer
    description: "one of 20, 50"
    default: 20
  filter:
    type: object
  X-Trace:
    type: string
query:
  expand: "{{ params.expand }}"
  tags: "{{ params.tags | join(',') if params.tags is not none else none }}"
  limit: "{{ params.limit }}"
  "filter[age]": "{{ (params.filter or {}).get('age') }}"
  "filter[kind]": "{{ (params.filter or {}).get('kind') }}"
headers:
  X-Trace: "{{ params['X-Trace'] }}"
success: [2xx, 304]
"""
    )
    api = (folder / f"{API}/api.yaml").read_text()
    said = api.partition("#\n# Pet")[2]
    assert (
        said
        == """\
 Store's API 1.2

base_url: "https://eu.pets.test/v1"

# key: a key in X-Key.
# Take the # away once $PET_STORE_API_KEY is set:
# auth: {header: {name: "X-Key", value: "${secret:PET_STORE_API_KEY}"}}

# login: user name and password.
# Take the # away once $PET_STORE_USERNAME and $PET_STORE_PASSWORD are set:
# auth: {basic: {username: "${PET_STORE_USERNAME}", password: "${secret:PET_STORE_PASSWORD}"}}

# robot: OAuth 2, for client credentials.
# Take the # away once $PET_STORE_CLIENT_ID and $PET_STORE_CLIENT_SECRET are set:
# auth:
#   oauth2:
#     token_url: "https://login.test/token"
#     client_id: "${PET_STORE_CLIENT_ID}"
#     client_secret: "${secret:PET_STORE_CLIENT_SECRET}"
"""
    )


PERSON = {
    "type": "oauth2",
    "flows": {
        "implicit": {"authorizationUrl": "https://login.test/authorize"},
        "authorizationCode": {
            "authorizationUrl": "https://login.test/authorize",
            "tokenUrl": "https://login.test/token",
            "refreshUrl": "https://login.test/refresh",
        },
    },
}


def test_oauth2_with_the_scopes_that_operations_ask_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of alternatives the first; what is written serves once its # are gone."""
    document = json.loads(json.dumps(PETS))
    paths, schemes = document["paths"], document["components"]["securitySchemes"]
    schemes["person"] = PERSON
    document["security"] = [{"robot": ["pets:read", "${HOME}", "a b"]}]
    paths["/pets"]["post"]["security"] = [{"robot": ["pets:write"]}, {"robot": ["admin"]}]
    paths["/pets/{petId}/photo"]["post"]["security"] = [{"login": []}, {"robot": ["pets:read"]}]
    run(folder, document)
    file = folder / f"{API}/api.yaml"
    text = file.read_text()
    robot, person = (
        text.partition(f"# {name}: ")[2].partition("\n\n")[0] for name in ("robot", "person")
    )
    assert robot.endswith('#     scope: "pets:read $${HOME} pets:write"')
    assert (
        person
        == """\
OAuth 2, for a refresh token that a person has got by logging in.
# Take the # away once $PET_STORE_CLIENT_ID, $PET_STORE_CLIENT_SECRET and $PET_STORE_REFRESH_TOKEN
# are set:
# auth:
#   oauth2:
#     token_url: "https://login.test/refresh"
#     client_id: "${PET_STORE_CLIENT_ID}"
#     client_secret: "${secret:PET_STORE_CLIENT_SECRET}"
#     refresh_token: "${secret:PET_STORE_REFRESH_TOKEN}"
"""
    )
    for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"):
        monkeypatch.setenv(f"PET_STORE_{name}", f"a-value-of-{name}")
    for part, scope in ((robot, "pets:read ${HOME} pets:write"), (person, None)):
        block = part[part.index("# auth:") :]
        file.write_text(text.replace(block, re.sub("^# ", "", block, flags=re.MULTILINE)))
        auth = load(folder, open_host(folder)).apis["pet-store-api"].auth
        assert auth is not None
        assert auth.oauth2 is not None
        assert (auth.oauth2.scope, auth.oauth2.refresh_token is None) == (scope, scope is not None)


def test_the_requests_that_go_out(folder: Path) -> None:
    config = imported(folder, PETS)
    get = "pet-store-api/pets-get-pet"
    least = request_of(config, get, petId=7)
    assert str(least.url) == "https://eu.pets.test/v1/pets/7?limit=20"
    assert "x-trace" not in least.headers, "a header that is not given is not sent"
    most = request_of(
        config, get, petId=7, expand=["a", "b"], tags=["c", "d"], filter={"age": 3},
        **{"X-Trace": "t"},
    )  # fmt: skip
    assert str(most.url).partition("?")[2] == (
        "expand=a&expand=b&tags=c%2Cd&limit=20&filter%5Bage%5D=3"
    )
    assert most.headers["x-trace"] == "t"
    put = request_of(config, "pet-store-api/putPet", petId=7, body={"name": "Rex"})
    assert (put.method, put.content) == ("PUT", b'{"name":"Rex"}')
    post = request_of(config, "pet-store-api/post-pets", name="Rex & Co")
    assert post.content == b"name=Rex+%26+Co"
    assert post.headers["content-type"] == "application/x-www-form-urlencoded"
    assert not config.endpoints["pet-store-api/putPet-2"].enabled


def test_what_is_commented_out_is_good_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(folder, PETS)
    path = folder / f"{API}/api.yaml"
    plain = path.read_text()
    monkeypatch.setenv("PET_STORE_API_KEY", "hunter22")
    monkeypatch.setenv("PET_STORE_USERNAME", "me")
    monkeypatch.setenv("PET_STORE_PASSWORD", "hunter22")
    monkeypatch.setenv("PET_STORE_CLIENT_ID", "robot")
    monkeypatch.setenv("PET_STORE_CLIENT_SECRET", "hunter23")
    for block in re.findall(r"^# auth:.*\n(?:#   .*\n)*", plain, re.MULTILINE):
        path.write_text(plain.replace(block, re.sub("^# ", "", block, flags=re.MULTILINE)))
        config = load(folder, open_host(folder))
        assert config.apis["pet-store-api"].auth is not None
        assert config.warnings == ()


# -- again ---------------------------------------------------------------------------------------


def newer() -> Any:
    document = json.loads(json.dumps(PETS))
    paths = document["paths"]
    paths["/pets/{petId}"]["get"]["summary"] = "Find one pet"
    paths["/pets/{petId}"]["get"]["operationId"] = "pets/find"
    paths["/pets/{petId}"]["put"]["summary"] = "Replace a pet"
    paths["/vets"] = {"get": {"operationId": "vets", "responses": {}}}
    del paths["/pets"]["post"]
    return document


def test_again_without_a_change_writes_nothing(folder: Path) -> None:
    imported(folder, PETS)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.yaml")}
    result = run(folder, PETS)
    assert "wrote" not in result.stdout
    assert f"{API}: 5 the same files\n" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.yaml")} == before


def test_a_newer_document_adds_and_renews_and_leaves_edits_alone(folder: Path) -> None:
    imported(folder, PETS)
    edited = folder / f"{API}/endpoints/putPet.yaml"
    edited.write_text(edited.read_text() + "timeout: 5s\n")
    mine = edited.read_bytes()
    (folder / f"{API}/endpoints/own.yaml").write_text("path: /own\n")
    result = run(folder, newer())
    assert result.exit_code == 0, result.output
    said = [line for line in result.stdout.splitlines() if not line.startswith(("note", "left o"))]
    assert said[:4] == [
        f"wrote      {API}/endpoints/vets.yaml",
        f"renewed    {API}/endpoints/pets-get-pet.yaml",
        f"left alone {API}/endpoints/putPet.yaml: it has been edited",
        f"gone       {API}/endpoints/post-pets.yaml: the document has it no more; the file stays",
    ]
    assert f"{API}: 1 new, 1 renewed, 2 the same, 1 edited and left alone, 1 gone files\n" in (
        result.stdout
    )
    assert edited.read_bytes() == mine
    assert "# Find one pet\n" in (folder / f"{API}/endpoints/pets-get-pet.yaml").read_text()
    assert len(load(folder, open_host(folder)).endpoints) == 6


def test_a_file_that_was_renamed_stays_the_operations(folder: Path) -> None:
    imported(folder, PETS)
    endpoints = folder / f"{API}/endpoints"
    (endpoints / "pets-get-pet.yaml").rename(endpoints / "getPet.yaml")
    result = run(folder, newer())
    assert f"renewed    {API}/endpoints/getPet.yaml\n" in result.stdout
    assert not (endpoints / "pets-get-pet.yaml").exists()
    assert not (endpoints / "pets-find.yaml").exists()


def test_a_copy_of_a_file_takes_no_place_of_another(folder: Path) -> None:
    imported(folder, PETS)
    endpoints = folder / f"{API}/endpoints"
    original, copy = endpoints / "putPet.yaml", endpoints / "a.yaml"
    copy.write_bytes(original.read_bytes())
    result = run(folder, newer())
    assert f"renewed    {API}/endpoints/putPet.yaml\n" in result.stdout
    assert f"renewed    {API}/endpoints/a.yaml\n" in result.stdout
    assert f"gone       {API}/endpoints/putPet.yaml" not in result.stdout
    copy.write_text("enabled: false\n" + copy.read_text())
    mine = copy.read_bytes()
    result = run(folder, PETS)
    assert f"renewed    {API}/endpoints/putPet.yaml\n" in result.stdout
    assert f"left alone {API}/endpoints/a.yaml: it has been edited\n" in result.stdout
    assert copy.read_bytes() == mine


def test_an_api_and_names_that_are_there_already(folder: Path) -> None:
    (folder / "apis/crm/endpoints").mkdir(parents=True)
    (folder / "apis/crm/api.yaml").write_text("base_url: https://own.test\n")
    (folder / "apis/crm/endpoints/PutPet.yaml").write_text("path: /own\n")
    result = run(folder, PETS, "--api", "crm")
    assert "left alone apis/crm/api.yaml: it has been edited\n" in result.stdout
    assert (folder / "apis/crm/api.yaml").read_text() == "base_url: https://own.test\n"
    names = sorted(path.stem for path in (folder / "apis/crm/endpoints").iterdir())
    assert names == ["PutPet", "pets-get-pet", "post-pets", "putPet-2", "putPet-3"]


# -- other makes ---------------------------------------------------------------------------------

SWAGGER = """
swagger: "2.0"
info: {title: Old, version: 1}
host: old.test
basePath: /api
schemes: [http, https]
consumes: [application/json]
securityDefinitions:
  key: {type: apiKey, in: query, name: api key}
  token: {type: oauth2, flow: accessCode}
paths:
  /things/{id}:
    post:
      parameters:
        - {name: id, in: path, required: true, type: string}
        - {name: ids, in: query, type: array, collectionFormat: multi, items: {type: string}}
        - {name: kinds, in: query, type: array, items: {type: string}}
        - {name: since, in: query, type: string, default: 2020-01-01}
        - {name: thing, in: body, schema: {type: object}}
      responses: {200: {description: fine}}
  /form:
    post:
      parameters:
        - {name: on, in: formData, type: boolean, default: no}
        - {name: count, in: formData, type: integer, required: true}
      responses: {default: {description: fine}}
  /file:
    post:
      parameters: [{name: file, in: formData, type: file, required: true}]
      responses: {}
"""


def test_swagger(folder: Path) -> None:
    config = imported(folder, SWAGGER)
    sent = request_of(config, "old/post-things-id", id="a/b", ids=["1", "2"], kinds=["x", "y"])
    assert str(sent.url) == (
        "https://old.test/api/things/a%2Fb?ids=1&ids=2&kinds=x%2Cy&since=2020-01-01"
    )
    assert sent.content == b"{}", "a body that need not be given"
    form = request_of(config, "old/post-form", count=3)
    assert form.content == b"count=3", "`no` is a text, and no default of a boolean"
    assert "old/post-file" not in config.endpoints, "no folder is named in files.read"
    text = (folder / "apis/old/endpoints/post-form.yaml").read_text()
    assert '# query: {"api key": "${secret:OLD_API_KEY}"}\n' in text
    text = (folder / "apis/old/endpoints/post-things-id.yaml").read_text()
    assert '\n  # "api key": "${secret:OLD_API_KEY}"\n' in text


BINARY = {"type": "string", "format": "binary"}
UPLOAD = {
    "type": "object",
    "required": ["title", "scan"],
    "properties": {
        "title": {"type": "string"},
        "pages": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "scan": {**BINARY, "description": "As PDF"},
        "more": {"type": "array", "items": BINARY},
    },
}


def test_a_form_with_files(folder: Path) -> None:
    body = {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD}}}
    plain = json.loads(json.dumps(body))
    for name in ("scan", "more"):
        del plain["content"]["multipart/form-data"]["schema"]["properties"][name]
    paths = {"/a": {"post": {"requestBody": body}}, "/b": {"post": {"requestBody": plain}}}
    document = {**PETS, "paths": paths}
    result = run(folder, document)
    file = f"{API}/endpoints/post-a.yaml"
    assert result.stdout.startswith(f"left out   {file}:")
    assert "none may be read: name folders in files.read\n" in result.stdout
    scan = folder.parent / "scans/scan.pdf"
    scan.parent.mkdir()
    scan.write_bytes(b"%PDF")
    (folder / "orchestratord.yaml").write_text(f"files: {{read: [{scan.parent}]}}\n")
    result = run(folder, document)
    assert f"wrote      {file}\n" in result.stdout
    for problem in (
        "several files in the field more of its form cannot be sent",
        "a form without the file more cannot be sent",
    ):
        assert f"note       {file}: {problem}\n" in result.stdout
    config = load(folder, open_host(folder))
    whole = config.endpoints["pet-store-api/post-a"]
    needed = [name for name, param in whole.params.items() if param.required]
    assert (needed, whole.enabled) == (["title", "scan", "more"], True)
    sent = request_of(
        config, "pet-store-api/post-a", title="T", tags=["x", "y"], scan="scan.pdf", more=str(scan)
    )
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    parts = sent.extensions[BODY_PARTS]
    assert [part.path for part in parts if not isinstance(part, bytes)] == ["scan.pdf", str(scan)]
    written = b"".join(part for part in parts if isinstance(part, bytes)).decode()
    names = re.findall(r'name="(.*?)"(?:; filename="(.*?)"\r\nContent-Type: (\S+))?', written)
    pdf = "scan.pdf", "application/pdf"
    text = "", ""
    assert names == [
        ("title", *text), ("tags", *text), ("tags", *text), ("scan", *pdf), ("more", *pdf)
    ]  # fmt: skip
    [whole_body] = request_of(config, "pet-store-api/post-b", title="T").extensions[BODY_PARTS][:-1]
    assert b'name="title"\r\n\r\nT\r\n' in whole_body


NASTY = "a\u2028b\x1b[31m ${secret:HOME} {{ task.id }} {% x %} \U0001f600 # \"' - : ["


def test_texts_are_data(folder: Path) -> None:
    """Whatever a document holds, it is a comment, or a text in quotes."""
    operation = {
        "operationId": "../../x",
        "summary": NASTY,
        "description": f"line\n{NASTY}",
        "parameters": [
            {"name": "id", "in": "path", "required": True, "description": NASTY, "schema": {}},
            {"name": "a b${HOME}", "in": "query", "schema": {"default": NASTY}},
            {"name": "items", "in": "query", "schema": {"enum": [NASTY]}},
        ],
        "responses": {NASTY: {}},
    }
    document = {
        "openapi": "3.0.0",
        "info": {"title": f"../{NASTY}", "version": NASTY},
        "paths": {"/a/${id}/{id}/{id=x/*}/b#c": {"get": operation}},
    }
    config = imported(folder, document, "--api", "nasty")
    (endpoint,) = config.endpoints
    assert endpoint == "nasty/x"
    assert config.endpoints[endpoint].params["a_b_HOME"].default == NASTY
    sent = request_of(config, endpoint, id="7")
    assert sent.url.raw_path.startswith(b"/a/%247/7/7/b%23c?")
    for path in folder.rglob("*.yaml"):
        assert "\x1b" not in path.read_text()
        assert "\u2028" not in path.read_text().replace("\\u2028", "")


def test_a_document_without_a_host(folder: Path) -> None:
    document = {**PETS, "servers": [{"url": "/v3"}]}
    result = run(folder, document)
    text = (folder / f"{API}/api.yaml").read_text()
    assert "# The document names no host; write it here.\n" in text
    assert 'base_url: "https://api.example.com/v3"\n' in text
    assert "api.yaml: write the host into base_url; set a secret" in result.stdout


@pytest.mark.parametrize(
    ("version", "key"),
    [({"openapi": "3.0.0"}, "style"), ({"swagger": "2.0", "host": "a.test"}, "collectionFormat")],
)
@pytest.mark.parametrize("place", ["path", "query"])
def test_a_style_that_is_no_text_is_named(
    folder: Path, version: dict[str, str], key: str, place: str
) -> None:
    many = {"type": "array", "items": {"type": "string"}}
    one = {"name": "id", "in": place, "required": True, "schema": many, **many, key: ["x"]}
    made = {"get": {"operationId": "a", "parameters": [one], "responses": {}}}
    document = {**version, "info": {"title": "t"}, "paths": {"/a/{id}": made}}
    result = run(folder, document)
    assert result.exit_code == 0, result.output
    assert f"apis/t/endpoints/a.yaml: the {key} of the parameter id is not a text\n" in (
        result.stdout
    )


def test_a_host_without_a_scheme_has_https(folder: Path) -> None:
    config = imported(folder, {**PETS, "servers": [{"url": "//api.pets.test/v3"}]})
    assert config.apis["pet-store-api"].base_url == "https://api.pets.test/v3"


def test_an_operation_that_is_served_elsewhere(folder: Path) -> None:
    document = json.loads(json.dumps(PETS))
    document["paths"]["/pets/{petId}"]["put"]["servers"] = [{"url": "https://uploads.test"}]
    config = imported(folder, document)
    assert not config.endpoints["pet-store-api/putPet"].enabled
    text = (folder / f"{API}/endpoints/putPet.yaml").read_text()
    assert "# Not imported: it is served elsewhere, at https://uploads.test.\n" in text


def test_references_that_lead_nowhere_or_round(folder: Path) -> None:
    document = {
        "openapi": "3.0.0",
        "info": {"title": "r"},
        "paths": {
            "/a": {
                "get": {
                    "parameters": [{"$ref": "#/nowhere"}, {"$ref": "other.yaml#/p"}],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/x"}}}},
                    "responses": {},
                }
            }
        },
        "x": {"allOf": [{"$ref": "#/x"}], "properties": {"a": {"$ref": "#/y"}}},
        "y": {"$ref": "#/y"},
    }
    result = run(folder, document)
    assert result.exit_code == 0, result.output
    assert "left out   other.yaml#/p: it is in another file; bundle them into one first\n" in (
        result.stdout
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is neither JSON nor YAML: "),
        ("a: b: c", "is neither JSON nor YAML: mapping values are not allowed"),
        ("[" * 5000, "is neither JSON nor YAML: "),
        ("[]", "is no OpenAPI document: it has no key `openapi` or `swagger`"),
        ("openapi: 3.2.0", "is no OpenAPI document: it has version 3.2.0 of OpenAPI; 2.0, 3.0 and"),
        ("openapi: 3.0.0", "has no operations under `paths`"),
        ("swagger: 2.0\npaths: {/a: {get: }}\n", ""),
    ],
)
def test_what_is_no_document(folder: Path, document: str, message: str) -> None:
    result = run(folder, document)
    if message:
        assert (result.exit_code, message in result.stderr) == (1, True), result.output
        assert list(folder.iterdir()) == []
    else:
        assert result.exit_code == 0, result.output


def test_what_cannot_be_done(folder: Path, tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["import", "openapi", str(tmp_path / "nothing.yaml")])
    assert "nothing.yaml: No such file or directory" in missing.stderr
    url = "https://127.0.0.1:9/api.json?a=1&b=2"
    fetched = CliRunner().invoke(main, ["import", "openapi", url])
    assert fetched.exit_code == 1
    assert f"nothing is fetched here: curl -fLo api.json '{url}' && " in fetched.stderr
    assert "there is no config folder" in run(tmp_path / "nowhere", PETS).stderr
    assert run(folder, PETS, "--api", "../x").exit_code == 2
    (folder / "orchestratord.yaml").write_text("plugins: [")
    assert run(folder, PETS).exit_code == 78


def test_a_file_stays_what_yaml_reads(folder: Path) -> None:
    imported(folder, PETS)
    for path in folder.rglob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_page_of_the_docs_shows_what_is_written(folder: Path) -> None:
    page = (DOCS / "openapi.md").read_text()
    result = run(folder, (DOCS / "petstore.json").read_text(), "--api", "petstore")
    assert f"petstore.json --api petstore\n{result.stdout}```\n" in page
    written = (folder / "apis/petstore/endpoints/findPets.yaml").read_text()
    _, rest = written.split("\n", 1)
    assert f"# apis/petstore/endpoints/findPets.yaml\n{rest}```\n" in page


@pytest.mark.parametrize(
    ("schema", "required", "sent"),
    [
        ({"type": "object", "properties": {"a": {}}}, False, b"{}"),
        ({"type": "array"}, False, b"[]"),
        ({"type": "object", "required": ["a"]}, True, None),
        ({"oneOf": [{"type": "object", "required": ["a"]}, {"type": "object"}]}, True, None),
        ({"type": "array", "minItems": 1}, True, None),
    ],
)
def test_a_body_that_need_not_be_given(
    folder: Path, schema: Any, required: bool, sent: bytes | None
) -> None:
    """The document lets it be left out; nothing is sent that does not fit."""
    operation = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    config = imported(folder, {**PETS, "paths": {"/a": {"post": operation}}})
    assert config.endpoints["pet-store-api/post-a"].params["body"].required is required
    if sent is not None:
        assert request_of(config, "pet-store-api/post-a").content == sent


def test_lists_of_booleans_are_written_as_json_does(folder: Path) -> None:
    flags = {"type": "array", "items": {"type": "boolean"}}
    names = [("on", "query"), ("off", "path"), ("X-On", "header")]
    made = [{"name": n, "in": place, "explode": False, "schema": flags} for n, place in names]
    paths = {"/a/{off}": {"get": {"operationId": "a", "parameters": made}}}
    config = imported(folder, {**PETS, "paths": paths})
    both = [True, False]
    sent = request_of(config, "pet-store-api/a", on=both, off=both, **{"X-On": both})
    assert str(sent.url).endswith("/a/true%2Cfalse?on=true%2Cfalse")
    assert sent.headers["x-on"] == "true,false"


def test_a_parameter_twice_in_a_path_is_one(folder: Path) -> None:
    """Also where the document does not declare it."""
    config = imported(folder, {**PETS, "paths": {"/a/{x}/b/{x}": {"get": {"operationId": "a"}}}})
    assert list(config.endpoints["pet-store-api/a"].params) == ["x"]
    assert str(request_of(config, "pet-store-api/a", x="1").url).endswith("/a/1/b/1")


@pytest.mark.parametrize("live", ["${secret:TOKEN}", "{{ task.id }}"])
@pytest.mark.parametrize("kind", ["application/x+json", "text/plain"])
def test_a_media_type_becomes_no_reference_and_no_template(
    tmp_path: Path, kind: str, live: str
) -> None:
    """It is the document's: its author could ask for any secret of the environment."""
    body = {"required": True, "content": {f"{kind}; a={live}": {}}}
    paths = {"/a": {"post": {"operationId": "a", "requestBody": body}}}
    found = imported(tmp_path, {**PETS, "paths": paths})
    [endpoint] = found.endpoints.values()
    assert not endpoint.enabled
    lines = (tmp_path / endpoint.source).read_text().splitlines()
    assert not [line for line in lines if live in line and not line.startswith("#")]
