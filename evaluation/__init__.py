"""Evaluation: benchmarks, metrics, runs and the comparison with published figures. Not part of the wheel."""
