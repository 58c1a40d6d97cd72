"""TLS, proxies and OAuth 2.0 in api.yaml: what is checked, and what is shown of them."""

from __future__ import annotations

import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from config_parts import ADDRESSES, ConfigFolder
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from orchestratord.config.load import load
from orchestratord.http.tls import context_of
from orchestratord.model.endpoint import Api
from orchestratord.values.certificate import certificates, ends

API = "apis/shop/api.yaml"
BASE = "base_url: https://api.example.com\n"
TLS = BASE + "tls: {ca: tls/ca.pem, cert: tls/cert.pem, key: tls/key.pem}\n"


def write(config: ConfigFolder, ca: trustme.CA, client: trustme.LeafCert) -> None:
    config.write("tls/ca.pem", b"the ca of \xc3\xbcs\n" + ca.cert_pem.bytes())
    config.write("tls/cert.pem", b"".join(pem.bytes() for pem in client.cert_chain_pems))
    config.write("tls/key.pem", client.private_key_pem.bytes())


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def private(config: ConfigFolder, ca: trustme.CA) -> ConfigFolder:
    write(config, ca, ca.issue_cert("daemon.example"))
    config.api(TLS)
    config.endpoint()
    return config


def api_of(config: ConfigFolder) -> Api:
    return config.load().apis["shop"]


def test_files_that_fit(private: ConfigFolder) -> None:
    api = api_of(private)
    assert api.tls is not None
    context = context_of(api.tls)
    assert len(context.get_ca_certs()) == 1, "instead of the usual ones"
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert private.one().shown["tls"] == {
        "ca": "tls/ca.pem", "cert": "tls/cert.pem", "key": "tls/key.pem",
    }  # fmt: skip
    assert private.warnings() == []


def test_a_certificate_with_its_key_in_one_file(private: ConfigFolder, ca: trustme.CA) -> None:
    private.write("tls/both.pem", ca.issue_cert("x").private_key_and_cert_chain_pem.bytes())
    private.api(BASE + "tls: {cert: tls/both.pem}\n")
    tls = api_of(private).tls
    assert tls is not None
    assert len(context_of(tls).get_ca_certs()) > 10, "the usual ones are trusted"


def test_a_key_by_reference(private: ConfigFolder, tmp_path: Path) -> None:
    key = (private.path / "tls/key.pem").read_text()
    (tmp_path / "key").write_text(key)
    (private.path / "tls/key.pem").unlink()
    private.api(TLS.replace("tls/key.pem", f"'${{file:{tmp_path}/key}}'"))
    tls = api_of(private).tls
    assert tls is not None
    context_of(tls)
    config = private.load()
    assert config.redactor.text(key.strip()) == "***"
    assert private.one().shown["tls"]["key"] == "***"


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("another key", "tls.key: does not fit the certificate"),
        ("no key", "tls.key: holds no private key in PEM"),
        ("a key with a passphrase", "tls.key: is protected by a passphrase; store it without one"),
        ("half a key", "tls.key: cannot be used: "),
        ("no certificate", "tls.cert: holds no certificate in PEM"),
        ("half a certificate", "tls.ca: holds a certificate that cannot be used: "),
        ("a key alone", "tls: key is that of cert, which is missing"),
        ("a certificate alone", "tls: cert needs key, the file with its private key"),
        ("a key in the YAML", "tls.key: write the name of the key's file here, not the key"),
    ],
)
def test_files_that_do_not_fit(
    private: ConfigFolder, ca: trustme.CA, what: str, error: str
) -> None:
    key = (private.path / "tls/key.pem").read_bytes()
    cert = (private.path / "tls/cert.pem").read_bytes()
    match what:
        case "another key":
            private.write("tls/key.pem", ca.issue_cert("x").private_key_pem.bytes())
        case "no key":
            private.write("tls/key.pem", cert)
        case "a key with a passphrase":
            private.write("tls/key.pem", key.replace(b" RSA ", b" ").replace(b" EC ", b" ")
                          .replace(b"BEGIN PRIVATE", b"BEGIN ENCRYPTED PRIVATE"))  # fmt: skip
        case "half a key":
            private.write("tls/key.pem", key[:60] + key[90:])
        case "no certificate":
            private.write("tls/cert.pem", key)
        case "half a certificate":
            private.write("tls/ca.pem", cert[:60] + cert[90:])
        case "a key alone":
            private.api(BASE + "tls: {key: tls/key.pem}\n")
        case "a certificate alone":
            private.api(BASE + "tls: {cert: tls/cert.pem}\n")
        case "a key in the YAML":
            text = key.decode().replace("\n", "\n    ")
            private.api(BASE + f"tls:\n  cert: tls/cert.pem\n  key: |\n    {text}\n")
    assert f"{error}" in private.error()
    assert private.error().startswith(f"{API}:")


