"""Evaluation of a model, within a run and afterwards."""
