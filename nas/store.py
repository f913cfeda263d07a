"""Store: our tables nas_* beside Optuna's in the same database. One writer: the driver."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Table, create_engine, delete, event, insert, make_url, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from nas.cache_folder import cache_folder
from nas.errors import MissingPackageError, RunError, StorageError
from nas.latency.blocks import BlockTiming, MeasurementContext
from nas.latency.request import block_timing
from nas.records import Cost, Evaluation, Latency, ProxyScore, Quality, Training
from nas.store_schema import BLOCKS, DRIVERS, EVALUATIONS, MEASUREMENTS, META, TRAININGS, bring_up_to_date

if TYPE_CHECKING:
    from nas.store_trials import TrialStorage

Result = TypeVar("Result")
LOCK_TIMEOUT_S = 60
WAL_PAUSE_S = 0.02
RETRY_S = 1.0
PATIENCE_S = 120  # a database server that went away is waited for this long


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
        engine = create_engine(parsed, **_engine_options(sqlite))
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


def _engine_options(sqlite: bool) -> dict[str, Any]:
    """A server may have been restarted since a connection was last used: it is asked first."""
    if sqlite:
        return {"connect_args": {"timeout": LOCK_TIMEOUT_S}}
    return {"connect_args": {"connect_timeout": 10}, "pool_pre_ping": True}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    until = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # for this SQLite does not wait when others open or close the same file
            if time.monotonic() > until:
                raise
            time.sleep(WAL_PAUSE_S)
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def optuna_storage(url: str) -> TrialStorage:
    """Optuna's storage on the same database, as patient with locks as ours."""
    from nas.store_trials import TrialStorage

    sqlite = make_url(url).get_backend_name() == "sqlite"
    storage = TrialStorage(url, engine_kwargs=_engine_options(sqlite))
    if sqlite:  # else every one of its commits waits for the disk
        event.listen(storage.engine, "connect", _prepare_sqlite)
        storage.engine.dispose()
    return storage


