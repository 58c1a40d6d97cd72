"""Has plugins do what they have put off: the chores of a line."""

from __future__ import annotations

from functools import partial

from orchestratord.engine.worker import Worker
from orchestratord.plugin.isolation import HookFault, call, check_effects
from orchestratord.plugin.long_work import off_loop
from orchestratord.plugin.registry import CHORE
from orchestratord.queue.operations.chores import data_of
from orchestratord.queue.operations.effects import end_chore
from orchestratord.queue.records import Chore


async def do_first_of_line(worker: Worker, chore: Chore) -> None:
    """Have the first chore of a line done. Raises HookFault where that is not possible."""
    host, found = worker.host, await worker.store.read(data_of(chore))
    if found is None:
        return
    kind, data = found
    if (step := host.registry.chores.get(kind)) is None:
        raise HookFault(f"no plugin does chores of the kind {kind} here")
    timeout = host.timeout * 2.0 ** min(chore.failures, 10)  # it may only have much to do
    result, plugin = await call(step, [data], timeout), host.registry.owners[CHORE, kind]
    effects = await off_loop(check_effects, result, host.registry, plugin, host.max_params)
    await worker.enqueue.write_by(effects, partial(end_chore, chore))
