"""The Invertible Diffusion Model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast, get_args

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from medrecon.errors import UsageError
from medrecon.models.base import ReconstructionModel
from medrecon.models.blocks import BlockKind, InjectorPlaces
from medrecon.models.bounded import Bounded
from medrecon.models.data_consistency import FIRM, unexplained
from medrecon.models.injector import operator_images
from medrecon.models.memory import Memory, choose_memory
from medrecon.models.presets import preset
from medrecon.models.rebinding import Call
from medrecon.models.registry import register_model
from medrecon.models.reversible import Keep, rebuildable, reversible_chain
from medrecon.models.step import consistent, sampling_step
from medrecon.models.unet import InjectedUNet
from medrecon.operators.base import LinearOperator
from medrecon.optimization.total_variation import total_variation

WarmStart = Literal["none", "least-squares", "tv"]
"""See :class:`InvertibleDiffusionModel`."""

_USUAL_MISFIT = 0.004  # about the median over multi-coil training slices, maps from ESPIRiT
_LEAST_MISFIT = 1e-6
_KEEPS: dict[str, tuple[Keep, Keep]] = {
    "none": ("graph", "graph"),
    "checkpoint": ("graph", "states"),
    "min": ("states-together", "states"),
    "reversible": ("ends", "ends"),
}


@register_model("idm")
class InvertibleDiffusionModel(ReconstructionModel):
    r"""Reconstruct images in T learned diffusion steps (Chen et al., IDM, TPAMI 2025).

    From :math:`z = x_{init}(y)` and :math:`\barα_t = α_1 ⋯ α_t` the pair
    :math:`(a, b) = \sqrt{\barα_T}\, (z, s z)` passes T steps (equation 1 in docs/idm.md),

    .. math:: (a, b) ← ((1 - v_t)\, S_t(a) + v_t\, b,\; a), \qquad \hat x = a + m b,

    each S_t a noise prediction by the U-Net, data consistency and a DDIM step, see
    :func:`~medrecon.models.step.sampling_step`.
    α, v, s and m are learned, and so is, where ``data_consistency`` says so, the weight of the data.

    Any :class:`~medrecon.operators.LinearOperator` on two-dimensional images will do. It is divided by
    its norm, and the images by an intensity scale; both are undone at the end. Where it has more
    channels than the model (coil map sets, a stack of slices), each group of ``image_channels`` is an image.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or 3.
    steps
        T.
    widths, layers, stem, block, heads, groups
        Of the U-Net, see :class:`~medrecon.models.unet.InjectedUNet`.
    injectors
        Where the measurements enter the U-Net.
    shared
        Whether all steps share the U-Net but for the injectors, as published; else each has one of its own.
    zero_init
        Whether the injectors start as the identity and the U-Net as zero.
    alphas
        Where α starts: one number, or one for every step, α_1 first.
    mix
        Where all v start.
    alpha_bounds, mix_bounds
        The open intervals of α and v.
    warm_start
        x_init: what the operator starts from ("none"); that drawn to the data, where the operator has no closed-form
        pseudo-inverse ("least-squares": CG-SENSE instead of zero filling); or the image of least total variation
        ("tv"), which the network then has to improve on.
    data_consistency
        "projection" trusts the data wholly (λ = ∞, as published); "learned" weighs them step by step; "adaptive" does,
        and divides the weights by the share ρ of the data that no image explains (noise, wrong coil maps), to
        λ_t ρ_0/ρ with ρ_0 learned, wherever the operator has no closed-form pseudo-inverse, which explains all.
    consistency_iterations
        Of the solver where the operator has no closed-form pseudo-inverse.
    final_consistency
        Whether the result is drawn to the data once more. Without it the last mixing undoes some of it.
    intensity
        The image intensity that becomes 1 in the network; None estimates it for each sample, which
        suits arbitrary units. Published weights expect images in [0, 1].

    Attributes
    ----------
    memory
        What a forward pass that will be differentiated keeps: "none" (everything), "checkpoint" (the
        input of every layer: 1.4 times the time), "min" and "reversible" (flat in T, 1.9 times the
        time), or "auto", the fastest that fits into the free memory of the device. An int is "auto"
        with that many bytes. Not part of the configuration.

    Notes
    -----
    Training: AdamW, 2e-3 for the small presets, 1e-4 (the paper's) for ``sd15``, with a decaying rate. Clip
    the gradient norm at 1: in 2800 steps of ``small`` it stayed below 0.3, so what is clipped is an
    accident. Warm up over a hundred steps; more when fine-tuning, as the injectors disturb pretrained
    features at first.

    Examples
    --------
    >>> import torch
    >>> from medrecon.models import InvertibleDiffusionModel
    >>> from medrecon.operators import Inpainting
    >>> model = InvertibleDiffusionModel.from_preset("tiny", steps=2)
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    memory: Memory | int = "auto"
    _repeated_blocks = ["GatedBlock", "ResNetBlock", "TransformerLayer"]  # noqa: RUF012 (for diffusers to compile)

    @register_to_config  # writes every argument to config.json
    def __init__(
        self,
        image_channels: int = 1,
        steps: int = 3,
        widths: Sequence[int] = (320, 640),
        layers: int = 2,
        stem: int = 2,
        block: BlockKind = "resnet",
        heads: Sequence[int] = (8, 8),
        groups: int = 32,
        injectors: InjectorPlaces = "all",
        shared: bool = True,
        zero_init: bool = False,
        alphas: float | Sequence[float] = 0.5,
        alpha_bounds: Sequence[float] = (0.05, 0.999),
        mix: float = 0.5,
        mix_bounds: Sequence[float] = (0.05, 0.95),
        warm_start: WarmStart = "none",
        data_consistency: Literal["projection", "learned", "adaptive"] = "projection",
        consistency_iterations: int = 10,  # noqa: ARG002 (this and what follows is read from the config)
        final_consistency: bool = False,  # noqa: ARG002
        intensity: float | None = 1.0,  # noqa: ARG002
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"InvertibleDiffusionModel: steps must be at least 1, got {steps}")
        if warm_start not in get_args(WarmStart):
            known = ", ".join(get_args(WarmStart))
            raise ValueError(f"InvertibleDiffusionModel: warm_start must be one of {known}, got {warm_start!r}")
        if len(heads) != len(widths):
            raise ValueError(f"InvertibleDiffusionModel: {len(widths)} widths need as many heads, got {len(heads)}")
        start = [float(alphas)] * steps if isinstance(alphas, int | float) else [float(alpha) for alpha in alphas]
        if len(start) != steps:
            raise ValueError(f"InvertibleDiffusionModel: {steps} steps need as many alphas, got {len(start)}")
        low, high = mix_bounds
        networks = [
            InjectedUNet(
                image_channels=image_channels,
                steps=steps if shared else 1,
                widths=widths,
                layers=layers,
                stem=stem,
                block=block,
                heads=heads,
                groups=groups,
                injectors=injectors,
                zero_init=zero_init,
                mix=mix,
                mix_bounds=(low, high),
            )
            for _ in range(1 if shared else steps)
        ]
        self.unet = networks[0] if shared else nn.ModuleList(networks)  # one: the names of published weights
        self.alpha = Bounded(torch.tensor(start), *alpha_bounds)
        self.v = Bounded(torch.full((steps,), mix), low, high)
        self.input_help = nn.Parameter(torch.ones(1))
        self.merge = nn.Parameter(torch.zeros(1))
        self.trust = Bounded(torch.full((steps,), 0.95), 0.0, 0.999) if data_consistency != "projection" else None
        usual = torch.tensor([_USUAL_MISFIT]).log()
        self.log_misfit = nn.Parameter(usual) if data_consistency == "adaptive" else None
        drawn = warm_start == "least-squares"
        self.first_trust = Bounded(torch.full((1,), 0.95), 0.0, 0.999) if drawn else None

    @classmethod
    def from_preset(cls, name: str, *, image_channels: int = 1, steps: int = 3) -> Self:
        """Build an untrained model: "sd15" (the published one), "base", "small" or "tiny"."""
        model: Any = cls.from_config(preset(name, image_channels=image_channels, steps=steps))
        return cast(Self, model)

    @classmethod
    def preset_config(
        cls, name: str, *, image_channels: int = 1, parameters: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """Return :func:`~medrecon.models.preset` of that name for the ``steps`` given, changed by parameters."""
        changes: dict[str, Any] = dict(parameters or {})
        steps = changes.get("steps", 3)
        return {**preset(name, image_channels=image_channels, steps=steps), **changes}

    def unshared(self) -> Self:
        """Return a model that does the same with weights of its own in every step: more to learn, no more to compute.

        Raises
        ------
        UsageError
            Where the steps do not share their U-Net.
        """
        if not self.settings.shared:
            raise UsageError("unshared: every step of this model has weights of its own already")
        settings = {name: value for name, value in self.config.items() if not name.startswith("_")}
        model: Any = type(self).from_config({**settings, "shared": False})
        model.load_state_dict(_copied(self.state_dict(), self.settings.steps))
        return cast(Self, model.to(self.device))

    @property
    def network_calls(self) -> int:
        """T."""
        steps: int = self.settings.steps
        return steps

    def count_operator_calls(self) -> int:
        """Return how often A^H A is applied in one reconstruction: once for every injector and step, and once a step.

        Without a closed-form pseudo-inverse there are ``consistency_iterations`` more in every step. What a warm
        start and adaptive weights take is not counted.
        """
        steps: int = self.settings.steps
        return sum(len(block.injectors) for t in range(steps) for block in self._network(t + 1)[0].blocks()) + steps

    def mixes(self) -> Tensor:
        """Return all v: those of the steps, then those of the layers."""
        return torch.cat([v().detach() for v in self._chains()])

    def _initial(self, y: Tensor, operator: LinearOperator) -> Tensor:
        if self.settings.warm_start != "tv":
            return super()._initial(y, operator)
        with torch.no_grad():
            return total_variation(y, operator, name="idm, warm start")

    def _images(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        return self.sample(y, operator, initial, self._memory(initial))

    def sample(self, y: Tensor, operator: LinearOperator, initial: Tensor, memory: Memory = "none") -> Tensor:
        """Run the T steps on what is normalised already; :meth:`forward` does that.

        Parameters
        ----------
        y
            Measurements (B, *operator.data_shape) of images of intensity 1.
        operator
            With ‖A‖ <= 1.
        initial
            Where to start, real channels (B, image_channels, H, W).
        memory
            What is kept for the backward pass; "auto" is decided before.

        Returns
        -------
        Tensor
            Images as real channels, like ``initial``.
        """
        outer, inner = _KEEPS[memory]
        alpha_bars = [initial.new_ones(1), *self.alpha().cumprod(0).split(1)]
        weights = self._data_weights(y, operator, initial)
        iterations = self.settings.consistency_iterations
        if self.first_trust is not None and operator.pinv_kind != "exact":
            (first,) = _weights(self.first_trust())
            initial = consistent(initial, y, operator, first, iterations)
        elif self.first_trust is not None:  # x_init agrees with the data; DDP wants all that is learned in every step
            initial = initial + 0 * self.first_trust()
        calls = []
        for t in range(self.settings.steps, 0, -1):
            levels = alpha_bars[t], alpha_bars[t - 1], weights[t - 1]
            unet, branch = self._network(t)
            calls.append(Call(sampling_step, (unet, operator, y, initial, *levels, branch, iterations, inner)))
        a = alpha_bars[-1].sqrt() * initial
        a, b = reversible_chain(calls, a, self.input_help * a, self.v(), keep=outer)
        x = a + self.merge * b
        return consistent(x, y, operator, weights[0], iterations) if self.settings.final_consistency else x

    def _data_weights(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Sequence[Tensor | None]:
        """Return λ_1 … λ_T, each (1,) or (B,) after ``data_consistency``, or None for ∞."""
        if self.trust is None:
            return [None] * self.settings.steps
        weights = _weights(self.trust())
        if self.log_misfit is None:
            return weights
        if operator.pinv_kind == "exact":  # DDP wants all that is learned in every step
            return [weight + 0 * self.log_misfit for weight in weights]
        with torch.no_grad():
            start, iterations = operator_images(initial, operator), self.settings.consistency_iterations
            misfit = unexplained(y, operator, start, iterations=iterations).clamp_min(_LEAST_MISFIT)
        return [(weight * self.log_misfit.exp() / misfit).clamp_max(FIRM) for weight in weights]

    def _memory(self, initial: Tensor) -> Memory:
        if not torch.is_grad_enabled():
            return "none"
        memory = self.memory
        if memory == "auto" or isinstance(memory, int):
            memory = choose_memory(self, initial, None if memory == "auto" else int(memory))
        if memory not in _KEEPS:
            raise ValueError(f"memory must be one of {', '.join(_KEEPS)}, auto or a number of bytes, got {memory!r}")
        invertible = memory != "reversible" or all(rebuildable(v()) for v in self._chains())
        return memory if invertible else "min"

    def _chains(self) -> list[Bounded]:
        return [self.v, *(block.v for network in self._networks() for block in network.blocks())]

    def _networks(self) -> list[InjectedUNet]:
        return [module for module in (self.unet, *self.unet.children()) if isinstance(module, InjectedUNet)]

    def _network(self, t: int) -> tuple[InjectedUNet, int]:
        """Return the U-Net of step t, and the number of its injectors' branch."""
        networks = self._networks()
        return (networks[0], t - 1) if self.settings.shared else (networks[t - 1], 0)


def _copied(state: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Return weights of a shared U-Net as those of one a step, each with its branch of the injectors."""
    copies = {}
    for name, value in state.items():
        if not name.startswith("unet."):
            copies[name] = value
            continue
        branch = re.fullmatch(r"unet\.(.*\.injectors\.\d+)\.(\d+)(\..*)", name)
        if branch is None:
            copies |= {f"unet.{t}.{name.removeprefix('unet.')}": value for t in range(steps)}
        else:
            copies[f"unet.{branch[2]}.{branch[1]}.0{branch[3]}"] = value
    return copies


def _weights(trust: Tensor) -> list[Tensor]:
    """Return λ_t from λ/(1+λ)."""
    return list((trust / (1 - trust)).split(1))
