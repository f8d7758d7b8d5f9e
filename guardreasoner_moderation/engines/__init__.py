"""Engines run a model. They know tokens and text, never labels."""
