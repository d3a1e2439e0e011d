"""Attention with normalised queries, keys and values, as the published consistency networks have it."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

_FLOOR = 1e-4


class NormalizedAttention:
    r"""Processor of diffusers' ``Attention``: self-attention of images (B, C, H, W).

    .. math:: \operatorname{softmax}(q' k'^T / \sqrt d)\, v', \qquad q' = q / (\operatorname{rms}(q) + 10^{-4})

    and k', v' likewise, over the d channels of a head. Without it, training of large consistency models diverges.
    Dropout of the output, masks and cross-attention are not there.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002 (diffusers passes it on)
        attention_mask: Tensor | None = None,  # noqa: ARG002
        temb: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return what the layer adds to, or makes of, the images."""
        tokens = hidden_states.flatten(2)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens)
        tokens = tokens.transpose(1, 2)
        q, k, v = (
            rms_normalized(layer(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        images: Tensor = attn.to_out[0](mixed).transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            images = images + hidden_states
        return images / attn.rescale_output_factor


def rms_normalized(x: Tensor) -> Tensor:
    """Return x / (rms(x) + 1e-4) over the last dimension; the root mean square is taken in single precision."""
    rms = x.to(torch.promote_types(x.dtype, torch.float32)).square().mean(-1, keepdim=True).sqrt()
    return x / (rms + _FLOOR).to(x.dtype)


def normalize_attention(module: nn.Module) -> None:
    """Set :class:`NormalizedAttention` on every ``Attention`` of a module, in place."""
    for part in module.modules():
        if isinstance(part, Attention):
            processor: Any = NormalizedAttention()  # diffusers knows its own by name only
            part.set_processor(processor)
