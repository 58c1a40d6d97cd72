"""`huey_consumer huey_jobs.huey` works on the jobs, `python huey_jobs.py N` queues N of them."""

import os
import sys
import time

import poster
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_DATABASE"])


@huey.task()
def post(body: str) -> int:
    # What is returned is kept, and so says that the job is done.
    return poster.send(body)


if __name__ == "__main__":
    # Under this name, not as a part of __main__, the workers know the task.
    from huey_jobs import post as queue

    body, due = os.environ["BENCH_BODY"], os.environ.get("BENCH_DUE")
    for _ in range(int(sys.argv[1])):
        if due is None:
            queue(body)
        else:
            queue.schedule(args=(body,), delay=int(due) / 1000 - time.time())
