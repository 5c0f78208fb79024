"""Ridge regression and softmax regression through inner products alone, for features wider than there are pictures.

With K = X Xᵀ [n, n] of the training pictures both models are X-combinations, M = Aᵀ X, and a new picture x needs only
k = X x: Socher's 12,800 features of 12,000 pictures enter once, and then serve all pairs of classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import spotri
from scipy.optimize import minimize

from psdevise.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def inverse(kernel: Floats, penalty: float) -> Floats:
    """P = (K + λ s I)⁻¹ [n, n], s = tr(K) / n the pictures' mean squared norm, λ > 0.

    Once for all maps that leave some of the pictures out.
    """
    damped = kernel.copy()
    damped[np.diag_indices(len(kernel))] += np.float32(penalty * np.trace(kernel, dtype=np.float64) / len(kernel))
    factor, lower = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
    found, failed = spotri(factor, lower=lower, overwrite_c=True)
    if failed:
        raise DataError("the inner products are singular", where="ridge regression", mend="a higher penalty")
    return np.tril(found) + np.tril(found, -1).T


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
    factor = cho_factor(inverse[np.ix_(left_out, left_out)], lower=True, check_finite=False)
    solved = cho_solve(factor, product[left_out], check_finite=False)
    return np.asarray(product[kept] - inverse[np.ix_(kept, left_out)] @ solved, np.float32)


def softmax(
    kernel: Floats, targets: npt.NDArray[np.int64], classes: int, penalty: float, iterations: int = 100
) -> tuple[Floats, Floats]:
    """(A [n, classes], b [classes]) of softmax(Aᵀ k + b), by L-BFGS over all pictures:

    min  −mean log p(y_i) + λ/(2 s) tr(Aᵀ K A),   s = tr(K) / n
    """
    n = len(kernel)
    scale = float(np.trace(kernel, dtype=np.float64)) / n
    onehot = np.eye(classes, dtype=np.float32)[targets]

    def value(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        # In units where pictures have norm 1: the steps of the first iterations then fit.
        a, b = flat[:-classes].reshape(n, classes), flat[-classes:]
        ka = (kernel @ a.astype(np.float32) / scale).astype(np.float64)
        logits = ka + b
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -(log_p * onehot).sum() / n + 0.5 * penalty * float((a * ka).sum())
        residual = (np.exp(log_p) - onehot) / n
        # In the dual the gradient is K (residual + λ a); without K it is a descent direction that is better scaled, but
        # L-BFGS wants the gradient itself.
        inner = (residual + penalty * a).astype(np.float32)
        gradient = (kernel @ inner / scale).astype(np.float64)
        return loss, np.concatenate([gradient.reshape(-1), residual.sum(axis=0)])

    start = np.zeros(n * classes + classes)
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20}).x
    weights = found[:-classes].reshape(n, classes) / scale
    return weights.astype(np.float32), found[-classes:].astype(np.float32)
