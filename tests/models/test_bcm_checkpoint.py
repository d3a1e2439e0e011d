"""Published BCM checkpoints against the published network, written down once more and apart from ours."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from safetensors.torch import save_file

from medrecon.errors import InputError, UsageError
from medrecon.models.bcm_checkpoint import from_bcm_checkpoint, read_bcm_checkpoint
from medrecon.models.bcm_published import PublishedBCM
from medrecon.models.qkv_attention import NormalizedAttention, rms_normalized

HEAD, GROUPS = 8, 4
CLASSES = 5


def published_state(widths=(16, 24, 32), layers=2, attention=(1, 2), classes=CLASSES, *, two_times=True):
    """Return a random state dict in the published layout."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    width = 4 * widths[0]

    def put(name, *shape, around=0.0):
        scale = 1 / max(1, math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
        state[name] = around + scale * torch.randn(shape, generator=generator)

    def pair(name, *shape):
        put(f"{name}.weight", *shape)
        put(f"{name}.bias", shape[0])

    def norm(name, channels):
        put(f"{name}.weight", channels, around=1.0)
        put(f"{name}.bias", channels)

    def residual(name, c_in, c):
        norm(f"{name}.in_layers.0", c_in)
        pair(f"{name}.in_layers.2", c, c_in, 3, 3)
        pair(f"{name}.emb_layers.1", c, width)
        norm(f"{name}.out_layers.0", c)
        pair(f"{name}.out_layers.3", c, c, 3, 3)
        if c_in != c:
            pair(f"{name}.skip_connection", c, c_in, 1, 1)

    def attend(name, c):
        norm(f"{name}.norm", c)
        pair(f"{name}.qkv", 3 * c, c, 1)
        pair(f"{name}.proj_out", c, c, 1)

    for name in ("time_embed", "time_embed_end")[: 1 + two_times]:
        pair(f"{name}.0", width, widths[0])
        pair(f"{name}.2", width, width)
    if two_times:
        put("time_embed_align.weight", width, 2 * width)
    if classes:
        put("label_emb.weight", classes, width)
    pair("input_blocks.0.0", widths[0], 3, 3, 3)
    skips, place, c = [widths[0]], 1, widths[0]
    for level, wide in enumerate(widths):
        for _ in range(layers):
            residual(f"input_blocks.{place}.0", c, wide)
            if level in attention:
                attend(f"input_blocks.{place}.1", wide)
            c, place = wide, place + 1
            skips.append(c)
        if level < len(widths) - 1:
            residual(f"input_blocks.{place}.0", c, c)
            place += 1
            skips.append(c)
    residual("middle_block.0", c, c)
    attend("middle_block.1", c)
    residual("middle_block.2", c, c)
    place = 0
    for level in reversed(range(len(widths))):
        for layer in range(layers + 1):
            residual(f"output_blocks.{place}.0", c + skips.pop(), widths[level])
            c = widths[level]
            if level in attention:
                attend(f"output_blocks.{place}.1", c)
            if level and layer == layers:
                residual(f"output_blocks.{place}.{1 + (level in attention)}", c, c)
            place += 1
    norm("out.0", c)
    pair("out.2", 3, c, 3, 3)
    return state


def published_network(p, x, time, end, labels, *, layers=2, levels=3):
    """F of scaled images and both embedded times: ADM with normalised attention, read off its state dict."""

    def conv(h, name, **options):
        return F.conv2d(h, p[f"{name}.weight"], p[f"{name}.bias"], **options)

    def linear(h, name):
        return F.linear(h, p[f"{name}.weight"], p[f"{name}.bias"])

    def normed(h, name):
        return F.group_norm(h, GROUPS, p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    def embedded(t, name):
        half = p[f"{name}.0.weight"].shape[1] // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        return linear(F.silu(linear(torch.cat((angles.cos(), angles.sin()), 1), f"{name}.0")), f"{name}.2")

    def residual(h, name, resize=None):
        u = F.silu(normed(h, f"{name}.in_layers.0"))
        if resize is not None:
            u, h = resize(u), resize(h)
        u = conv(u, f"{name}.in_layers.2", padding=1) + linear(F.silu(e), f"{name}.emb_layers.1")[:, :, None, None]
        u = conv(F.silu(normed(u, f"{name}.out_layers.0")), f"{name}.out_layers.3", padding=1)
        return u + (conv(h, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in p else h)

    def attend(h, name):
        batch, c = h.shape[:2]
        tokens = normed(h.flatten(2), f"{name}.norm")
        qkv = F.conv1d(tokens, p[f"{name}.qkv.weight"], p[f"{name}.qkv.bias"])
        q, k, v = (part.reshape(batch * c // HEAD, HEAD, -1) for part in qkv.chunk(3, 1))
        q, k, v = (part / (part.square().mean(1, keepdim=True).sqrt() + 1e-4) for part in (q, k, v))
        share = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / HEAD**0.5, -1)
        mixed = torch.einsum("bts,bcs->bct", share, v).reshape(batch, c, -1)
        return h + F.conv1d(mixed, p[f"{name}.proj_out.weight"], p[f"{name}.proj_out.bias"]).reshape(h.shape)

    def block(h, name, resize=None):
        h = residual(h, f"{name}.0", resize)
        return attend(h, f"{name}.1") if f"{name}.1.qkv.weight" in p else h

    def halved(h):
        return F.avg_pool2d(h, 2)

    def doubled(h):
        return F.interpolate(h, scale_factor=2, mode="nearest")

    e = embedded(time, "time_embed")
    if "time_embed_align.weight" in p:
        e = F.linear(torch.cat((e, embedded(end, "time_embed_end")), 1), p["time_embed_align.weight"])
    if labels is not None:
        e = e + p["label_emb.weight"][labels]
    h = conv(x, "input_blocks.0.0", padding=1)
    skips = [h]
    for place in range(1, levels * (layers + 1)):
        h = block(h, f"input_blocks.{place}", halved if place % (layers + 1) == 0 else None)
        skips.append(h)
    h = residual(attend(residual(h, "middle_block.0"), "middle_block.1"), "middle_block.2")
    for place in range(levels * (layers + 1)):
        name = f"output_blocks.{place}"
        h = block(torch.cat((h, skips.pop()), 1), name)
        if place % (layers + 1) == layers and skips:
            h = residual(h, f"{name}.{2 if f'{name}.1.qkv.weight' in p else 1}", doubled)
    return conv(F.silu(normed(h, "out.0")), "out.2", padding=1)


def loaded(state):
    return from_bcm_checkpoint(state, head_channels=HEAD, groups=GROUPS)


def inputs():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, 16, 16, generator=generator),
        torch.tensor([1095.0, -660.0]),
        torch.tensor([-1553.0, 400.0]),
        torch.tensor([3, 1]),
    )


def largest_difference(model, state, labelled=True):
    x, time, end, labels = inputs()
    labels = labels if labelled else None
    with torch.no_grad():
        return float((model(x, time, end, labels) - published_network(state, x, time, end, labels)).abs().max())


class TestPublishedLayout:
    def test_same_numbers(self):
        state = published_state()
        assert largest_difference(loaded(state), state) < 1e-4

    def test_default_attention_is_not_it(self):
        state = published_state()
        model = loaded(state)
        for part in model.modules():
            if isinstance(part, Attention):
                part.set_processor(AttnProcessor2_0())
        assert largest_difference(model, state) > 1e-2

    def test_the_wrong_heads_are_not_it(self):
        state = published_state()
        assert largest_difference(from_bcm_checkpoint(state, head_channels=4, groups=GROUPS), state) > 1e-3

    def test_without_labels(self):
        state = published_state(classes=0)
        model = loaded(state)
        assert largest_difference(model, state, labelled=False) < 1e-4
        assert model.config.classes == 0

    def test_shape_is_read_off(self):
        config = loaded(published_state(widths=(8, 8, 16, 16), layers=1, attention=(2,))).config
        assert (list(config.widths), config.layers, list(config.attention)) == ([8, 8, 16, 16], 1, [2])

    def test_consistency_model_is_the_start_of_fine_tuning(self):
        state = published_state(two_times=False)
        model = loaded(state)
        assert largest_difference(model, state) < 1e-4
        x, time, end, labels = inputs()
        with torch.no_grad():
            assert torch.equal(model(x, time, end, labels), model(x, time, end - 300, labels))
        assert any(bool(value.any()) for value in model.end_embedding.linear_1.parameters())

    def test_published_size(self):
        """279.9 million parameters; our names have the align layer folded away."""
        with torch.device("meta"):
            model = PublishedBCM()
        counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
        assert sum(counts.values()) == pytest.approx(279.9e6 - 2 * 768 * 768, rel=1e-3)

    def test_flow_map(self):
        model = loaded(published_state())
        x, _, _, labels = inputs()
        with torch.no_grad():
            assert torch.allclose(model.f(x, 2.0, 2.0, labels), x, atol=1e-5)
            t, u = torch.tensor([3.0, 5.0]), torch.tensor([80.0, 0.002])
            found = model.f(x, t, u, labels)
            network = published_network(
                published_state(), x / (t**2 + 0.25).sqrt().reshape(2, 1, 1, 1), 250 * t.log(), 250 * u.log(), labels
            )
        skip = ((t * u + 0.25) / (t**2 + 0.25)).reshape(2, 1, 1, 1)
        out = (0.5 * (t - u) / (t**2 + 0.25).sqrt()).reshape(2, 1, 1, 1)
        assert torch.allclose(found, skip * x + out * network, atol=2e-3)  # u = 80 multiplies by 13

    def test_labels_are_wanted_or_not(self):
        x, _, _, labels = inputs()
        with pytest.raises(UsageError, match="expected labels, one for each image"):
            loaded(published_state()).f(x, 1.0, 2.0)
        with pytest.raises(UsageError, match="expected no labels"):
            loaded(published_state(classes=0)).f(x, 1.0, 2.0, labels)


class TestFiles:
    @pytest.mark.parametrize("name", ["ema_0.99997_234000.pt", "ema.safetensors"])
    def test_read(self, tmp_path, name):
        state = published_state()
        (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
        model = read_bcm_checkpoint(tmp_path / name, head_channels=HEAD, groups=GROUPS)
        assert largest_difference(model, state) < 1e-4

    def test_saved_in_our_format(self, tmp_path):
        state = published_state()
        loaded(state).save_pretrained(tmp_path)
        assert largest_difference(PublishedBCM.from_pretrained(tmp_path), state) < 1e-4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("time_embed.2.weight"), "lacks 'time_embed.2.weight'; is it a checkpoint"),
            (lambda state: state.pop("out.0.bias"), "lacks 1 tensors, the first is 'net.conv_norm_out.bias'"),
            (lambda state: state.update(other=torch.zeros(1)), "has unexpected 1 tensors, the first is 'other'"),
            (lambda state: state["out.2.bias"].fill_(float("nan")), "1 tensors hold NaN or Inf, the first is 'out.2.b"),
            (lambda state: state.update({"out.0.bias": torch.zeros(3)}), "has wrong shapes for 1 tensors"),
            (lambda state: state.pop("input_blocks.4.0.out_layers.3.bias"), "this is not the published layout"),
            (
                lambda state: [state.pop(key) for key in list(state) if key.startswith("output_blocks.8.")],
                "8 output blocks for 3 levels are not",
            ),
        ],
    )
    def test_other_contents(self, change, message):
        state = published_state()
        change(state)
        with pytest.raises(InputError, match=message):
            loaded(state)

    def test_other_files(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_bcm_checkpoint(tmp_path / "missing.pt")
        for name in ("text.pt", "text.safetensors"):
            (tmp_path / name).write_text("hello")
            with pytest.raises(InputError, match="is no file of tensors"):
                read_bcm_checkpoint(tmp_path / name)
        torch.save([1, 2], tmp_path / "list.pt")
        with pytest.raises(InputError, match="expected a dictionary of tensors, got list"):
            read_bcm_checkpoint(tmp_path / "list.pt")


def test_attention_of_diffusers_once_nothing_is_left_to_normalise():
    """Heads whose q, k and v have a root mean square of 1 already are left as they are."""
    x = torch.randn(2, 3, 4, 5)
    unit = rms_normalized(x)
    assert torch.allclose(unit.square().mean(-1), torch.ones(2, 3, 4), atol=1e-3)
    assert torch.allclose(rms_normalized(unit), unit, atol=1e-3)
    assert torch.allclose(rms_normalized(5 * x), unit, atol=1e-3)
    assert rms_normalized(x.bfloat16()).dtype == torch.bfloat16
    assert rms_normalized(x.double()).dtype == torch.float64
    layer = Attention(8, heads=2, dim_head=4, bias=True)
    tokens = torch.randn(1, 8, 3, 3)
    layer.set_processor(NormalizedAttention())
    found = layer(tokens)
    layer.to_v.weight.data.mul_(7)
    layer.to_v.bias.data.mul_(7)
    assert torch.allclose(layer(tokens), found, atol=1e-3)
