"""What the tabulator key offers for the arguments of `orchestratord`.

The names of endpoints are those of the files, which are not read: so they are there at once, and
also while the configuration is not good.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from orchestratord.cli.options import folder_of


def endpoints(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The endpoints of the config folder, without those that were named already."""
    from orchestratord.config.folder import named_endpoints

    given = ctx.params.get(param.name or "") or ()
    names = named_endpoints(folder_of(ctx.params.get("config")))
    return _items((name for name in names if name not in given), incomplete)


def endpoints_and_strategies(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """These endpoints, and the strategies of the plugins."""
    from orchestratord.cli.opened_config import host_of
    from orchestratord.errors import OrchestratordError

    found = endpoints(ctx, param, incomplete)
    try:
        host = host_of(folder_of(ctx.params.get("config")))
    except OrchestratordError:
        return found
    return found + _items(sorted(host.registry.backoffs), incomplete)


def phases(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The phases of an attempt."""
    from orchestratord.plugin.hookspecs import PHASES

    return _items(PHASES, incomplete)


def errors(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ways in which no answer comes."""
    from orchestratord.model.test_case import ERRORS

    return _items(ERRORS, incomplete)


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
