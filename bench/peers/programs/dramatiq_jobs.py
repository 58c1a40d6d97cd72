"""`dramatiq dramatiq_jobs` works on the jobs, `python dramatiq_jobs.py N` queues N of them."""

import os
import sys
import time

import dramatiq
import poster
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_DATABASE"]))


@dramatiq.actor(queue_name="bench")
def post(body: str) -> None:
    poster.send(body)


if __name__ == "__main__":
    body, due = os.environ["BENCH_BODY"], os.environ.get("BENCH_DUE")
    for _ in range(int(sys.argv[1])):
        if due is None:
            post.send(body)
        else:
            post.send_with_options(args=(body,), delay=int(due) - int(time.time() * 1000))
