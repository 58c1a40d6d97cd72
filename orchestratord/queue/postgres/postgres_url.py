"""What the URL of a PostgreSQL may be, by libpq's word, and how it is shown."""

from __future__ import annotations

import re

ENCODED = "signs such as @, / and % in a password are written as %40, %2F and %25"


def problem(url: str) -> str | None:
    """Why a URL cannot be used, in words that hold no password; None where it can be tried."""
    try:
        from psycopg import Error  # is an extra
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        return "takes psycopg, which is not installed: pip install 'orchestratord[postgres]'"
    try:
        said = conninfo_to_dict(url)
    except Error as error:
        # The name of a parameter may be shown; else what is quoted may be the password.
        why = str(error).strip()
        if why.startswith("invalid URI query parameter"):
            return f"libpq cannot read it: {why}"
        what, _, _ = why.partition(': "')
        return f"libpq cannot read it: {what}; {ENCODED}"
    ports = str(said.get("port") or "").split(",")
    if not all(port.isdecimal() for port in ports if port):
        return f"its port is no number; {ENCODED}"
    return None


def may_lead_to_standby(url: str) -> bool:
    """Whether a URL that can be tried names several servers and not that the primary is meant, or
    means another one. A daemon looks for the primary all the same."""
    from psycopg.conninfo import conninfo_to_dict  # is an extra

    said = conninfo_to_dict(url)
    several = "," in str(said.get("host") or "") or "," in str(said.get("hostaddr") or "")
    asked = said.get("target_session_attrs", "any")
    return asked not in ("any", "primary", "read-write") or (several and asked == "any")


def hidden(url: str) -> str:
    """A URL, or a text that holds one, without the password in it."""
    url = re.sub(r"(?<=://)([^:/@\s]*):\S*@", r"\1:***@", url)
    return re.sub(r"(?i)\b(password|sslpassword)=[^&\s]*", r"\1=***", url)
