"""A request as a command line of curl, for whoever wants to try it by hand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

_BY_CURL = frozenset({"host", "content-length", "accept-encoding"})
"""Headers that curl sets by itself."""


def curl(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: str | None,
    body_file: str | None = None,
    options: Sequence[tuple[str, str]] = (),
) -> str:
    """The command line, one option a line; what is masked has to be filled in.

    Args:
        method: of the request, as are `url`, `headers` and `body`.
        body_file: instead of `body`, the file that holds it.
        options: further ones, such as ("--proxy", "http://proxy.example.com:3128").
    """
    lines = ["curl"]
    if method == "HEAD":
        lines[0] += " --head"
    elif method != "GET" or body or body_file:
        lines[0] += f" -X {method}"
    if any(character in url for character in "[]{}"):
        lines[0] += " --globoff"
    lines[0] += f" {shlex.quote(url)}"
    for name, value in headers.items():
        if name.lower() not in _BY_CURL:
            # Without a value curl would leave the header out; this is how it is told to send one.
            lines.append("-H " + shlex.quote(f"{name}: {value}" if value else f"{name};"))
    if any(name.lower() == "accept-encoding" for name in headers):
        lines.append("--compressed")
    lines += [f"{name} {shlex.quote(value)}" for name, value in options]
    if body_file:
        lines.append(f"--data-binary {shlex.quote(f'@{body_file}')}")
    elif body:
        lines.append(f"--data-raw {shlex.quote(body)}")
    return " \\\n  ".join(lines)
