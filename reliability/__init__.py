"""Trials: hostile texts, bad input and failures, and what was lost in them. Not part of the wheel."""
