"""Questions about values, asked of tensors that may have none."""

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def certain(condition: Tensor) -> bool:
    """Return whether a condition certainly holds; False for fake and meta tensors, which have shapes but no data.

    Checks that raise ask whether it is certain that something is wrong, so shapes and memory can be
    worked out without data.

    >>> import torch
    >>> certain(torch.tensor(True)), certain(torch.tensor(False)), certain(torch.tensor(True, device="meta"))
    (True, False, False)
    """
    return not isinstance(condition, FakeTensor) and condition.device.type != "meta" and bool(condition)
