"""Fits the hierarchical model of `nas.latency.shares` to published timings. No torch.

Variances maximise the marginal likelihood times log-normal priors on the standard deviations (empirical Bayes, Gelman
et al., "Bayesian Data Analysis", sec. 13.6 and 15): one deviation for each family of effects, and for each phase and
class of device its own, drawn to those of the phase. Devices and runs have t distributions (4 degrees of freedom)
through weights that are fitted in turn (Lange et al. 1989, sec. 3), so that a run that fell back to the wrong unit does
not widen everybody's interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, lapack
from scipy.optimize import minimize

from nas.cost_rows import Matrix
from nas.latency.shares import (
    NORMAL_80,
    PHASES,
    Datasheet,
    Family,
    Kind,
    PhaseWork,
    Shares,
    Spread,
    effects,
    family,
    roofline_ms,
)

FREEDOM = 4.0
ROUNDS = (40, 25, 25)  # steps of the optimiser between two fits of the weights
AGAIN = (10, 8)  # the same when started from a fit to nearly the same rows
PHASE_SD = 1.0
FAMILIES: tuple[Family, ...] = ("class", "runtime", "slope")
# Log-normal priors on the standard deviations: typical value and its spread in logarithms.
FAMILY_PRIOR = (np.log([0.3, 0.3, 0.2]), 0.5)
SHARED_PRIOR = (np.log([0.15]), 0.5)
SPREAD_PRIOR = (np.log([0.3, 0.3]), 0.5)
CELL_PRIOR_SD = 0.35
HELD = 0.8  # of the rows of left-out devices, what a width holds
POOLED_DEVICES = 10  # a class seen on so many counts half for its width, all classes the other half


@dataclass(frozen=True, slots=True)
class Observation:
    """One published time of one phase."""

    device: str
    work: PhaseWork
    sheet: Datasheet
    ms: float

    @property
    def cell(self) -> str:
        return f"{self.work.phase}/{self.sheet.kind}"


@dataclass(frozen=True)
class State:
    """Where the optimiser ended: log standard deviations by name, and weights of rows and devices."""

    log_sd: dict[str, float]
    row_weights: Matrix
    device_weights: Matrix


def fit(rows: Sequence[Observation], source: str, start: State | None = None) -> tuple[Shares, State]:
    """The model with widths of one, which only left-out devices can correct (`left_out`, then `widths`)."""
    problem = _Problem(rows)
    state = problem.solve(start)
    return problem.shares(state, source), state


def left_out(rows: Sequence[Observation], state: State) -> tuple[Matrix, Matrix]:
    """(log error, its expected standard deviation) of every row, predicted by a fit without its device."""
    devices = np.array([row.device for row in rows])
    error, expected = np.zeros(len(rows)), np.zeros(len(rows))
    for device in sorted(set(devices)):
        inside = devices != device
        others = replace(state, row_weights=state.row_weights[inside], device_weights=state.device_weights[inside])
        shares, _ = fit([row for row, keep in zip(rows, inside, strict=True) if keep], "", others)
        for index in np.flatnonzero(~inside).tolist():
            found, _ = shares.estimate([rows[index].work], rows[index].sheet)
            error[index] = np.log(rows[index].ms / found[0].middle_ms)
            expected[index] = found[0].log_sd
    return error, expected


def widths(rows: Sequence[Observation], error: Matrix, expected: Matrix) -> tuple[float, dict[Kind, float]]:
    """What the expected deviations are multiplied with so that intervals hold left-out rows (conformal).

    (of all classes of device, by class beside it): that of a class is drawn to 1 the fewer devices it was seen on.
    """
    ratio = np.abs(error) / (NORMAL_80 * expected)
    whole = _holding(ratio, {row.device for row in rows})
    found: dict[Kind, float] = {}
    for kind in sorted({row.sheet.kind for row in rows}):
        own = np.array([row.sheet.kind == kind for row in rows])
        devices = {row.device for row in rows if row.sheet.kind == kind}
        pooled = len(devices) / (len(devices) + POOLED_DEVICES)
        found[kind] = (_holding(ratio[own], devices) / whole) ** pooled
    return whole, found


def _holding(ratio: Matrix, devices: set[str]) -> float:
    """The quantile that holds HELD of the rows of one device more: at HELD (n + 1) / n, as n devices are few.

    Rows of one device err together, so that devices count for the correction (Lei et al. 2018, "Distribution-free
    predictive inference for regression", sec. 2.2: of n exchangeable residuals).
    """
    level = min(1.0, HELD * (len(devices) + 1) / len(devices))
    return float(np.quantile(ratio, level, method="inverted_cdf"))


class _Problem:
    """Rows as matrices; the log standard deviations are one vector, in the order of `names`."""

    def __init__(self, rows: Sequence[Observation]) -> None:
        table = [effects(row.work, row.sheet) for row in rows]
        self.effects = tuple(sorted({name for row in table for name in row}))
        self.x = np.array([[row.get(name, 0.0) for name in self.effects] for row in table])
        self.y = np.array([np.log(row.ms / roofline_ms(row.work, row.sheet)) for row in rows])
        self.families = [family(name) for name in self.effects]
        self.gram = [self._gram(name) for name in ("phase", *FAMILIES)]
        self.device_of_row = [row.device for row in rows]
        device = np.unique(self.device_of_row, return_inverse=True)[1]
        self.phase = np.array([PHASES.index(row.work.phase) for row in rows])
        self.cells = sorted({row.cell for row in rows})
        self.cell = np.array([self.cells.index(row.cell) for row in rows])
        self.same_device = (device[:, None] == device).astype(float)
        self.same_phase = self.same_device * (self.phase[:, None] == self.phase)
        self.names = [*FAMILIES, "shared", *(f"{kind} {phase}" for kind in ("device", "rest") for phase in PHASES)]
        self.names += [f"{kind} {cell}" for kind in ("device", "rest") for cell in self.cells]
        self.centre = np.concatenate(
            [FAMILY_PRIOR[0], SHARED_PRIOR[0], np.repeat(SPREAD_PRIOR[0], len(PHASES)), np.zeros(2 * len(self.cells))]
        )
        self.width = np.full(len(self.names), FAMILY_PRIOR[1])
        self.width[-2 * len(self.cells) :] = CELL_PRIOR_SD

    def _gram(self, name: str) -> Matrix:
        own = self.x[:, [each == name for each in self.families]]
        found: Matrix = own @ own.T
        return found

    def spread(self, log_sd: Matrix) -> tuple[Matrix, Matrix]:
        """(from device to device, from run to run) of every row."""
        first, count, cells = len(FAMILIES) + 1, len(PHASES), len(self.cells)
        by_phase, by_cell = log_sd[first : first + 2 * count], log_sd[first + 2 * count :]
        device = by_phase[:count][self.phase] + by_cell[:cells][self.cell]
        return np.exp(device), np.exp(by_phase[count:][self.phase] + by_cell[cells:][self.cell])

    def solve(self, start: State | None) -> State:
        ones = np.ones(len(self.y))
        state = start or State(dict(zip(self.names, self.centre.tolist(), strict=True)), ones, ones)
        vector = np.array([state.log_sd.get(name, 0.0) for name in self.names])
        rounds = ROUNDS if start is None else AGAIN
        for index, steps in enumerate(rounds):
            vector = minimize(
                self.loss, vector, (state.row_weights, state.device_weights), "L-BFGS-B", True,
                options={"maxiter": steps},
            ).x  # fmt: skip
            if index + 1 < len(rounds):
                state = self.reweighted(vector, state)
        return replace(state, log_sd=dict(zip(self.names, vector.tolist(), strict=True)))

    def terms(self, log_sd: Matrix, row_weights: Matrix, device_weights: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """(covariance of effects and of devices over all phases, of devices in one phase, variances of runs)."""
        variance = np.exp(2 * log_sd[: len(FAMILIES) + 1])
        device, rest = self.spread(log_sd)
        smooth = PHASE_SD**2 * self.gram[0] + variance[-1] * self.same_device
        for each, gram in zip(variance, self.gram[1:], strict=False):
            smooth = smooth + each * gram
        scaled = device / np.sqrt(device_weights)
        return smooth, self.same_phase * np.outer(scaled, scaled), rest**2 / row_weights

    def loss(self, log_sd: Matrix, row_weights: Matrix, device_weights: Matrix) -> tuple[float, Matrix]:
        """Minus the log of marginal likelihood times prior, and its gradient."""
        smooth, devices, runs = self.terms(log_sd, row_weights, device_weights)
        lower = cholesky(smooth + devices + np.diag(runs), lower=True, overwrite_a=True)
        half = lapack.dpotri(lower, lower=1)[0]
        inverse = np.tril(half) + np.tril(half, -1).T
        alpha = inverse @ self.y
        slope = np.outer(alpha, alpha) - inverse  # twice the gradient of the log likelihood by the covariance
        off = (log_sd - self.centre) / self.width
        value = 0.5 * float(self.y @ alpha) + float(np.log(np.diag(lower)).sum()) + 0.5 * float(off @ off)
        variance = np.exp(2 * log_sd[: len(FAMILIES) + 1])
        shared = [np.vdot(slope, each) for each in (*self.gram[1:], self.same_device)]
        by_row = (slope * devices).sum(axis=1), np.diag(slope) * runs
        parts = [-variance * shared]
        parts += [-np.bincount(self.phase, each, len(PHASES)) for each in by_row]
        parts += [-np.bincount(self.cell, each, len(self.cells)) for each in by_row]
        return value, np.concatenate(parts) + off / self.width

    def reweighted(self, log_sd: Matrix, state: State) -> State:
        """Weights of t-distributed devices and runs: (f + 1) / (f + z^2), from what each is expected to be."""
        smooth, devices, runs = self.terms(log_sd, state.row_weights, state.device_weights)
        factor = (cholesky(smooth + devices + np.diag(runs), lower=True), True)
        answer = cho_solve(factor, self.y)
        device, rest = self.spread(log_sd)
        run = runs * answer
        own = devices @ answer
        doubt = np.diag(devices) - np.einsum("ij,ji->i", devices, cho_solve(factor, devices))
        return State(
            state.log_sd,
            np.minimum(1.0, (FREEDOM + 1) / (FREEDOM + (run / rest) ** 2)),
            np.minimum(1.0, (FREEDOM + 1) / (FREEDOM + (own**2 + doubt) / device**2)),
        )

    def shares(self, state: State, source: str) -> Shares:
        log_sd = np.array([state.log_sd[name] for name in self.names])
        _, devices, runs = self.terms(log_sd, state.row_weights, state.device_weights)
        sd = dict(zip((*FAMILIES, "shared"), np.exp(log_sd[: len(FAMILIES) + 1]).tolist(), strict=True))
        shared_sd = sd.pop("shared")
        sd["phase"] = PHASE_SD
        prior = np.array([sd[name] ** 2 for name in self.families])
        around = shared_sd**2 * self.same_device + devices + np.diag(runs)
        whitened = cho_solve((cholesky(around, lower=True), True), np.c_[self.x, self.y])
        precision = self.x.T @ whitened[:, :-1] + np.diag(1 / prior)
        covariance = np.linalg.inv(precision)
        return Shares(
            self.effects, covariance @ (self.x.T @ whitened[:, -1]), covariance, sd, shared_sd,  # type: ignore[arg-type]
            self._spreads(state), 1.0, {}, tuple(sorted(set(self.device_of_row))),
            source,
        )  # fmt: skip

    def _spreads(self, state: State) -> dict[str, Spread]:
        log_sd, seen = state.log_sd, [set[str]() for _ in self.cells]
        for device, cell in zip(self.device_of_row, self.cell.tolist(), strict=True):
            seen[cell].add(device)
        whole: dict[str, Spread] = {}
        for phase in PHASES:
            whole[phase] = Spread(*np.exp([log_sd[f"device {phase}"], log_sd[f"rest {phase}"]]).tolist())
        for cell, devices in zip(self.cells, seen, strict=True):
            typical = whole[cell.partition("/")[0]]
            factors = np.exp([log_sd[f"device {cell}"], log_sd[f"rest {cell}"]]).tolist()
            whole[cell] = Spread(typical.device * factors[0], typical.rest * factors[1], len(devices))
        return whole
