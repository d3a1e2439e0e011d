"""One operator for a batch, made of one operator for each sample."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator


def batch_operators(operators: Sequence[LinearOperator]) -> LinearOperator:
    """Return the operator that applies the b-th of ``operators`` to the b-th sample, (A x)_b = A_b x_b.

    What a data loader needs, where every sample has a mask, maps, angles or a permutation of its own.
    One object repeated stays one operator that all samples share.

    Parameters
    ----------
    operators
        Of the same class, shapes and ``config()``; they differ in their tensors only.

    Raises
    ------
    OperatorError
        Where they do not fit, naming what differs.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import Inpainting
    >>> masks = torch.eye(2).reshape(2, 1, 1, 2)
    >>> operator = batch_operators([Inpainting(mask) for mask in masks])
    >>> operator(torch.ones(2, 1, 1, 2)).flatten(1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    if not operators:
        raise OperatorError("batch_operators: expected at least one operator")
    first = operators[0]
    if all(operator is first for operator in operators):
        return first
    for index, operator in enumerate(operators[1:], start=1):
        if type(operator) is not type(first) or operator.data_shape != first.data_shape:
            raise OperatorError(
                f"batch_operators: sample 0 has {_shown(first)}, sample {index} has {_shown(operator)}; a batch needs "
                "one class and one shape (sort samples by shape, or use a batch size of 1)"
            )
    described = [operator.batchable() for operator in operators]
    config = described[0][0]
    for index, (other, _) in enumerate(described[1:], start=1):
        differing = sorted(str(key) for key in config.keys() | other.keys() if config.get(key) != other.get(key))
        if differing:
            raise OperatorError(
                f"batch_operators: samples 0 and {index}, {type(first).__name__} both, differ in {', '.join(differing)}"
                "; only tensors may differ within a batch"
            )
    sizes = [operator.batch_size for operator in operators]
    names = described[0][1].keys()
    tensors = {name: _joined([tensors[name] for _, tensors in described], sizes) for name in names}
    return type(first).from_config(config, tensors)


def _joined(tensors: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    inner = torch.broadcast_shapes(*(tensor.shape[1:] for tensor in tensors))  # line masks beside point masks
    return torch.cat([tensor.expand(size, *inner) for tensor, size in zip(tensors, sizes, strict=True)])


def _shown(operator: LinearOperator) -> str:
    return f"{type(operator).__name__} ({operator.extra_repr()})"
