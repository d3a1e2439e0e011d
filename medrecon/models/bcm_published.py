"""The network of the published bidirectional consistency model."""

from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from medrecon.errors import UsageError
from medrecon.models.bcm_scheduler import BCMScheduler, times_of
from medrecon.models.qkv_attention import normalize_attention


class PublishedBCM(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own way
    r"""The network of the published bidirectional consistency model, with labels of the images where it has them.

    :math:`f(x, t, u)` as in :class:`~medrecon.models.bcm_scheduler.BCMScheduler`; both times, and the label, are added
    to one embedding, which every residual block receives (Li and He, arXiv:2403.18035).

    Parameters
    ----------
    image_channels
        Of x.
    widths
        Channels of the levels, finest first.
    layers
        Residual blocks of a level.
    attention
        Levels with attention, counted from the finest.
    head_channels
        Of an attention head.
    groups
        Of the group norms.
    classes
        Labels; 0 for a model without.
    sigma_min, sigma_max, sigma_data
        Of the scheduler.
    """

    @register_to_config  # writes every argument to config.json
    def __init__(
        self,
        image_channels: int = 3,
        widths: Sequence[int] = (192, 384, 576, 768),
        layers: int = 3,
        attention: Sequence[int] = (2, 3),
        head_channels: int = 64,
        groups: int = 32,
        classes: int = 1000,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        levels = range(len(widths))
        build: Any = UNet2DModel
        self.net = build(
            in_channels=image_channels,
            out_channels=image_channels,
            down_block_types=tuple("AttnDownBlock2D" if n in attention else "ResnetDownsampleBlock2D" for n in levels),
            up_block_types=tuple(
                "AttnUpBlock2D" if n in attention else "ResnetUpsampleBlock2D" for n in reversed(levels)
            ),
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            attention_head_dim=head_channels,
            norm_num_groups=groups,
            attn_norm_num_groups=groups,
            resnet_time_scale_shift="default",
            downsample_type="resnet",
            upsample_type="resnet",
            class_embed_type="identity",
        )
        normalize_attention(self.net)
        self.end_embedding = TimestepEmbedding(widths[0], 4 * widths[0])
        self.label_embedding = nn.Embedding(classes, 4 * widths[0]) if classes else None
        self.scheduler = BCMScheduler(sigma_min, sigma_max, sigma_data)

    def f(self, x: Tensor, t: Tensor | float, u: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """Return images x (B, C, H, W) at the time t as they are at the time u.

        Parameters
        ----------
        x
            In [-1, 1] plus t z; sides are multiples of 2 to the number of levels less one.
        t, u
            From σ_min to σ_max; for all images or (B,).
        labels
            (B,), for a model that has classes; the same for inversion and generation.
        """
        scheduler = self.scheduler
        return scheduler.flow(
            lambda scaled, now, end: self(scaled, now, end, labels), x, times_of(x, t), times_of(x, u)
        )

    def forward(self, x: Tensor, time: Tensor, end: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, like x.

        Parameters
        ----------
        x
            Scaled images.
        time, end
            c_noise of t and of u, (B,).
        labels
            As for :meth:`f`.
        """
        if (labels is None) != (self.label_embedding is None):
            has = "labels, one for each image" if labels is None else "no labels: it was trained without"
            raise UsageError(f"PublishedBCM: expected {has}")
        embedded = self.end_embedding(self.net.time_proj(end).to(x.dtype))
        if self.label_embedding is not None and labels is not None:
            embedded = embedded + self.label_embedding(labels)
        result: Tensor = self.net(x, time, class_labels=embedded, return_dict=False)[0]
        return result
