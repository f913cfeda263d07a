"""Takes away what a search needs: disk, database, the right to write, a steady clock; and presses Ctrl-C.

    python bench/reliability/disturb.py            # all, as root on Linux; or name some:
    python bench/reliability/disturb.py disk-full database-gone

Each case must end in the trials of an undisturbed search, after `nas resume` where the search had to stop, and every
stop must be one line and exit code 2 (130 after Ctrl-C), never a trace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import postgres_server

from nas.store import Store

ROOT = Path(__file__).parents[2]
TRIALS = 25
SEARCH = [
    "search", "--space", "micro", "--device", "raspberry-pi-5-8gb", "--trials", str(TRIALS), "--finalists", "0",
    "--seed", "1", "--study", "study",
]  # fmt: skip


def main() -> int:
    chosen = sys.argv[1:] or list(CASES)
    with tempfile.TemporaryDirectory(prefix="nas-disturb-") as name:
        truth_folder = Path(name) / "truth"
        truth_folder.mkdir()
        assert run(truth_folder, SEARCH)[0] == 0
        truth = keys(f"sqlite:///{truth_folder}/runs/study/study.db")
        wrong = 0
        for case in chosen:
            folder = Path(name) / case
            folder.mkdir()
            try:
                CASES[case](folder, truth)
                print(f"{case}: holds", flush=True)
            except AssertionError as error:
                wrong += 1
                print(f"{case}: FAILS {error}", flush=True)
    return 1 if wrong else 0


def run(folder: Path, arguments: list[str], **environment: str) -> tuple[int, str]:
    """Exit code, and what was said on stderr."""
    done = subprocess.run(
        command(arguments), cwd=folder, env=env(environment), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def env(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def begin(folder: Path, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(arguments),
        cwd=folder,
        env=env(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def keys(url: str) -> list[str]:
    store = Store(url)
    try:
        return [evaluation.key for evaluation in store.evaluations("study")]
    finally:
        store.close()


def wait_for(url: str, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many trials are stored."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if not url.startswith("sqlite") or Path(url.removeprefix("sqlite:///")).is_file():
            try:
                if len(keys(url)) >= count:
                    return
            except Exception:  # not there yet
                pass
        time.sleep(0.2)


def expect_stop(code: int, said: str, wanted: int = 2) -> str:
    """The last line of a stop that was as it should be."""
    assert code == wanted, f"exit {code}: {said[-2000:]}"
    assert "Traceback" not in said, said[-3000:]
    last = said.strip().splitlines()[-1]
    print(f"    exit {code}: {last[:230]}", flush=True)
    return last


@contextmanager
def mounted(folder: Path, *options: str):  # type: ignore[no-untyped-def]
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_full(folder: Path, truth: list[str]) -> None:
    """A disk of 700 kB: it fills up while trials are written; once there is room the search goes on."""
    disk = folder / "runs"
    with mounted(disk, "-t", "tmpfs", "-o", "size=500k", "tmpfs"):
        code, said = run(folder, SEARCH)
        expect_stop(code, said)
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        code, said = run(folder, ["resume", "runs/study"])
        assert code == 0, said[-2000:]
        assert keys(f"sqlite:///{disk}/study/study.db") == truth


def database_gone(folder: Path, truth: list[str]) -> None:
    """The PostgreSQL server is away for 20 seconds in the middle of the search."""
    with postgres_server.running() as server:
        url = server.make("gone")
        process = begin(folder, SEARCH, NAS_STORAGE=url)
        wait_for(url, TRIALS // 3, process)
        server.stop()
        time.sleep(20)
        alive = process.poll() is None
        server.start()
        said = process.communicate(timeout=300)[0]
        assert alive and process.returncode == 0, said[-3000:]
        assert keys(url) == truth
        assert "Traceback" not in said and postgres_server.PASSWORD not in said


def read_only(folder: Path, truth: list[str]) -> None:
    """The run folder turns read-only between two sessions, and under a running one."""
    disk = folder / "runs"
    with mounted(disk, "-t", "tmpfs", "-o", "size=100m", "tmpfs"):
        process = begin(folder, SEARCH)
        wait_for(f"sqlite:///{disk}/study/study.db", TRIALS // 3, process)
        process.kill()
        process.wait()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        expect_stop(*run(folder, ["resume", "runs/study"]))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        code, said = run(folder, ["resume", "runs/study"])
        assert code == 0, said[-2000:]
        assert keys(f"sqlite:///{disk}/study/study.db") == truth


def clock_jumps(folder: Path, truth: list[str]) -> None:
    """The wall clock jumps by a day, forward and back, every second (libfaketime); time limits must not care."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    assert library is not None, "needs: apt-get install faketime"
    clock = folder / "clock"
    clock.write_text("+0d", encoding="ascii")
    process = begin(
        folder, [*SEARCH, "--timeout", "1h"], LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_RESET="1",
    )  # fmt: skip
    jumps = 0
    while process.poll() is None:
        time.sleep(1)
        jumps += 1
        clock.write_text(("+1d", "-1d", "+0d")[jumps % 3], encoding="ascii")
    said = process.communicate()[0]
    assert process.returncode == 0, said[-2000:]
    assert keys(f"sqlite:///{folder}/runs/study/study.db") == truth
    print(f"    {jumps} jumps", flush=True)


