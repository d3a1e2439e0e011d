"""The noise predictor of the Invertible Diffusion Model: a U-Net that sees the measurements in every layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrecon.models.blocks import BlockKind, BlockPlan, DownBlock, InjectorPlaces, UpBlock, normalization
from medrecon.models.context import Context
from medrecon.models.injector import extended
from medrecon.models.rebinding import Call
from medrecon.models.reversible import Keep
from medrecon.operators.base import LinearOperator


class InjectedUNet(nn.Module):
    """e = PixelShuffle(U(PixelUnshuffle(x))), with injectors in U (Chen et al., IDM, TPAMI 2025; equation 2).

    With widths (320, 640) it is Stable Diffusion 1.5's U-Net without its two coarsest levels, time
    embedding and cross-attention. There is no middle block: the coarsest features are doubled.

    Parameters
    ----------
    image_channels
        Real channels of the image.
    steps
        T, the number of branches of the injectors.
    widths
        Channels of the levels, finest first.
    layers
        Residual blocks of a level on the way down; on the way up there is one more.
    stem
        Factor of the pixel shuffle at the border; 1 works at full resolution.
    block
        Kind of the residual blocks.
    heads
        Attention heads of each level; 0 for no attention.
    groups
        Of the group norms.
    injectors
        Where they are.
    zero_init
        Whether the injectors start as the identity and the result as zero.
    mix, mix_bounds
        Where every v of the reversible wiring starts, and their open interval.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        steps: int,
        widths: Sequence[int],
        layers: int,
        stem: int,
        block: BlockKind,
        heads: Sequence[int],
        groups: int,
        injectors: InjectorPlaces,
        zero_init: bool,
        mix: float,
        mix_bounds: tuple[float, float],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.layers = layers
        self.multiple = stem * 2 ** (len(widths) - 1)
        plans = [
            BlockPlan(
                channels=width,
                scale=stem * 2**level,
                kind=block,
                heads=heads[level],
                groups=groups,
                injectors=injectors,
                zero_init=zero_init,
                image_channels=image_channels,
                steps=steps,
                mix=mix,
                mix_bounds=mix_bounds,
            )
            for level, width in enumerate(widths)
        ]
        border = image_channels * stem**2
        self.conv_in = nn.Conv2d(border, widths[0], 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for plan in plans:
            last = plan is plans[-1]
            self.down_blocks.append(DownBlock(plan, width, layers, last=last))
            width = plan.channels
            skips += [width] * (layers if last else layers + 1)
        width *= 2
        for plan in reversed(plans):
            taken = [skips.pop() for _ in range(layers + 1)]
            self.up_blocks.append(UpBlock(plan, width, taken, last=plan is plans[0]))
            width = plan.channels
        self.conv_norm_out = normalization(block, widths[0], groups, 1e-5)
        self.conv_out = nn.Conv2d(widths[0], border, 3, padding=1)
        if zero_init:
            for parameter in self.conv_out.parameters():
                nn.init.zeros_(parameter)

    def blocks(self) -> list[DownBlock | UpBlock]:
        """Return the blocks in the order in which they run."""
        return [*self.down_blocks, *self.up_blocks]

    def forward(
        self, x: Tensor, operator: LinearOperator, initial: Tensor, step: int, *, keep: Keep = "graph"
    ) -> Tensor:
        """Return the noise e of images x.

        Parameters
        ----------
        x
            Images as real channels (B, image_channels, H, W), of any size.
        operator
            A, with ‖A‖ <= 1.
        initial
            x_init, of the shape of x.
        step
            Which branch of the injectors, t - 1 in step t.
        keep
            What is kept for the backward pass.
        """
        size = x.shape[-2:]
        larger = [-(-length // self.multiple) * self.multiple for length in size]
        context = Context(operator, extended(initial, *larger), step, keep)
        h = self.conv_in(F.pixel_unshuffle(extended(x, *larger), self.stem))
        skips = [h]
        for block in self.down_blocks:
            h, more = block(h, context)
            skips += more
        h = torch.cat([h, h], dim=1)
        for block in self.up_blocks:
            taken = [skips.pop() for _ in range(self.layers + 1)]
            h = block(h, taken, context)
        h = context.run(Call(_head, (self.conv_norm_out, self.conv_out)), h)
        return F.pixel_shuffle(h, self.stem)[..., : size[0], : size[1]]


def _head(h: Tensor, norm: nn.Module, conv: nn.Module) -> Tensor:
    result: Tensor = conv(F.silu(norm(h)))
    return result
