"""The errors a user can meet. Each carries the exit code of the command line.

A message says what was found, what was expected and what to do.
"""

from typing import ClassVar


class MedreconError(Exception):
    """Base of every error that medrecon raises on purpose (exit code 1: reconstruction failed)."""

    exit_code: ClassVar[int] = 1


class UsageError(MedreconError, ValueError):
    """The call itself is wrong: an option, a name or a combination that does not exist (exit code 2)."""

    exit_code: ClassVar[int] = 2


class InputError(MedreconError, ValueError):
    """A file cannot be read, is not what it claims to be, or lacks what is needed (exit code 3)."""

    exit_code: ClassVar[int] = 3


class NumericalError(MedreconError, ArithmeticError):
    """NaN or Inf in the input, an iteration that diverged, data without any energy (exit code 4)."""

    exit_code: ClassVar[int] = 4


class EmptyDataError(NumericalError):
    """Measurements that are zero everywhere: there is nothing to reconstruct (exit code 4)."""


class OutOfMemoryError(MedreconError, MemoryError):
    """The work does not fit into the memory of the device (exit code 5)."""

    exit_code: ClassVar[int] = 5


class OperatorError(MedreconError, ValueError):
    """A tensor does not fit a linear operator: wrong shape, dtype or device (exit code 1)."""