class Store:
    """Reads and writes the records of runs. Raises: StorageError.

    A database server that goes away is waited for `patience_s`; what was being written is then written once.
    """

    def __init__(self, url: str, patience_s: float = PATIENCE_S, pause: Callable[[float], None] = time.sleep) -> None:
        self.engine = connect(url)
        self.url = make_url(url).render_as_string(hide_password=True)
        self.patience_s, self.pause = patience_s, pause
        self.token: str | None = None  # of a driver: what it writes is refused once another one has its study
        try:
            with self._told():
                bring_up_to_date(self.engine, self.url)
        except StorageError:
            self.close()
            raise

    @classmethod
    def user_cache(cls) -> Store:
        """Block timings that outlive a run, so that nothing is measured twice."""
        return cls(f"sqlite:///{cache_folder() / 'measurements.db'}")

    def close(self) -> None:
        self.engine.dispose()

    def add_evaluation(self, study: str, evaluation: Evaluation) -> None:
        """Once a study and key: written again, say after a connection that broke in the middle, it changes nothing."""
        row = {"study": study, "key": evaluation.key, "status": evaluation.status, "wall_s": evaluation.wall_s}
        with suppress(IntegrityError):
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
        rows = self._do(lambda connection: connection.execute(query).all())
        return {block: block_timing(json.loads(record)) for block, record in rows}

    def last_version(self, context: MeasurementContext) -> str | None:
        """Version of the runtime in the newest timing of a context that is else like this; None without one."""
        alike = BLOCKS.c.context.like(replace(context, version="%").key)
        query = select(BLOCKS.c.context).where(alike).order_by(BLOCKS.c.id.desc()).limit(1)
        key = self._do(lambda connection: connection.execute(query).scalar())
        return None if key is None else MeasurementContext.version_of(str(key))

    def add_block_timings(self, context: MeasurementContext, timings: Mapping[str, BlockTiming]) -> None:
        rows = [
            {"context": context.key, "block": key, "record": json.dumps(asdict(timing))}
            for key, timing in timings.items()
        ]
        if rows:
            self._do(lambda connection: connection.execute(insert(BLOCKS), rows))

    def set_meta(self, name: str, value: str) -> None:
        def write(connection: Connection) -> None:
            connection.execute(delete(META).where(META.c.name == name))
            connection.execute(insert(META).values(name=name, value=value))

        self._do(write)

    def meta(self, name: str) -> str | None:
        query = select(META.c.value).where(META.c.name == name)
        found = self._do(lambda connection: connection.execute(query).scalar())
        return None if found is None else str(found)

    def driver(self, study: str) -> Driver | None:
        """Who searches the study, as it last said."""
        query = select(DRIVERS).where(DRIVERS.c.study == study)
        found = self._do(lambda connection: connection.execute(query).one_or_none())
        return None if found is None else Driver(found.token, json.loads(found.owner), found.beats)

    def claim(self, study: str, driver: Driver, instead_of: Driver | None) -> bool:
        """Makes this the study's driver in place of the one that was found; False where another was quicker."""
        fields = {"token": driver.token, "owner": json.dumps(driver.owner), "beats": driver.beats}
        if instead_of is None:
            try:
                self._do(lambda connection: connection.execute(insert(DRIVERS).values(study=study, **fields)))
            except IntegrityError:
                return False
            return True
        same = (DRIVERS.c.study == study, DRIVERS.c.token == instead_of.token, DRIVERS.c.beats == instead_of.beats)
        taken = update(DRIVERS).where(*same).values(**fields)
        return bool(self._do(lambda connection: connection.execute(taken).rowcount) == 1)

    def beat(self, study: str, token: str) -> bool:
        """Says that the driver lives; False where it is no longer the study's driver."""
        mine = (DRIVERS.c.study == study, DRIVERS.c.token == token)
        again = update(DRIVERS).where(*mine).values(beats=DRIVERS.c.beats + 1)
        return bool(self._do(lambda connection: connection.execute(again).rowcount) == 1)

    def release(self, study: str, token: str) -> None:
        gone = delete(DRIVERS).where(DRIVERS.c.study == study, DRIVERS.c.token == token)
        self._do(lambda connection: connection.execute(gone))

    def _add(self, table: Table, row: dict[str, Any], record: dict[str, Any]) -> None:
        def write(connection: Connection) -> None:
            self._check_driver(connection, row["study"])
            connection.execute(insert(table).values(**row, record=json.dumps(record)))

        self._do(write)

    def _check_driver(self, connection: Connection, study: str) -> None:
        if self.token is None:
            return
        owner, token = connection.execute(
            select(DRIVERS.c.owner, DRIVERS.c.token).where(DRIVERS.c.study == study)
        ).one_or_none() or (None, None)
        if token != self.token:
            other = "another driver" if owner is None else in_words(json.loads(owner))
            raise RunError(f"study {study!r} was taken over by {other}, since this driver was silent; look at that one")

    def _read(self, table: Table, study: str) -> list[dict[str, Any]]:
        query = select(table.c.record).where(table.c.study == study).order_by(table.c.id)
        rows = self._do(lambda connection: connection.execute(query).scalars().all())
        try:
            return [json.loads(row) for row in rows]
        except ValueError as error:
            raise StorageError(
                f"{self.url}: a record of {table.name} is not JSON ({error}); it was not written by nas"
            ) from None

    def _do(self, act: Callable[[Connection], Result]) -> Result:
        """The act in one transaction, anew where the server went away before it was done."""
        waited_s = 0.0
        while True:
            try:
                with self._told(), self.engine.begin() as connection:
                    return act(connection)
            except StorageError as error:
                if not self._may_return(error.__cause__) or waited_s >= self.patience_s:
                    raise
            self.pause(RETRY_S)
            waited_s += RETRY_S

    def _may_return(self, cause: BaseException | None) -> bool:
        return isinstance(cause, OperationalError | InterfaceError) and self.engine.dialect.name != "sqlite"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the database says, as one line."""
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
            raise StorageError(
                f"{self.url}: {reason}; what is finished is kept, go on with `nas resume` once it is mended"
            ) from error


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that searches a study; `beats` grows while it lives."""

    token: str
    owner: dict[str, Any]  # pid, host, folder
    beats: int = 0


def in_words(owner: Mapping[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']} ({owner['folder']})"


def _evaluation(fields: dict[str, Any]) -> Evaluation:
    if not fields["key"].isalnum():  # it names files
        raise StorageError(f"{fields['key']!r} is no candidate's key; the store was not written by nas")
    return Evaluation(
        **{
            **fields,
            "quality": Quality(**fields["quality"]) if fields["quality"] else None,
            "latency": {device: Latency(**latency) for device, latency in fields["latency"].items()},
            "cost": Cost(**fields["cost"]) if fields["cost"] else None,
            "proxies": {name: ProxyScore(**score) for name, score in fields["proxies"].items()},
        }
    )
