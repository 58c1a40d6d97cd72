"""Any YAML as data, with the meaning that plain scalars have in the configuration's files."""

from __future__ import annotations

import re
from typing import Any

import yaml

from orchestratord.config.yaml.scalars import resolve


def parse_yaml(content: bytes | str) -> Any:
    """What the YAML says: `on`, `1_000` and dates are texts. Raises ValueError, RecursionError."""
    try:
        return yaml.load(content, _Loader)  # noqa: S506  # a safe one
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe one, which takes a plain text for what YAML 1.2 has it mean."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the library's own way
        "<": [("tag:yaml.org,2002:merge", re.compile("<<$"))],
        None: [("!plain", re.compile(""))],
    }


_Loader.add_constructor("!plain", lambda loader, node: resolve(node.value))
