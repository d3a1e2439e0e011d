"""The end-to-end variational network: learned gradient descent."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medrecon.errors import UsageError
from medrecon.models.base import ReconstructionModel
from medrecon.models.injector import on_image
from medrecon.models.padded_unet import PaddedUNet
from medrecon.models.registry import register_model
from medrecon.operators.base import LinearOperator

UnrolledMemory = Literal["none", "checkpoint"]
"""See :class:`~medrecon.models.UnrolledNetwork`."""


@register_model("varnet")
class UnrolledNetwork(ReconstructionModel):
    r"""End-to-end variational network (Sriram et al., MICCAI 2020; Hammernik et al., MRM 2018), in image space.

    From :math:`x = x_{init}`, T cascades, each with a network of its own:

    .. math:: x ← x - η_t\, A^H (A x - y) - R_t(x), \qquad t = 1 … T, \quad ‖A‖ ≤ 1,

    with η_t learned from 1 and R_t a :class:`~medrecon.models.padded_unet.PaddedUNet`, which also says what its
    norm means. R_t is zero before training: the untrained model is T steps of gradient descent.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or more.
    cascades
        T.
    features
        Of the five levels of R_t, finest first, and of its last block.
    intensity
        The image intensity that becomes 1 in the network; None estimates it for each sample.

    Attributes
    ----------
    memory
        What a forward pass that will be differentiated keeps: "none" (everything) or "checkpoint" (the
        input of every cascade; each is computed once more). Not part of the configuration.

    Notes
    -----
    Presets: ``base`` (T = 8, 11 M parameters, for a GPU), ``small`` (T = 4, 0.3 M, for a CPU), ``tiny``
    (T = 2, 16 k, for tests).

    Examples
    --------
    >>> import torch
    >>> from medrecon.models import UnrolledNetwork
    >>> from medrecon.operators import Inpainting
    >>> model = UnrolledNetwork.from_preset("tiny")
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    memory: UnrolledMemory = "none"
    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "base": {"cascades": 8, "features": [24, 32, 64, 128, 160, 24]},
        "small": {},
        "tiny": {"cascades": 2, "features": [4, 4, 8, 8, 8, 4]},
    }

    @register_to_config  # writes every argument to config.json
    def __init__(
        self,
        image_channels: int = 1,
        cascades: int = 4,
        features: Sequence[int] = (8, 16, 16, 32, 32, 8),
        intensity: float | None = None,  # noqa: ARG002 (read from the config)
    ) -> None:
        super().__init__()
        if cascades < 1:
            raise ValueError(f"UnrolledNetwork: cascades must be at least 1, got {cascades}")
        self.networks = nn.ModuleList(PaddedUNet(image_channels, features) for _ in range(cascades))
        self.eta = nn.Parameter(torch.ones(cascades))

    @property
    def network_calls(self) -> int:
        """The number of cascades."""
        return len(self.networks)

    def _images(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        if self.memory not in get_args(UnrolledMemory):
            raise UsageError(f"memory must be one of {', '.join(get_args(UnrolledMemory))}, got {self.memory!r}")
        recompute = self.memory == "checkpoint" and torch.is_grad_enabled()
        x = initial
        for eta, network in zip(self.eta, self.networks, strict=True):
            inputs = (x, eta, network, operator, y)
            # nothing random happens in a cascade, so the state of the generators need not be kept
            x = (
                checkpoint(cascade, *inputs, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else cascade(*inputs)
            )
        return x


def cascade(x: Tensor, eta: Tensor, network: nn.Module, operator: LinearOperator, y: Tensor) -> Tensor:
    r"""Return :math:`x - η A^H (A x - y) - R(x)` for images as real channels (B', C, H, W)."""
    residual = on_image(lambda image: operator.adjoint(operator(image) - y), x, operator)
    corrected: Tensor = x - eta * residual - network(x)
    return corrected
