"""How good the best of many models is, given some of them and other data sets. Pure.

P of a model after the last epoch, its *final*, says little about the next model's. But over many
models the finals of every data set look alike once they are standardised: (P - μ) / w, with their
median μ and their upper spread w, has the same distribution F everywhere, also where the best
models are. So the finals of some models, which tell μ and w, tell how good the best of the others
may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
MAD = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
_FREEDOM = 4.0  # finals that the widths of other data sets count as
_BANDWIDTH = 0.1  # of the density, in units of w
_LOW, _HIGH, _PER_UNIT = -16.0, 8.0, 200  # the grid of standardised values
_Z = np.linspace(_LOW, _HIGH, int((_HIGH - _LOW) * _PER_UNIT) + 1)


def upper_spread(finals: Floats) -> float:
    """The scaled median distance of the upper half from the median: w."""
    middle = np.median(finals)
    return float(MAD * np.median((finals - middle)[finals >= middle]))


@dataclass(frozen=True)
class Finals:
    """The distribution of standardised finals.

    `below` is F and `log_density` that of its density, on a grid. `width` is the typical w, None
    where no other data set tells. `cheapest_first` has the finals of each data set by the cost of
    the models, with its weight; the weights sum to 1.
    """

    below: Floats
    log_density: Floats
    width: float | None
    cheapest_first: tuple[tuple[float, Floats], ...]

    @classmethod
    def of(cls, data_sets: Sequence[tuple[float, Floats]]) -> Finals:
        """From the weight and the finals, cheapest model first, of each data set; without any F is
        the normal distribution.

        Beyond the greatest and the least value F continues as the outer twentieth of the values, in
        normal scores: the best of more models may be better than any here.
        """
        used = tuple((w, f) for w, f in data_sets if upper_spread(f) > 0)
        if not used:
            return cls(ndtr(_Z), -(_Z**2) / 2, None, ())
        total = sum(weight for weight, _ in used)
        used = tuple((weight / total, finals) for weight, finals in used)
        z = np.concatenate([(f - np.median(f)) / upper_spread(f) for _, f in used])
        weights = np.concatenate([np.full(len(f), w / len(f)) for w, f in used])
        order = np.argsort(z)
        z, weights = z[order] + 1e-9 * np.arange(len(z)), weights[order]
        score = ndtri(np.cumsum(weights) - weights / 2)
        k = max(2, len(z) // 20)
        above = (z[-1] - z[-k]) / (score[-1] - score[-k])
        beneath = (z[k - 1] - z[0]) / (score[k - 1] - score[0])
        of_grid = np.interp(_Z, z, score)
        of_grid = np.where(z[-1] < _Z, score[-1] + (_Z - z[-1]) / above, of_grid)
        of_grid = np.where(z[0] > _Z, score[0] + (_Z - z[0]) / beneath, of_grid)
        kernels = np.exp(-(((_Z[:, None] - z) / _BANDWIDTH) ** 2) / 2)
        density = kernels @ weights / (_BANDWIDTH * np.sqrt(2 * np.pi))
        rest = np.exp(-np.abs(_Z) / 2) / 4  # a model that failed to learn is no contradiction
        width = np.exp(sum(w * np.log(upper_spread(f)) for w, f in used))
        return cls(ndtr(of_grid), np.log(0.98 * density + 0.02 * rest), float(width), used)

    def within(self, finals: Floats, others: int, margin: float) -> Floats:
        """For each of these finals, the probability that it is no more than the margin below the
        best of them and of so many `others`, which are on average dearer.

        Σ p(μ, w | finals) · F((P + margin - μ) / w - δ) ^ others, where the δ are by how much
        dearer models were better in the other data sets, or not at all. It is 1 where P + margin is
        1 or more, and else 0 while nothing tells w: the finals are equal, and there is no other
        data set.
        """
        near = finals >= finals.max() - margin - 1e-12
        found = near.astype(float)
        unsure = near & (finals + margin < 1 - 1e-12)
        if others > 0 and unsure.any():
            if self.width is None and np.ptp(finals) == 0:  # nothing tells how widely they scatter
                return np.where(unsure, 0.0, found)
            middle, width, weight = self._posterior(finals)
            limit = finals[unsure][:, None] + margin - middle
            for share, more in self._dearer(len(finals), others):
                reached = self.below[_index(limit / width - more)] ** others
                found[unsure] -= share * (1 - reached @ weight)
        return np.asarray(np.clip(found, 0, 1))

    def _posterior(self, finals: Floats) -> tuple[Floats, Floats, Floats]:
        """μ, w and their probability on a grid that covers them; μ is uniform before, and w² is
        scaled inverse χ²."""
        own = finals.std() if self.width is None else upper_spread(finals)  # F is normal without
        typical = own if self.width is None else self.width
        middles = np.linspace(-3, 3, 41) * max(typical, own) + np.median(finals)
        widths = np.geomspace(typical / 8, 8 * max(typical, own), 31)
        every = -(-len(finals) // 100)
        for some in (np.sort(finals)[every // 2 :: every], finals):  # a sample says where
            middle, width = (one.ravel() for one in np.meshgrid(middles, widths))
            logs = self.log_density.take(_index((some[:, None] - middle) / width)).sum(axis=0)
            logs -= len(some) * np.log(width)
            if self.width is not None:
                logs -= _FREEDOM * (np.log(width) + (self.width / width) ** 2 / 2)
            likely = logs > logs.max() - 8
            middles = _around(middles, middle[likely], 51)
            widths = np.exp(_around(np.log(widths), np.log(width[likely]), 31))
        weight = np.exp(logs - logs.max())
        return middle, width, weight / weight.sum()

    def _dearer(self, n: int, others: int) -> list[tuple[float, float]]:
        """By how many w the median of the dearer models was higher than that of the n cheapest of
        n + others in each data set, and not at all, with their weights."""
        if not self.cheapest_first:
            return [(1.0, 0.0)]
        found = [(1 / 3, 0.0)]
        for weight, finals in self.cheapest_first:
            k = min(max(1, round(len(finals) * n / (n + others))), len(finals) - 1)
            more = float(np.median(finals[k:]) - np.median(finals[:k])) / upper_spread(finals)
            found.append((weight * 2 / 3, more))
        return found


def _index(z: Floats) -> NDArray[np.intp]:
    at = z * _PER_UNIT
    at += 0.5 - _LOW * _PER_UNIT
    return np.clip(at, 0, len(_Z) - 1, out=at).astype(np.intp)


def _around(grid: Floats, likely: Floats, n: int) -> Floats:
    """A grid of n values that covers the likely ones, and a step of the present grid more."""
    step = grid[1] - grid[0]
    return np.linspace(likely.min() - step, likely.max() + step, n)
