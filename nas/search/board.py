"""What the dashboard shows beside Optuna's own pages: a study note and the feasible front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

FIGURE = "feasible-front"


def publish(study: optuna.Study, found: dict[str, Any]) -> None:
    """`found` is the report's document. Raises: ImportError where optuna-dashboard is not installed."""
    from optuna_dashboard import save_note, save_plotly_graph_object

    from nas.figures import front_figure
    from nas.report_text import markdown

    note = markdown(found) + "\nInfeasible trials carry `feasible: false` and their `violations` as user attributes.\n"
    save_note(study, note)
    if found["front"]:
        save_plotly_graph_object(study, front_figure(found), graph_object_id=FIGURE)
