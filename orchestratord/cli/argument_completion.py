"""What the tabulator key offers for the arguments of `orchestratord`.

The names of endpoints are those of the files, which are not read: so they are there at once, and
also while the configuration is not good.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from orchestratord.cli.options import folder_of


def complete_endpoints(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The endpoints of the config folder, without those that were named already."""
    from orchestratord.config.folder import named_endpoints

    given = ctx.params.get(param.name or "") or ()
    names = named_endpoints(folder_of(ctx.params.get("config")))
    return _items((name for name in names if name not in given), incomplete)


def complete_strategies(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The strategies of backoff that the plugins have; none while these cannot be loaded."""
    from orchestratord.cli.opened_config import host_of
    from orchestratord.errors import OrchestratordError

    try:
        host = host_of(folder_of(ctx.params.get("config")))
    except OrchestratordError:
        return []
    return _items(sorted(host.registry.backoffs), incomplete)


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
