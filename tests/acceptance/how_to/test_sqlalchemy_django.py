"""`enqueue` in transactions of SQLAlchemy and of Django, as the how-to has it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import django
import orchestratord_client as oc
import psycopg
import pytest
from django.conf import settings
from orchestratord_outbox.outbox_schema import outbox_schema
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.acceptance.how_to.pages import page
from tests.postgres import Postgres

PlaceOrder = Callable[..., None]


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """An order, as SQLAlchemy has it."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


@pytest.fixture(scope="module")
def shop(postgres: Postgres) -> Iterator[str]:
    """The URL of a database with an outbox, and a table of orders."""
    url = postgres.create()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(outbox_schema("public").encode())
        connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL)")
    yield url
    postgres.drop(url)


def place_order(library: str) -> PlaceOrder:
    """The function that the how-to has for a library."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", page("sqlalchemy-django"), re.MULTILINE | re.DOTALL
    )
    block = {"django": blocks[1], "sqlalchemy": blocks[0]}[library]
    names: dict[str, Any] = {}
    exec(compile(block, "sqlalchemy-django.md", "exec"), names)
    function: PlaceOrder = names["place_order"]
    return function


def queued(url: str, item: str) -> list[tuple[str, dict[str, int], str]]:
    """The calls in the outbox for the orders of an item."""
    query = """SELECT endpoint, params, key FROM orchestratord_outbox
        WHERE params->>'id' IN (SELECT id::text FROM orders WHERE item = %s)"""
    with psycopg.connect(url) as connection:
        return connection.execute(query, (item,)).fetchall()


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        (row,) = connection.execute("SELECT count(*) FROM orchestratord_outbox").fetchall()
        return int(row[0])


def test_sqlalchemy_makes_the_call_with_its_commit(shop: str) -> None:
    place = place_order("sqlalchemy")
    engine = create_engine(shop.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session, session.begin():
        place(session, order := Order(item="umbrella"))
        number = order.id
    assert queued(shop, "umbrella") == [("shop/sendOrder", {"id": number}, f"order-{number}")]
    before = rows(shop)
    with Session(engine) as session:
        place(session, Order(item="boots"))
        session.rollback()
    engine.dispose()
    assert (rows(shop), queued(shop, "boots")) == (before, [])


def test_sqlalchemy_with_asyncio(shop: str) -> None:
    async def order() -> None:
        engine = create_async_engine(shop.replace("postgresql://", "postgresql+psycopg://"))
        async with AsyncSession(engine) as session, session.begin():
            await session.run_sync(place_order("sqlalchemy"), Order(item="hat"))
        await engine.dispose()

    asyncio.run(order())
    assert len(queued(shop, "hat")) == 1


def test_a_session_is_told_what_to_pass(shop: str) -> None:
    engine = create_engine(shop.replace("postgresql://", "postgresql+psycopg://"))
    told = r"not Session; pass session\.connection\(\)\.connection of SQLAlchemy"
    with Session(engine) as session, pytest.raises(TypeError, match=told):
        oc.enqueue(session, "shop/sendOrder")  # type: ignore[arg-type]

    async def wrong() -> None:
        await oc.enqueue_async(AsyncSession(), "shop/sendOrder")  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="not AsyncSession"):
        asyncio.run(wrong())
    engine.dispose()


def test_django_makes_the_call_with_its_commit(shop: str) -> None:
    named = psycopg.conninfo.conninfo_to_dict(shop)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": named["dbname"],
                "USER": named["user"],
                "PASSWORD": named.get("password", ""),
                "HOST": named["host"],
                "PORT": named["port"],
            }
        },
        USE_TZ=True,
    )
    django.setup()
    from django.db import connection, models, transaction

    class DjangoOrder(models.Model):
        item = models.TextField()

        class Meta:
            app_label = "shop"
            db_table = "orders"

    place = place_order("django")
    place(order := DjangoOrder(item="gloves"))
    assert queued(shop, "gloves") == [("shop/sendOrder", {"id": order.pk}, f"order-{order.pk}")]
    before = rows(shop)
    with transaction.atomic():
        place(DjangoOrder(item="scarf"))
        transaction.set_rollback(True)
    connection.close()
    assert (rows(shop), queued(shop, "scarf")) == (before, [])
