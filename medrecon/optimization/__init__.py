"""Iterative minimisation for any linear operator: what methods and models share."""
