"""The same shop with asyncio: its orders go to the warehouse by orchestratord.

uvicorn fastapi_shop:app
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from orchestratord_client import AsyncClient, Invalid, NotFound
from pydantic import BaseModel


class Order(BaseModel):
    item: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # One client for all requests; its socket is $ORCHESTRATORD_SOCKET's.
    async with AsyncClient(deadline=60) as daemon:
        app.state.daemon = daemon
        yield


app = FastAPI(lifespan=lifespan)


@app.put("/orders/{number}")
async def order(number: int, order: Order, request: Request) -> dict[str, int]:
    daemon: AsyncClient = request.app.state.daemon
    params = {"number": number, "item": order.item}
    try:
        # With the order's number as its key, the same order sent again is the same call.
        call = await daemon.call("warehouse/ship", params, key=f"order-{number}")
    except Invalid as error:
        raise HTTPException(422, error.detail) from None
    return {"number": number, "task": call.id}


@app.get("/orders/{number}/task/{task_id}")
async def shipped(number: int, task_id: int, request: Request) -> dict[str, bool | int]:
    daemon: AsyncClient = request.app.state.daemon
    try:
        task = await daemon.get(task_id)
    except NotFound as error:
        raise HTTPException(404, error.detail) from None
    return {"number": number, "shipped": task.succeeded}
