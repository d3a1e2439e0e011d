"""The multi-coil MRI operator against bare FFTs and against the peers' equivalents, one thread.

    OMP_NUM_THREADS=1 python benchmarks/mri_operators.py [--quick] [--json FILE]

Every row applies the same mathematics to the same tensors: A, A^H and the normal operator A^H A of
M F S with centred unitary Fourier transforms, 15 coils of 640 x 372 complex64. The floor of the
normal operator is two bare FFT passes over the coils, the multiplication of the image with the maps
and the sum over coils: what cannot be saved as long as both axes are transformed. A peer's result is
compared with ours before its time counts.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import peer
from timing import interleaved, report, save
from torch import Tensor

from medrecon.operators import CartesianMRI

Candidate = Callable[[], Any]


def problem(coils: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return maps, a line mask (4x with 8 % centre), a point mask and an image, all random but fixed."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, height, width, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(0).sqrt()
    lines = (torch.arange(width) % 4 == 0) | ((torch.arange(width) - width // 2).abs() < 0.04 * width)
    points = torch.rand(height, width, generator=generator) < 0.25
    image = torch.randn(height, width, dtype=torch.complex64, generator=generator)
    return maps, lines, points, image


def floor(maps: Tensor, image: Tensor) -> Candidate:
    """Two bare FFT passes and the two coil products, in the fastest form that torch offers, per coil."""

    def run() -> Tensor:
        total = torch.zeros_like(image)
        for coil in maps:
            part = torch.fft.fft2(coil * image, norm="ortho")
            total.addcmul_(coil, torch.fft.fft2(part, norm="ortho"))
        return total

    return run


def with_medrecon(maps: Tensor, mask: Tensor, image: Tensor) -> dict[str, Candidate]:
    """Return forward, adjoint and normal operator of ours."""
    operator = CartesianMRI(mask, maps)
    x = image[None, None]
    y = operator(x)
    return {"A": lambda: operator(x), "A^H": lambda: operator.adjoint(y), "A^H A": lambda: operator.gram(x)}


def with_deepinv(maps: Tensor, mask: Tensor, image: Tensor) -> dict[str, Candidate] | None:
    """Return the same of deepinv's MultiCoilMRI (real and imaginary part as channels)."""
    deepinv = peer("deepinv")
    if deepinv is None:
        return None
    height, width = image.shape
    physics = deepinv.physics.MultiCoilMRI(mask=mask.expand(height, width).float(), coil_maps=maps[None])
    x = torch.view_as_real(image).permute(2, 0, 1)[None].contiguous()
    y = physics.A(x)
    return {
        "A": lambda: physics.A(x),
        "A^H": lambda: physics.A_adjoint(y),
        "A^H A": lambda: physics.A_adjoint_A(x),
    }


def with_mrpro(maps: Tensor, mask: Tensor, image: Tensor) -> dict[str, Candidate] | None:
    """Return the same of mrpro: masking @ Fourier transform @ sensitivities (other coils z y x)."""
    mrpro = peer("mrpro")
    if mrpro is None:
        return None
    ops = mrpro.operators
    height, width = image.shape
    full = mask.expand(height, width)[None, None, None]
    operator = ops.FastFourierOp(dim=(-2, -1)) @ ops.SensitivityOp(maps[None, :, None])
    masked = ops.CartesianMaskingOp(full) @ operator
    x = image[None, None, None]
    (y,) = masked(x)
    return {"A": lambda: masked(x), "A^H": lambda: masked.H(y), "A^H A": lambda: masked.gram(x)}


def with_sigpy(maps: Tensor, mask: Tensor, image: Tensor) -> dict[str, Candidate] | None:
    """Return the same of sigpy's Sense operator (NumPy; weights are the mask)."""
    sigpy = peer("sigpy.mri.linop")
    if sigpy is None:
        return None
    height, width = image.shape
    operator = sigpy.Sense(maps.numpy(), weights=mask.expand(height, width).float().numpy())
    x = image.numpy()
    y = operator * x
    adjoint, normal = operator.H, operator.N
    return {"A": lambda: operator * x, "A^H": lambda: adjoint * y, "A^H A": lambda: normal * x}


def as_image(result: Any, shape: torch.Size) -> Tensor:
    """Bring anybody's normal operator to a complex (H, W)."""
    result = torch.as_tensor(result[0] if isinstance(result, tuple) else result)
    if not result.is_complex():
        result = torch.complex(result[0, 0], result[0, 1])
    return result.reshape(shape)


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small problem and few repeats, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    coils, height, width, repeats = (4, 128, 96, 3) if options.quick else (15, 640, 372, 15)
    maps, lines, points, image = problem(coils, height, width)
    rows = []
    with torch.no_grad():
        for name, mask in (("line mask", lines), ("point mask", points)):
            candidates = {
                "medrecon": with_medrecon(maps, mask, image),
                "deepinv MultiCoilMRI": with_deepinv(maps, mask, image),
                "mrpro": with_mrpro(maps, mask, image),
                "sigpy Sense": with_sigpy(maps, mask, image),
            }
            found = {who: calls for who, calls in candidates.items() if calls is not None}
            ours = as_image(found["medrecon"]["A^H A"](), image.shape)
            for who, calls in found.items():
                gap = (as_image(calls["A^H A"](), image.shape) - ours).norm() / ours.norm()
                if gap > 1e-5:
                    raise SystemExit(f"{who} computes something else: relative difference {gap:.1e}")
            for what in ("A", "A^H", "A^H A"):
                work = f"{what}, {coils} coils, {height} x {width}, {name}"
                calls = {who: found[who][what] for who in found}
                if what == "A^H A":
                    calls["floor: 2 FFT passes + coil products"] = floor(maps, image)
                rows += report(work, interleaved(calls, repeats=repeats), "medrecon")
    save(rows, options.json)


if __name__ == "__main__":
    main()
