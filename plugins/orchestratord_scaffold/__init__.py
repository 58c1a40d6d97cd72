"""Files for a beginning: the commands `init`, `new` and `schema`.

Templates become texts in `scaffold`; an endpoint's are tried on a copy of the folder first, by the
code that reads the configuration; then they are written, never over what is there.

init_command    a config folder            new_command   an endpoint, or a plugin
new_endpoint    its files                  new_plugin    its package
schema_command  what the files may hold, for editors
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from orchestratord import hookimpl


@hookimpl
def register_commands() -> Iterable[click.Command]:
    from orchestratord_scaffold.init_command import init
    from orchestratord_scaffold.new_command import new
    from orchestratord_scaffold.schema_command import schema

    return [init, new, schema]
