"""The standard normal quantile in a fixed order of float64 operations (AS241, PPND16).

Wichura 1988, "The Percentage Points of the Normal Distribution", Applied Statistics 37(3).
Only +, -, x, /, sqrt and frexp are used, each rounded by IEEE 754 in the order written here, so
Python, JavaScript and C give the same bits (in C: compile with -ffp-contract=off, no fused
multiply-add). The logarithm of the tails is ours, not the platform's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Each row: coefficients of a polynomial, highest power first (AS241's a7..a0, 1 + b1.. and so on).
_CENTRAL_TOP = (
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
    4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
    1.3314166789178437745e2, 3.3871328727963666080e0,
)  # fmt: skip
_CENTRAL_BOTTOM = (
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
    2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
    4.2313330701600911252e1, 1.0,
)  # fmt: skip
_TAIL_TOP = (
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
    1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
    4.63033784615654529590e0, 1.42343711074968357734e0,
)  # fmt: skip
_TAIL_BOTTOM = (
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
    1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
    2.05319162663775882187e0, 1.0,
)  # fmt: skip
_FAR_TOP = (
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
    2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
    5.46378491116411436990e0, 6.65790464350110377720e0,
)  # fmt: skip
_FAR_BOTTOM = (
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
    7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
    5.99832206555887937690e-1, 1.0,
)  # fmt: skip

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
# atanh(s) / s = 1 + z/3 + z^2/5 + ... + z^11/23 with z = s^2 <= 0.0295: the first term left out
# is below 2e-20, so the rounding of the sum (about 2e-16) is the whole error.
_ATANH = tuple(1.0 / (2 * k + 1) for k in range(11, -1, -1))


def logarithm(x: Floats) -> Floats:
    """Natural logarithm of positive normal float64 numbers, error below 1e-15 relative for x < 1/2.

    frexp gives x = f 2^e with f in [1/2, 1); f below ``_SQRT_HALF`` is doubled and e lowered by 1;
    s = (f - 1) / (f + 1); log x = e ln 2 + 2 s (1 + z/3 + ... + z^11/23), Horner from the top.
    """
    f, e = np.frexp(x)
    low = f < _SQRT_HALF
    f = np.where(low, f + f, f)
    e = e - low
    s = (f - 1.0) / (f + 1.0)
    series: Floats = e * _LN2 + (s + s) * _horner(_ATANH, s * s)
    return series


def normal_quantile(p: Floats) -> Floats:
    """The x with Phi(x) = p, element by element; error about 1e-15 relative.

    Args:
        p: float64 probabilities, strictly between 0 and 1, any shape; p - 1/2 must be exact
            (true of multiples of 2^-53).
    """
    q = p - 0.5
    x = np.empty_like(q)
    central = np.abs(q) <= 0.425
    q_mid = q[central]
    r = 0.180625 - q_mid * q_mid
    x[central] = q_mid * _horner(_CENTRAL_TOP, r) / _horner(_CENTRAL_BOTTOM, r)

    tail = ~central
    q_tail, p_tail = q[tail], p[tail]
    r = np.sqrt(-logarithm(np.where(q_tail < 0.0, p_tail, 1.0 - p_tail)))
    near = r - 1.6
    magnitude = _horner(_TAIL_TOP, near) / _horner(_TAIL_BOTTOM, near)
    beyond = r > 5.0
    far = r[beyond] - 5.0
    magnitude[beyond] = _horner(_FAR_TOP, far) / _horner(_FAR_BOTTOM, far)
    x[tail] = np.where(q_tail < 0.0, -magnitude, magnitude)
    return x


def _horner(coefficients: tuple[float, ...], x: Floats) -> Floats:
    value: Floats = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value *= x
        value += coefficient
    return value
