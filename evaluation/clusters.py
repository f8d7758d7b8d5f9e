"""Which errors are alike, and which words set them off: bags of words, nothing cleverer.

Clusters are k-means on TF-IDF vectors (scikit-learn). Texts of few words in common make poor clusters: the silhouette
(Rousseeuw 1987) says how poor, and is shown. Trigger words are those that errors have and right answers to items of
the same label lack, by their log-odds with a prior from all items (Monroe, Colaresi and Quinn 2008, section 3.3.1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.slices import Case, Kind
from evaluation.wording import word_list
from guardreasoner_moderation.errors import MissingDependencyError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Task
from texts.sentences import words

MIN_ERRORS = 20
"""Fewer errors are read faster than they are clustered."""

IN_ITEMS = 3
"""A word is shown when so many of the items have it, so that it is of no single item."""

SURE = 2.0
"""Words below this z are as frequent elsewhere, for all one can tell."""

WEAK = 0.05
"""Below this silhouette the clusters are hardly more than a way to cut the list."""

_LONGEST = 4000  # characters; a longer text would be like everything


@dataclass(frozen=True, slots=True)
class Cluster:
    """Errors that share words.

    Attributes:
        cases: the most typical first.
        words: that hold it together, of at least three items each.
    """

    cases: Sequence[Case]
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class Clusters:
    """All clusters, the largest first, and how well apart they are: silhouette, -1 to 1."""

    clusters: Sequence[Cluster]
    silhouette: float


@dataclass(frozen=True, slots=True)
class Trigger:
    """A word that is more frequent in errors.

    Attributes:
        word: in lower case.
        wrong, of_wrong: errors that have it, of how many.
        right, of_right: right answers to items of the same label that have it, of how many.
        z: log-odds ratio over its standard deviation.
    """

    word: str
    wrong: int
    of_wrong: int
    right: int
    of_right: int
    z: float


def judged_text(case: Case, texts: Mapping[str, Interaction]) -> str | None:
    """The text that a case's task is about; None where it is not at hand."""
    item = texts.get(case.id)
    if item is None:
        return None
    return (item.prompt if case.task is Task.REQUEST else item.response or item.prompt)[:_LONGEST]


def find_clusters(
    cases: Sequence[Case], texts: Mapping[str, Interaction], *, most: int = 8, seed: int = 0
) -> Clusters | None:
    """Clusters of some errors; None when too few have texts, or these have no words in common.

    Args:
        cases: the errors.
        texts: by id.
        most: clusters; the number with the best silhouette is taken.
        seed: of k-means.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.metrics import silhouette_score
    except ImportError as exc:
        raise MissingDependencyError("clusters of errors", "eval") from exc
    there = [(case, text) for case in cases if (text := judged_text(case, texts)) is not None]
    if len(there) < MIN_ERRORS:
        return None
    # Words in more than half of the items hold nothing apart, and words in one or two hold nothing together.
    vectorizer = TfidfVectorizer(analyzer=_vocabulary, min_df=IN_ITEMS, max_df=0.5, sublinear_tf=True)
    try:
        vectors = vectorizer.fit_transform([text for _, text in there])
    except ValueError:  # no word is left
        return None
    distinct = len({tuple(row.indices) for row in vectors})
    best: tuple[float, int, object] | None = None
    for count in range(2, min(most, len(there) // 8, distinct - 1) + 1):
        model = KMeans(count, n_init=4, random_state=seed).fit(vectors)
        if len(set(model.labels_)) < 2:
            continue
        apart = float(silhouette_score(vectors, model.labels_, sample_size=min(1000, len(there)), random_state=seed))
        if best is None or apart > best[0]:
            best = apart, count, model
    if best is None:
        return None
    silhouette, count, model_found = best
    labels, centres = model_found.labels_, model_found.cluster_centers_  # type: ignore[attr-defined]
    names = vectorizer.get_feature_names_out()
    clusters = []
    for number in range(count):
        members = np.flatnonzero(labels == number)
        closeness = np.asarray(vectors[members] @ centres[number]).ravel()
        having = np.asarray((vectors[members] > 0).sum(axis=0)).ravel()
        order = np.argsort(-centres[number])
        top = [str(names[place]) for place in order if centres[number][place] > 0 and having[place] >= IN_ITEMS][:8]
        clusters.append(Cluster([there[place][0] for place in members[np.argsort(-closeness)]], top))
    return Clusters(sorted(clusters, key=lambda cluster: -len(cluster.cases)), silhouette)


def find_triggers(
    cases: Sequence[Case], texts: Mapping[str, Interaction], kind: Kind, *, top: int = 15
) -> list[Trigger]:
    """The words that errors of a kind have and right answers to items of the same label lack.

    Args:
        cases: of a run.
        texts: by id.
        kind: false alarms, compared with harmless items that passed; or misses, with harmful ones that were caught.
        top: how many.
    """
    label = kind is Kind.MISS
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    items = {True: 0, False: 0}
    for case in cases:
        text = judged_text(case, texts) if case.risky is label and case.kind in (kind, None) else None
        if text is not None:
            wrong = case.kind is kind
            items[wrong] += 1
            counts[wrong].update(set(_vocabulary(text)))
    if not items[True] or not items[False]:
        return []
    everywhere = counts[True] + counts[False]
    total = sum(everywhere.values())
    # The prior weighs as much as the smaller side, so that a rare word must be very lopsided to be shown.
    weight = min(sum(counts[True].values()), sum(counts[False].values()))
    sums = {side: sum(counts[side].values()) for side in counts}
    triggers = []
    for word, count in counts[True].items():
        if count < IN_ITEMS:
            continue
        prior = weight * everywhere[word] / total
        logits = {}
        for side in (True, False):
            seen = counts[side][word] + prior
            logits[side] = math.log(seen / (sums[side] + weight - seen))
        deviation = math.sqrt(1 / (counts[True][word] + prior) + 1 / (counts[False][word] + prior))
        z = (logits[True] - logits[False]) / deviation
        if z >= SURE:
            triggers.append(Trigger(word, count, items[True], counts[False][word], items[False], z))
    return sorted(triggers, key=lambda trigger: (-trigger.z, trigger.word))[:top]


def _vocabulary(text: str) -> list[str]:
    stop_words = word_list("stop_words")
    return [word for word in words(text) if len(word) > 2 and word not in stop_words]
