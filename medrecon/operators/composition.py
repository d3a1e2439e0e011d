"""Operators made of operators: adjoint, composition, sum, multiple, stack."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator, PinvKind
from medrecon.operators.certainty import certain
from medrecon.operators.registry import operator_from_config, register_operator
from medrecon.operators.solvers import per_sample


class _Compound(LinearOperator):
    """Shared by all operators that hold others: their configs nest, their tensors get prefixes."""

    @classmethod
    def _combine(cls, members: list[LinearOperator], tensors: Mapping[str, Tensor]) -> Self:  # noqa: ARG003
        """Build the compound from its members and its own tensors."""
        build: Callable[..., Self] = cls
        return build(*members)

    def _members(self) -> dict[str, LinearOperator]:
        return {name: child for name, child in self.named_children() if isinstance(child, LinearOperator)}

    def config(self) -> dict[str, Any]:
        """Return the nested configs of the members."""
        return {
            "operator": self.registered_name,
            "members": {name: member.config() for name, member in self._members().items()},
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the members, each name prefixed with its member's."""
        own = dict(self.named_buffers(recurse=False))
        for name, member in self._members().items():
            own.update({f"{name}.{key}": value for key, value in member.tensors().items()})
        return own

    def batchable(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the members' own, nested like ``config()`` and ``tensors()``."""
        parts = {name: member.batchable() for name, member in self._members().items()}
        tensors = dict(self.named_buffers(recurse=False))
        for name, (_, inner) in parts.items():
            tensors.update({f"{name}.{key}": value for key, value in inner.items()})
        members = {name: config for name, (config, _) in parts.items()}
        return {"operator": self.registered_name, "members": members}, tensors

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the members, then combine them."""
        members = []
        for name, member in config["members"].items():
            prefix = f"{name}."
            inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            members.append(operator_from_config(member, inner))
        return cls._combine(members, tensors)


def _iterative(*members: LinearOperator) -> PinvKind:
    """Kind of pseudo-inverse where no closed form is known."""
    return "iterative" if _matched(*members) else "approximate"


def _union(members: Sequence[LinearOperator]) -> Tensor | None:
    """Return where any member says that there may be something; None for everywhere."""
    known = [support for member in members if (support := member.support()) is not None]
    return reduce(torch.logical_or, known) if len(known) == len(members) else None


def _matched(*members: LinearOperator) -> bool:
    return all(member.adjoint_matched for member in members)


@register_operator("adjoint")
class Adjoint(_Compound):
    """The adjoint A^H of an operator, as an operator: ``op.H``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.data_shape,
            operator.image_shape,
            image_dtype=operator.data_dtype,
            data_dtype=operator.image_dtype,
        )
        self.operator = operator
        self.pinv_kind = operator.pinv_kind
        self.unitary = operator.unitary
        self.adjoint_matched = operator.adjoint_matched

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The operator itself: (A^H)^H = A."""
        return self.operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    def _pinv(self, y: Tensor) -> Tensor:
        return self.operator._pinv_adjoint(y)  # (A^H)^+ = (A^+)^H

    def _pinv_adjoint(self, x: Tensor) -> Tensor:
        return self.operator._pinv(x)


@register_operator("composition")
class Composition(_Compound):
    """(A ∘ B) x = A(B x), written ``A @ B``.

    Its pseudo-inverse is B^+ A^+ where one factor is unitary and both have a closed form; in general
    (A B)^+ is not B^+ A^+, so everything else is solved iteratively.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.image_shape != inner.data_shape or outer.image_dtype.is_complex != inner.data_dtype.is_complex:
            raise OperatorError(
                f"{type(outer).__name__} @ {type(inner).__name__}: the left one takes {outer.image_shape} "
                f"{outer.image_dtype}, the right one gives {inner.data_shape} {inner.data_dtype}"
            )
        super().__init__(
            inner.image_shape, outer.data_shape, image_dtype=inner.image_dtype, data_dtype=outer.data_dtype
        )
        self.outer = outer
        self.inner = inner
        closed = outer.pinv_kind == inner.pinv_kind == "exact" and (outer.unitary or inner.unitary)
        self.pinv_kind = "exact" if closed else _iterative(outer, inner)
        self.unitary = outer.unitary and inner.unitary
        self.adjoint_matched = _matched(outer, inner)

    def support(self) -> Tensor | None:
        """Return that of B."""
        return self.inner.support()

    def whitened(self, y: Tensor) -> tuple[Tensor, LinearOperator]:
        """Return W y and (W A) B."""
        y, outer = self.outer.whitened(y)
        return y, self if outer is self.outer else Composition(outer, self.inner)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    def _gram(self, x: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._gram(self.inner._forward(x)))

    def _pinv(self, y: Tensor) -> Tensor:
        return self.inner._pinv(self.outer._pinv(y))

    def _pinv_adjoint(self, x: Tensor) -> Tensor:
        return self.outer._pinv_adjoint(self.inner._pinv_adjoint(x))


