"""How an API is reached, and how it is told who calls: TLS, a proxy, OAuth 2.0."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote

import httpx
from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestratord.model.declared import Model
from orchestratord.values.attached_file import Attachment
from orchestratord.values.certificate import certificates, show, trust
from orchestratord.values.durations import Duration
from orchestratord.values.redact import MASK
from orchestratord.values.secret import Secret, Text
from orchestratord.values.signing_key import PRETENDED_KEY, check_signing_key
from orchestratord.values.yaml_value import YamlValue, template_problem

AWAITED = f"Bearer {MASK}"
"""The value of Authorization until there is a token."""
_FILE = re.compile(r"\$\{file:(/[^{}]+)\}")
_WRITTEN = "as it is written here"
_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")
_AUTHORITY = re.compile(r"[A-Za-z0-9._~:\[\]-]+")


class PemFile(Attachment):
    """Certificates or a key: the path of a file, or what a reference gave of one."""

    __slots__ = ()

    json_schema: ClassVar[Mapping[str, Any]] = {
        **Attachment.json_schema,
        "description": "the path of a file in PEM, relative to the config folder",
    }

    @classmethod
    def parse(cls, value: Any, info: ValidationInfo) -> Self:
        if isinstance(value, str) and "-----BEGIN " in value:
            name = value.source if isinstance(value, Text) else _WRITTEN
            return cls(name, str(value).encode())
        return super().parse(value, info)


class Tls(Model):
    """The authorities that an API's TLS trusts, and its client certificate."""

    ca: PemFile | None = None
    """The trusted authorities, instead of the usual ones."""
    cert: PemFile | None = None
    """The client certificate, with its chain."""
    key: PemFile | None = None
    """Its private key, if it is in another file."""

    @field_validator("ca")
    @classmethod
    def _check_ca(cls, value: PemFile | None) -> PemFile | None:
        if value is not None:
            trust(_context(), value.content)
        return value

    @field_validator("cert")
    @classmethod
    def _check_cert(cls, value: PemFile | None) -> PemFile | None:
        if value is not None and not certificates(value.content):
            raise ValueError("holds no certificate in PEM")
        return value

    @field_validator("key")
    @classmethod
    def _check_key(cls, value: PemFile | None, info: ValidationInfo) -> PemFile | None:
        cert: PemFile | None = info.data.get("cert")
        if value is not None and value.name == _WRITTEN:
            raise ValueError("write the name of the key's file here, not the key")
        if value is not None and cert is not None:
            show(_context(), cert.content, value.content)
        return value

    @model_validator(mode="after")
    def _check_pair(self) -> Tls:
        if self.ca is None and self.cert is None and self.key is None:
            raise ValueError("give ca, or cert and key, or all three")
        if self.key is not None and self.cert is None:
            raise ValueError("key is that of cert, which is missing")
        if self.cert is not None and self.key is None:
            if b"PRIVATE KEY-----" not in self.cert.content:
                raise ValueError("cert needs key, the file with its private key")
            show(_context(), self.cert.content, self.cert.content)
        return self


def _context() -> ssl.SSLContext:
    """One to try things on."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Proxy(YamlValue):
    """Through whom an API is reached: `http://proxy.example.com:3128`, with `user:password@`.

    In a text that is written, a part of the URL is percent-encoded where it has to be; what comes
    out of a reference is taken as it is.
    """

    scheme: str
    host: str
    """Without brackets."""
    port: int
    username: str = ""
    password: str = field(default="", repr=False)

    json_schema: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://|\$\{",
        "description": "the URL of a proxy: http://proxy.example.com:3128, with user:password@",
    }

    @property
    def authorization(self) -> str | None:
        """The value of Proxy-Authorization, None for none."""
        if not self.username and not self.password:
            return None
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def __str__(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        who = (
            f"{self.username}:***@" if self.password else f"{self.username}@" * bool(self.username)
        )
        return f"{self.scheme}://{who}{host}:{self.port}"

    @classmethod
    def parse(cls, value: Any) -> Proxy:
        """Read the URL. Raises ValueError, without showing it."""
        if not isinstance(value, str):
            raise ValueError("expected a URL, such as http://proxy.example.com:3128")
        pieces = value.parts if isinstance(value, Text) else ((str(value), False),)
        if len(pieces) == 1:
            pieces = ((pieces[0][0], False),)
        # Placeholders stand for what references gave while the URL is taken apart.
        values = [text for text, referenced in pieces if referenced]
        numbers = iter(range(len(values)))
        skeleton = "".join(
            f"\ue000{next(numbers)}\ue001" if referenced else text for text, referenced in pieces
        )
        scheme, separator, rest = skeleton.partition("://")
        who, _, address = rest.rstrip("/").rpartition("@")

        def whole(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: values[int(match[1])], text)

        scheme, address = whole(scheme).lower(), whole(address)
        if not separator or scheme not in ("http", "https"):
            raise ValueError("begins with http:// or https://")
        if not _AUTHORITY.fullmatch(address):
            raise ValueError("is a proxy's URL: scheme, host and port, such as http://proxy:3128")
        try:
            url = httpx.URL(f"{scheme}://{address}/")
            port = httpx.URL(f"x://{address}/").port  # the scheme's own would be left out
        except (httpx.InvalidURL, ValueError):
            raise ValueError("has no host or port that can be used") from None
        if port is None or not 0 < port <= 65535 or not url.raw_host:
            raise ValueError("needs the port of the proxy, such as http://proxy.example.com:3128")
        name, _, password = who.partition(":")
        username = whole(unquote(name))
        return cls(scheme, url.raw_host.decode("ascii"), port, username, whole(unquote(password)))


class KeptSecret(Secret):
    """A secret that its receiver may replace by another one.

    `file` is the file that it came from, None where it did not come from one alone.
    """

    __slots__ = ("file",)

    file: str | None

    @classmethod
    def parse(cls, value: Any) -> KeptSecret:
        """See `Secret.parse`."""
        secret = cls(Secret.parse(value).reveal())
        match = _FILE.fullmatch(value.source) if isinstance(value, Text) else None
        secret.file = match[1] if match else None
        return secret


class _Literal(Model):
    """What stands here is sent as it stands, so that a template is a mistake."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_template(cls, value: Any) -> Any:
        # Of a secret that is written out, the source is a mask.
        written = value.source if isinstance(value, Text) and value.source != MASK else value
        remedy = "what changes from request to request belongs into headers"
        if isinstance(written, str) and (wrong := template_problem(written, remedy)):
            raise ValueError(wrong)
        return value


