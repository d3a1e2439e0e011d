"""The U-Net baseline: correct a classical reconstruction once."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from medrecon.models.base import ReconstructionModel
from medrecon.models.padded_unet import PaddedUNet
from medrecon.models.registry import register_model
from medrecon.models.step import consistent
from medrecon.operators.base import LinearOperator


@register_model("unet")
class UNetBaseline(ReconstructionModel):
    r"""U-Net that corrects the classical reconstruction (Zbontar et al., fastMRI, arXiv:1811.08839).

    .. math:: \hat x = x_{init} + U(x_{init}),

    for any operator: x_init is the adjoint or, in CT, filtered back-projection. U is a
    :class:`~medrecon.models.padded_unet.PaddedUNet`, which also says what its norm means. The measurements are
    seen once, in x_init, and nothing holds x̂ to them unless ``data_consistency`` does.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or more.
    features
        Of the five levels of U, finest first, and of its last block.
    data_consistency
        Whether x̂ is drawn to the data at the end, with λ = ∞: for data with little noise.
    consistency_iterations
        Of the solver where the operator has no closed-form pseudo-inverse, see
        :func:`~medrecon.models.data_consistency.data_consistency`.
    intensity
        The image intensity that becomes 1 in the network; None estimates it for each sample.

    Notes
    -----
    Presets: ``base`` (7.8 M parameters, for a GPU), ``small`` (0.3 M, for a CPU), ``tiny`` (8 k, for tests).

    Examples
    --------
    >>> import torch
    >>> from medrecon.models import UNetBaseline
    >>> from medrecon.operators import Inpainting
    >>> model = UNetBaseline.from_preset("tiny")
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "base": {"features": [32, 64, 128, 256, 512, 32]},
        "small": {},
        "tiny": {"features": [4, 4, 8, 8, 8, 4]},
    }

    @register_to_config  # writes every argument to config.json
    def __init__(
        self,
        image_channels: int = 1,
        features: Sequence[int] = (16, 16, 32, 64, 64, 16),
        data_consistency: bool = False,  # noqa: ARG002 (this and what follows is read from the config)
        consistency_iterations: int = 10,  # noqa: ARG002
        intensity: float | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.unet = PaddedUNet(image_channels, features)

    def _images(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        x = initial + self.unet(initial)
        if not self.settings.data_consistency:
            return x
        return consistent(x, y, operator, None, self.settings.consistency_iterations)
