"""How well scores tell findings from none. An undefined measure is None."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 6


def measure(scores: NDArray[np.float64], findings: NDArray[np.int64], threshold: float) -> dict[str, Any]:
    """All measures of the scores (0 to 1) for the findings (0 or 1); a score at the threshold is a positive."""
    called = scores >= threshold
    true_positives = int(np.sum(called & (findings == 1)))
    false_positives = int(np.sum(called & (findings == 0)))
    positives = int(np.sum(findings == 1))
    negatives = int(np.sum(findings == 0))
    false_negatives = positives - true_positives
    true_negatives = negatives - false_positives
    return {
        "auc": auc(scores, findings),
        "sensitivity": ratio(true_positives, positives),
        "specificity": ratio(true_negatives, negatives),
        "f1": ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
        "accuracy": ratio(true_positives + true_negatives, positives + negatives),
        "counts": {
            "cases": positives + negatives,
            "positives": positives,
            "negatives": negatives,
            "true_positives": true_positives,
            "false_positives": false_positives,
            "true_negatives": true_negatives,
            "false_negatives": false_negatives,
        },
    }


def auc(scores: NDArray[np.float64], findings: NDArray[np.int64]) -> float | None:
    """The area under the ROC curve, by ranks (Mann and Whitney's U); None where a class is empty.

    It is the share of pairs of a positive and a negative in which the positive has the higher score; a tie counts
    half. Tied scores share the mean of their ranks.
    """
    positives = int(np.sum(findings == 1))
    negatives = int(np.sum(findings == 0))
    _, value_of, times = np.unique(scores, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(times)
    # Twice the mean rank is a whole number, so the sum is exact in any order.
    twice_mean_ranks = 2 * last_ranks - times + 1
    twice_rank_sum = int(np.sum(twice_mean_ranks[value_of][findings == 1]))
    return ratio(twice_rank_sum - positives * (positives + 1), 2 * positives * negatives)


def ratio(part: int, whole: int) -> float | None:
    """`part / whole`, rounded; None where there is nothing to divide by."""
    return round(part / whole, DIGITS) if whole else None
