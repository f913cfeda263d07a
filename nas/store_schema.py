"""Our tables, and how a store of an earlier version is brought up to date: a function a version."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine

from nas.errors import StorageError

SCHEMA_VERSION = 2
MIGRATION_LOCK = 0x6E6173  # any number that nobody else locks: "nas"

_tables = MetaData()
META = Table("nas_meta", _tables, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False))
EVALUATIONS = Table(
    "nas_evaluations", _tables,
    Column("id", Integer, primary_key=True),
    Column("study", String(255), index=True, nullable=False),
    Column("key", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("record", Text, nullable=False),
)  # fmt: skip
ONCE = Index("nas_evaluations_once", EVALUATIONS.c.study, EVALUATIONS.c.key, unique=True)
BLOCKS = Table(
    "nas_blocks", _tables,
    Column("id", Integer, primary_key=True),
    Column("context", String(255), index=True, nullable=False),
    Column("block", String(32), nullable=False),
    Column("record", Text, nullable=False),
)  # fmt: skip
TRAININGS = Table(
    "nas_trainings", _tables,
    Column("id", Integer, primary_key=True),
    Column("study", String(255), index=True, nullable=False),
    Column("key", String(32), nullable=False),
    Column("record", Text, nullable=False),
)  # fmt: skip
MEASUREMENTS = Table(
    "nas_measurements", _tables,
    Column("id", Integer, primary_key=True),
    Column("study", String(255), index=True, nullable=False),
    Column("key", String(32), nullable=False),
    Column("device", String(255), nullable=False),
    Column("record", Text, nullable=False),
)  # fmt: skip
DRIVERS = Table(
    "nas_drivers", _tables,
    Column("study", String(255), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("owner", Text, nullable=False),
    Column("beats", Integer, nullable=False),
)  # fmt: skip


def bring_up_to_date(engine: Engine, shown: str) -> None:
    """Makes missing tables and migrates older ones, all or nothing. Raises: StorageError for a newer store."""
    with engine.connect() as connection:
        if inspect(connection).has_table(META.name) and _version(connection, shown) == SCHEMA_VERSION:
            return
    with engine.begin() as connection:  # one at a time: a dashboard may open the store in the same moment
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        _tables.create_all(connection)
        found = _version(connection, shown)
        if found is None:
            connection.execute(insert(META).values(name="schema", value=str(SCHEMA_VERSION)))
            return
        for version in range(found + 1, SCHEMA_VERSION + 1):
            MIGRATIONS[version](connection)
        connection.execute(update(META).where(META.c.name == "schema").values(value=str(SCHEMA_VERSION)))


def _version(connection: Connection, shown: str) -> int | None:
    found = connection.execute(select(META.c.value).where(META.c.name == "schema")).scalar()
    if found is not None and int(found) > SCHEMA_VERSION:
        raise StorageError(f"{shown} was written by a newer version (schema {found}); update nas")
    return None if found is None else int(found)


def _each_evaluation_once(connection: Connection) -> None:
    """Schema 1 let a candidate in twice; its first evaluation is the one that counted."""
    first = select(func.min(EVALUATIONS.c.id)).group_by(EVALUATIONS.c.study, EVALUATIONS.c.key)
    connection.execute(delete(EVALUATIONS).where(EVALUATIONS.c.id.not_in(first)))
    ONCE.create(connection)


MIGRATIONS: dict[int, Callable[[Connection], None]] = {2: _each_evaluation_once}
