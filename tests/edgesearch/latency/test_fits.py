"""How the form of a fit is selected, beside a plain leave-one-out loop."""

import numpy as np
import pytest

from edgesearch.latency.fits import best_form


def solve(columns, wanted_ms, form):
    coefficients = np.zeros(columns.shape[1])
    found = np.linalg.lstsq(columns[:, form], wanted_ms, rcond=None)[0]
    coefficients[list(form)] = found
    return coefficients


def sound(coefficients, columns):
    return bool((columns @ coefficients).min() > 0)


FORMS = ((1,), (0, 1), (0, 1, 2))


def drawn(count, seed=0):
    """Latencies that depend on columns 0 and 1 only, with noise that column 2 could fit."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([np.ones(count), rng.uniform(1, 5, count), rng.uniform(0, 1, count)])
    return columns, 2 + 3 * columns[:, 1] + rng.normal(0, 0.05, count)


def test_the_form_with_the_smallest_leave_one_out_error_is_taken():
    columns, wanted_ms = drawn(8)
    errors = {}
    for form in FORMS:
        own = []
        for index in range(8):
            rest = [other for other in range(8) if other != index]
            coefficients = solve(columns[rest], wanted_ms[rest], form)
            own.append(
                abs(sum(columns[index] * coefficients) - wanted_ms[index]) / wanted_ms[index]
            )
        errors[form] = sum(own) / 8
    best, error = best_form(columns, wanted_ms, FORMS, solve, sound)
    form = min(errors, key=errors.get)
    assert form != (1,)
    assert error == pytest.approx(errors[form])
    assert best == pytest.approx(solve(columns, wanted_ms, form))


def test_fewer_coefficients_than_networks_unless_there_is_one():
    columns, wanted_ms = drawn(2)
    best, _ = best_form(columns, wanted_ms, FORMS, solve, sound)
    assert np.flatnonzero(best).tolist() == [1]
    best, error = best_form(columns[:1], wanted_ms[:1], FORMS, solve, sound)
    assert np.flatnonzero(best).tolist() == [1]
    assert error == pytest.approx(0)  # of a single network, that of its own fit


def test_no_sound_form():
    columns, wanted_ms = drawn(6)
    assert best_form(columns, wanted_ms, FORMS, solve, lambda *_: False) == (None, np.inf)
