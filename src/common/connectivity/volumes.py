"""Volumes of simplices whose corners are minima. Benton et al. 2021, arXiv 2102.13042."""

import math

import torch
from torch import Tensor


def edge_spectrum(points: Tensor) -> Tensor:
    """Eigenvalues `(count − 1,)`, from the largest, of the Gram matrix of `points (count, weights)` about their mean.

    In float64. They are the squared singular values of the centred points; one more is always zero.
    """
    if len(points) < 2:
        raise ValueError(f"{len(points)} points span nothing, allowed: 2 or more")
    centred = points.double() - points.double().mean(0)
    return torch.linalg.eigvalsh(centred @ centred.T).flip(0)[:-1].clamp(min=0)


def log_volume(points: Tensor) -> float:
    """Natural logarithm of the volume of the simplex with the corners `points (n + 1, weights)`, −∞ where it is flat.

    n! · volume = √((n + 1) · Πλ) with λ the n eigenvalues of the centred Gram matrix: no corner is singled out.
    """
    spectrum = edge_spectrum(points)
    count = len(spectrum)
    return 0.5 * (math.log(count + 1) + spectrum.log().sum().item()) - math.lgamma(count + 1)
