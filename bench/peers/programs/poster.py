"""Sending the request of a job over the connection that the thread keeps."""

import os
import threading

import requests
import urllib3

URL = os.environ["BENCH_URL"]
HEADERS = {"content-type": "application/json"}
here = threading.local()


def over_requests(body: str) -> int:
    if not hasattr(here, "session"):
        here.session = requests.Session()
    answer = here.session.post(URL, data=body, headers=HEADERS, timeout=30)
    answer.raise_for_status()
    return answer.status_code


def over_urllib3(body: str) -> int:
    if not hasattr(here, "pool"):
        here.pool = urllib3.PoolManager()
    answer = here.pool.request("POST", URL, body=body, headers=HEADERS, timeout=30)
    if answer.status >= 300:
        raise RuntimeError(f"{answer.status}")
    return answer.status


send = {"requests": over_requests, "urllib3": over_urllib3}[os.environ["BENCH_CLIENT"]]
