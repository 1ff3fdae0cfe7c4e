"""Compare a candidate and a champion on the same rows by any metric."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from registry_tools.stats import bootstrap
from registry_tools.stats.intervals import SIGNIFICANCE, Z_ONE_SIDED, paired_difference, paired_p_value
from registry_tools.stats.losses import LossDifference, loss_difference, row_losses, widest
from registry_tools.stats.metric import Metric, Outcomes
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.task import CLASSIFICATION

MEAN_LOSSES = ("rmse", "mae", "r2")  # the metrics of a regression that follow from a mean loss


def compare_by(
    metric: Metric, candidate: Outcomes, champion: Outcomes, *, unseen_mistake: bool = True
) -> MetricDifference | None:
    """Compare two versions on the same rows; return None if the metric is undefined for one of them.

    Parameters
    ----------
    metric, candidate, champion
        The metric, and both versions on the same rows.
    unseen_mistake
        Whether the log loss must also hold with one more row, on which both versions are wrong.

    Notes
    -----
    Accuracy and the recall of a class use the exact McNemar test and Tango's interval, balanced accuracy
    the intervals of the recalls, and a mean loss (rmse, mae, r2, log_loss) Student's t. All other metrics
    use Student's t with the standard error of the paired bootstrap. Student's t needs two rows.

    Raises
    ------
    InputError
        If the metric needs probabilities that a version lacks, or a function of the user fails.
    """
    values = metric.compute(candidate), metric.compute(champion)
    if not np.isfinite(values).all():
        return None
    kind, _, of_class = metric.name.partition(":")
    if kind in {"accuracy", "recall", "balanced_accuracy"}:
        right, other = (np.asarray(each.predicted == each.labels) for each in (candidate, champion))
        if kind == "balanced_accuracy":
            return _compare_balanced_accuracy(metric, values, right, other, candidate.labels)
        among = candidate.labels == of_class if kind == "recall" else slice(None)
        return compare_shares(right[among], other[among], metric.name)
    if len(candidate.labels) < 2:
        return None
    if metric.name in {*MEAN_LOSSES, "log_loss"}:
        return _compare_losses(metric, values, candidate, champion, unseen_mistake)
    return _compare_replicates(metric, values, candidate, champion)


def compare_shares(
    right: npt.NDArray[np.bool_], champion_right: npt.NDArray[np.bool_], metric: str = "accuracy"
) -> MetricDifference:
    """Compare the shares of rows that the candidate and the champion predict right.

    Parameters
    ----------
    right, champion_right
        Whether each version predicts a row right, shape (rows,); at least one row.
    metric
        The name of the share.
    """
    return compare_counts(
        rows=len(right),
        only_candidate_right=int(np.sum(right & ~champion_right)),
        only_champion_right=int(np.sum(champion_right & ~right)),
        both_right=int(np.sum(right & champion_right)),
        metric=metric,
    )


def compare_counts(
    rows: int, only_candidate_right: int, only_champion_right: int, both_right: int, metric: str = "accuracy"
) -> MetricDifference:
    """Return the comparison for counts of rows that both versions, or only one, predict right.

    There must be at least one row.
    """
    from scipy.stats import binomtest  # takes half a second to import, which `show` does not need

    gained, lost = only_candidate_right, only_champion_right
    interval = paired_difference([gained], [lost], [rows])
    p_worse, p_better = (
        float(binomtest(successes, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
        for successes in (lost, gained)
    )
    return MetricDifference(
        metric,
        rows,
        candidate=(both_right + gained) / rows,
        champion=(both_right + lost) / rows,
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        gain=interval.value,
        bound=paired_difference([gained], [lost], [rows], Z_ONE_SIDED).low,
        p_worse=p_worse,
        p_better=p_better,
        only_candidate_right=gained,
        only_champion_right=lost,
    )


def _compare_balanced_accuracy(
    metric: Metric,
    values: tuple[float, float],
    right: npt.NDArray[np.bool_],
    other: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.object_],
) -> MetricDifference:
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    gained, lost, rows = (
        np.bincount(codes, each).tolist() for each in (right & ~other, other & ~right, None)
    )
    interval = paired_difference(gained, lost, rows)
    half = paired_p_value(gained, lost, rows) / 2
    p_worse, p_better = (half, 1 - half) if interval.value < 0 else (1 - half, half)
    if interval.value == 0:
        p_worse = p_better = 1.0
    bound = paired_difference(gained, lost, rows, Z_ONE_SIDED).low
    return _difference(metric, values, len(labels), interval.low, interval.high, bound, p_worse, p_better)


def _compare_losses(
    metric: Metric, values: tuple[float, float], candidate: Outcomes, champion: Outcomes, unseen_mistake: bool
) -> MetricDifference | None:
    """Compare by a metric that is a mean loss, or follows from one."""
    rows = len(candidate.labels)
    counts = [rows]
    if metric.name == "log_loss":
        found = [row_losses(each) for each in (candidate, champion)]
        if found[0] is None or found[1] is None:
            return None
        # One more row, on which both are wrong: the result has to hold with and without it.
        one, two = (np.append(each.values, each.cost) for each in found if each is not None)
        counts += [rows + 1] * unseen_mistake
    else:
        power = 1 if metric.name == "mae" else 2
        one, two = (np.abs(each.predicted - each.labels) ** power for each in (candidate, champion))

    def compare_in(unit: npt.NDArray[np.float64]) -> LossDifference:
        return widest([loss_difference(one[:count], two[:count], unit[:count]) for count in counts])

    if metric.name == "r2":
        share = compare_in((candidate.labels - candidate.labels.mean()) ** 2)
        low, high, upper = -share.high, -share.low, share.upper
    else:
        share = compare_in(two if values[1] else np.ones_like(two))  # an error of 0 is no unit
        low, high, upper = share.low, share.high, share.upper if values[1] else 0.0
        if metric.name == "rmse":  # the difference of the roots, from that of the squares
            unit = 1.0 if values[1] else 0.0
            low, high, upper = (math.sqrt(max(0.0, unit + each)) - unit for each in (low, high, upper))
            low, high = low * (values[1] or 1.0), high * (values[1] or 1.0)
        elif values[1]:
            plain = compare_in(np.ones_like(two))
            low, high = plain.low, plain.high
    return _difference(metric, values, rows, low, high, -upper, share.p_worse, share.p_better)


def _compare_replicates(
    metric: Metric, values: tuple[float, float], candidate: Outcomes, champion: Outcomes
) -> MetricDifference | None:
    from scipy.stats import t as student  # takes half a second to import, which `show` does not need

    pair = (candidate, champion)
    if metric.task == CLASSIFICATION:
        pair = bootstrap.with_confusions(metric, *pair)
    replicates = bootstrap.replicate(metric, *pair)
    defined = np.isfinite(replicates).all(axis=1)
    if defined.mean() < 0.5:
        return None
    replicates = replicates[defined]
    difference = values[0] - values[1]
    error = float((replicates[:, 0] - replicates[:, 1]).std(ddof=1))
    freedom = len(candidate.labels) - 1
    two_sided, one_sided = student.ppf([1 - SIGNIFICANCE / 2, 1 - SIGNIFICANCE], freedom)
    low, high = difference - two_sided * error, difference + two_sided * error
    gain = -difference if metric.less_is_better else difference
    if error > 0:
        p_worse, p_better = (float(student.sf(side * gain / error, freedom)) for side in (-1, 1))
    else:
        p_worse, p_better = float(gain >= 0), float(gain <= 0)
    if metric.less_is_better:
        gain /= values[1] or values[0] or 1.0
        given = replicates[replicates[:, 1] > 0]
        if len(given) > 1:
            error = float((given[:, 0] / given[:, 1]).std(ddof=1))
    bound = gain - float(one_sided) * error
    return _difference(metric, values, len(candidate.labels), low, high, bound, p_worse, p_better)


def _difference(
    metric: Metric,
    values: tuple[float, float],
    rows: int,
    low: float,
    high: float,
    bound: float,
    p_worse: float,
    p_better: float,
) -> MetricDifference:
    gain = values[0] - values[1]
    if metric.less_is_better:
        gain = -gain / (values[1] or values[0] or 1.0)
    return MetricDifference(
        metric.name,
        rows,
        *values,
        values[0] - values[1],
        float(low),
        float(high),
        gain,
        min(float(bound), gain),
        p_worse,
        p_better,
        metric.less_is_better,
    )
