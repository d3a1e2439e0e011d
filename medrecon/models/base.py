"""The contract of every learned model, and all that surrounds its network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from medrecon.datasets.batch import TrainingBatch
from medrecon.errors import OperatorError
from medrecon.models.files import load_model, save_model
from medrecon.models.injector import network_images, operator_images, real_channels
from medrecon.models.losses import Loss, image_loss
from medrecon.models.presets import named_preset
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import intensity_scale
from medrecon.operators.solvers import per_sample


class ReconstructionModel(ModelMixin, ConfigMixin, ABC):  # type: ignore[misc]  # diffusers' own way
    r"""A network that makes images of measurements, for any linear operator on two-dimensional images.

    With s the intensity scale of a sample and :math:`\tilde A = A / ‖A‖`, both after
    :meth:`~medrecon.operators.LinearOperator.whitened`, the result is

    .. math:: \hat x = s\, N(\tilde y, \tilde A, x_{init}), \qquad \tilde y = y / (s ‖A‖), \quad
        x_{init} = \tilde A^{init} \tilde y,

    so that the network N sees intensities around 1 and an operator of norm 1 whatever the units. x_init is
    what the operator starts from, unless a subclass knows better. Images of N are real channels; where an
    operator has more of them than the model (coil map sets, a stack of slices), each group of
    ``image_channels`` is an image of its own.

    Subclasses are built by a constructor decorated with diffusers' ``register_to_config``, whose
    arguments are JSON and among them ``image_channels`` (real ones: 2 for a complex image) and
    ``intensity`` (what becomes 1 in the network; None estimates it for each sample). No sub-module or
    parameter bears the name of an argument: diffusers would confuse them. Subclasses define ``_images``
    and the table ``_PRESETS`` (or ``preset_config``), and :func:`~medrecon.models.register_model` gives them a name.
    """

    registered_name: ClassVar[str | None] = None
    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {}

    @abstractmethod
    def _images(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        """Return N(ỹ, Ã, x_init): images (B', image_channels, H, W) like ``initial``, for ‖Ã‖ <= 1."""

    @classmethod
    def preset_config(
        cls, name: str, *, image_channels: int = 1, parameters: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """Return the configuration of that name, changed by parameters of the constructor.

        Raises
        ------
        UsageError
            For an unknown name, with those that there are.
        """
        return {**named_preset(name, cls._PRESETS), "image_channels": image_channels, **(parameters or {})}

    @classmethod
    def from_preset(cls, name: str, *, image_channels: int = 1) -> Self:
        """Build an untrained model: "small" (a CPU), "base" (a GPU), "tiny" (tests) and perhaps others."""
        build: Any = cls.from_config
        return cast(Self, build(cls.preset_config(name, image_channels=image_channels)))

    @property
    def settings(self) -> Any:  # noqa: ANN401 (diffusers' frozen dictionary, typed as a plain one)
        """The configuration, its entries as attributes."""
        return self.config

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the model of a folder, a training run or a shipped name.

        Unlike ``from_pretrained`` it refuses weights that do not fit wholly, and gives single precision always.
        """
        return load_model(cls, Path(folder))

    def save(self, folder: str | Path, *, card: str | None = None, half: bool = False) -> None:
        """Write ``config.json``, the weights (safetensors) and a model card; files appear whole or not at all.

        Parameters
        ----------
        folder
            Made where it is missing; files of the same names are replaced.
        card
            Text of ``README.md``; a short one by default.
        half
            Store the weights in half precision, half the size; :meth:`load` makes them single again.
        """
        save_model(self, Path(folder), card, half=half)

    def forward(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return images (B, *operator.image_shape) in the units of the data; zero where the measurements are.

        Parameters
        ----------
        measurements
            (B, *operator.data_shape).
        operator
            On images (C, H, W); complex ones count twice in ``image_channels``.
        """
        images, _, scale = self._reconstruct(measurements, operator)
        signal = measurements.flatten(1).abs().amax(1) > 0  # a network makes something even of nothing
        return images * per_sample(scale * signal, images)

    @property
    def network_calls(self) -> int:
        """How often :meth:`forward` calls a network."""
        return 1

    def training_loss(self, batch: TrainingBatch, loss: Loss = "l1") -> Tensor:
        """Return the loss of a batch, a scalar, in intensities of the network: with x̂ and x divided by s.

        Parameters
        ----------
        batch
            Measurements, operator and truth.
        loss
            "l1" (pixels and real channels), "ssim" (magnitudes), "l1+ssim" or "relative-l1", see
            :func:`~medrecon.models.losses.image_loss`.
        """
        images, initial, scale = self._reconstruct(batch.measurements, batch.operator)
        target, reference = batch.target, batch.reference
        if reference is not None:
            reference = reference / per_sample(scale, reference)
        return image_loss(loss, images, target / per_sample(scale, target), reference, initial)

    def _reconstruct(self, measurements: Tensor, operator: LinearOperator) -> tuple[Tensor, Tensor, Tensor]:
        """Return images and x_init (B, *operator.image_shape) in intensities of the network, and their scale (B,)."""
        self._check(operator)
        measurements, operator = operator.whitened(measurements)
        with torch.no_grad():
            bound = operator.norm_bound()
            scale = self._intensity(measurements, operator)
        y = measurements / per_sample(scale * bound, measurements)
        operator = operator * (1 / bound)
        initial = self._initial(y, operator)
        images = self._images(y, operator, network_images(initial, self.settings.image_channels))
        return images_of(images, operator, initial), initial, scale

    def _initial(self, y: Tensor, operator: LinearOperator) -> Tensor:
        """Return x_init (B, *operator.image_shape)."""
        return operator.initial(y)

    def _check(self, operator: LinearOperator) -> None:
        wanted = self.settings.image_channels
        if len(operator.image_shape) != 3 or real_channels(operator) % wanted:
            kind = "complex" if operator.image_dtype.is_complex else "real"
            raise OperatorError(
                f"{type(self).__name__}: this one is for two-dimensional images of {wanted} real channels (a "
                f"complex channel counts twice), {type(operator).__name__} has {kind} images {operator.image_shape}"
            )

    def _intensity(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        fixed = self.settings.intensity
        if fixed is None:
            return intensity_scale(operator, measurements)
        return torch.full((measurements.shape[0],), float(fixed), device=measurements.device)


def images_of(channels: Tensor, operator: LinearOperator, start: Tensor) -> Tensor:
    """Return the images (B, *operator.image_shape) that a network made of others, unchanged where nothing is seen.

    Parameters
    ----------
    channels
        (B', image_channels, H, W).
    operator
        Its images have as many real channels, or a multiple; :meth:`~LinearOperator.support` says where it sees.
    start
        What the network made them of, (B, *operator.image_shape), or one number everywhere.
    """
    images, support = operator_images(channels, operator), operator.support()
    return images if support is None else torch.where(support, images, start)
