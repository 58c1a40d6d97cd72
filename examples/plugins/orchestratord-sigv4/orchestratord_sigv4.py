"""Requests to AWS, and to what speaks like it: signed by Signature Version 4.

The steps are those of "Create a signed AWS API request" in the documentation of AWS IAM.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote_to_bytes

import httpx

from orchestratord import Endpoint, Model, Secret, Setting, Task, hookimpl

clock = time.time
"""Seconds since the epoch; tests have another one."""


class SigV4(Model):
    """By whom, and for which service, the calls of an API are signed."""

    access_key: str
    secret_key: Secret
    session_token: Secret | None = None
    region: str = "us-east-1"
    service: str
    """Such as `s3`, `sqs`, `execute-api`."""


SIGV4: Setting[SigV4 | None] = Setting(
    "sigv4", SigV4 | None, default=None, description="Signs calls as AWS wants it."
)


@hookimpl
def register_settings() -> list[Setting[SigV4 | None]]:
    return [SIGV4]


@hookimpl
async def before_request(request: httpx.Request, task: Task, endpoint: Endpoint) -> None:
    """Sign the request, at each attempt anew: a signature is good for five minutes."""
    keys = endpoint[SIGV4]
    # A delivery goes to another server, which is to see none of it.
    if keys is not None and task.kind == "call":
        sign(request, await request.aread(), keys, datetime.fromtimestamp(clock(), UTC))


def sign(request: httpx.Request, body: bytes, keys: SigV4, now: datetime) -> None:
    """Put date and signature into the headers."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    request.headers["X-Amz-Date"] = stamp
    if keys.service.startswith("s3"):
        request.headers["X-Amz-Content-Sha256"] = digest
    if keys.session_token is not None:
        request.headers["X-Amz-Security-Token"] = keys.session_token.reveal()
    signed = {
        name.lower(): " ".join(value.split())
        for name, value in request.headers.items()
        if name.lower() in ("host", "content-type") or name.lower().startswith("x-amz-")
    }
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            request.method,
            _path(request.url, keys.service),
            _query(request.url),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            digest,
        ]
    )
    scope = f"{stamp[:8]}/{keys.region}/{keys.service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
    key = f"AWS4{keys.secret_key.reveal()}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def _path(url: httpx.URL, service: str) -> str:
    path = url.raw_path.partition(b"?")[0].decode("ascii") or "/"
    if service.startswith("s3"):  # S3 signs the name of the object, in the one way to encode it
        return quote(unquote_to_bytes(path), safe="/-_.~")
    return quote(re.sub("/+", "/", path), safe="/-_.~")  # all others encode the path once more


def _query(url: httpx.URL) -> str:
    pairs = parse_qsl(url.query.decode("ascii"), keep_blank_values=True)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
