"""One process or several: who this one is, and how they agree."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from medrecon.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """The processes of a training run, as ``torchrun`` has started them.

    Parameters
    ----------
    rank, world
        Number of this one, and how many there are.
    device
        Where this one computes.
    control
        Group for small objects on the CPU, whatever back end carries the gradients.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: Any = None

    @property
    def main(self) -> bool:
        """Whether this one writes files and talks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 (whatever can be pickled)
        """Return the values of all processes, by rank; all of them must call this."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def total(self, *values: float) -> list[float]:
        """Return the sums over all processes; all of them must call this."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        return [float(value) for value in sums]

    def wait(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier(group=self.control)


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
    return Processes(dist.get_rank(), world, device, dist.new_group(backend="gloo"))


def end_processes() -> None:
    """Leave the group; harmless where there is none."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
