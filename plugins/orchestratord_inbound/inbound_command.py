"""`orchestratord inbound`: what comes in from senders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestratord import complete_endpoints, config_option

if TYPE_CHECKING:
    from orchestratord import Endpoint, PortRequest

WITHIN = 15.0
"""Seconds that the daemon has to answer."""
_SHOWN = 2_000
"""Bytes of its answer."""


@click.group()
def inbound() -> None:
    """Try webhooks that come in."""


@inbound.command()
@config_option
@click.argument("file", metavar="FILE", shell_complete=complete_endpoints)
@click.option(
    "--body", type=click.Path(exists=True, dir_okay=False), help="A file that is sent as it is."
)
@click.option("--bind", metavar="ADDRESS:PORT", help="Where the daemon listens, if elsewhere.")
def test(config: str | None, file: str, body: str | None, bind: str | None) -> None:
    """Sign an example as its sender would, and send it to the running daemon.

    FILE is that of the endpoint, or its name, API/NAME. The exit code is 0 where it was taken.
    """
    from orchestratord import PortRequest, opened_config, parse_bind

    open_ = opened_config(config)
    endpoint = _of_file(Path(file), open_.folder, open_.config.endpoints.values())
    if endpoint is None:
        endpoint = open_.endpoint(file)
    content = None if body is None else Path(body).read_bytes()
    found = open_.host.ask("example_request", {"endpoint": endpoint, "body": content})
    requests = [one for _, items in found for one in items if isinstance(one, PortRequest)]
    if not requests:
        raise click.ClickException(f"{endpoint.id} takes nothing in: it has no `inbound`")
    ports = [port.bind for key, port in open_.config.ports.items() if "." not in key]
    if bind is None and not ports:
        raise click.ClickException(
            "there is no port: write inbound: {bind: 127.0.0.1:8430} into orchestratord.yaml"
        )
    try:
        address, port = parse_bind(bind or ports[0])
    except ValueError as error:
        raise click.UsageError(f"--bind: {error}") from None
    if port == 0:
        raise click.UsageError("the port is any free one: say with --bind which it is")
    if address.is_unspecified:
        address = type(address)("127.0.0.1" if address.version == 4 else "::1")
    status, text = _sent(requests[0], str(address), port)
    click.echo(f"{requests[0].method} {requests[0].path}: {status}", err=True)
    click.echo(text)
    raise SystemExit(0 if 200 <= status < 300 else 1)


def _of_file(path: Path, folder: Path, endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that this file declares, if it is one's."""
    found = path.resolve()
    return next((one for one in endpoints if (folder / one.source).resolve() == found), None)


def _sent(request: PortRequest, host: str, port: int) -> tuple[int, str]:
    """Send it; the status and the body of the answer. Ends the command where none comes."""
    import httpx

    from orchestratord import escape

    url = httpx.URL(scheme="http", host=host, port=port, raw_path=request.path.encode())
    shown = b""
    try:
        with (
            # To this very address, whatever the environment says of proxies.
            httpx.Client(timeout=WITHIN, trust_env=False, verify=False) as client,  # noqa: S501
            client.stream(
                request.method, url, content=request.body, headers=dict(request.headers)
            ) as answer,
        ):
            for part in answer.iter_raw():
                shown += part
                if len(shown) >= _SHOWN:
                    break
    except httpx.HTTPError as error:
        raise click.ClickException(
            f"nothing answers at {host}:{port} ({_reason(error)}): start the daemon, or "
            "say with --bind where it listens"
        ) from None
    return answer.status_code, escape(shown[:_SHOWN].decode(errors="replace"))


def _reason(error: Exception) -> str:
    """In the system's words, where it was the system that said so."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.strerror:
            return at.strerror
        at = at.__cause__ or at.__context__
    return str(error) or type(error).__name__
