"""The contract of every method of reconstruction."""

import inspect
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress

Setting = bool | int | float | str | None
"""What a parameter of a method may be, so that a command line or a sidecar file can hold it."""


class Reconstructor(nn.Module, ABC):
    """Measurements and the operator that explains them in, images out.

    One call serves any :class:`~medrecon.operators.LinearOperator`: images (B, C, *spatial), real or
    complex, with any number of spatial axes; C counts channels or coil map sets. The result is in the
    units of the data, and that of a sample does not depend on its neighbours in the batch. Calls
    change no state and record no gradients.

    Subclasses keep every parameter of their constructor in an attribute of the same name, validate it
    there, and define ``_reconstruct``. The first line of their docstring is what a list of methods
    shows.
    """

    registered_name: ClassVar[str | None] = None

    @abstractmethod
    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        """Return the images; called without gradients, with measurements that fit the operator."""

    def forward(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return the images (B, *operator.image_shape); see :meth:`__call__`."""
        if not isinstance(operator, LinearOperator):
            raise OperatorError(f"{type(self).__name__}: expected a LinearOperator, got {type(operator).__name__}")
        with torch.no_grad():
            return self._reconstruct(measurements, operator, generator=generator, progress=progress)

    def __call__(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Reconstruct a batch.

        Parameters
        ----------
        measurements
            (B, *operator.data_shape).
        operator
            The forward operator, shared or one a sample.
        generator
            Source of randomness, for the methods that use any; None is one with a fixed seed, so that
            the same call gives the same images.
        progress
            Called with the number of iterations done and the largest number there may be.

        Returns
        -------
        Tensor
            Images (B, *operator.image_shape) in data units.
        """
        images: Tensor = super().__call__(measurements, operator, generator=generator, progress=progress)
        return images

    def config(self) -> dict[str, Setting]:
        """Return the parameters that, with :func:`~medrecon.reconstructors.make_method`, rebuild this method."""
        return {name: getattr(self, name) for name in parameter_names(type(self))}

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:  # noqa: ARG002 (for those that depend on it)
        """Return the parameters in effect for an operator, where some that were left open depend on it."""
        return self.config()

    def extra_repr(self) -> str:
        """Name the parameters."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config().items())


def parameter_names(method: type[Reconstructor]) -> list[str]:
    """Return the names of the parameters that the constructor of a method takes."""
    if method.__init__ is nn.Module.__init__:
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(method).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in named]
