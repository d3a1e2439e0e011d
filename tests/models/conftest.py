"""The published format and the published equations, written down once more and apart from the package."""

import pytest
import torch
import torch.nn.functional as F

from medrecon.models import InvertibleDiffusionModel


@pytest.fixture
def tiny():
    """Return tiny models away from their start, where half of the gradients would be zero."""

    def build(*, noise=0.05, dtype=torch.float32, **changes):
        from medrecon.models.presets import preset

        arguments = {key: changes.pop(key) for key in ("image_channels", "steps") if key in changes}
        torch.manual_seed(0)
        model = InvertibleDiffusionModel.from_config({**preset("tiny", **arguments), **changes})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        model.memory = "none"
        return model.to(dtype)

    return build


@pytest.fixture
def published_state():
    """Return a random state dict with the names, shapes and aliases of the published code."""

    def build(c0=32, c1=64, steps=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        state = {}

        def put(name, *shape, scale=None, around=0.0):
            scale = scale if scale is not None else (1 / max(1, torch.tensor(shape[1:]).prod().item())) ** 0.5
            state[name] = around + scale * torch.randn(shape, generator=generator)

        def pair(name, *shape):
            put(f"{name}.weight", *shape)
            put(f"{name}.bias", shape[0], scale=0.1)

        def norm(name, channels):
            put(f"{name}.weight", channels, scale=0.1, around=1.0)
            put(f"{name}.bias", channels, scale=0.1)

        def resnet(name, c_in, c):
            norm(f"{name}.norm1", c_in)
            pair(f"{name}.conv1", c, c_in, 3, 3)
            norm(f"{name}.norm2", c)
            pair(f"{name}.conv2", c, c, 3, 3)
            if c_in != c:
                pair(f"{name}.conv_shortcut", c, c_in, 1, 1)

        def attention(name, c):
            norm(f"{name}.norm", c)
            pair(f"{name}.proj_in", c, c, 1, 1)
            pair(f"{name}.proj_out", c, c, 1, 1)
            block = f"{name}.transformer_blocks.0"
            norm(f"{block}.norm1", c)
            norm(f"{block}.norm3", c)
            for letter in "qkv":
                put(f"{block}.attn1.to_{letter}.weight", c, c)
            pair(f"{block}.attn1.to_out.0", c, c)
            pair(f"{block}.ff.net.0.proj", 8 * c, c)
            pair(f"{block}.ff.net.2", c, 4 * c)

        def injector(name, c, r):
            for t in range(steps):
                pair(f"{name}.f2i.{t}.1", 1, c // r**2, 1, 1)
                pair(f"{name}.i2f.{t}.0", c // r**2, 3, 1, 1)

        def scalar(name, count=1, around=0.0, scale=0.03):
            put(name, count, scale=scale, around=around)

        def aliases(chain, block, layers):
            for k, layer in enumerate(layers):
                scalar(f"{chain}.{k}.v", around=0.5)
                for key in [key for key in state if key.startswith(f"{block}.{layer}.")]:
                    state[f"{chain}.{k}.body.{key.removeprefix(f'{block}.{layer}.')}"] = state[key]

        scalar("alpha", steps, around=0.55)
        scalar("input_help_scale_factor", around=1.0)
        scalar("merge_scale_factor")
        for i in range(steps):
            scalar(f"body.{i}.v", around=0.5)
        pair("unet.conv_in", c0, 4, 3, 3)
        norm("unet.conv_norm_out", c0)
        pair("unet.conv_out", 4, c0, 3, 3)
        for b, (c_in, c, r) in enumerate([(c0, c0, 2), (c0, c1, 4)]):
            block = f"unet.down_blocks.{b}"
            scalar(f"{block}.input_help_scale_factor", around=1.0)
            scalar(f"{block}.merge_scale_factors", 2)
            for j in range(2):
                resnet(f"{block}.resnets.{j}", c_in if j == 0 else c, c)
                attention(f"{block}.attentions.{j}", c)
            for n in range(4):
                injector(f"{block}.injectors.{n}", c, r)
            for j in range(2):
                layers = [f"resnets.{j}", f"injectors.{2 * j}", f"attentions.{j}", f"injectors.{2 * j + 1}"]
                aliases(f"{block}.rev_module_lists.{j}", block, layers[1:] if (b, j) == (1, 0) else layers)
        pair("unet.down_blocks.0.downsamplers.0.conv", c0, c0, 3, 3)
        for b, (inputs, c, r) in enumerate([((3 * c1, 2 * c1, c1 + c0), c1, 4), ((c1 + c0, 2 * c0, 2 * c0), c0, 2)]):
            block = f"unet.up_blocks.{b}"
            scalar(f"{block}.input_help_scale_factor", around=1.0)
            scalar(f"{block}.merge_scale_factor")
            for j, c_in in enumerate(inputs):
                resnet(f"{block}.resnets.{j}", c_in, c)
                attention(f"{block}.attentions.{j}", c)
            for n in range(6):
                injector(f"{block}.injectors.{n}", c, r)
            order = "injectors.0 attentions.0 injectors.1 resnets.1 injectors.2 attentions.1 injectors.3 resnets.2"
            order += " injectors.4 attentions.2 injectors.5"
            aliases(f"{block}.rev_module_list", block, order.split())
        pair("unet.up_blocks.0.upsamplers.0.conv", c1, c1, 3, 3)
        return state

    return build


@pytest.fixture
def published_model():
    """Return the published model as one function of a state dict, straight from the equations."""
    return reference


def reference(p, y, operator, heads=8, groups=32):
    """x̂ of measurements y, for an operator with A A^T = I; ``p`` is a published state dict."""
    start = operator.adjoint(y)
    steps = len(p["alpha"])

    def conv(h, name, **options):
        return F.conv2d(h, p[f"{name}.weight"], p[f"{name}.bias"], **options)

    def linear(h, name):
        return F.linear(h, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def group_norm(h, name, eps=1e-5):
        return F.group_norm(h, groups, p[f"{name}.weight"], p[f"{name}.bias"], eps)

    def layer_norm(h, name):
        return F.layer_norm(h, h.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    def resnet(h, name):
        u = conv(F.silu(group_norm(h, f"{name}.norm1")), f"{name}.conv1", padding=1)
        u = conv(F.silu(group_norm(u, f"{name}.norm2")), f"{name}.conv2", padding=1)
        return u + (conv(h, f"{name}.conv_shortcut") if f"{name}.conv_shortcut.weight" in p else h)

    def attention(x, name):
        b, c, height, width = x.shape
        w = conv(group_norm(x, f"{name}.norm", 1e-6), f"{name}.proj_in").reshape(b, c, -1).permute(0, 2, 1)
        block = f"{name}.transformer_blocks.0"
        n = layer_norm(w, f"{block}.norm1")
        q, k, v = (
            linear(n, f"{block}.attn1.to_{letter}").reshape(b, -1, heads, c // heads).permute(0, 2, 1, 3)
            for letter in "qkv"
        )
        share = torch.softmax(q @ k.transpose(-1, -2) * (c // heads) ** -0.5, dim=-1)
        w = w + linear((share @ v).permute(0, 2, 1, 3).reshape(b, -1, c), f"{block}.attn1.to_out.0")
        left, right = linear(layer_norm(w, f"{block}.norm3"), f"{block}.ff.net.0.proj").chunk(2, dim=-1)
        w = w + linear(left * F.gelu(right), f"{block}.ff.net.2")
        return x + conv(w.permute(0, 2, 1).reshape(b, c, height, width), f"{name}.proj_out")

    def injector(h, name, t, r):
        z = conv(F.pixel_shuffle(h, r), f"{name}.f2i.{t - 1}.1")
        seen = torch.cat([z, operator.adjoint(operator(z)), start], 1)
        return h + F.pixel_unshuffle(conv(seen, f"{name}.i2f.{t - 1}.0"), r)

    def chain(a, b, layers, name):
        for k, f in enumerate(layers):
            v = p[f"{name}.{k}.v"]
            a, b = (1 - v) * f(a) + v * b, a
        return a, b

    def unet(x, t):
        h = conv(x, "unet.conv_in", padding=1)
        skips = [h]
        for b, r in enumerate([2, 4]):
            name = f"unet.down_blocks.{b}"
            if b == 1:
                h = resnet(h, f"{name}.resnets.0")
            pair = (h, p[f"{name}.input_help_scale_factor"] * h)
            for j in range(2):
                layers = [
                    lambda h, n=f"{name}.resnets.{j}": resnet(h, n),
                    lambda h, n=f"{name}.injectors.{2 * j}", r=r: injector(h, n, t, r),
                    lambda h, n=f"{name}.attentions.{j}": attention(h, n),
                    lambda h, n=f"{name}.injectors.{2 * j + 1}", r=r: injector(h, n, t, r),
                ]
                layers = layers[1:] if (b, j) == (1, 0) else layers
                pair = chain(*pair, layers, f"{name}.rev_module_lists.{j}")
                h = pair[0] + p[f"{name}.merge_scale_factors"][j] * pair[1]
                skips.append(h)
            if b == 0:
                h = conv(h, f"{name}.downsamplers.0.conv", padding=1, stride=2)
                skips.append(h)
        h = torch.cat([h, h], 1)
        for b, r in enumerate([4, 2]):
            name = f"unet.up_blocks.{b}"
            h = resnet(torch.cat([h, skips.pop()], 1), f"{name}.resnets.0")
            layers = []
            for j in range(3):
                if j:
                    skip = skips.pop()
                    layers.append(lambda h, n=f"{name}.resnets.{j}", skip=skip: resnet(torch.cat([h, skip], 1), n))
                layers += [
                    lambda h, n=f"{name}.injectors.{2 * j}", r=r: injector(h, n, t, r),
                    lambda h, n=f"{name}.attentions.{j}": attention(h, n),
                    lambda h, n=f"{name}.injectors.{2 * j + 1}", r=r: injector(h, n, t, r),
                ]
            a, before = chain(h, p[f"{name}.input_help_scale_factor"] * h, layers, f"{name}.rev_module_list")
            h = a + p[f"{name}.merge_scale_factor"] * before
            if b == 0:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                h = conv(h, f"{name}.upsamplers.0.conv", padding=1)
        return conv(F.silu(group_norm(h, "unet.conv_norm_out")), "unet.conv_out", padding=1)

    def bar(t):
        return p["alpha"][:t].prod()

    def step(x, t):
        e = F.pixel_shuffle(unet(F.pixel_unshuffle(x, 2), t), 2)
        x0 = (x - (1 - bar(t)).sqrt() * e) / bar(t).sqrt()
        x0 = x0 - operator.adjoint(operator(x0) - y)
        return bar(t - 1).sqrt() * x0 + (1 - bar(t - 1)).sqrt() * e

    a = bar(steps).sqrt() * start
    b = p["input_help_scale_factor"] * a
    for i, t in enumerate(range(steps, 0, -1)):
        v = p[f"body.{i}.v"]
        a, b = (1 - v) * step(a, t) + v * b, a
    return a + p["merge_scale_factor"] * b
