"""Dealing examples without return cancels nearly all of the noise at the ends of epochs, but not where curvatures differ.

Claim
    With a constant rate random reshuffling's floor at the ends of epochs is lower than that of independent draws by (eta n)^2 / 12; inside
    an epoch it is as noisy. Where curvature goes with the gradient it settles beside the minimizer, and with rates 2 / (mu n K) for K
    epochs the mean square falls as 1/K^3 where all curvatures are equal, and as 1/K^2 in the end where they are not, against 1/K.
Theory
    f_i = g_i x^2 / 2 - a_i x, sum a = 0. Independent: eta s^2 / (2 - eta). Dealt, g = 1: s^2 n / (n - 1) (sum w^2 - (sum w)^2 / n) / (1 -
    (1 - eta)^(2n)), w_j = eta (1 - eta)^(n - 1 - j). Epochs end at eta mean(a g) / (2 mu) on the mean. Exactly, by normalised symmetric
    polynomials of 1 - eta g_i; Theta(1/(nK)^2 + 1/(nK^3)) for quadratics (Safran and Shamir 2020; Rajput et al. 2020; Ahn et al. 2020).
    The page's "SGD" is reshuffling, its theory that of independent draws.
Sweep
    Rates x seeds by both samplers, from the minimizer, which hides nothing; several chains a run, on orthogonal columns or permuted rows.
Expect
    Saw teeth under a level; a ratio that falls as (eta n)^2; a mean off zero; three slopes.
Command
    gdjax experiment=reshuffling
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gdjax import analysis, figures, noisy, theory
from gdjax.records import Finding, InputError, Problem, several, whole
from gdjax.theory import reshuffling

EPOCHS = 12
"""Of a constant rate. Begun at the minimizer, both samplers' mean squares grow alike, and their ratio is the floors' from the first epoch
on."""

DECAYED = 16
"""Examples where curvatures differ, and where the rate goes with the number of epochs."""

CORRELATION = 0.9
"""Of an example's curvature with its gradient at the minimizer."""


