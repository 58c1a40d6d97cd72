"""The security schemes of an OpenAPI document, as the keys of api.yaml that authenticate."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestratord_openapi.openapi_document import OpenApiDocument, items, mapping, text

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""What RFC 6749 takes for one."""


@dataclass(frozen=True, slots=True)
class SecurityScheme:
    """One way to authenticate.

    Args:
        name: as the document has it.
        lines: what would stand in api.yaml; none where nothing can.
        query: the parameter of the query that it needs instead, with its reference.
        variables: what its references read from the environment.
        about: in words.
    """

    name: str
    lines: tuple[str, ...]
    variables: tuple[str, ...]
    about: str
    query: tuple[str, str] | None = None


def schemes_of(document: OpenApiDocument, api: str) -> list[SecurityScheme]:
    """The ways to authenticate; those that the document asks for everywhere come first."""
    root = document.root
    if document.version == "2.0":
        declared = mapping(root.get("securityDefinitions"))
    else:
        declared = mapping(mapping(root.get("components")).get("securitySchemes"))
    wanted = [name for one in items(root.get("security")) for name in mapping(one)]
    order = sorted(declared, key=lambda name: name not in wanted)
    prefix = re.sub(r"[^A-Z0-9]+", "_", api.upper()).strip("_").removesuffix("_API") or "API"
    prefix = f"API_{prefix}" if prefix[0].isdigit() else prefix
    scopes = _scopes(document)
    return [
        _scheme(str(name), document.look(declared[name]), prefix, scopes.get(str(name), ()))
        for name in order
    ]


def _scopes(document: OpenApiDocument) -> dict[str, tuple[str, ...]]:
    """Scheme → the scopes that operations ask of it, each once; of alternatives the first."""
    everywhere = document.root.get("security")
    found: dict[str, dict[str, None]] = {}
    for *_, operation in document.operations():
        seen: set[str] = set()
        for one in items(operation.get("security", everywhere)):
            for name, scopes in mapping(one).items():
                if str(name) not in seen:
                    seen.add(str(name))
                    texts = [scope for scope in items(scopes) if isinstance(scope, str)]
                    wanted = filter(_SCOPE.fullmatch, texts)
                    found.setdefault(str(name), {}).update(dict.fromkeys(wanted))
    return {name: tuple(scopes) for name, scopes in found.items()}


def _scheme(
    name: str, declared: Mapping[str, Any], prefix: str, scopes: tuple[str, ...]
) -> SecurityScheme:
    kind, scheme = declared.get("type"), str(declared.get("scheme", "")).lower()
    key, place = text(declared.get("name")), declared.get("in")
    token, secret = f"{prefix}_TOKEN", f"{prefix}_API_KEY"
    if kind == "basic" or (kind == "http" and scheme == "basic"):
        user, password = f"{prefix}_USERNAME", f"{prefix}_PASSWORD"
        pair = f'username: "${{{user}}}", password: "${{secret:{password}}}"'
        lines = (f"auth: {{basic: {{{pair}}}}}",)
        return SecurityScheme(name, lines, (user, password), "user name and password")
    if kind == "apiKey" and place in ("header", "cookie") and key:
        header, value, about = key, f"${{secret:{secret}}}", f"a key in {key}"
        if place == "cookie":
            header, value, about = "Cookie", f"{key}={value}", f"a key in the cookie {key}"
        line = f"auth: {{header: {{name: {json.dumps(header)}, value: {json.dumps(value)}}}}}"
        return SecurityScheme(name, (line,), (secret,), about)
    if kind == "apiKey" and place == "query" and key:
        about = f"a key in the query: {key}, written in each endpoint"
        return SecurityScheme(name, (), (secret,), about, (key, f"${{secret:{secret}}}"))
    if kind == "oauth2" and (found := _oauth2(declared, prefix, scopes)) is not None:
        return SecurityScheme(name, *found)
    if kind in ("oauth2", "openIdConnect") or (kind == "http" and scheme == "bearer"):
        about = "a bearer token" if kind == "http" else "a bearer token, by OAuth 2"
        return SecurityScheme(name, (f'auth: {{bearer: "${{secret:{token}}}"}}',), (token,), about)
    return SecurityScheme(
        name, (), (), f"{text(kind)} {text(scheme)}".strip() + ", which cannot be used"
    )


def _oauth2(
    declared: Mapping[str, Any], prefix: str, scopes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """Lines, variables, and in words; None where the daemon cannot get a token by itself."""
    client, password = f"{prefix}_CLIENT_ID", f"{prefix}_CLIENT_SECRET"
    refresh = f"{prefix}_REFRESH_TOKEN"
    keys = [
        f'    client_id: "${{{client}}}"',
        f'    client_secret: "${{secret:{password}}}"',
    ]
    for named, flow in (("clientCredentials", "application"), ("authorizationCode", "accessCode")):
        one = mapping(mapping(declared.get("flows")).get(named))
        if declared.get("flow") == flow:
            one = declared
        url = _url(one, "tokenUrl")
        if url is None:
            continue
        variables = [client, password]
        if flow == "application":
            if scopes:
                keys.append(f"    scope: {json.dumps(' '.join(scopes).replace('${', '$${'))}")
            about = "OAuth 2, for client credentials"
        else:
            # Its scopes are those that were agreed to when it was issued.
            url = _url(one, "refreshUrl") or url
            keys.append(f'    refresh_token: "${{secret:{refresh}}}"')
            variables.append(refresh)
            about = "OAuth 2, for a refresh token that a person has got by logging in"
        head = ("auth:", "  oauth2:", f"    token_url: {json.dumps(url)}")
        return (*head, *keys), tuple(variables), about
    return None


def _url(flow: Mapping[str, Any], key: str) -> str | None:
    url = text(flow.get(key)).replace("${", "$${")
    return url if re.match(r"https?://\S+$", url) else None
