"""exp, tanh and erf from additions and multiplications alone, in float32.

MLX calls the C library once per element for these on a CPU, at 10 to 20 ns each. A polynomial or a
quotient of two is plain arithmetic, which runs on several elements at a time, and compiled is one
pass over memory. The coefficients are our own fits: iteratively reweighted least squares of the
relative error on Chebyshev nodes, in float64, rounded to float32. The largest errors over the whole
range are 1e-7 (exp, relative), 3e-7 (tanh) and 4e-7 (erf); ``mx.exp`` is off by up to 4e-6.

Reference: Lawson (1961), "Contributions to the theory of linear least maximum approximation" (the
weights); Cody and Waite (1980), "Software manual for the elementary functions" (the reduction).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

_LOG2_E = 1.4426950408889634
_ROUNDER = 1.5 * 2.0**23  # added and subtracted again, it rounds to a whole number
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; the first is short
_EXP = (
    *(1.0, 1.0, 0.49999993443576085, 0.16666520569202434, 0.0416683887785562),
    *(0.00836872442962848, 0.0013814583080614287),
)
_EXP_LOW, _EXP_HIGH = -88.03, 88.0  # at the lower one the power of two is 2**-127, stored as 0
_TANH_LIMIT = 7.9  # beyond it tanh is 1 within 3e-7
_TANH = (
    (1.0, 0.12984943, 0.0029921324, 9.9395047e-06, -1.4907176e-08, 2.4107527e-11),
    (1.0, 0.4631826, 0.024053238, 0.0002380917),
)
_ERF_LIMIT = 4.0
_ERF = (
    (
        *(1.1283791, 0.20711803, 0.05152388, 0.0039901678, 0.00014726943),
        *(-1.9421052e-06, 1.9108716e-08),
    ),
    (1.0, 0.5168848, 0.11796772, 0.014957378, 0.0010209886),
)


def exp(x: mx.array) -> mx.array:
    """Return ``e**x`` of float32; from -87.7 down it is 0, and from 88 up 1.7e38.

    Hardly any subnormal number comes out: arithmetic on those takes a hundred times as long.

    Example:
        >>> exp(mx.array([0.0, 1.0])).tolist()
        [1.0, 2.7182817459106445]
    """
    return join_exp(*split_exp(x))


def split_exp(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return ``e**x`` as a factor near 1 and the bits of a power of two, for :func:`join_exp`.

    What compiles for all shapes at once ends here: MLX cannot tell the shape of a view in advance.
    """
    x = _clip(x, _EXP_LOW, _EXP_HIGH)
    whole = (x * _LOG2_E + _ROUNDER) - _ROUNDER
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    return _evaluate(_EXP, rest), mx.left_shift(whole.astype(mx.int32) + 127, 23)


def join_exp(factor: mx.array, bits: mx.array) -> mx.array:
    """Return the float32 product of a factor and a power of two given by its bits, int32."""
    return factor * mx.view(bits, mx.float32)


def tanh(x: mx.array) -> mx.array:
    """Return the hyperbolic tangent of float32.

    Example:
        >>> tanh(mx.array([0.0, 99.0])).round(decimals=6).tolist()
        [0.0, 1.0]
    """
    return _odd_quotient(x, *_TANH, _TANH_LIMIT)


def erf(x: mx.array) -> mx.array:
    """Return the error function of float32.

    Example:
        >>> erf(mx.array([0.0, 9.0])).round(decimals=6).tolist()
        [0.0, 1.0]
    """
    return _odd_quotient(x, *_ERF, _ERF_LIMIT)


def sigmoid(x: mx.array) -> mx.array:
    """Return ``1 / (1 + e**-x)`` of float32, within 2e-7.

    Example:
        >>> sigmoid(mx.array([0.0, -99.0])).round(decimals=6).tolist()
        [0.5, 0.0]
    """
    return 0.5 + 0.5 * tanh(0.5 * x)


def _odd_quotient(
    x: mx.array, above: Sequence[float], below: Sequence[float], limit: float
) -> mx.array:
    """Return ``x * above(x²) / below(x²)`` at x cut to the limits."""
    x = _clip(x, -limit, limit)
    square = x * x
    return x * _evaluate(above, square) / _evaluate(below, square)


def _evaluate(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """Return the polynomial, the constant first, by Horner's rule."""
    value = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _clip(x: mx.array, low: float, high: float) -> mx.array:
    # mx.clip is a kernel of its own; these two fuse with their neighbours. NaN stays NaN.
    return mx.minimum(mx.maximum(x, low), high)
