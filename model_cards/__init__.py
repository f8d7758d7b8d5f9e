"""Model cards, the papers' claims beside our figures, and releases. Not part of the wheel; reads what others wrote."""
