"""Simulated acquisitions: phantoms, phases, coils, and measurements with noise. No file is read."""

from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.simulation.measure import Simulation, simulate
from medrecon.simulation.phantom import brain_phantom, random_ellipses, shepp_logan
from medrecon.simulation.phase import smooth_phase

__all__ = ["CoilArray", "Simulation", "brain_phantom", "random_ellipses", "shepp_logan", "simulate", "smooth_phase"]
