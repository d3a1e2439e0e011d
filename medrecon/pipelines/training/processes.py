"""One process or several: who this one is, and how they agree."""

import gc
import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from medrecon.errors import UsageError

# The group for small objects on the CPU, whatever back end carries the gradients. Nobody else holds it: its threads end
# with the last reference, and one that still runs when the interpreter has gone aborts the process.
_CONTROL: list[Any] = []


@dataclass(frozen=True)
class Processes:
    """The processes of a training run, as ``torchrun`` has started them.

    Parameters
    ----------
    rank, world
        Number of this one, and how many there are.
    device
        Where this one computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this one writes files and talks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 (whatever can be pickled)
        """Return the values of all processes, by rank; all of them must call this."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=_CONTROL[0])
        return values

    def total(self, *values: float) -> list[float]:
        """Return the sums over all processes; all of them must call this."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=_CONTROL[0])
        return [float(value) for value in sums]

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier(group=_CONTROL[0])


def start_processes(device: torch.device) -> Processes:
    """Join the other processes where ``torchrun`` has started several: nccl on CUDA, gloo on the CPU.

    Raises
    ------
    UsageError
        Where there are more processes than CUDA devices on this machine.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes(device=device)
    if device.type == "cuda":
        local, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= present:
            raise UsageError(f"process {local} of this machine has no GPU: there are {present}; lower --nproc_per_node")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _CONTROL[:] = [dist.new_group(backend="gloo")]
    return Processes(dist.get_rank(), world, device)


def end_processes() -> None:
    """Leave the group; harmless where there is none."""
    if dist.is_available() and dist.is_initialized():
        _CONTROL.clear()
        gc.collect()  # the engine is full of cycles, and in one of them is what distributed the gradients
        dist.destroy_process_group()
