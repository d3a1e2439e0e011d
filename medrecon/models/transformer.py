"""Self-attention over the pixels of a feature map."""

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from medrecon.models.rebinding import Call
from medrecon.models.replay import recomputed

_CHUNK_BYTES = 2**25


class TransformerBlock(nn.Module):
    """w + Attention(LN w), then w + GEGLU(LN w), on tokens (B, N, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads=heads, dim_head=channels // heads)
        self.norm3 = nn.LayerNorm(channels)  # the numbers are Stable Diffusion's: 2 belongs to cross-attention
        self.ff = FeedForward(channels)

    def forward(self, w: Tensor, *, sparing: bool = False) -> Tensor:
        """Return tokens of the same shape; ``sparing`` as in :class:`TransformerLayer`."""
        w = w + self.attn1(self.norm1(w))
        call = Call(_feed_forward, (self.norm3, self.ff))
        tokens = max(1, _CHUNK_BYTES // (8 * w[:, 0].numel() * w.element_size()))
        if not sparing or tokens >= w.shape[1]:
            return call(w)
        return torch.cat([recomputed(call, chunk) for chunk in w.split(tokens, dim=1)], dim=1)


def _feed_forward(w: Tensor, norm: nn.Module, layers: nn.Module) -> Tensor:
    result: Tensor = w + layers(norm(w))
    return result


class TransformerLayer(nn.Module):
    """x + proj_out(TransformerBlock(proj_in(N x))) with pixels as tokens: full attention, O((H W)²) time.

    The names are those of Stable Diffusion's layer, without its cross-attention.

    Parameters
    ----------
    channels
        C of (B, C, H, W).
    heads
        Number of attention heads.
    norm
        The normalization N that comes first, on (B, C, H, W).
    """

    def __init__(self, channels: int, heads: int, norm: nn.Module) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"TransformerLayer: {heads} heads do not share {channels} channels evenly")
        self.norm = norm
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, sparing: bool = False) -> Tensor:
        """Return features of the same shape.

        Parameters
        ----------
        x
            Features (B, C, H, W).
        sparing
            Run the feed-forward part on some tokens at a time, and again in the backward pass; its
            hidden layer is 8 times as large as x.
        """
        w = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        w = self.transformer_blocks[0](w, sparing=sparing)
        return x + self.proj_out(w.transpose(1, 2).unflatten(2, x.shape[2:]))
