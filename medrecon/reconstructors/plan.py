"""What is to be done to a scan, and what follows from it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from medrecon.errors import UsageError
from medrecon.io.scan import CartesianAcquisition, Scan
from medrecon.models.shipped import shipped_models
from medrecon.operators.coils import MapMethod
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.choice import RSS, choose_method, first_slice, outside_scope, shipped_choice
from medrecon.reconstructors.learned import LearnedReconstructor, Preparation, method_of_checkpoint, preparation
from medrecon.reconstructors.registry import make_method, method_class
from medrecon.reconstructors.sampling import PriorReconstructor

AUTO = "auto"
CHECKPOINT = "checkpoint"

_logger = logging.getLogger("medrecon")


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is done to a scan.

    Parameters
    ----------
    method
        Name of a reconstructor, "rss" (root sum of squares of the zero-filled coil images, MRI only)
        or "auto": that of the checkpoint, if one is among the parameters, else what
        :func:`~medrecon.reconstructors.choice.choose_method` says; other parameters ask for a classical method.
    parameters
        Of the method. A trained method without "checkpoint" takes the model for such scans that comes with medrecon.
    maps
        How coil sensitivities are estimated where the scan has none; None as the model was trained, else "espirit".
    slices
        Which slices, as a range; None for all.
    device
        Where to compute.
    seed
        For methods that draw random numbers.
    crop_readout
        Whether read-out oversampling is removed before instead of after: see
        :func:`~medrecon.io.oversampling.without_readout_oversampling`; None as the model was trained, else after.
    uncertainty
        Whether the standard deviation of every pixel over the draws is wanted, of methods that draw.
    """

    method: str = AUTO
    parameters: Mapping[str, Any] = field(default_factory=dict)
    maps: MapMethod | None = None
    slices: range | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    crop_readout: bool | None = None
    uncertainty: bool = False


def prepare_method(plan: ReconstructionPlan) -> Reconstructor | None:
    """Return the method of a plan, for any number of scans; None where each scan decides, and for "rss".

    Raises
    ------
    UsageError
        For a method that is not there or parameters that it refuses, before any data are read.
    """
    method = plan.method
    if CHECKPOINT in plan.parameters and method == AUTO:
        method = method_of_checkpoint(plan.parameters[CHECKPOINT])
    if method in (AUTO, RSS) or (_lacks_checkpoint(plan) and shipped_models()):
        return None
    _check_uncertainty(plan, method)
    return make_method(method, plan.parameters).to(plan.device)


def settled(plan: ReconstructionPlan, scan: Scan) -> tuple[ReconstructionPlan, str]:
    """Return a plan in which nothing is left to the scan, and why its method was taken.

    The first slice with data decides for all.

    Raises
    ------
    UsageError
        For a method that does not serve such a scan.
    """
    index = first_slice(scan, plan.slices)
    method, reason, checkpoint = plan.method, "asked for", plan.parameters.get(CHECKPOINT)
    chosen = method == AUTO and checkpoint is None
    if chosen:
        method, reason, checkpoint = choose_method(scan, index, trained=not plan.parameters)
    elif method == AUTO and checkpoint is not None:
        method = method_of_checkpoint(checkpoint)
    elif _lacks_checkpoint(plan):
        method, reason, checkpoint = shipped_choice(scan, method)
    _check_uncertainty(plan, method)
    if method == RSS:
        _check_rss(plan, scan, reason)
    trained = Preparation(method) if checkpoint is None else preparation(checkpoint)
    maps = plan.maps or trained.maps
    crop = trained.crop_readout if plan.crop_readout is None else plan.crop_readout
    parameters = dict(plan.parameters)
    if checkpoint is not None:
        parameters[CHECKPOINT] = str(checkpoint)
        outside = None if chosen else outside_scope(scan, index, checkpoint)
        if outside is not None:
            _logger.warning("the trained model may not suit %s: %s", scan.source.name, outside)
    return replace(plan, method=method, parameters=parameters, maps=maps, crop_readout=crop), reason


def _lacks_checkpoint(plan: ReconstructionPlan) -> bool:
    """Tell whether a trained method is asked for without a model."""
    if plan.method in (AUTO, RSS) or plan.parameters.get(CHECKPOINT) is not None:
        return False
    return issubclass(method_class(plan.method), LearnedReconstructor)


def _check_uncertainty(plan: ReconstructionPlan, method: str) -> None:
    if plan.uncertainty and (method == RSS or not issubclass(method_class(method), PriorReconstructor)):
        raise UsageError(
            f"uncertainty: method {method!r} makes one image, there is nothing to compare it with; leave out "
            "--uncertainty, or give a trained prior with --checkpoint (ddnm, bcm, dddm)"
        )


def _check_rss(plan: ReconstructionPlan, scan: Scan, reason: str) -> None:
    if plan.parameters:
        raise UsageError(
            f"method 'rss' ({reason}) takes no parameters, got {', '.join(plan.parameters)}; leave out --lambda and "
            "--iterations, or name another --method"
        )
    if not isinstance(scan.acquisition, CartesianAcquisition):
        raise UsageError(f"method 'rss' is for coil images, not for {type(scan.acquisition).__name__}; use 'adjoint'")
