"""Files in, files out: every row judged once, in constant memory, whatever happens on the way.

    from guardreasoner_moderation import Moderator
    from guardreasoner_moderation.batch import judge_file

    summary = judge_file("traffic.jsonl", "judged.jsonl", Moderator(), mode="verdict")
    summary.rows, summary.flagged, summary.unjudged

What happens on the way: :mod:`reading` makes rows of a file, :mod:`pending` makes windows of interactions of them, one
of :mod:`runners` judges these, :mod:`journal` keeps each result, and when there is one for every row, :mod:`writing`
puts input and results together.
"""

from __future__ import annotations

from guardreasoner_moderation.batch.job import judge_file
from guardreasoner_moderation.batch.pending import Columns
from guardreasoner_moderation.batch.runners import LocalRunner, Runner
from guardreasoner_moderation.batch.state import Progress, Summary

__all__ = ["Columns", "LocalRunner", "Progress", "Runner", "Summary", "judge_file"]
