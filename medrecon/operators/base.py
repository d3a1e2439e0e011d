"""The contract of every forward operator."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from medrecon.errors import OperatorError
from medrecon.operators.autograd import LinearMap, apply_linear
from medrecon.operators.solvers import conjugate_gradient, largest_eigenvalue, per_sample, solve_normal

PinvKind = Literal["exact", "iterative", "approximate"]

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "complex64": torch.complex64}
"""Of images, by the names that recipes and files use."""
_DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


class LinearOperator(nn.Module, ABC):
    """A linear map A from images to measurements: y = A x.

    An operator is an immutable value: masks, coil maps, angles and permutations are buffers, no call
    changes it, and another mask means another operator. (Reversible networks run the operator again
    in their backward pass; one that changed in between ruins the gradient silently.)

    Images are (B, *image_shape), measurements (B, *data_shape). Buffers have a leading size of 1
    (shared) or B (one operator a sample); nothing else broadcasts. Computations run in the declared
    precision or, for double-precision input, in double; lower precision is raised first and autocast
    is off inside.

    Subclasses call ``super().__init__`` with shapes and dtypes and define ``_forward`` and
    ``_adjoint``; those hooks get checked tensors and need not be differentiable, unless a buffer
    requires gradients. Those with a closed-form pseudo-inverse set ``pinv_kind = "exact"`` and define
    ``_pinv``. :func:`medrecon.testing.assert_linear_operator` checks all of this.

    Parameters
    ----------
    image_shape
        (C, *spatial) of one image, no batch; C counts channels or coil map sets.
    data_shape
        Shape of one sample's measurements.
    image_dtype, data_dtype
        float32 or complex64.
    """

    registered_name: ClassVar[str | None] = None
    adjoint_matched: bool = True
    pinv_kind: PinvKind = "iterative"
    unitary: bool = False

    def __init__(
        self,
        image_shape: tuple[int, ...],
        data_shape: tuple[int, ...],
        *,
        image_dtype: torch.dtype = torch.float32,
        data_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.data_shape = tuple(data_shape)
        self.image_dtype = image_dtype
        self.data_dtype = data_dtype
        self._bound: Tensor | None = None

    # -- what a subclass defines -------------------------------------------------------------------

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """Return A x."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Return A^H y."""

    def _gram(self, x: Tensor) -> Tensor:
        """Return A^H A x; override where that is cheaper than the two in turn."""
        return self._adjoint(self._forward(x))

    def _pinv(self, y: Tensor) -> Tensor:
        """Return A^+ y in closed form, where ``pinv_kind`` is "exact"; A^H y, right for partial isometries."""
        return self._adjoint(y)

    def _pinv_adjoint(self, x: Tensor) -> Tensor:
        """Return (A^+)^H x, the derivative of ``_pinv``; whoever overrides one overrides both."""
        return self._forward(x)

    def config(self) -> dict[str, Any]:
        """Scalars and strings that, with :meth:`tensors`, rebuild this operator."""
        raise NotImplementedError(f"{type(self).__name__} has no config()")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild an operator from its ``config()`` and ``tensors()``."""
        raise NotImplementedError(f"{cls.__name__} has no from_config()")

    # -- what a user calls -------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return A x: images (B, *image_shape) to measurements (B, *data_shape)."""
        return self._run(self._forward, self._adjoint, self._as_image(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Return A x."""
        return super().__call__(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^H y: measurements (B, *data_shape) to images (B, *image_shape)."""
        return self._run(self._adjoint, self._forward, self._as_data(y))

    def gram(self, x: Tensor) -> Tensor:
        """Return A^H A x, the normal operator."""
        return self._run(self._gram, self._gram, self._as_image(x))

    def pinv(self, y: Tensor, *, max_iter: int = 100, tol: float = 1e-6) -> Tensor:
        """Return A^+ y, the image of least norm among those with the least residual ‖A x - y‖.

        In closed form where ``pinv_kind`` is "exact"; else by conjugate gradients on the normal
        equations, whose derivative is one more such solve (``max_iter`` and ``tol`` apply to both).
        """
        y = self._as_data(y)
        if self.pinv_kind == "exact":
            return self._run(self._pinv, self._pinv_adjoint, y)
        if not self.adjoint_matched:
            raise OperatorError(
                f"{type(self).__name__}: has no pseudo-inverse, its adjoint is only approximate; "
                "use initial(y) or a gradient step x - adjoint(A x - y) / norm()**2"
            )

        # A^+ = (A^H A)^+ A^H and its adjoint (A A^H)^+ A: both right-hand sides lie in the range, where
        # conjugate gradients converge although the systems are singular
        def inverse(y: Tensor) -> Tensor:
            return conjugate_gradient(self._gram, self._adjoint(y), max_iter=max_iter, tol=tol).solution

        def inverse_adjoint(x: Tensor) -> Tensor:
            def dual(v: Tensor) -> Tensor:
                return self._forward(self._adjoint(v))

            return conjugate_gradient(dual, self._forward(x), max_iter=max_iter, tol=tol).solution

        return self._run(inverse, inverse_adjoint, y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - A^+ (A x - y): the nearest image to x that explains y (range-null-space step)."""
        return x - self.pinv(self(x) - y)

    def proximal(
        self, x: Tensor, y: Tensor, weight: float | Tensor, *, max_iter: int = 50, tol: float = 1e-6
    ) -> Tensor:
        """Return argmin_z weight/2 ‖A z - y‖² + 1/2 ‖z - x‖²: :meth:`project` for noisy data.

        ``weight`` >= 0 is a number or a tensor (B,), and may require gradients.
        """
        weight = torch.as_tensor(weight, dtype=x.real.dtype, device=x.device).reshape(-1)
        residual = y - self(x)
        step = per_sample(weight, x) * self.adjoint(residual)
        return x + solve_normal(self.gram, step, weight=weight, shift=1.0, max_iter=max_iter, tol=tol)

    def initial(self, y: Tensor) -> Tensor:
        """Return the image a reconstruction starts from: A^H y unless the operator knows better."""
        return self.adjoint(y)

    def support(self) -> Tensor | None:
        """Return where there may be an object, bool (operator batch, *image_shape); None for everywhere.

        Pixels that are merely not measured belong to it. Elsewhere a network leaves what it started from.
        """
        return None

    def whitened(self, y: Tensor) -> tuple[Tensor, "LinearOperator"]:
        """Return W y and W A, W weighing down what is noisier than the rest: what ‖A x - y‖² should be made of.

        y and A themselves unless the operator can tell from the measurements, see
        :meth:`medrecon.operators.ct.base.XRayTransform.whitened`.
        """
        return y, self

    def norm(self, *, max_iter: int = 200, tol: float = 1e-5) -> Tensor:
        """Return the operator norm ‖A‖ (largest singular value) by power iteration, shape (operator batch,)."""
        with torch.no_grad():
            return largest_eigenvalue(self.gram, self._norm_start(), max_iter=max_iter, tol=tol).sqrt()

    def _norm_start(self) -> Tensor:
        """Return where the power iteration starts: near the leading singular vector, where that is known."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, *self.image_shape)
        return torch.randn(shape, generator=generator, dtype=self.image_dtype).to(self.device)

    def norm_bound(self) -> Tensor:
        """Return an upper bound of ‖A‖, shape (operator batch,): what a step size needs.

        A short power iteration with 5 % on top, as it approaches the norm from below, run once;
        operators with a closed form return that.
        """
        return self._remembered_bound(lambda: 1.05 * self.norm(max_iter=60, tol=1e-4))

    def _remembered_bound(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return a bound that takes time to compute; an operator is a value, so once is enough."""
        if any(buffer.requires_grad for buffer in self.buffers()):
            return compute()  # somebody is learning it
        if self._bound is None:
            self._bound = compute().detach()
        return self._bound.to(self.device)

    def normalized(self) -> "LinearOperator":
        """Return A / ‖A‖."""
        return self * (1 / self.norm())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that, with :meth:`config`, rebuild this operator."""
        return dict(self.state_dict())

    def batchable(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config and tensors such that operators of one batch differ in the tensors only.

        To override where a number of the config stands for a tensor, as the seed of a permutation does.
        """
        return self.config(), self.tensors()

    @property
    def batch_size(self) -> int:
        """Leading size of the buffers: 1 for an operator shared by all samples, else the batch it serves."""
        return max((buffer.shape[0] for buffer in self.buffers() if buffer.ndim), default=1)

    @property
    def device(self) -> torch.device:
        """Where the buffers are; an operator without buffers reports the CPU and runs anywhere."""
        return next((buffer.device for buffer in self.buffers()), torch.device("cpu"))

    # -- algebra -----------------------------------------------------------------------------------

    @property
    def H(self) -> "LinearOperator":  # noqa: N802 (the field's name for it)
        """The adjoint as an operator."""
        from medrecon.operators.composition import Adjoint

        return Adjoint(self)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        """Return the composition self ∘ other: (A @ B)(x) = A(B(x))."""
        from medrecon.operators.composition import Composition

        return Composition(self, other)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        """Return the sum: (A + B)(x) = A(x) + B(x)."""
        from medrecon.operators.composition import Sum

        return Sum(self, other)

    def __mul__(self, factor: float | Tensor) -> "LinearOperator":
        """Return factor · A for a real number or a tensor (B,)."""
        from medrecon.operators.composition import Scaled

        return Scaled(self, factor)

    __rmul__ = __mul__

    # -- checks ------------------------------------------------------------------------------------

    def _as_image(self, x: Tensor) -> Tensor:
        return self._checked(x, self.image_shape, self.image_dtype, "image")

    def _as_data(self, y: Tensor) -> Tensor:
        return self._checked(y, self.data_shape, self.data_dtype, "measurements")

    def _checked(self, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
        """Return x in working precision, or raise with everything that a caller needs to mend the call."""
        name = type(self).__name__
        double = _DOUBLE.get(dtype, dtype)
        fits = tuple(x.shape[1:]) == shape and x.ndim == len(shape) + 1
        kind = x.is_complex() == dtype.is_complex and (x.is_complex() or x.is_floating_point())
        if not (fits and kind):
            batch = f"(batch, {', '.join(map(str, shape))})"
            hint = ""
            if dtype.is_complex and not x.is_complex():
                hint = "; convert with medrecon.complex.from_channels" if x.is_floating_point() else ""
            raise OperatorError(
                f"{name}: expected {what} of shape {batch} and dtype {dtype_name(dtype)}, "
                f"got {tuple(x.shape)} {dtype_name(x.dtype)}{hint}"
            )
        own = self.batch_size
        if own not in (1, x.shape[0]):
            raise OperatorError(
                f"{name}: this operator was built for a batch of {own}, got {what} with a batch of {x.shape[0]}"
            )
        buffer = next(self.buffers(), None)
        if buffer is not None and buffer.device != x.device:
            raise OperatorError(f"{name}: is on {buffer.device}, got {what} on {x.device}; move one with .to(device)")
        return x if x.dtype in (dtype, double) else x.to(dtype)

    def _run(self, hook: LinearMap, adjoint: LinearMap, x: Tensor) -> Tensor:
        if any(buffer.requires_grad for buffer in self.buffers()):
            return _no_autocast(hook)(x)  # somebody learns the operator itself: plain autograd through the hook
        return apply_linear(x, _no_autocast(hook), _no_autocast(adjoint))

    def load_state_dict(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401
        """Refuse: an operator is a value; build another with ``from_config(config, tensors)``."""
        raise OperatorError(f"{type(self).__name__}: operators are immutable; build one with from_config()")

    def extra_repr(self) -> str:
        """Shapes, dtypes and the kind of pseudo-inverse, e.g. ``<(8, 64, 64)x(1, 64, 64)> pinv iterative``."""
        return (
            f"image {self.image_shape} {dtype_name(self.image_dtype)} -> data {self.data_shape} "
            f"{dtype_name(self.data_dtype)}, pinv {self.pinv_kind}"
        )


def _no_autocast(hook: LinearMap) -> LinearMap:
    """Switch autocast off around a hook, also when the backward pass calls it."""

    def guarded(x: Tensor) -> Tensor:
        if x.device.type == "meta":
            return hook(x)  # no data, no autocast
        with torch.autocast(device_type=x.device.type, enabled=False):
            return hook(x)

    return guarded


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype, without torch's prefix."""
    return str(dtype).removeprefix("torch.")
