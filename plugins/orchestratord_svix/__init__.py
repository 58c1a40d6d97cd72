"""The command `orchestratord import svix`: tenants and subscriptions from the applications of Svix.

svix_import reads the applications and endpoints of Svix, page by page, and asks the daemon's API
for a tenant and a subscription for each. Their secrets go to a file.
"""

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    """The group `import`, which other plugins share, with this one command."""
    from orchestratord_svix.svix_import import import_

    return [import_]
