"""The blocks of the U-Net: chains of residual blocks, attention and injectors, wired reversibly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from medrecon.models.bounded import Bounded
from medrecon.models.context import Context
from medrecon.models.injector import Injector
from medrecon.models.residual import GatedBlock, PixelNorm, ResNetBlock
from medrecon.models.reversible import reversible_chain
from medrecon.models.transformer import TransformerLayer

BlockKind = Literal["resnet", "gated"]
InjectorPlaces = Literal["all", "per_block", "none"]


def normalization(kind: BlockKind, channels: int, groups: int, eps: float) -> nn.Module:
    """Build the normalization that goes with a kind of residual block: of single pixels, or in groups."""
    return PixelNorm(channels) if kind == "gated" else nn.GroupNorm(groups, channels, eps=eps)


@dataclass(frozen=True)
class BlockPlan:
    """What the layers of a block look like.

    Parameters
    ----------
    channels
        Of the block.
    scale
        Pixels of the image per pixel of the features, along each axis.
    kind
        Of the residual blocks.
    heads
        Of the attention after each residual block; 0 for none.
    groups
        Of the group norms, which "resnet" uses.
    injectors
        After every layer, once at the end of the block, or nowhere.
    zero_init
        Whether injectors start as the identity.
    image_channels
        Real channels of the image.
    steps
        T, the number of branches of an injector.
    mix, mix_bounds
        Where every v starts, and their open interval.
    """

    channels: int
    scale: int
    kind: BlockKind
    heads: int
    groups: int
    injectors: InjectorPlaces
    zero_init: bool
    image_channels: int
    steps: int
    mix: float
    mix_bounds: tuple[float, float]

    def residual(self, in_channels: int) -> nn.Module:
        """Build a residual block."""
        if self.kind == "gated":
            return GatedBlock(in_channels, self.channels)
        return ResNetBlock(in_channels, self.channels, self.groups)

    def attention(self) -> TransformerLayer:
        """Build an attention layer."""
        return TransformerLayer(self.channels, self.heads, normalization(self.kind, self.channels, self.groups, 1e-6))

    def injector(self) -> nn.ModuleList:
        """Build an injector, one branch a step."""
        branches = (
            Injector(self.channels, self.image_channels, self.scale, zero_init=self.zero_init)
            for _ in range(self.steps)
        )
        return nn.ModuleList(branches)


class _Block(nn.Module):
    """Layers, the chains they form, and the learned scalars of the wiring.

    A chain takes (h, s h) and its result is a + m b (s: input help, 1 at start; m: merge, 0 at start).
    A first residual block that changes the number of channels stands outside the chains.
    """

    def __init__(self, plan: BlockPlan, in_channels: Sequence[int], *, chains: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(plan.residual(count) for count in in_channels)
        self.attentions = nn.ModuleList()
        self.injectors = nn.ModuleList()
        self.first_outside = in_channels[0] != plan.channels
        order: list[list[tuple[str, int]]] = []
        for j in range(len(in_channels)):
            layers = [] if j == 0 and self.first_outside else [("resnets", j)]
            layers += self._injector(plan, "all")
            if plan.heads:
                self.attentions.append(plan.attention())
                layers += [("attentions", j), *self._injector(plan, "all")]
            order.append(layers)
        order[-1] += self._injector(plan, "per_block")
        self.order = order if chains > 1 else [[name for layers in order for name in layers]]
        count = sum(len(layers) for layers in self.order)
        self.v = Bounded(torch.full((count,), plan.mix), *plan.mix_bounds)
        self.input_help = nn.Parameter(torch.ones(1))
        self.merge = nn.Parameter(torch.zeros(chains))

    def _injector(self, plan: BlockPlan, where: InjectorPlaces) -> list[tuple[str, int]]:
        if plan.injectors != where:
            return []
        self.injectors.append(plan.injector())
        return [("injectors", len(self.injectors) - 1)]

    def _layer(self, name: tuple[str, int]) -> nn.Module:
        layer: nn.Module = getattr(self, name[0])[name[1]]
        return layer


class DownBlock(_Block):
    """One level on the way down: a chain for every layer, on one pair of states; then half the size.

    Parameters
    ----------
    plan
        What the layers look like.
    in_channels
        Of the features that come in.
    layers
        Number of residual blocks.
    last
        Whether this is the coarsest level, without a downsampler.
    """

    def __init__(self, plan: BlockPlan, in_channels: int, layers: int, *, last: bool) -> None:
        super().__init__(plan, [in_channels, *[plan.channels] * (layers - 1)], chains=layers)
        down = [] if last else [Downsample2D(plan.channels, use_conv=True, padding=1, name="op")]
        self.downsamplers = nn.ModuleList(down)

    def forward(self, h: Tensor, context: Context) -> tuple[Tensor, list[Tensor]]:
        """Return the features for the next level, and the skips: one a layer, and one after the downsampler."""
        if self.first_outside:
            h = context.run(context.call(self.resnets[0]), h)
        pair = (h, self.input_help * h)
        values = self.v().split([len(layers) for layers in self.order])
        skips = []
        for layers, v, m in zip(self.order, values, self.merge.split(1), strict=True):
            calls = [context.call(self._layer(name)) for name in layers]
            pair = reversible_chain(calls, *pair, v, keep=context.keep)
            skips.append(pair[0] + m * pair[1])
        for downsample in self.downsamplers:
            skips.append(context.run(context.call(downsample), skips[-1]))
        return skips[-1], skips


class UpBlock(_Block):
    """One level on the way up: every residual block takes a skip, one chain for all of them; then twice the size.

    Parameters
    ----------
    plan
        What the layers look like.
    in_channels
        Of the features that come in.
    skip_channels
        Of the skips, in the order in which they are used; one for every residual block.
    last
        Whether this is the finest level, without an upsampler.
    """

    def __init__(self, plan: BlockPlan, in_channels: int, skip_channels: Sequence[int], *, last: bool) -> None:
        before = [in_channels, *[plan.channels] * (len(skip_channels) - 1)]
        super().__init__(plan, [a + b for a, b in zip(before, skip_channels, strict=True)], chains=1)
        up = [] if last else [Upsample2D(plan.channels, use_conv=True)]
        self.upsamplers = nn.ModuleList(up)

    def forward(self, h: Tensor, skips: Sequence[Tensor], context: Context) -> Tensor:
        """Return the features for the next level; ``skips`` in the order in which they are used."""
        h = context.run(context.call(self.resnets[0], skips[0]), h)
        calls = []
        for kind, j in self.order[0]:
            skip = skips[j] if kind == "resnets" else None
            calls.append(context.call(self._layer((kind, j)), skip))
        a, b = reversible_chain(calls, h, self.input_help * h, self.v(), keep=context.keep)
        h = a + self.merge * b
        for upsample in self.upsamplers:
            h = context.run(context.call(upsample), h)
        return h