def run(
    sweep: Callable[..., xr.Dataset],
    *,
    num_examples: int = 64,
    rate_times_examples: Sequence[float] | float = (0.1, 0.3, 1.0, 3.0),
    num_seeds: int = 500,
    num_epochs: int = 512,
) -> xr.DataTree:
    """Sweep rates and seeds with equal curvatures; then with different ones; then rates that go with the number of epochs.

    Parameters
    ----------
    num_examples
        n, a power of 2; each run carries n - 1 chains.
    rate_times_examples
        eta n.
    num_epochs
        K of the longest run with rate 2 / (mu n K).
    """
    n, seeds = whole("num_examples", num_examples, least=8), range(whole("num_seeds", num_seeds, least=2))
    longest = whole("num_epochs", num_epochs, least=16)
    products = np.asarray(several("rate_times_examples", rate_times_examples), dtype=float)
    if not (products.min() > 0 and products.max() < n):
        raise InputError(f"rate_times_examples={products.tolist()} is not allowed: numbers are above 0 and below n = {n}.")
    equal, different = _equal(n), _different()
    parts = {}
    for sampler in ("reshuffled", "with_replacement"):
        given = {"sampler": sampler, "batch_size": 1, "seed": seeds}
        constant = sweep(equal, num_steps=EPOCHS * n, record_every=max(1, n // 16), learning_rate=products / n, **given)
        parts[f"constant_{sampler}"] = _squares(constant, equal)
        parts[f"decaying_{sampler}"] = _decaying(sweep, different, longest, given)
    parts["decaying_equal"] = _decaying(sweep, _equal(DECAYED), longest, given | {"sampler": "reshuffled"})
    shifted = sweep(
        different,
        sampler="reshuffled",
        num_steps=DECAYED * 100,
        record_every=DECAYED * 100,
        batch_size=1,
        seed=range(4 * len(seeds)),
        learning_rate=np.array([0.02, 0.05, 0.1, 0.2]),
    )
    means = analysis.over_seeds(shifted.params.mean("parameter"))
    parts["shift"] = means.drop_vars("epoch", errors="ignore").assign_attrs(shifted.attrs | {"num_seeds": shifted.sizes["seed"]})
    return xr.DataTree.from_dict(parts)


def _equal(n: int) -> Problem:
    signs = noisy.orthogonal_signs(n)
    return noisy.separable(np.ones_like(signs), signs)


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Curvatures of mean 1, and gradients at the minimizer of mean 0 and mean square 1 that go with them."""
    turn = 2.0 * np.pi * (np.arange(DECAYED) + 0.5) / DECAYED
    along, across = np.sqrt(2.0) * np.cos(turn), np.sqrt(2.0) * np.sin(turn)
    return 1.0 + 0.6 * along, CORRELATION * along + math.sqrt(1.0 - CORRELATION**2) * across


def _different() -> Problem:
    """Chains that see the same examples, each by names of its own."""
    g, a = examples()
    names = np.stack([np.random.default_rng(chain).permutation(DECAYED) for chain in range(48)], axis=1)
    return noisy.separable(g[names], a[names])


def _squares(measured: xr.Dataset, problem: Problem) -> xr.Dataset:
    """E x^2: the mean over chains, then over seeds; and over the ends of epochs of each run."""
    square = 2.0 * measured.suboptimality / np.size(problem.start)  # curvatures are 1 on the mean
    ends = square.sel(step=[step for step in square.step.values if step and step % problem.num_examples == 0]).mean("step")
    kept = analysis.over_seeds(square).assign(analysis.over_seeds(ends).rename({"mean": "ends", "error": "ends_error"}))
    return kept.drop_vars("epoch").assign_attrs(measured.attrs | {"num_seeds": measured.sizes["seed"]})


def _decaying(sweep: Callable[..., xr.Dataset], problem: Problem, num_epochs: int, given: dict) -> xr.Dataset:
    """Rates 2 / (mu n K), each read after its own K epochs."""
    n, epochs = problem.num_examples, 2 ** np.arange(1, int(math.log2(num_epochs)) + 1)
    measured = sweep(problem, num_steps=n * int(epochs[-1]), record_every=2 * n, learning_rate=2.0 / (n * epochs), **given)
    read = xr.DataArray(epochs, dims="epochs", coords={"epochs": epochs})
    own = measured.suboptimality.sel(step=n * read, learning_rate=2.0 / (n * read), method="nearest")
    square = (2.0 * own / np.size(problem.start)).drop_vars(["step", "learning_rate", "epoch"], errors="ignore")
    return analysis.over_seeds(square).assign_attrs(measured.attrs | {"num_seeds": measured.sizes["seed"]})


def check(results: xr.DataTree) -> list[Finding]:
    """Floors and curves by both samplers, the ratio, the shift, the slopes."""
    dealt, drawn = (results[f"constant_{sampler}"].to_dataset() for sampler in ("reshuffled", "with_replacement"))
    return [
        *_constant_findings(dealt, "dealt each epoch", "w_j = η (1 - η)^(n - 1 - j) over a permutation"),
        *_constant_findings(drawn, "independent draws", "η s² / (2 - η)"),
        _ratio_finding(dealt, drawn),
        *_shift_findings(results["shift"].to_dataset()),
        *_decaying_findings(results),
    ]


def _exact(measured: xr.Dataset) -> np.ndarray:
    """E x^2 at every record, of equal curvatures."""
    rates, steps, n = measured.learning_rate.values[:, None], measured.step.values, int(measured.attrs["num_examples"])
    if measured.attrs["sampler"] == "reshuffled":
        return reshuffling.reshuffled_square(rates, n, steps=steps)
    return reshuffling.independent_square(rates, steps=steps)


def _ends(measured: xr.Dataset, exact: np.ndarray) -> np.ndarray:
    steps = measured.step.values
    return exact[:, (steps > 0) & (steps % int(measured.attrs["num_examples"]) == 0)].mean(axis=1)


def _constant_findings(measured: xr.Dataset, said: str, source: str) -> list[Finding]:
    exact, n = _exact(measured), int(measured.attrs["num_examples"])
    compared = np.unique(np.linspace(1, measured.sizes["step"] - 1, 24).round().astype(int))
    findings = [
        Finding(
            claim=f"{said}: largest deviation of E x² at 24 times, inside epochs too, at all rates (standard errors)",
            predicted=4.0,
            measured=analysis.furthest(measured.isel(step=compared).transpose("learning_rate", "step"), exact[:, compared]),
            tolerance=0.0,
            source=source,
            kind="at_most",
        )
    ]
    for number, expected in enumerate(_ends(measured, exact)):
        one = measured.isel(learning_rate=number)
        share = float(one.ends_error / one.ends)
        findings.append(
            Finding(
                claim=f"{said}, η n = {float(one.learning_rate) * n:g}: E x² at the ends of {EPOCHS} epochs (4 s.e. of {share:.2%})",
                predicted=float(expected),
                measured=float(one.ends),
                tolerance=1e-8 + 4.0 * share,
                source=source,
            )
        )
    return findings


def _ratio_finding(dealt: xr.Dataset, drawn: xr.Dataset) -> Finding:
    rate, n = float(dealt.learning_rate[0]), int(dealt.attrs["num_examples"])
    one, other = dealt.isel(learning_rate=0), drawn.isel(learning_rate=0)
    law = (rate * n) ** 2 / 12.0 * (1.0 + 1.0 / n)
    share = math.hypot(float(one.ends_error / one.ends), float(other.ends_error / other.ends))
    beyond = abs(float(reshuffling.reshuffled_square(rate, n) / reshuffling.independent_square(rate)) / law - 1.0)
    return Finding(
        claim=f"η n = {rate * n:g}: dealt over independent, at the ends of epochs ({beyond:.1%} for what is of higher order, 4 s.e.)",
        predicted=law,
        measured=float(one.ends / other.ends),
        tolerance=beyond + 4.0 * share,
        source="(η n)² / 12 (1 + 1/n); Mishchenko et al. 2020, Gurbuzbalaban et al. 2021: O(η²) against O(η)",
    )


def _shift_findings(shift: xr.Dataset) -> list[Finding]:
    rates = shift.learning_rate.values
    exact, first = reshuffling.shuffled_moments(rates, *examples())[0], reshuffling.mean_shift(rates, *examples())
    share, beyond = float(shift["error"][0] / shift["mean"][0]), float(abs(exact[0] / first[0] - 1.0))
    return [
        Finding(
            claim="curvatures that differ, dealt each epoch: largest deviation of the mean of x at four rates (standard errors)",
            predicted=4.0,
            measured=analysis.furthest(shift, exact),
            tolerance=0.0,
            source="the mean of an epoch's push over permutations, by normalised symmetric polynomials",
            kind="at_most",
        ),
        Finding(
            claim=f"the same at the rate {rates[0]:g}: the mean of x, off the minimizer ({beyond:.1%} for higher orders, 4 s.e.)",
            predicted=float(first[0]),
            measured=float(shift["mean"][0]),
            tolerance=beyond + 4.0 * share,
            source="η mean(a g) / (2 mean g) for gradients g x - a",
        ),
    ]


def _decaying_exact(name: str, epochs: np.ndarray) -> np.ndarray:
    """E x^2 after K epochs at the rate 2 / (n K)."""
    rates = 2.0 / (DECAYED * epochs)
    if name == "decaying_equal":
        return reshuffling.reshuffled_square(rates, DECAYED, steps=DECAYED * epochs)
    g, a = examples()
    if name == "decaying_reshuffled":
        return reshuffling.shuffled_moments(rates, g, a, epochs)[1]
    from_examples = theory.moments.of_examples(np.sqrt(g)[:, None], a / np.sqrt(g), np.zeros(1))
    curves = theory.moments.curves(from_examples, rates, 1.0, np.ones(1), num_steps=int(DECAYED * epochs[-1]))
    return np.asarray(curves)[np.arange(len(epochs)), DECAYED * epochs]


DECAYING = {
    "decaying_with_replacement": ("independent draws", -1.0, "Theta(1 / (n K))"),
    "decaying_equal": ("dealt, equal curvatures", -3.0, "Theta(1 / (n K^3)); Safran and Shamir 2020, Ahn et al. 2020"),
    "decaying_reshuffled": ("dealt, curvatures that differ", -2.0, "Theta(1 / (n K)^2 + 1 / (n K^3)); Rajput et al. 2020"),
}


def _decaying_findings(results: xr.DataTree) -> list[Finding]:
    findings = []
    for name, (said, power, source) in DECAYING.items():
        measured = results[name].to_dataset()
        epochs, exact = measured.epochs.values, _decaying_exact(name, measured.epochs.values)
        share = (measured["error"] / measured["mean"]).values
        first = -3 if name == "decaying_reshuffled" else 2  # it has come to its power only in the end
        octaves = np.log(epochs[-1] / epochs[first])
        slope, law = (np.log(v[-1] / v[first]) / octaves for v in (measured["mean"].values, exact))
        findings += [
            Finding(
                claim=f"rates 2/(μnK), {said}: largest deviation of E x² after K = 2 to {epochs[-1]} epochs (standard errors)",
                predicted=4.0,
                measured=analysis.furthest(measured, exact),
                tolerance=0.0,
                source="an epoch's moments over permutations, or a step's over draws",
                kind="at_most",
            ),
            Finding(
                claim=f"rates 2/(μnK), {said}: the power of K from {epochs[first]} to {epochs[-1]}, where it is exactly {law:.3f} "
                "(that far, and 4 standard errors)",
                predicted=power,
                measured=float(slope),
                tolerance=float(abs(law / power - 1.0) + 4.0 * math.hypot(share[-1], share[first]) / octaves / -power),
                source=source,
            ),
        ]
    return findings


@figures.paper
def draw(results: xr.DataTree) -> dict[str, Figure]:
    """Inside epochs; the ratio; the shift; the powers."""
    drawn, panels = figures.figure(2, 2, width=7.2, height=5.2)
    dealt, independent = (results[f"constant_{sampler}"].to_dataset() for sampler in ("reshuffled", "with_replacement"))
    _draw_epochs(panels[0, 0], dealt, independent)
    _draw_ratio(panels[0, 1], dealt, independent)
    _draw_shift(panels[1, 0], results["shift"].to_dataset())
    _draw_decaying(panels[1, 1], results)
    n, seeds = int(dealt.attrs["num_examples"]), int(dealt.attrs["num_seeds"])
    figures.source(
        drawn,
        f"above: n = {n}, curvature 1, {seeds} seeds x {n - 1} chains; below: n = {DECAYED}, curvatures 0.15 to 1.85, {seeds} seeds x 48 "
        f"chains (left {4 * seeds:,}).\nAll begin at the minimizer. Dashed: exact theory. Bars: 4 standard errors, most smaller than the "
        "dots.",
    )
    return {"reshuffling": drawn}


def _draw_epochs(axes: Axes, dealt: xr.Dataset, independent: xr.Dataset) -> None:
    """The rate nearest to eta n = 1, over the first epochs."""
    n = int(dealt.attrs["num_examples"])
    place = int(np.abs(np.log(dealt.learning_rate.values * n)).argmin())
    times = np.arange(1, 4 * n + 1)
    rate = float(dealt.learning_rate[place])
    for measured, color, label in ((independent, figures.COLORS[0], "independent draws"), (dealt, figures.COLORS[1], "dealt each epoch")):
        one = measured.isel(learning_rate=place).sel(step=slice(1, 4 * n))
        axes.plot(one.step / n, one["mean"], "o", markersize=2.5, color=color, label=label)
    figures.dashed(axes, times / n, reshuffling.independent_square(rate, steps=times), bounds=(1e-12, 1e12))
    figures.dashed(axes, times / n, reshuffling.reshuffled_square(rate, n, steps=times), bounds=(1e-12, 1e12))
    axes.set(yscale="log", xlabel="epochs (examples seen / n)", ylabel="E x² / s²", title=f"η n = {rate * n:g}: inside epochs")
    axes.set_ylim(bottom=0.3 * float(reshuffling.reshuffled_square(rate, n, steps=n)))
    axes.legend(loc="lower right")


def _draw_ratio(axes: Axes, dealt: xr.Dataset, independent: xr.Dataset) -> None:
    n = int(dealt.attrs["num_examples"])
    products = np.geomspace(0.03, 0.6 * n, 300)
    ratio = reshuffling.reshuffled_square(products / n, n) / reshuffling.independent_square(products / n)
    figures.dashed(axes, products, ratio, bounds=(1e-9, 1e9), label="exact")
    axes.plot(products, products**2 / 12.0, color="0.6", linewidth=1.0, label="(ηn)²/12")
    value = (dealt.ends / independent.ends).values
    share = np.hypot((dealt.ends_error / dealt.ends).values, (independent.ends_error / independent.ends).values)
    axes.errorbar(dealt.learning_rate * n, value, 4.0 * share * value, fmt="o", markersize=4, color=figures.COLORS[1], label="measured")
    axes.set(xscale="log", yscale="log", xlabel="η n", ylabel="dealt / independent", ylim=(3e-5, 3), title="E x² at the ends of epochs")
    axes.legend(loc="lower right")


def _draw_shift(axes: Axes, shift: xr.Dataset) -> None:
    rates = np.linspace(0.0, 1.1 * float(shift.learning_rate.max()), 60)[1:]
    figures.dashed(axes, rates, reshuffling.shuffled_moments(rates, *examples())[0], bounds=(-1e9, 1e9), label="exact")
    axes.plot(rates, reshuffling.mean_shift(rates, *examples()), color="0.6", linewidth=1.0, label="η mean(a g) / (2 μ)")
    axes.errorbar(
        shift.learning_rate, shift["mean"], 4.0 * shift["error"], fmt="o", markersize=4, color=figures.COLORS[1], label="measured"
    )
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.set(xlabel=figures.LABELS["learning_rate"], ylabel="E x at the ends of epochs", title="curvatures that differ: off the minimizer")
    axes.legend(loc="upper left")


def _draw_decaying(axes: Axes, results: xr.DataTree) -> None:
    for (name, (said, power, _)), color in zip(DECAYING.items(), figures.COLORS, strict=False):
        measured = results[name].to_dataset()
        epochs = measured.epochs.values
        axes.errorbar(
            epochs, measured["mean"], 4.0 * measured["error"], fmt="o", markersize=4, color=color, label=f"{said}: → K$^{{{power:g}}}$"
        )
        figures.dashed(axes, epochs, _decaying_exact(name, epochs), bounds=(1e-300, 1e9))
    axes.set(xscale="log", yscale="log", xlabel="epochs K", ylabel="E x² after K epochs", title="rates 2/(μ n K)")
    axes.legend(loc="lower left")