class OAuth2(_Literal):
    """An OAuth 2.0 token for client credentials, a refresh token, or a signed assertion."""

    token_url: str
    """The URL of the token server."""
    grant: Literal["client_credentials", "jwt_bearer"] = "client_credentials"
    """How to ask for a token: by the client's credentials, or by an assertion (jwt_bearer), as for
    Google's service accounts and Salesforce."""
    client_id: str | None = None
    """The client that asks for a token."""
    client_secret: Secret | None = None
    """The client's secret, preferably a reference: ${credential:name}."""
    scope: str | None = None
    """The scopes of the token, separated by spaces."""
    audience: str | None = None
    """The audience of the token, if the server wants it; with a private_key, the audience of the
    assertion, by default token_url."""
    refresh_token: KeptSecret | None = None
    """A secret that gets tokens, instead of the client's credentials alone."""
    algorithm: Literal["RS256", "ES256"] = "RS256"
    """The algorithm that signs assertions."""
    private_key: Secret | None = None
    """The PEM key that signs assertions, by reference: ${credential:name}. It replaces
    client_secret."""
    key_id: str | None = None
    """The server's name for the key (`kid`)."""
    issuer: str | None = None
    """The signer (`iss`); by default client_id."""
    subject: str | None = None
    """The user of the token (`sub`); by default client_id, and none for jwt_bearer."""
    assertion_lifetime: Annotated[Duration, Field(ge=1, le=3600)] = 300.0
    """How long an assertion is valid: 5m. Each request has a new one."""

    @field_validator("private_key")
    @classmethod
    def _check_key(cls, value: Secret | None, info: ValidationInfo) -> Secret | None:
        if value is not None and value.reveal() != PRETENDED_KEY:
            check_signing_key(value.reveal(), info.data.get("algorithm", "RS256"))
        return value

    @model_validator(mode="after")
    def _check_grant(self) -> OAuth2:
        signed = {"algorithm", "key_id", "issuer", "subject", "assertion_lifetime"}
        if self.private_key is None:
            if self.grant == "jwt_bearer":
                raise ValueError("private_key is required where grant is jwt_bearer")
            if alone := sorted(signed & self.model_fields_set):
                raise ValueError(f"{alone[0]} goes with private_key, which is missing")
            if self.client_secret is None and self.refresh_token is None:
                raise ValueError("client_secret is required where there is no refresh_token")
        elif self.client_secret is not None:
            raise ValueError("private_key takes the place of client_secret; keep one")
        if self.grant == "jwt_bearer" and self.refresh_token is not None:
            raise ValueError("refresh_token is a grant of its own; take grant out")
        if self.client_id is None and (self.grant != "jwt_bearer" or self.issuer is None):
            needs = "client_id"
            if self.grant == "jwt_bearer":
                needs = "issuer, or client_id,"
            raise ValueError(f"{needs} is required")
        return self


class Basic(_Literal):
    """HTTP Basic."""

    username: str
    """The user name of the daemon at the API."""
    password: Secret
    """The password, preferably a reference: ${credential:name}."""


class HeaderAuth(_Literal):
    """A header with a secret value."""

    name: str
    """The name of the header, such as X-Api-Key."""
    value: Secret
    """Its value, preferably a reference: ${credential:name}."""


class Auth(_Literal):
    """How to authenticate at a receiver; one of the four."""

    bearer: Secret | None = None
    """A token, sent as `Authorization: Bearer …`; preferably a reference."""
    basic: Basic | None = None
    """A user and a password, sent as `Authorization: Basic …`."""
    header: HeaderAuth | None = None
    """A header of any name with a secret value, such as X-Api-Key."""
    oauth2: OAuth2 | None = None
    """An OAuth 2.0 token, which the daemon requests and renews by itself."""

    @property
    def sent(self) -> tuple[str, str]:
        """The header that says who calls, its name and value; `AWAITED` stands for a token."""
        if self.bearer is not None:
            return "Authorization", f"Bearer {self.bearer.reveal()}"
        if self.basic is not None:
            pair = httpx.BasicAuth(self.basic.username, self.basic.password.reveal())
            return "Authorization", pair._auth_header
        if self.header is not None:
            return self.header.name, self.header.value.reveal()
        return "Authorization", AWAITED

    @model_validator(mode="after")
    def _check_one(self) -> Auth:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("give exactly one of bearer, basic, header and oauth2")
        return self
