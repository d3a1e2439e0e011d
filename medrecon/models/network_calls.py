"""The calls of a model's networks, as they happen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from medrecon.models.padded_unet import PaddedUNet
from medrecon.models.prior_unet import PriorUNet
from medrecon.models.unet import InjectedUNet


@contextmanager
def each_network_call(module: nn.Module, report: Callable[[], object]) -> Iterator[None]:
    """Call ``report`` after every call of a U-Net in ``module``, while the context lasts.

    Examples
    --------
    >>> import torch
    >>> from medrecon.models import InvertibleDiffusionModel
    >>> from medrecon.operators import Inpainting
    >>> model, operator, calls = InvertibleDiffusionModel.from_preset("tiny"), Inpainting(torch.ones(1, 8, 8)), []
    >>> with torch.no_grad(), each_network_call(model, lambda: calls.append(1)):
    ...     image = model(torch.rand(1, 1, 8, 8), operator)
    >>> len(calls), model.network_calls
    (3, 3)
    """
    networks = [each for each in module.modules() if isinstance(each, (InjectedUNet, PaddedUNet, PriorUNet))]
    hooks = [network.register_forward_hook(lambda *_: report()) for network in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