def test_certificates_that_have_ended(private: ConfigFolder, ca: trustme.CA) -> None:
    past = datetime(2026, 3, 1, 12, tzinfo=UTC)
    old = ca.issue_cert("x", not_before=past - timedelta(days=9), not_after=past)
    write(private, ca, old)
    assert private.warnings() == [
        f"{API}:2:23: tls.cert: its certificate expired on 2026-03-01; renew it"
    ]
    (pem,) = certificates(old.cert_chain_pems[0].bytes())
    assert ends(pem) == past
    (ours,) = certificates(ca.cert_pem.bytes())
    ended = ends(ours)
    assert ended is not None
    assert ended.year > 2026
    later = datetime(2055, 1, 1, tzinfo=UTC)  # written in another way from 2050 on
    (far,) = certificates(ca.issue_cert("x", not_after=later).cert_chain_pems[0].bytes())
    assert ends(far) == later
    assert ends("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n") is None


def test_a_proxy(config: ConfigFolder) -> None:
    config.environ = {"WHO": "us:er", "PASSWORD": "p@ss/word"}
    config.api(BASE + "proxy: http://${WHO}:${PASSWORD}@proxy.example.com:3128\n")
    config.endpoint()
    proxy = api_of(config).proxy
    assert proxy is not None
    assert (proxy.username, proxy.password) == ("us:er", "p@ss/word")
    assert config.load().redactor.text("it is p@ss/word") == "it is ***"
    assert config.one().shown["proxy"] == "http://us:er:***@proxy.example.com:3128"
    assert config.warnings() == []


def test_a_proxys_password_that_is_written_out(config: ConfigFolder) -> None:
    config.api(BASE + "proxy: http://me:written-out@proxy.example.com:3128\n")
    config.endpoint()
    (warning,) = config.warnings()
    assert warning.startswith(f"{API}:2:1: proxy: a password is written out here")
    config_ = config.load()
    assert config_.redactor.text("written-out") == "***"
    assert config_.warnings[0].source == "proxy: ***"
    assert config.one().shown["proxy"] == "http://me:***@proxy.example.com:3128"


def test_addresses_that_would_be_denied(config: ConfigFolder) -> None:
    oauth2 = "{token_url: 'http://10.0.0.8/t?v=1', client_id: x, client_secret: '${S}'}"
    config.environ = {"S": "a-secret"}
    config.api(BASE + f"proxy: http://10.0.0.7:3128\nauth: {{oauth2: {oauth2}}}\n")
    config.endpoint()
    first, second = config.warnings()
    assert first.startswith(f"{API}:2:1: proxy: 10.0.0.7 is a private address")
    assert second.startswith(f"{API}:3:17: auth.oauth2.token_url: 10.0.0.8 is a private address")


def test_oauth2(config: ConfigFolder, tmp_path: Path) -> None:
    (tmp_path / "refresh").write_text("a-refresh-token\n")
    config.environ = {"S": "a-client-secret"}
    config.api(
        BASE + "auth:\n  oauth2:\n    token_url: https://login.example.com/token\n"
        "    client_id: 007\n    client_secret: ${secret:S}\n    scope: a b\n"
        f"    refresh_token: ${{file:{tmp_path}/refresh}}\n"
    )
    config.endpoint()
    auth = api_of(config).auth
    assert auth is not None
    assert auth.oauth2 is not None
    assert auth.oauth2.client_id == "007"
    refresh = auth.oauth2.refresh_token
    assert refresh is not None
    assert (refresh.reveal(), refresh.file) == ("a-refresh-token", f"{tmp_path}/refresh")
    assert config.one().shown["auth"] == {
        "oauth2": {
            "token_url": "https://login.example.com/token", "client_id": "007",
            "client_secret": "***", "scope": "a b", "refresh_token": "***",
        }
    }  # fmt: skip
    redactor = config.load().redactor
    assert redactor.text("a-client-secret a-refresh-token") == "*** ***"
    assert config.warnings() == []


