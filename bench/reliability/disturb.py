"""Takes away what a search needs: disk, database, the right to write, a steady clock; and presses Ctrl-C.

    python bench/reliability/disturb.py            # all, as root on Linux; or name some:
    python bench/reliability/disturb.py disk-full database-gone

Each case must end in the trials of an undisturbed search, after `nas resume` where the search had to stop, and every
stop must be one line and exit code 2 (130 after Ctrl-C), never a trace.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from searches import RESUME, STUDY, begin, count, database, run, said, search, stored, wait_until

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import postgres_server

TRIALS = 25
SEARCH = search(TRIALS)
LONG = 250  # trials that are still going on when a second driver has started


def main() -> int:
    chosen = sys.argv[1:] or list(CASES)
    if os.getuid() != 0:
        print("disk-full and read-only need root, to mount small disks")
    with tempfile.TemporaryDirectory(prefix="nas-disturb-") as name:
        undisturbed = Path(name) / "undisturbed"
        assert run(undisturbed, SEARCH)[0] == 0, said(undisturbed)
        truth = stored(database(undisturbed)).keys
        wrong = 0
        for case in chosen:
            start = time.monotonic()
            try:
                CASES[case](Path(name) / case, truth)
                print(f"{case}: holds, {time.monotonic() - start:.0f} s", flush=True)
            except (AssertionError, subprocess.SubprocessError) as error:
                wrong += 1
                print(f"{case}: FAILS {error}", flush=True)
    return 1 if wrong else 0


def keys(url: str) -> list[str]:
    return stored(url).keys


def finish(folder: Path, url: str, truth: list[str]) -> None:
    """Resumed, the search ends with the trials of the undisturbed one."""
    code, told = run(folder, RESUME)
    assert code == 0, told[-2000:]
    assert keys(url) == truth, "other trials than undisturbed"


def expect_stop(code: int, told: str, wanted: int = 2) -> str:
    """The last line of a stop that was as it should be."""
    assert code == wanted, f"exit {code}: {told[-2000:]}"
    assert "Traceback" not in told, told[-3000:]
    last = told.strip().splitlines()[-1]
    print(f"    exit {code}: {last[:230]}", flush=True)
    return last


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs in the place of the run folders."""
    disk = folder / "runs"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder / "runs")], check=True)


def disk_full(folder: Path, truth: list[str]) -> None:
    """A disk of 500 kB: it fills up while trials are written; once there is room the search goes on."""
    with small_disk(folder, "500k"):
        expect_stop(*run(folder, SEARCH))
        remount(folder, "size=100m")
        finish(folder, database(folder), truth)


def database_gone(folder: Path, truth: list[str]) -> None:
    """The PostgreSQL server is stopped in the middle of the search, and started again after 20 seconds."""
    with postgres_server.running() as server:
        url = server.make("gone")
        process = begin(folder, SEARCH, NAS_STORAGE=url)
        wait_until(lambda: count(url) >= TRIALS // 3, process)
        server.stop()
        time.sleep(20)
        alive = process.poll() is None
        server.start()
        assert process.wait(timeout=300) == 0 and alive, said(folder)[-3000:]
        assert keys(url) == truth, "other trials than undisturbed"
        assert "Traceback" not in said(folder) and postgres_server.PASSWORD not in said(folder)


def read_only(folder: Path, truth: list[str]) -> None:
    """The run folder has turned read-only between two sessions."""
    with small_disk(folder, "100m"):
        process = begin(folder, SEARCH)
        wait_until(lambda: count(database(folder)) >= TRIALS // 3, process)
        process.kill()
        process.wait()
        remount(folder, "ro")
        expect_stop(*run(folder, RESUME))
        remount(folder, "rw")
        finish(folder, database(folder), truth)


def clock_jumps(folder: Path, truth: list[str]) -> None:
    """The wall clock jumps by a day, forward and back, every second (libfaketime); time limits must not care."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    assert library is not None, "needs: apt-get install faketime"
    folder.mkdir()
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
    assert process.returncode == 0, said(folder)[-2000:]
    assert keys(database(folder)) == truth, "other trials than undisturbed"
    print(f"    {jumps} jumps", flush=True)


def ctrl_c(folder: Path, truth: list[str], times: int) -> None:
    """Once: the trial under way ends and the report is there. Twice: at once. Then the rest, as it would have been."""
    url = database(folder)
    process = begin(folder, SEARCH)
    wait_until(lambda: count(url) >= TRIALS // 3, process)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    expect_stop(process.wait(timeout=120), said(folder), wanted=130)
    done = keys(url)
    assert TRIALS > len(done) >= TRIALS // 3 and done == truth[: len(done)], f"{len(done)} trials"
    if times == 1:
        assert (folder / "runs" / STUDY / "report.html").is_file(), "no report"
    finish(folder, url, truth)


def two_drivers(folder: Path, truth: list[str]) -> None:
    """A second driver from another folder on the same database is refused and told who the first one is."""
    del truth
    with postgres_server.running() as server:
        url, first = server.make("shared"), folder / "one"
        process = begin(first, search(LONG), NAS_STORAGE=url)
        wait_until(lambda: count(url) >= 2, process)
        last = expect_stop(*run(folder / "two", SEARCH, NAS_STORAGE=url))
        assert f"process {process.pid} on" in last and str(first) in last, last
        assert process.wait(timeout=300) == 0 and len(set(keys(url))) == len(keys(url)) == LONG, said(first)[-2000:]


def out_of_memory(folder: Path, truth: list[str]) -> None:
    """With too little memory allowed, candidates fail with a reason and a trace, and the search ends as usual."""
    del truth
    code, told = run(folder, search(8, "--set", "trial_memory_gib=0.002"))
    assert code == 0, told[-2000:]
    told = run(folder, ["report", f"runs/{STUDY}", "--failures"])[1]
    failed = re.findall(r"(?m)^[0-9a-f]{12}  MemoryError: .* GiB of memory that it may take", told)
    print(f"    {len(failed)} of 8 candidates failed, the first: {told.splitlines()[0][:160]}", flush=True)
    assert failed and "Traceback (most recent call last)" in told, told[-2000:]


CASES: dict[str, Callable[[Path, list[str]], None]] = {
    "disk-full": disk_full,
    "database-gone": database_gone,
    "read-only": read_only,
    "clock-jumps": clock_jumps,
    "ctrl-c-once": lambda folder, truth: ctrl_c(folder, truth, times=1),
    "ctrl-c-twice": lambda folder, truth: ctrl_c(folder, truth, times=2),
    "two-drivers": two_drivers,
    "out-of-memory": out_of_memory,
}

if __name__ == "__main__":
    raise SystemExit(main())
