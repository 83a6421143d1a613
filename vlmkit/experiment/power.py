"""What a design can find: the smallest difference that is not likely to be missed."""

from __future__ import annotations

import functools
import math

import numpy as np

from vlmkit.errors import VlmkitError
from vlmkit.experiment.ranges import at_least_one, in_unit_interval

_NODES = 128  # of an integral


def detectable_difference(
    deviation: float,
    num_samples: int,
    *,
    comparisons: int = 1,
    level: float = 0.05,
    power: float = 0.8,
) -> float:
    """The smallest true difference that a design finds with the given power.

    Of a two-sided paired t-test at ``level / comparisons``, by the noncentral t distribution.
    A measured difference below it is more likely noise than not worth a larger data set.

    Args:
        deviation: standard deviation over samples of the paired difference, > 0.
        num_samples: pairs; with fewer than 2 nothing can be detected.
        comparisons: tests that share the level.
        level: chance of a false discovery, in (0, 1).
        power: chance of finding a difference of the returned size, in (level, 1).

    Returns:
        A difference in the unit of ``deviation``; NaN where it is not known (no spread was seen).

    Reference:
        Cohen, *Statistical Power Analysis for the Behavioral Sciences* (1988), chapter 2.

    Example:
        >>> round(detectable_difference(1.0, 34), 3)  # about 34 pairs find half a deviation
        0.495
    """
    in_unit_interval("level", level)
    in_unit_interval("power", power)
    at_least_one("comparisons", comparisons)
    if power <= level:
        raise VlmkitError(f"power: {power} is not above the level {level}")
    if num_samples < 2 or not deviation > 0:
        return math.nan
    return _shift(num_samples, comparisons, level, power) * deviation / math.sqrt(num_samples)


@functools.lru_cache(maxsize=64)
def _shift(num_samples: int, comparisons: int, level: float, power: float) -> float:
    """The mean, in standard errors, that a two-sided t-test finds with the given power."""
    from scipy.optimize import brentq
    from scipy.special import ndtr
    from scipy.stats import chi2, t

    freedom = num_samples - 1
    critical = float(t.isf(level / comparisons / 2, freedom))

    # scipy's noncentral t is NaN for few pairs: its definition, an integral over deviations seen.
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    bound = critical * np.sqrt(chi2.ppf((nodes + 1) / 2, freedom) / freedom)

    def lacking(shift: float) -> float:
        found = ndtr(shift - bound) + ndtr(-shift - bound)
        return float(weights @ found) / 2 - power

    high = critical + 1.0
    while lacking(high) < 0:
        high *= 2
    return float(brentq(lacking, 0.0, high))
