"""One of the processes that commit orders, for the campaign: `producer.py URL FIRST COUNT SECONDS`.

An order is a row of `orders` and a call, in one transaction: whatever became of a COMMIT that was
not answered, the table says it. A third is rolled back, and some stay open for seconds.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from contextlib import suppress

import psycopg

OPEN = 50
"""One of so many transactions stays open for seconds, while others go on."""


def main(url: str, first: int, count: int, seconds: float) -> None:
    chance = random.Random(first)
    open_for_long: list[threading.Thread] = []
    began = time.monotonic()
    connection = None
    for number in range(first, first + count):
        stay = chance.uniform(1.0, 3.0) if chance.randrange(OPEN) == 0 else 0.0
        rolled_back = chance.randrange(3) == 0
        if stay:
            thread = threading.Thread(target=alone, args=(url, number, stay, rolled_back))
            thread.start()
            open_for_long.append(thread)
        else:
            connection = ordered(connection, url, number, 0.0, rolled_back)
        ahead = began + seconds * (number + 1 - first) / count - time.monotonic()
        time.sleep(max(ahead, 0.0))
    for thread in open_for_long:
        thread.join()
    if connection is not None:
        connection.close()


def alone(url: str, number: int, stay: float, rolled_back: bool) -> None:
    ordered(None, url, number, stay, rolled_back).close()


def ordered(
    connection: psycopg.Connection | None, url: str, number: int, stay: float, rolled_back: bool
) -> psycopg.Connection:
    """Order it, until it is known that it was; the connection that is good now."""
    while True:
        try:
            if connection is None:
                connection = psycopg.connect(url)
            if not connection.execute("SELECT 1 FROM orders WHERE n = %s", (number,)).fetchone():
                connection.execute("INSERT INTO orders VALUES (%s)", (number,))
                call = "SELECT orchestratord_enqueue('shop/order', %s::jsonb, key => %s)"
                connection.execute(call, (f'{{"n": {number}}}', f"order-{number}"))
                time.sleep(stay)
            connection.rollback() if rolled_back else connection.commit()
            return connection
        except psycopg.OperationalError:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()
            connection = None
            time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
