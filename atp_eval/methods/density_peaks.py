"""Density-peaks clustering by nearest neighbours (DPC-KNN), as SparseVLM recycles tokens with it.

Rodriguez & Laio, "Clustering by fast search and find of density peaks", Science 2014; with densities from nearest
neighbours, Du, Ding & Jia, Knowledge-Based Systems 2016.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Clusters(NamedTuple):
    """centres: [B, c] long, the points that clusters grew around, in falling order of rho * delta. assigned: [B, P]
    long, the cluster of each point, as a place in `centres`. merged: [B, c, C], the mean of each cluster's points."""

    centres: Tensor
    assigned: Tensor
    merged: Tensor


def density_peaks(points: Tensor, clusters: int) -> Clusters:
    """`clusters` clusters of the points [B, P, C], 1 <= clusters <= P, each sample by itself.

    D_ij = |x_i - x_j| / sqrt(C). rho_i = exp(-mean of the squares of the `clusters` smallest D_ij, i itself among
    them). delta_i = the distance to the nearest point of a larger rho, or the largest of all distances where there is
    none. Centres have the largest rho * delta. Every other point joins its nearest centre.

    Ties: the earlier point or centre comes first, and points of equal rho do not limit each other's delta. SparseVLM's
    code adds unseeded noise of up to 1e-6 to rho against such ties. It is left out here: in half precision, in which
    that code runs, it mostly rounds away, and it would make answers depend on the run. (With 2 clusters the two closest
    points always tie, both with the highest rho.) That code also adds 1e-6 to a cluster's number of points in the
    mean; not here.

    Half precision is clustered in fp32, and `merged` is fp32 then.
    """
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    # without matrix products, so that distances are exactly symmetric, exactly 0 to an equal point, and the same in
    # every batch: otherwise rounding would break ties
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[2] ** 0.5
    rho = (-distance.topk(clusters, largest=False).values.square().mean(2)).exp()  # [B, P]
    denser = rho[:, None, :] > rho[:, :, None]  # [B, i, j]
    delta = torch.where(denser, distance, distance.amax((1, 2), keepdim=True)).amin(2)
    centres = (rho * delta).argsort(dim=1, descending=True, stable=True)[:, :clusters]

    to_centres = distance.gather(1, centres[..., None].expand(-1, -1, points.shape[1]))  # [B, c, P]
    own = torch.arange(clusters, device=points.device)
    assigned = to_centres.argmin(1).scatter(1, centres, own.expand_as(centres))  # a centre stays with its own cluster
    members = (assigned[:, None] == own[:, None]).to(points.dtype)  # [B, c, P]
    return Clusters(centres, assigned, members @ points / members.sum(2, keepdim=True))
