"""Ridge and softmax regression on wide features, many times over with some of the classes left out.

Ridge regression goes through the pictures' inner products: one inverse serves whatever pictures are left out. Softmax
regression works on the features themselves, where a few dozen steps of L-BFGS do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import spotri
from scipy.optimize import minimize

from psdevise.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
BLOCK = 1000


def inverse(kernel: Floats, penalty: float) -> Floats:
    """P = (K + λ s I)⁻¹ [n, n] of K = X Xᵀ, s = tr(K) / n the pictures' mean squared norm, λ > 0.

    Once for all maps that leave some of the pictures out.

    Raises:
        DataError: K is singular and λ too small for it.
    """
    n = len(kernel)
    damped = kernel.copy()
    damped[np.diag_indices(n)] += np.float32(penalty * np.trace(kernel, dtype=np.float64) / n)
    # The transpose of a symmetric matrix in C order is the one in LAPACK's order: nothing is copied.
    try:
        factor, _ = cho_factor(damped.T, lower=True, overwrite_a=True, check_finite=False)
        found, failed = spotri(factor, lower=True, overwrite_c=True)
    except LinAlgError:
        failed = 1
    if failed:
        raise DataError("the inner products are singular", where="ridge regression", mend="a higher penalty")
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        square = found[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
        found[start:stop, stop:] = found[stop:, start:stop].T
    return np.asarray(found.T, np.float32)


def ridge(inverse: Floats, kept: Ints, targets: Floats) -> Floats:
    """A [len(kept), dim] with M = Aᵀ X = argmin Σ‖M x − t‖² + λ s ‖M‖² over the kept pictures alone.

        A = (K_kk + λ s I)⁻¹ T = P_kk T − P_ko P_oo⁻¹ P_ok T,   o: those left out (block inversion)

    Args:
        inverse: of all pictures' inner products; kept: rows of it [k]; targets: T, float32 [k, dim].
    """
    n = len(inverse)
    left_out = np.setdiff1d(np.arange(n), kept)
    padded = np.zeros((n, targets.shape[1]), np.float32)
    padded[kept] = targets
    product = inverse @ padded
    if not len(left_out):
        return np.asarray(product[kept], np.float32)
    between = inverse[left_out]
    factor = cho_factor(between[:, left_out], lower=True, check_finite=False)
    solved = cho_solve(factor, product[left_out], check_finite=False)
    return np.asarray((product - between.T @ solved)[kept], np.float32)


def softmax(
    values: Floats, kept: Ints, targets: Ints, classes: int, penalty: float, iterations: int = 200
) -> tuple[Floats, Floats]:
    """(W [classes, width], b [classes]) of softmax(W x + b), by L-BFGS over the kept pictures:

        min  −mean log p(y_i) + ½ λ s ‖W‖²,   s the mean squared norm of all pictures

    Args:
        values: X float32 [n, width]; kept: rows of it [k]; targets: their classes [k].
    """
    n, width = values.shape
    scale = np.float32(np.sqrt(np.vdot(values, values) / n))
    true = np.zeros((n, classes), np.float32)
    true[kept, targets] = 1
    counted = true.any(axis=1, keepdims=True)

    def value(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        # In units where pictures have norm 1: L-BFGS's first steps then fit.
        weight, bias = flat[:-classes].reshape(classes, width), flat[-classes:]
        logits = values @ (weight.astype(np.float32) / scale).T + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -float((log_p * true).sum()) / len(kept) + 0.5 * penalty * float(np.square(weight).sum())
        residual = (np.exp(log_p) * counted - true) / len(kept)
        gradient = (residual.astype(np.float32) / scale).T @ values + penalty * weight
        return loss, np.concatenate([gradient.reshape(-1), residual.sum(axis=0)])

    start = np.zeros(classes * width + classes)
    options = {"maxiter": iterations, "gtol": 1e-5, "ftol": 1e-7}
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options).x
    weight = found[:-classes].reshape(classes, width) / scale
    return weight.astype(np.float32), found[-classes:].astype(np.float32)
