"""The metric of consistency training and of DDDM."""

from torch import Tensor


def pseudo_huber(x: Tensor, y: Tensor, c: float) -> Tensor:
    r"""Return, per sample (B,), the pseudo-Huber distance of whole images.

    .. math:: d(x, y) = \left(\sqrt{‖x - y‖^2 + c^2} - c\right) / \sqrt{d},

    the norm over all dimensions but the first, d the number of elements of a sample (Song and Dhariwal,
    ICLR 2024, equation 7, there without the root of d).

    Parameters
    ----------
    x, y
        (B, ...).
    c
        Where the parabola becomes a cone, > 0; in units of the norm: 0.00054 √d is usual.
    """
    squares = (x - y).flatten(1).square()
    return ((squares.sum(1) + c**2).sqrt() - c) / squares.shape[1] ** 0.5
