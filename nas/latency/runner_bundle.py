"""What is sent to a device: a small starter, the program's own code, and the request."""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path

PACKAGES = ("nas", "search_spaces", "hardware_profiles", "proxies")
SHIPPED_SUFFIXES = frozenset({".py", ".yaml", ".json", ".csv"})

# `python -c STARTER WORKDIR` on the device. Reads the lengths of the code and of the request, then both, from stdin;
# runs the worker in a new folder that only its owner may read, and removes it. Stdin stays open as a lifeline: when it
# ends, whoever asked is gone, and the worker is stopped so that the next request does not meet it at work.
STARTER = """
import io, os, signal, subprocess, sys, tarfile, tempfile, threading
if sys.version_info < (3, 11):
    sys.exit("it needs Python 3.11 or newer, but %s is Python %d.%d" % ((sys.executable,) + sys.version_info[:2]))
code_bytes, request_bytes = map(int, sys.stdin.buffer.readline().split())
code, request = sys.stdin.buffer.read(code_bytes), sys.stdin.buffer.read(request_bytes)
workdir = os.path.expanduser(sys.argv[1])
if workdir:
    os.makedirs(workdir, exist_ok=True)
with tempfile.TemporaryDirectory(prefix="nas-", dir=workdir or None) as folder:
    with tarfile.open(fileobj=io.BytesIO(code)) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    worker = subprocess.Popen(
        [sys.executable, "-m", "nas.latency.worker"], stdin=subprocess.PIPE, cwd=folder, start_new_session=True,
        env=dict(os.environ, PYTHONPATH=folder),
    )
    def watch():
        while os.read(0, 1):
            pass
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()
    try:
        worker.stdin.write(request)
        worker.stdin.flush()
    except OSError:
        pass  # it has ended already, and its last words say why
    worker.wait()
if worker.returncode < 0:
    sys.exit("its worker was ended by signal %d (9 is often a lack of memory)" % -worker.returncode)
sys.exit(worker.returncode)
"""


def shell_line(python: str, workdir: str | None) -> str:
    """The starter's command for a shell on the device; only a leading `~/` of the interpreter is expanded there."""
    if python.startswith("~/"):
        interpreter = f'"$HOME"/{shlex.quote(python.removeprefix("~/"))}'
    else:
        interpreter = shlex.quote(python)
    return f"{interpreter} {shlex.join(arguments(workdir))}"


def arguments(workdir: str | None) -> list[str]:
    """What follows the interpreter; None = the system's folder for temporary files."""
    return ["-c", STARTER, workdir or ""]


def payload(request: str) -> bytes:
    """What the starter reads from stdin; the worker reads the request as a line."""
    code, asked = bundle(), request.encode() + b"\n"
    return f"{len(code)} {len(asked)}\n".encode() + code + asked


def bundle() -> bytes:
    """The program's Python and data files as a tar archive: all a device needs besides installed packages."""
    import nas

    root = Path(nas.__file__).parent.parent
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for package in PACKAGES:
            for file in sorted((root / package).rglob("*")):
                if file.suffix in SHIPPED_SUFFIXES:
                    archive.add(file, str(file.relative_to(root)), recursive=False)
    return packed.getvalue()
