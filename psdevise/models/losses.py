"""What the visual and the joint phase minimise: hinge rank, squared distance, softmax cross-entropy.

Labels come as a mask `true` [B, C] bool: picture b truly has term c. A picture may have several, and none
of them is ever a false term for it. All losses are means over the B pictures of a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F


def hinge_rank(
    projected: torch.Tensor,
    vectors: torch.Tensor,
    true: torch.Tensor,
    generator: torch.Generator,
    margin: float = 0.1,
    mode: Literal["cut", "sum"] = "cut",
) -> torch.Tensor:
    """The hinge rank loss of DeViSE (Frome et al., NIPS 2013, equation 1).

        loss(x, t) = Σ_{j false} max(0, margin - t·x + j·x)

    with x = M v the projected picture, one such sum for each true term t of a picture. `cut`, as trained in
    the paper's section 3.3: the false terms are visited in random order, drawn anew for each pair of picture
    and true term, and the sum is cut after the first one that violates the margin. `sum` is the whole sum.

    A known weakness: x is not normalised, so that a short x has a small loss however it points.

    Args:
        projected: float [B, E], on any device; computed in fp32 whatever the precision of the core.
        vectors: float [C, E], unit rows: the candidate terms (the training labels, or a whole lexicon).
        true: bool [B, C].
        generator: draws the orders; on any device.
    Returns: scalar, Σ over all hinges / B.
    """
    scores = projected.float() @ vectors.T
    picture, term = true.nonzero(as_tuple=True)
    violation = margin - scores[picture, term][:, None] + scores[picture]
    violation = violation.masked_fill(true[picture], 0.0).clamp_min(0.0)
    if mode == "cut":
        # The first violation of a random order is a uniform draw among all violations: each gets a random
        # key above that of any term in order, and the highest key wins.
        keys = torch.rand(violation.shape, generator=generator, device=generator.device).to(violation.device)
        first = torch.where(violation > 0, keys, -1.0).argmax(dim=1, keepdim=True)
        violation = violation.gather(1, first)
    return violation.sum() / len(projected)


def squared_distance(projected: torch.Tensor, vectors: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The L2 control of the paper: Σ over the true terms t of ‖M v - t‖², shapes as in `hinge_rank`."""
    projected = projected.float()
    picture, term = true.nonzero(as_tuple=True)
    return (projected[picture] - vectors[term]).square().sum() / len(projected)


def cross_entropy(logits: torch.Tensor, true: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """-Σ_c p_c log softmax(logits)_c, where p spreads 1 - `smoothing` evenly over a picture's true terms and
    `smoothing` evenly over all (Szegedy et al. 2016, section 7). A picture without a true term has no loss.

    Shapes: logits float [B, C], true bool [B, C] → scalar, in fp32.
    """
    count = true.sum(dim=1, keepdim=True)
    target = true.float() / count.clamp_min(1)
    target = (1.0 - smoothing) * target + smoothing / true.shape[1] * (count > 0)
    return -(target * F.log_softmax(logits.float(), dim=1)).sum() / len(logits)
