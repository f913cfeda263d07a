"""Optuna's dashboard on a run: what it shows beside its own pages, and the server, on loopback only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from nas import report
from nas.errors import ConfigError
from nas.run_folder import RunFolder

if TYPE_CHECKING:
    import optuna

HOST = "127.0.0.1"
ARTIFACTS = "artifacts"
ATTACHED = {"report.html": "text/html", "report.md": "text/markdown", "front.json": "application/json"}
HINT = """
The feasible front is the figure of that name: the dashboard's own list of best trials ignores constraints. Infeasible
trials carry `feasible: false` and what they violate as user attributes.
"""


def publish(study: optuna.Study, folder: RunFolder) -> None:
    """Note, figures and report files of the run as it is now; what was published before is replaced.

    Only the driver calls this: it writes. Raises: ImportError where optuna-dashboard is not installed.
    """
    from optuna_dashboard import save_note, save_plotly_graph_object

    from nas import figures
    from nas.report_text import markdown

    run = report.read(folder)
    found = report.describe(run)
    save_note(study, markdown(found) + HINT)
    drawn = {}
    if found["front"]:
        drawn["feasible-front"] = figures.front_figure(found, report.trial_rows(run))
        drawn["latency-parts"] = figures.parts_figure(found)
    if figures.finalists(found):
        drawn |= {"trained-finalists": figures.proof_figure(found), "training-loss": figures.loss_figure(found)}
    for name, figure in drawn.items():
        figure.update_layout(  # the dashboard's frames are half as wide as the report, and of one height
            title=name.replace("-", " "), height=None, margin={"t": 50},
            legend={"orientation": "h", "y": -0.28, "yanchor": "top", "font": {"size": 10}},
        )  # fmt: skip
        save_plotly_graph_object(study, figure, graph_object_id=name)
    _attach(study, folder)


def _attach(study: optuna.Study, folder: RunFolder) -> None:
    """The report's files as artifacts of the study; a file that is on the shelf already keeps its id."""
    from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

    files = [folder.path / name for name in ATTACHED if (folder.path / name).is_file()]
    if not files:
        return
    place = _shelf(folder)
    shelf, there = FileSystemArtifactStore(place), {file.name for file in place.iterdir() if not file.is_symlink()}
    known = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study) if meta.artifact_id in there}
    for file in files:
        if file.name in known:
            with file.open("rb") as body:
                shelf.write(known[file.name], body)
        else:
            upload_artifact(
                artifact_store=shelf, file_path=str(file), study_or_trial=study, mimetype=ATTACHED[file.name]
            )


def _shelf(folder: RunFolder) -> Path:
    path = folder.path / ARTIFACTS
    path.mkdir(exist_ok=True)
    return path


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request: browsers keep idle connections open that would block all others."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged."""


def open_server(folder: RunFolder, port: int) -> WSGIServer:
    """A server of the run's dashboard, bound but not yet serving; port 0 takes any free one (`server_port`).

    Raises: ConfigError when the port is taken; ImportError where optuna-dashboard is not installed.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import get_storage
    from optuna_dashboard import wsgi

    from nas import config as configs
    from nas.store import connect, optuna_storage

    url = configs.load(folder.config_file, {}, []).storage or folder.default_storage
    connect(url).dispose()  # says in one line when the database does not answer
    kept = get_storage(optuna_storage(url))  # finished trials are read once, and not all of them at each look
    pages = wsgi(kept, artifact_store=FileSystemArtifactStore(_shelf(folder)))
    try:
        return make_server(HOST, port, guard(pages), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ConfigError(f"port {port} cannot be opened on {HOST}: {error.strerror}; choose another --port") from None


def address(server: WSGIServer) -> str:
    """What to type into the browser."""
    return f"http://{HOST}:{server.server_port}/dashboard/"


def guard(pages: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The pages, for this machine's browser only, and without deleting: a search may be writing to the study."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rpartition(":")[0] or environ.get("HTTP_HOST")
        if host not in (HOST, "localhost"):
            reason = "only http://127.0.0.1 and http://localhost are served"
        elif environ["REQUEST_METHOD"] == "DELETE":
            reason = "nothing is deleted from here: a search may be writing to this study"
        else:
            return pages(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [f'{{"reason": "{reason}"}}'.encode()]

    return guarded
