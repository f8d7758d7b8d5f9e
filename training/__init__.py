"""Training of the adapters: not part of the wheel; run from a checkout with ``pip install -e '.[train]'``."""
