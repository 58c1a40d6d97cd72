"""A shop whose orders go to the warehouse by orchestratord.

    SHOP_DATABASE=shop.db flask --app flask_shop run

A customer sends `PUT /orders/17 {"item": "umbrella"}`, and is answered once the order is kept by
the shop and by the daemon. While the daemon restarts, the customer waits a moment longer.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any

from flask import Flask, request
from orchestratord_client import Client, ClientError

app = Flask(__name__)
daemon = Client(deadline=60)  # its socket is $ORCHESTRATORD_SOCKET's; all threads share it

SCHEMA = "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, item TEXT NOT NULL)"


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ.get("SHOP_DATABASE", "shop.db"), timeout=30)
    connection.execute(SCHEMA)
    return connection


@app.put("/orders/<int:number>")
def order(number: int) -> tuple[dict[str, Any], int]:
    item = str(request.get_json()["item"])
    with closing(database()) as connection, connection:
        row = (number, item)
        connection.execute("INSERT INTO orders VALUES (?, ?) ON CONFLICT DO NOTHING", row)
    try:
        # With the order's number as its key, the same order sent again is the same call.
        call = daemon.call(
            "warehouse/ship", {"number": number, "item": item}, key=f"order-{number}"
        )
    except ClientError as error:
        app.logger.error("order %d is kept, but not sent: %s", number, error)
        return {"error": "send the order again in a minute"}, 503
    return {"number": number, "task": call.id}, 200


@app.get("/orders/<int:number>/task/<int:task_id>")
def shipped(number: int, task_id: int) -> dict[str, Any]:
    task = daemon.get(task_id)
    return {"number": number, "shipped": task.succeeded, "error": task.last_error}