@register_operator("sum")
class Sum(_Compound):
    """(A + B) x = A x + B x."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        _require_same(first, second, data=True, symbol="+")
        super().__init__(
            first.image_shape, first.data_shape, image_dtype=first.image_dtype, data_dtype=first.data_dtype
        )
        self.first = first
        self.second = second
        self.pinv_kind = _iterative(first, second)
        self.adjoint_matched = _matched(first, second)

    def support(self) -> Tensor | None:
        """Return where either says that there may be something."""
        return _union([self.first, self.second])

    def _forward(self, x: Tensor) -> Tensor:
        return self.first._forward(x) + self.second._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first._adjoint(y) + self.second._adjoint(y)


class _Multiple(_Compound):
    """One operator whose measurements are multiplied by something that can be undone."""

    operator: LinearOperator

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.image_shape,
            operator.data_shape,
            image_dtype=operator.image_dtype,
            data_dtype=operator.data_dtype,
        )
        self.operator = operator
        self.adjoint_matched = operator.adjoint_matched

    @abstractmethod
    def _times(self, y: Tensor, power: int = 1) -> Tensor:
        """Return measurements multiplied so many times; -1 undoes it."""

    def initial(self, y: Tensor) -> Tensor:
        """Return what A starts from, where it has a start of its own as filtered back-projection; else the adjoint."""
        if type(self.operator).initial is LinearOperator.initial:
            return self.adjoint(y)
        return self.operator.initial(self._times(self._as_data(y), -1))

    def support(self) -> Tensor | None:
        """Return that of A."""
        return self.operator.support()


@register_operator("scaled")
class Scaled(_Multiple):
    """(c A) x = c (A x) for a real number c, or one number a sample."""

    factor: Tensor

    def __init__(self, operator: LinearOperator, factor: float | Tensor) -> None:
        factor = torch.as_tensor(factor, dtype=torch.float64, device=operator.device).reshape(-1)
        if isinstance(operator, Scaled):
            factor = operator.factor * factor
            operator = operator.operator
        if certain(~torch.isfinite(factor).all()) or certain((factor == 0).any()):
            name = type(operator).__name__
            raise OperatorError(f"{name}: expected a finite factor other than 0, got {factor.tolist()}")
        super().__init__(operator)
        self.pinv_kind = operator.pinv_kind
        self.register_buffer("factor", factor)

    @classmethod
    def _combine(cls, members: list[LinearOperator], tensors: Mapping[str, Tensor]) -> Self:
        return cls(members[0], tensors["factor"])

    def _times(self, y: Tensor, power: int = 1) -> Tensor:
        return y * per_sample(self.factor**power, y).to(y.real.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return self._times(self.operator._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._times(self.operator._adjoint(y))

    def _gram(self, x: Tensor) -> Tensor:
        return self._times(self.operator._gram(x), 2)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._times(self.operator._pinv(y), -1)

    def _pinv_adjoint(self, x: Tensor) -> Tensor:
        return self._times(self.operator._pinv_adjoint(x), -1)

    def whitened(self, y: Tensor) -> tuple[Tensor, LinearOperator]:
        """Return W y and c (W A)."""
        y, operator = self.operator.whitened(y)
        return y, self if operator is self.operator else Scaled(operator, self.factor)

    def norm(self, *, max_iter: int = 200, tol: float = 1e-5) -> Tensor:
        """Return |c| ‖A‖."""
        return self.factor.abs().float() * self.operator.norm(max_iter=max_iter, tol=tol)

    def norm_bound(self) -> Tensor:
        """Return |c| times the bound of A."""
        return self.factor.abs().float() * self.operator.norm_bound()


@register_operator("weighted")
class Weighted(_Multiple):
    """(W A) x = w · (A x): every measurement times a weight of its own, real and above 0, (1 or B, *data_shape).

    These weights are all there are: ``whitened`` looks for no others.
    """

    weights: Tensor

    def __init__(self, operator: LinearOperator, weights: Tensor) -> None:
        if weights.is_complex() or tuple(weights.shape[1:]) != operator.data_shape:
            raise OperatorError(
                f"weighted: expected real weights (batch, *{operator.data_shape}), got {tuple(weights.shape)} "
                f"{weights.dtype}"
            )
        if certain(~(torch.isfinite(weights) & (weights > 0)).all()):
            raise OperatorError("weighted: expected finite weights above 0")
        super().__init__(operator)
        self.pinv_kind = _iterative(operator) if operator.pinv_kind != "approximate" else "approximate"
        self.register_buffer("weights", weights)

    @classmethod
    def _combine(cls, members: list[LinearOperator], tensors: Mapping[str, Tensor]) -> Self:
        return cls(members[0], tensors["weights"])

    def _times(self, y: Tensor, power: int = 1) -> Tensor:
        return y * self.weights.to(y.real.dtype) ** power

    def _forward(self, x: Tensor) -> Tensor:
        return self._times(self.operator._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(self._times(y))

    def _norm_start(self) -> Tensor:
        start = self.operator._norm_start()
        return start.expand(self.batch_size, *start.shape[1:])


@register_operator("vstack")
class VStack(_Compound):
    """Several operators on one image: x -> (A x, B x, …), flattened into one tensor (B, M)."""

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise OperatorError("vstack: expected at least one operator")
        first = operators[0]
        for other in operators[1:]:
            _require_same(first, other, data=False, symbol="vstack")
        sizes = [math.prod(operator.data_shape) for operator in operators]
        super().__init__(first.image_shape, (sum(sizes),), image_dtype=first.image_dtype, data_dtype=first.data_dtype)
        self._sizes = sizes
        for index, operator in enumerate(operators):
            self.add_module(f"operator{index}", operator)
        self.pinv_kind = _iterative(*operators)
        self.adjoint_matched = _matched(*operators)

    def support(self) -> Tensor | None:
        """Return where any of them says that there may be something."""
        return _union(list(self._members().values()))

    def _forward(self, x: Tensor) -> Tensor:
        return torch.cat([member._forward(x).flatten(1) for member in self._members().values()], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        members = self._members().values()
        parts = zip(members, y.split(self._sizes, dim=1), strict=True)
        images = [member._adjoint(part.reshape(-1, *member.data_shape)) for member, part in parts]
        return torch.stack(images).sum(0)

    def _gram(self, x: Tensor) -> Tensor:
        return torch.stack([member._gram(x) for member in self._members().values()]).sum(0)


def vstack(operators: Sequence[LinearOperator]) -> LinearOperator:
    """Stack operators that share an image; the measurements become one flat tensor (B, M)."""
    return VStack(*operators)


def _require_same(a: LinearOperator, b: LinearOperator, *, data: bool, symbol: str) -> None:
    same = a.image_shape == b.image_shape and a.image_dtype == b.image_dtype and a.data_dtype == b.data_dtype
    if not same or (data and a.data_shape != b.data_shape):
        raise OperatorError(
            f"{type(a).__name__} {symbol} {type(b).__name__}: shapes or dtypes differ, {a.extra_repr()} against "
            f"{b.extra_repr()}"
        )
