"""The pseudo-Huber distance of whole images."""

import math

from torch import Tensor

from medrecon.errors import UsageError


def pseudo_huber(x: Tensor, y: Tensor, c: float) -> Tensor:
    r"""Return, for each sample (B,), the distance of two images: quadratic below c, linear above.

    .. math:: d(x, y) = \left( \sqrt{‖x - y‖^2 + c^2} - c \right) / \sqrt{d}

    with the norm over all but the batch and d the number of elements of a sample (Song and Dhariwal, Improved
    Techniques for Training Consistency Models, ICLR 2024, equation 7, divided by √d so that its size does not
    depend on that of the image). It is a distance of vectors: applied to single pixels it would be another loss.

    Parameters
    ----------
    x, y
        Real, (B, ...), of one shape.
    c
        Above 0; 0.00054 √d is usual.

    Raises
    ------
    UsageError
        For another shape or c.

    Examples
    --------
    >>> import torch
    >>> pseudo_huber(torch.zeros(1, 4), torch.full((1, 4), 2.0), 3.0)
    tensor([1.])
    """
    if x.shape != y.shape or x.ndim < 2:
        raise UsageError(
            f"pseudo_huber: expected two tensors (B, ...) of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not 0 < c < math.inf:
        raise UsageError(f"pseudo_huber: c must be a number above 0, got {c}")
    squares = (x - y).square().flatten(1)
    return ((squares.sum(1) + c**2).sqrt() - c) / math.sqrt(squares.shape[1])
