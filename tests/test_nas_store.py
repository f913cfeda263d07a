"""The store on SQLite and on PostgreSQL: what goes in comes out, once, across versions, restarts and other drivers."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import Server, running
from sqlalchemy import text
from stored_runs import designs, evaluation, failed, latency, training

from nas.errors import RunError, StorageError
from nas.latency.blocks import BlockTiming, MeasurementContext
from nas.records import Cost, Evaluation, Latency, ProxyScore, Quality, Training
from nas.store import Driver, Store
from nas.store_schema import SCHEMA_VERSION

FIRST_SCHEMA = Path(__file__).parent / "golden" / "store_schema_1.sql"
CHOSEN = designs(4)
RUNS = [*(evaluation(one, "pi", 1.0 + place) for place, one in enumerate(CHOSEN[:3])), failed(CHOSEN[3], "it broke")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    found: Server = request.getfixturevalue("server")
    return found.make(re.sub(r"\W", "", tmp_path.name).lower())


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    found = Store(url, pause=lambda seconds: None)
    yield found
    found.close()


def test_evaluations_come_back_as_they_went_in_and_in_order(store: Store) -> None:
    for item in RUNS:
        store.add_evaluation("first", item)
    assert store.evaluations("first") == RUNS
    assert store.evaluations("second") == []


def test_an_evaluation_is_there_once_however_often_it_is_written(store: Store) -> None:
    for item in [RUNS[0], replace(RUNS[0], wall_s=9.0)]:
        store.add_evaluation("first", item)
    store.add_evaluation("second", RUNS[0])
    assert store.evaluations("first") == store.evaluations("second") == [RUNS[0]]


def test_trainings_measurements_and_notes_give_the_newest(store: Store) -> None:
    store.add_training("first", training("a" * 12, 0.5))
    store.add_training("first", training("a" * 12, 0.6))
    store.add_measurement("first", "a" * 12, "pi", latency(2.0, "measured"), (20.0, 21.0))
    store.set_meta("wall_s:first", "1")
    store.set_meta("wall_s:first", "2")
    assert store.trainings("first") == {"a" * 12: training("a" * 12, 0.6)}
    assert store.measurements("first") == {"a" * 12: {"pi": latency(2.0, "measured")}}
    assert (store.meta("wall_s:first"), store.meta("nothing")) == ("2", None)


def test_block_timings_come_back_by_context(store: Store) -> None:
    context = MeasurementContext("pi", "torch-eager", "2.14.1", "fp32", 2)
    timing = BlockTiming({"kind": "vision"}, (1.0, 1.5), 1.3, "2026-11-24T00:00:00+00:00", noisy=False)
    store.add_block_timings(context, {"abc": timing})
    assert store.block_timings(context) == {"abc": timing}
    assert store.block_timings(replace(context, dtype="int8")) == {}


def test_a_store_of_the_first_schema_opens_and_holds_everything_once(url: str) -> None:
    write_first_schema(url)
    for _ in range(2):  # the second time it is up to date
        store = Store(url)
        assert store.meta("schema") == str(SCHEMA_VERSION)
        assert [item.key for item in store.evaluations("first")] == [item.key for item in RUNS]
        assert store.evaluations("first")[3].error == "it broke"
        assert store.trainings("first")[CHOSEN[0].key].accuracy_open == 0.6
        assert store.measurements("first")[CHOSEN[0].key]["raspberry-pi-5-8gb"].label == "measured"
        store.add_evaluation("first", RUNS[1])
        assert len(store.evaluations("first")) == len(RUNS)
        store.close()


def write_first_schema(url: str) -> None:
    """The frozen file; PostgreSQL numbers rows by a sequence where SQLite needs nothing said."""
    script = FIRST_SCHEMA.read_text(encoding="utf-8")
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.executescript(script)
        connection.close()
        return
    import psycopg

    script = re.sub(r"id INTEGER NOT NULL", "id SERIAL NOT NULL", script)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script)  # type: ignore[call-overload]
        for table in ("nas_evaluations", "nas_trainings", "nas_measurements"):
            connection.execute(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")  # type: ignore[call-overload]


def test_a_store_of_a_newer_schema_is_refused(url: str) -> None:
    store = Store(url)
    store.set_meta("schema", str(SCHEMA_VERSION + 1))
    store.close()
    with pytest.raises(StorageError, match=rf"newer version \(schema {SCHEMA_VERSION + 1}\); update nas"):
        Store(url)


def test_many_may_open_an_empty_database_at_once(url: str) -> None:
    wrong: list[Exception] = []

    def open_it() -> None:
        try:
            Store(url).close()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_record_that_is_not_json_is_refused_and_never_run(store: Store) -> None:
    """The text is a pickle that would make a file."""
    with store.engine.begin() as connection:
        row = {"study": "first", "key": "k", "status": "complete", "record": "cos\nsystem\n(S'touch planted'\ntR."}
        columns = "(study, key, status, wall_s, record)"
        connection.execute(
            text(f"INSERT INTO nas_evaluations {columns} VALUES (:study, :key, :status, 0, :record)"), row
        )
    with pytest.raises(StorageError, match="not JSON"):
        store.evaluations("first")


def test_a_driver_whose_study_was_taken_can_write_no_more(store: Store) -> None:
    owner = {"pid": 7, "host": "far", "folder": "/runs/first"}
    store.token = "mine"
    assert store.claim("first", Driver("mine", owner), instead_of=None)
    store.add_evaluation("first", RUNS[0])
    before = store.driver("first")
    assert before is not None and store.claim("first", Driver("other", owner), instead_of=before)
    assert not store.beat("first", "mine")
    with pytest.raises(RunError, match=r"taken over by process 7 on far \(/runs/first\)"):
        store.add_evaluation("first", RUNS[1])
    assert store.evaluations("first") == [RUNS[0]]


def test_of_two_that_claim_a_study_one_gets_it(store: Store) -> None:
    owner = {"pid": 7, "host": "far", "folder": "/"}
    assert store.claim("first", Driver("a", owner), instead_of=None)
    assert not store.claim("first", Driver("b", owner), instead_of=None)
    found = store.driver("first")
    assert store.beat("first", "a")
    assert not store.claim("first", Driver("b", owner), instead_of=found), "it has beaten since it was looked at"


def test_a_server_that_goes_away_and_comes_back_is_waited_for(server: Server) -> None:
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 3:
            server.start()

    store = Store(server.make("restarted"), pause=pause)
    store.add_evaluation("first", RUNS[0])
    server.stop()
    store.add_evaluation("first", RUNS[1])
    assert store.evaluations("first") == RUNS[:2]
    assert len(paused) == 3
    store.close()


def test_a_server_that_stays_away_is_said_without_its_password(server: Server) -> None:
    store = Store(server.make("gone"), patience_s=2, pause=lambda seconds: None)
    server.stop()
    try:
        with pytest.raises(StorageError, match="nas resume") as told:
            store.add_evaluation("first", RUNS[0])
    finally:
        server.start()
        store.close()
    assert "s3cret" not in str(told.value)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
COSTS = st.builds(Cost, **dict.fromkeys(Cost.__dataclass_fields__, st.integers(0, 2**62)))
LATENCIES = st.builds(
    Latency, **dict.fromkeys(("preprocess_ms", "vision_ms", "projector_ms", "prefill_ms", "tpot_ms"), FINITE),
    new_tokens=st.integers(1, 10**6), label=st.just("composed"), low_ms=FINITE, high_ms=FINITE,
    extrapolated=st.booleans(),
)  # fmt: skip
QUALITIES = st.builds(Quality, FINITE, FINITE, FINITE, st.sampled_from(["predicted:prior", "trained:short"]))
SCORES = st.builds(ProxyScore, st.none() | FINITE, FINITE, st.none() | NAMES, st.none() | NAMES)
EVALUATIONS = st.builds(
    Evaluation, key=st.text("0123456789abcdef", min_size=12, max_size=12),
    candidate=st.dictionaries(NAMES, st.integers() | NAMES, max_size=3), status=st.sampled_from(["complete", "failed"]),
    quality=st.none() | QUALITIES, latency=st.dictionaries(NAMES, LATENCIES, max_size=2), cost=st.none() | COSTS,
    proxies=st.dictionaries(NAMES, SCORES, max_size=2), violations=st.dictionaries(NAMES, FINITE, max_size=2),
    wall_s=FINITE, error=st.none() | NAMES, traceback=st.none() | NAMES,
)  # fmt: skip
TRAININGS = st.builds(
    Training, key=st.text("0123456789abcdef", min_size=12, max_size=12), label=st.just("trained:short"), data=NAMES,
    losses=st.lists(st.tuples(st.integers(0, 10**6), FINITE), max_size=3), checkpoint=st.none() | NAMES,
    **dict.fromkeys(("train_s", "accuracy_open", "blind_open", "accuracy_all", "blind_all", "low", "high"), FINITE),
    **dict.fromkeys(("seed", "steps", "samples_seen", "open_questions"), st.integers(0, 2**40)),
)  # fmt: skip
TIMINGS = st.builds(
    BlockTiming, block=st.dictionaries(NAMES, st.integers() | NAMES, max_size=3),
    samples_ms=st.lists(FINITE, min_size=1, max_size=4).map(tuple), measured_at=NAMES, noisy=st.booleans(),
    quiet_ms=st.none() | FINITE, switches=st.integers(0, 2**40), modelled=st.none() | FINITE,
    estimator=st.sampled_from(["min", "p25"]), **dict.fromkeys(("canary_ms", "scale"), FINITE),
)  # fmt: skip
OWNERS = st.fixed_dictionaries({"pid": st.integers(1, 2**22), "host": NAMES, "folder": NAMES})
NEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@NEW
@given(
    item=EVALUATIONS, trained=TRAININGS, measured=LATENCIES, timing=TIMINGS, owner=OWNERS, study=NAMES
)  # fmt: skip
def test_every_record_survives_every_table(
    store: Store,
    item: Evaluation,
    trained: Training,
    measured: Latency,
    timing: BlockTiming,
    owner: dict[str, Any],
    study: str,
) -> None:
    name = f"{len(study)}{json.dumps(study)}{item.key}"  # studies of earlier examples are still there
    known = [one for one in store.evaluations(name) if one.key == item.key]
    store.add_evaluation(name, item)
    store.add_training(name, trained)
    store.add_measurement(name, trained.key, "pi", measured, (1.0,))
    assert [one for one in store.evaluations(name) if one.key == item.key] == (known or [item])
    assert store.trainings(name)[trained.key] == trained
    assert store.measurements(name)[trained.key]["pi"] == measured
    context = MeasurementContext("pi", "torch-eager", name, "fp32", 1)
    store.add_block_timings(context, {item.key: timing})
    assert store.block_timings(context)[item.key] == timing
    store.set_meta("note", study)
    assert store.meta("note") == study
    driver = Driver(item.key, owner)
    if store.claim(item.key, driver, instead_of=store.driver(item.key)):
        assert store.driver(item.key) == driver


def test_the_user_cache_is_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    store = Store.user_cache()
    store.close()
    assert (tmp_path / "measurements.db").is_file()
