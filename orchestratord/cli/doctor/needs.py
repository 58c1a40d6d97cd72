"""What the kinds of endpoints need, such as databases: is it there?"""

from __future__ import annotations

from orchestratord.cli.doctor.case import Case
from orchestratord.cli.doctor.finding import Findings, fail, ok


def check_needs(case: Case) -> Findings:
    """Each executor knows what it needs, and tries it."""
    if case.host is None or case.config is None:
        return
    for executor in case.host.registry.executors:
        for need in executor.needs(case.config):
            if need.fault:
                yield fail(f"{need.what}: {need.fault}", need.remedy)
            else:
                yield ok(need.what)
