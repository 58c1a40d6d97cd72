"""The certificates that APIs are reached with: for how long are they good?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from orchestratord.cli.doctor.case import Case
from orchestratord.cli.doctor.finding import Findings, fail, many, ok, warn
from orchestratord.values.certificate import certificates, ends

_SOON = timedelta(days=14)


def check_certificates(case: Case) -> Findings:
    """Do some end soon, or have they ended?"""
    now = datetime.now(UTC)
    dates: list[datetime] = []
    good = True
    for what, date in _ends(case):
        dates.append(date)
        renew = "renew it; a running daemon takes a new file by itself"
        if date < now:
            good = False
            yield fail(f"{what} ended on {date:%Y-%m-%d}", renew)
        elif date < now + _SOON:
            good = False
            yield warn(f"{what} ends on {date:%Y-%m-%d}", renew)
    if dates and good:
        count = many(len(dates), "certificate")
        yield ok(f"{count} of APIs; the first to end does so on {min(dates):%Y-%m-%d}")


def _ends(case: Case) -> Iterator[tuple[str, datetime]]:
    """When each file ends: a chain with its first certificate, authorities with the last one."""
    for api in case.config.apis.values() if case.config is not None else ():
        if api.tls is None:
            continue
        for key, file in (("ca", api.tls.ca), ("cert", api.tls.cert)):
            found = [ends(one) for one in certificates(file.content)] if file is not None else []
            dates = [date for date in found if date is not None]
            if file is not None and dates:
                date = max(dates) if key == "ca" else dates[0]
                yield f"tls.{key} of {api.name} ({file.name})", date
