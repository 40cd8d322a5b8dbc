"""Noise that hides which of its possible labels a row has, in any network and whatever the other half sends.

A row's gradient is known for each label that the row might have, since the label's holder has the network: it is one
backward pass more. Noise is added of one covariance for all rows of a batch, and a row whose gradients differ by too
much under it is scaled down. So to whoever knows everything but the row's label, what is sent is normally distributed
about either of two points, and the symmetric Kullback–Leibler divergence of the two is at most ε, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CHARGE = 0.382
"""What a nat between normal distributions is charged: they are told apart less well than the worst of that divergence.

The AUC of all attacks on several such exposures, of ε nats in all, is at most Φ(√(ε/2)), and `label_budget.auc_of` of
this share of ε is nowhere less. Source: Dong, Roth and Su, Gaussian differential privacy, 2022: exposures compose to
one whose shift is √ε, whatever was chosen after having seen the earlier ones.
"""

POWER = 0.25
"""Of the noise beside what a row of average differences needs: most rows are scaled down, as in training with clipping.

Then nearly every row differs by all that it may. What is scaled is by how much a row counts, which optimizers that
divide by the size of gradients, such as Adam, do not mind.
"""

_LEAST = 1e-6
"""No direction has less noise than one in which gradients differ by so much (in power) of the largest."""


@dataclass(frozen=True)
class Noise:
    """A normal distribution about 0.

    Parameters
    ----------
    axes
        Orthonormal, shape ``(width, width)``, as columns; None for those of the coordinates.
    variances
        Along each axis, shape ``(width,)``.
    """

    axes: Floats | None
    variances: Floats

    def divergence(self, differences: Floats) -> Floats:
        """Return the symmetric Kullback–Leibler divergence, in nats, that each difference of means has under it.

        Parameters
        ----------
        differences
            Shape ``(n, width)``.

        Returns
        -------
        ndarray
            Shape ``(n,)``.
        """
        along = differences if self.axes is None else differences @ self.axes
        known = self.variances > 0
        found: Floats = np.square(along[:, known]) @ (1 / self.variances[known])
        return found

    def of(self, standard: Floats) -> Floats:
        """Return noise made of standard normal numbers, both of shape ``(n, width)``."""
        scaled = standard * np.sqrt(self.variances)
        return scaled if self.axes is None else scaled @ self.axes.T


def least_noise(differences: Floats, epsilon: float) -> Noise:
    """Return the noise of least power under which differences have the divergence `epsilon` on average.

    Parameters
    ----------
    differences
        Shape ``(n, width)``, finite.
    epsilon
        In nats, positive.

    Notes
    -----
    With M the mean of δδᵀ, the covariance of least trace whose inverse has tr(Σ⁻¹M) ≤ ε is Σ = tr(√M)·√M / ε: where
    the Lagrangian is stationary, I is a multiple of Σ⁻¹MΣ⁻¹. Where all rows differ by the same δ it is δδᵀ / ε, which
    is the noise of Marvell for classes without a spread of their own.
    Cost: ``n × width² + 10 × width³`` operations.
    Source: Li et al., Label leakage and protection in two-party split learning, 2021, section 4, which takes the means
    of both classes in place of each row's own gradients.
    """
    values, axes = np.linalg.eigh(differences.T @ differences / len(differences))
    roots = np.sqrt(np.maximum(values, _LEAST * values[-1]))
    return Noise(axes, roots * roots.sum() / epsilon)


def even_noise(differences: Floats, epsilon: float) -> Noise:
    """Return noise that is alike in all directions, under which differences have divergence `epsilon` on average."""
    width = differences.shape[1]
    power = np.square(differences).sum() / len(differences)
    return Noise(None, np.full(width, power / epsilon))


def hidden(gradients: Floats, differences: Sequence[Floats], noise: Noise, standard: Floats, epsilon: float) -> Floats:
    """Return gradients in which a row's labels differ by at most `epsilon`.

    Parameters
    ----------
    gradients
        Of the loss by row, shape ``(n, width)``.
    differences
        For each pair of labels, how the gradients of each row with either differ; each of shape ``(n, width)``.
    noise
        Follows from the differences, never from the labels.
    standard
        Standard normal numbers, shape ``(n, width)``.
    epsilon
        In nats.
    """
    most = np.max([noise.divergence(each) for each in differences], axis=0)
    scale = np.sqrt(np.minimum(1, epsilon / np.maximum(most, np.finfo(np.float64).tiny)))
    found: Floats = gradients * scale[:, np.newaxis] + noise.of(standard)
    return found