SIGNED = "auth:\n  oauth2:\n    token_url: https://login.example.com/token\n"


def pem_of(key: Any, passphrase: bytes | None = None) -> str:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return text.decode()


@pytest.fixture(scope="module")
def pem() -> str:
    return pem_of(rsa.generate_private_key(65537, 2048))


def test_a_private_key_is_a_secret(config: ConfigFolder, pem: str) -> None:
    config.environ = {"K": pem}
    config.api(
        f"{BASE}{SIGNED}    grant: jwt_bearer\n    issuer: me\n    private_key: ${{secret:K}}\n"
    )
    config.endpoint()
    assert config.warnings() == []
    assert config.one().shown["auth"]["oauth2"] == {
        "token_url": "https://login.example.com/token", "grant": "jwt_bearer", "issuer": "me",
        "private_key": "***",
    }  # fmt: skip
    assert pem.splitlines()[1] not in config.load().redactor.text(f"<{pem}>")
    assert pem.splitlines()[1] not in repr(config.one())


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ("grant: jwt_bearer\nissuer: me", "3:3: auth.oauth2: private_key is required where"),
        ("client_id: x\nkey_id: k", "auth.oauth2: key_id goes with private_key, which is missing"),
        ("grant: jwt_bearer\nprivate_key: ${secret:K}", "issuer, or client_id, is required"),
        ("private_key: ${secret:K}", "auth.oauth2: client_id is required"),
        ("client_id: x\nclient_secret: '${secret:K}'\nprivate_key: '${secret:K}'", "keep one"),
        ("grant: jwt_bearer\nclient_id: x\nrefresh_token: '${secret:K}'\n"
         "private_key: '${secret:K}'", "refresh_token is a grant of its own"),
        ("client_id: x\nprivate_key: '${secret:K}'\nalgorithm: ES256", "is not of the curve P-256"),
        ("client_id: x\nprivate_key: '${secret:EC}'", "is not an RSA key, which RS256 signs with"),
        ("client_id: x\nprivate_key: '${secret:SHORT}'", "is too short: RS256 takes"),
        ("client_id: x\nprivate_key: '${secret:SEALED}'", "has a passphrase; give the key without"),
        ("client_id: x\nprivate_key: '${secret:NONE}'", "is not a private key in PEM"),
        ("client_id: x\nprivate_key: '${secret:K}'\nassertion_lifetime: 2h", "must be at most"),
        ("client_id: x\nprivate_key: '${secret:K}'\nissuer: '{{ now }}'", "takes no template"),
        ("client_id: x\nprivate_key: '${secret:K}'\ngrant: password", "known are client_cred"),
    ],
)  # fmt: skip
def test_what_cannot_sign(config: ConfigFolder, pem: str, keys: str, error: str) -> None:
    config.environ = {
        "K": pem,
        "EC": pem_of(ec.generate_private_key(ec.SECP256R1())),
        "SHORT": pem_of(rsa.generate_private_key(65537, 1024)),
        "SEALED": pem_of(rsa.generate_private_key(65537, 2048), b"sesame"),
        "NONE": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----",
    }
    config.api(BASE + SIGNED + "".join(f"    {line}\n" for line in keys.splitlines()))
    config.endpoint()
    told = config.errors()
    assert any(error in one for one in told), told
    assert not any("c2VjcmV0" in one or "sesame" in one for one in told)


def test_what_signs_is_not_installed(
    config: ConfigFolder, pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    config.environ = {"K": pem}
    config.api(f"{BASE}{SIGNED}    client_id: x\n    private_key: ${{secret:K}}\n")
    config.endpoint()
    assert config.error().endswith(
        "auth.oauth2.private_key: takes PyJWT, which is not installed: "
        "pip install 'orchestratord[jwt]'"
    )


def test_a_key_that_is_pretended(config: ConfigFolder) -> None:
    config.api(f"{BASE}{SIGNED}    client_id: x\n    private_key: ${{secret:K}}\n")
    config.endpoint()
    pretended: set[str] = set()
    load(config.path, config.host, environ={}, addresses=ADDRESSES, pretended=pretended)
    assert pretended == {"${secret:K}"}
