"""The compiled part of skip-gram: the equations of `psdevise.models.skipgram`, a window at a time.

It takes about ten seconds to compile, once: numba keeps the machine code beside this file or, where that cannot be
written, in the user's cache folder (`NUMBA_CACHE_DIR` names another). No lock of Python's is held while it runs.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from psdevise.compiled import compiled
from psdevise.models.skipgram import EPS

LOSS_EVERY = 16  # windows; the logarithms of all would cost as much as the products
F = np.float32
Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


# Sums may be reordered, which is what vector registers want; NaN stays NaN, so that shards can refuse it.
_compiled = partial(compiled, fastmath={"reassoc", "contract", "nsz"}, nogil=True, error_model="numpy")


@_compiled
def _sigmoid(x: np.float32) -> np.float32:
    """σ(x) = ½ + ½ tanh(x/2), with Eigen's rational approximation of tanh: within 1e-6, and it vectorises."""
    x = min(max(x * F(0.5), F(-9)), F(9))
    y = x * x
    p = (F(-2.76076847742355e-16) * y + F(2.00018790482477e-13)) * y + F(-8.60467152213735e-11)
    p = ((p * y + F(5.12229709037114e-08)) * y + F(1.48572235717979e-05)) * y + F(6.37261928875436e-04)
    p = (p * y + F(4.89352455891786e-03)) * x
    q = (F(1.19825839466702e-06) * y + F(1.18534705686654e-04)) * y + F(2.26843463243900e-03)
    q = q * y + F(4.89352518554385e-03)
    return F(0.5) + F(0.5) * p / q


@_compiled
def _weighted_sum(weights: Array, rows: Array, count: int, total: Array) -> None:
    """total = Σ_{i<count} weights[i] rows[i], two rows at a time: an odd count needs weights[count] = 0."""
    total[:] = F(0)
    for i in range(0, count, 2):
        a, b, x, y = weights[i], weights[i + 1], rows[i], rows[i + 1]
        for k in range(total.shape[0]):
            total[k] += a * x[k] + b * y[k]


@_compiled
def _step(table: Array, squares: Array, row: int, gradient: Array, rate: np.float32) -> None:
    values = table[row]
    if squares.shape[0] > 0:
        square = F(0)
        for k in range(gradient.shape[0]):
            square += gradient[k] * gradient[k]
        squares[row] += square / F(gradient.shape[0])
        rate = rate / (np.sqrt(squares[row]) + F(EPS))
    for k in range(gradient.shape[0]):
        values[k] += rate * gradient[k]


@_compiled
def train(
    input: Array,
    output: Array,
    input_squares: Array,
    output_squares: Array,
    rate: np.float32,
    terms: Numbers,
    low: Integers,
    high: Integers,
    starts: Integers,
    lengths: Integers,
    targets: Numbers,
    labels: Array,
    most: int,
    longest: int,
) -> tuple[int, float]:
    """Trains on a `Block` in place. Squares [rows] may be empty: then the steps are plain SGD.

    `most` neighbours and `longest` targets stand in a window at most. Returns the pairs of a word and a neighbour,
    and −log p summed over them, estimated from every LOSS_EVERY-th window.
    """
    dim = input.shape[1]
    # One row and column more than needed: products go two by two.
    hidden = np.zeros((most + 1, dim), F)
    nodes = np.zeros((longest + 1, dim), F)
    error = np.zeros((most + 1, longest + 1), F)
    gradient = np.zeros(dim, F)
    pairs, sampled, loss = 0, 0, 0.0
    for i in range(terms.shape[0]):
        start, p, m = starts[i], lengths[i], 0
        for j in range(low[i], high[i]):
            if j != i:
                hidden[m] = input[terms[j]]
                m += 1
        nodes[:p] = output[targets[start : start + p]]
        for j in range(0, m, 2):
            h0, h1 = hidden[j], hidden[j + 1]
            for n in range(0, p, 2):
                v0, v1 = nodes[n], nodes[n + 1]
                s00, s01, s10, s11 = F(0), F(0), F(0), F(0)
                for k in range(dim):
                    s00 += h0[k] * v0[k]
                    s01 += h0[k] * v1[k]
                    s10 += h1[k] * v0[k]
                    s11 += h1[k] * v1[k]
                error[j, n], error[j, n + 1], error[j + 1, n], error[j + 1, n + 1] = s00, s01, s10, s11
        for j in range(m):
            for n in range(p):
                error[j, n] = labels[start + n] - _sigmoid(error[j, n])
        error[: m + 1, p] = F(0)
        error[m, : p + 1] = F(0)
        pairs += m
        if i % LOSS_EVERY == 0:
            sampled += m
            for j in range(m):
                for n in range(p):
                    loss -= np.log(max(1.0 - abs(error[j, n]), 1e-7))
        for n in range(p):
            _weighted_sum(error[:, n], hidden, m, gradient)
            _step(output, output_squares, targets[start + n], gradient, rate)
        m = 0
        for j in range(low[i], high[i]):
            if j != i:
                _weighted_sum(error[m], nodes, p, gradient)
                _step(input, input_squares, terms[j], gradient, rate)
                m += 1
    return pairs, loss * pairs / max(sampled, 1)


def warm_up() -> None:
    """Compiles the kernel, or takes it from numba's cache."""
    table, none = np.zeros((1, 2), F), np.zeros(0, F)
    one, number = np.zeros(1, np.int64), np.zeros(1, np.int32)
    train(table, table, none, none, F(0), number, one, one, one, one, number, np.zeros(1, F), 2, 1)
