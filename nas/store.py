"""Store: our tables nas_* beside Optuna's in the same database. One writer: the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nas.cache_folder import cache_folder
from nas.errors import MissingPackageError, StorageError
from nas.latency.blocks import BlockTiming, MeasurementContext
from nas.latency.request import block_timing
from nas.records import Cost, Evaluation, Latency, ProxyScore, Quality, Training

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

SCHEMA_VERSION = 1
LOCK_TIMEOUT_S = 60

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


def connect(url: str) -> Engine:
    """An engine that answers; SQLite with WAL and a long lock timeout. Raises: StorageError, MissingPackageError."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageError(
            "--storage must be a database URL such as sqlite:///study.db or postgresql://HOST/NAME"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    sqlite = parsed.get_backend_name() == "sqlite"
    try:
        engine = create_engine(parsed, connect_args={"timeout": LOCK_TIMEOUT_S} if sqlite else {"connect_timeout": 10})
        if sqlite:
            event.listen(engine, "connect", _prepare_sqlite)
        with engine.connect():
            return engine
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"storage {shown} needs the package {error.name!r}; run: pip install 'psycopg[binary]'"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise StorageError(f"storage {shown} does not answer: {reason}") from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def optuna_storage(url: str) -> RDBStorage:
    """Optuna's own storage on the same database, as patient with locks as ours."""
    import optuna

    sqlite = make_url(url).get_backend_name() == "sqlite"
    return optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT_S}} if sqlite else {}
    )


class Store:
    """Reads and writes the records of runs."""

    def __init__(self, url: str) -> None:
        self.engine = connect(url)
        self.url = make_url(url).render_as_string(hide_password=True)
        _tables.create_all(self.engine)
        self._check_version()

    @classmethod
    def user_cache(cls) -> Store:
        """Block timings that outlive a run, so that nothing is measured twice."""
        return cls(f"sqlite:///{cache_folder() / 'measurements.db'}")

    def close(self) -> None:
        self.engine.dispose()

    def _check_version(self) -> None:
        with self.engine.begin() as connection:
            found = connection.execute(select(META.c.value).where(META.c.name == "schema")).scalar()
            if found is None:
                connection.execute(insert(META).values(name="schema", value=str(SCHEMA_VERSION)))
            elif int(found) > SCHEMA_VERSION:
                raise StorageError(f"{self.url} was written by a newer version (schema {found}); update nas")

    def add_evaluation(self, study: str, evaluation: Evaluation) -> None:
        row = {"study": study, "key": evaluation.key, "status": evaluation.status, "wall_s": evaluation.wall_s}
        self._add(EVALUATIONS, row, asdict(evaluation))

    def evaluations(self, study: str) -> list[Evaluation]:
        """In the order in which they were finished."""
        return [_evaluation(fields) for fields in self._read(EVALUATIONS, study)]

    def add_training(self, study: str, training: Training) -> None:
        self._add(TRAININGS, {"study": study, "key": training.key}, asdict(training))

    def trainings(self, study: str) -> dict[str, Training]:
        found = (Training.from_dict(row) for row in self._read(TRAININGS, study))
        return {training.key: training for training in found}

    def add_measurement(
        self, study: str, key: str, device: str, latency: Latency, totals_ms: tuple[float, ...]
    ) -> None:
        record = {"key": key, "device": device, "latency": asdict(latency), "totals_ms": totals_ms}
        self._add(MEASUREMENTS, {"study": study, "key": key, "device": device}, record)

    def measurements(self, study: str) -> dict[str, dict[str, Latency]]:
        """Newest end-to-end latency by key and device."""
        found: dict[str, dict[str, Latency]] = {}
        for row in self._read(MEASUREMENTS, study):
            found.setdefault(row["key"], {})[row["device"]] = Latency(**row["latency"])
        return found

    def block_timings(self, context: MeasurementContext) -> dict[str, BlockTiming]:
        """Newest timing of each block in this context, by block key."""
        query = select(BLOCKS.c.block, BLOCKS.c.record).where(BLOCKS.c.context == context.key).order_by(BLOCKS.c.id)
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        return {block: block_timing(json.loads(record)) for block, record in rows}

    def add_block_timings(self, context: MeasurementContext, timings: Mapping[str, BlockTiming]) -> None:
        rows = [
            {"context": context.key, "block": key, "record": json.dumps(asdict(timing))}
            for key, timing in timings.items()
        ]
        if rows:
            with self.engine.begin() as connection:
                connection.execute(insert(BLOCKS), rows)

    def set_meta(self, name: str, value: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(META.delete().where(META.c.name == name))
            connection.execute(insert(META).values(name=name, value=value))

    def meta(self, name: str) -> str | None:
        with self.engine.connect() as connection:
            found = connection.execute(select(META.c.value).where(META.c.name == name)).scalar()
        return None if found is None else str(found)

    def _add(self, table: Table, row: dict[str, Any], record: dict[str, Any]) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(table).values(**row, record=json.dumps(record)))
        except SQLAlchemyError as error:
            raise StorageError(
                f"{self.url}: cannot write: {str(getattr(error, 'orig', error)).splitlines()[0]}"
            ) from error

    def _read(self, table: Table, study: str) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            rows = connection.execute(
                select(table.c.record).where(table.c.study == study).order_by(table.c.id)
            ).scalars()
            return [json.loads(row) for row in rows]


def _evaluation(fields: dict[str, Any]) -> Evaluation:
    return Evaluation(
        **{
            **fields,
            "quality": Quality(**fields["quality"]) if fields["quality"] else None,
            "latency": {device: Latency(**latency) for device, latency in fields["latency"].items()},
            "cost": Cost(**fields["cost"]) if fields["cost"] else None,
            "proxies": {name: ProxyScore(**score) for name, score in fields["proxies"].items()},
        }
    )
