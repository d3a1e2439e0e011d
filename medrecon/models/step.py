"""One step of the Invertible Diffusion Model."""

from torch import Tensor

from medrecon.models.data_consistency import data_consistency
from medrecon.models.injector import on_image
from medrecon.models.reversible import Keep
from medrecon.models.sampling import denoise, renoise
from medrecon.models.unet import InjectedUNet
from medrecon.operators.base import LinearOperator


def sampling_step(
    x: Tensor,
    unet: InjectedUNet,
    operator: LinearOperator,
    y: Tensor,
    initial: Tensor,
    alpha_bar: Tensor,
    alpha_bar_before: Tensor,
    weight: Tensor | None,
    branch: int,
    iterations: int,
    keep: Keep,
) -> Tensor:
    r"""Return S_t(x): predict the noise, draw the clean image to the data, go one step back.

    Equations 2 to 5 in docs/idm.md, in this order:

    .. math::

        e = U_t(x), \quad
        x_0 = (x - \sqrt{1-\barα_t}\, e) / \sqrt{\barα_t}, \quad
        x_0 ← x_0 - A^+(A x_0 - y), \quad
        S_t = \sqrt{\barα_{t-1}}\, x_0 + \sqrt{1-\barα_{t-1}}\, e

    Parameters
    ----------
    x, initial
        Real channels (B, C, H, W).
    unet
        U_1 … U_T.
    operator, y
        The physics; ‖A‖ <= 1.
    alpha_bar, alpha_bar_before
        ᾱ_t and ᾱ_{t-1}, (1,).
    weight
        λ_t, (1,), or None for ∞.
    branch
        Of the injectors of U_t, from 0.
    iterations
        See :func:`~medrecon.models.data_consistency.data_consistency`.
    keep
        What the U-Net keeps for its backward pass.
    """
    noise = unet(x, operator, initial, branch, keep=keep)
    clean = consistent(denoise(x, noise, alpha_bar), y, operator, weight, iterations)
    return renoise(clean, noise, alpha_bar_before)


def consistent(x: Tensor, y: Tensor, operator: LinearOperator, weight: Tensor | None, iterations: int) -> Tensor:
    """Apply :func:`~medrecon.models.data_consistency.data_consistency` to images as real channels."""

    def step(image: Tensor) -> Tensor:
        return data_consistency(image, y, operator, weight, iterations=iterations)

    return on_image(step, x, operator)
