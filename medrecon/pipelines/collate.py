"""Batches of items that hold operators."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data.utils import list_data_collate

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.operators.batching import batch_operators


def collate_with_operators(batch: Sequence[Mapping[Hashable, Any]]) -> dict[Hashable, Any]:
    """Collate items as MONAI's loaders do, and operators to one that serves the batch; a ``collate_fn``.

    Parameters
    ----------
    batch
        Items with the same keys. Operators of a key have one class and one shape, see
        :func:`~medrecon.operators.batch_operators`.
    """
    if not batch or not all(isinstance(item, Mapping) for item in batch):
        raise UsageError("collate_with_operators: expected a list of items that are dictionaries")
    keys = [key for key, value in batch[0].items() if isinstance(value, LinearOperator)]
    operators = {key: batch_operators([item[key] for item in batch]) for key in keys}
    rest = [{key: value for key, value in item.items() if key not in operators} for item in batch]
    collated: dict[Hashable, Any] = list_data_collate(rest) if rest[0] else {}
    return {**collated, **operators}