def ctrl_c(folder: Path, truth: list[str], times: int = 1) -> None:
    """Once: the trial under way ends and the report is there. Twice: at once. Then the rest, as it would have been."""
    url = f"sqlite:///{folder}/runs/study/study.db"
    process = begin(folder, SEARCH)
    wait_for(url, TRIALS // 3, process)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    said = process.communicate(timeout=120)[0]
    expect_stop(process.returncode, said, wanted=130)
    stored = keys(url)
    assert TRIALS > len(stored) >= TRIALS // 3 and stored == truth[: len(stored)]
    if times == 1:
        assert (folder / "runs" / "study" / "report.html").is_file()
    code, said = run(folder, ["resume", "runs/study"])
    assert code == 0 and keys(url) == truth, said[-2000:]


def two_drivers(folder: Path, truth: list[str]) -> None:
    """A second driver from another folder on the same database is refused and told who the first one is."""
    with postgres_server.running() as server:
        url = server.make("shared")
        first, second = folder / "one", folder / "two"
        first.mkdir(), second.mkdir()
        process = begin(first, SEARCH, NAS_STORAGE=url)
        wait_for(url, 2, process)
        last = expect_stop(*run(second, SEARCH, NAS_STORAGE=url))
        assert f"process {process.pid} on" in last and str(first) in last
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0 and keys(url) == truth, said[-2000:]


def out_of_memory(folder: Path, truth: list[str]) -> None:
    """With too little memory allowed, candidates fail with a reason and a trace, and the search ends as usual."""
    del truth
    run_file = [*SEARCH[:-2], "--study", "small", "--set", "trial_memory_gib=0.002", "--trials", "8"]
    code, said = run(folder, run_file)
    assert code == 0, said[-2000:]
    told = subprocess.run(
        command(["report", "runs/small", "--failures"]),
        cwd=folder,
        env=env({}),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    failed = told.count("Traceback (most recent call last)")
    print(f"    {failed} of 8 candidates failed, the first: {told.splitlines()[0][:160]}", flush=True)
    assert failed > 0 and "allocate memory" in told


CASES: dict[str, Callable[[Path, list[str]], None]] = {
    "disk-full": disk_full,
    "database-gone": database_gone,
    "read-only": read_only,
    "clock-jumps": clock_jumps,
    "ctrl-c-once": ctrl_c,
    "ctrl-c-twice": lambda folder, truth: ctrl_c(folder, truth, times=2),
    "two-drivers": two_drivers,
    "out-of-memory": out_of_memory,
}

if __name__ == "__main__":
    if shutil.which("mount") is None or os.getuid() != 0:
        print("some cases need root, to mount small disks")
    raise SystemExit(main())
