"""Density-peaks clustering, on cases worked out by hand and against a slow version."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sparsevlm as literal

from atp_eval.methods.density_peaks import density_peaks


def line(*places: float, channels: int = 1) -> torch.Tensor:
    """Points on a line [1, P, C], equal in every channel, so that D is the distance of the places."""
    return torch.tensor(places, dtype=torch.float64)[None, :, None].expand(-1, -1, channels)


@pytest.mark.parametrize("channels", [1, 7])
def test_two_groups_and_what_is_left(channels: int) -> None:
    """1: squares of its three nearest (0, 1, 1) / 3 = 0.67, the densest. 11: (0, 1, 2.25) / 3 = 1.08, 10 from 1.

    Their gammas are 6.4 and 3.4. Of the others 0 and 2 tie with exp(-5/3) * 1, and 0 is the earlier one.
    """
    found = density_peaks(line(0, 1, 2, 10, 11, 12.5, channels=channels), 3)
    assert found.centres.tolist() == [[1, 4, 0]]
    assert found.assigned.tolist() == [[2, 0, 0, 1, 1, 1]]
    assert found.merged.shape == (1, 3, channels)
    torch.testing.assert_close(found.merged[0, :, -1], torch.tensor([1.5, 33.5 / 3, 0.0], dtype=torch.float64))


def test_a_point_between_two_centres_goes_to_the_first() -> None:
    """1 and 11 are as dense and as far from each other, and 6 is in the middle."""
    found = density_peaks(line(0, 1, 2, 6, 10, 11, 12), 3)
    assert found.centres.tolist() == [[1, 5, 0]]
    assert found.assigned.tolist() == [[2, 0, 0, 0, 1, 1, 1]]
    mirrored = density_peaks(line(12, 11, 10, 6, 2, 1, 0), 3)
    assert mirrored.assigned.tolist() == [[2, 0, 0, 0, 1, 1, 1]]


def test_equal_densities_do_not_limit_each_other() -> None:
    """With two clusters the two closest points tie in density; nothing is denser, so both are farthest: both centres.

    This is what noise on rho would hide in fp32, and does not in half precision.
    """
    found = density_peaks(line(0, 5, 9, 20, 21), 2)
    assert found.centres.tolist() == [[3, 4]]
    assert found.assigned.tolist() == [[0, 0, 0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_are_exact_enough_for_ties(dtype: torch.dtype) -> None:
    """The two closest of many points are a tie in every sample only if distances are exactly symmetric."""
    points = torch.randn(20, 40, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    points = points + 10
    found = density_peaks(points, 2)
    for sample in range(20):
        pairs = {
            (float((points[sample, i] - points[sample, j]).norm()), i, j) for i in range(40) for j in range(40) if i < j
        }
        assert found.centres[sample].tolist() == list(min(pairs)[1:])


def test_equal_points_are_a_cluster_each_where_both_are_centres() -> None:
    found = density_peaks(line(5, 5, 5), 3)
    assert found.centres.tolist() == found.assigned.tolist() == [[0, 1, 2]]
    assert found.merged.flatten().tolist() == [5, 5, 5]


def test_one_cluster_is_the_mean_and_one_point_is_itself() -> None:
    found = density_peaks(line(1, 2, 6), 1)
    assert found.centres.tolist() == [[0]] and found.assigned.tolist() == [[0, 0, 0]]
    assert found.merged.tolist() == [[[3.0]]]
    assert density_peaks(line(4), 1).merged.tolist() == [[[4.0]]]


def test_half_precision_is_clustered_in_single() -> None:
    points = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(3)).half()
    found, exact = density_peaks(points, 4), density_peaks(points.float(), 4)
    assert found.merged.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


def test_a_sample_is_clustered_alike_in_every_batch() -> None:
    points = torch.randn(5, 50, 12, generator=torch.Generator().manual_seed(4))
    together = density_peaks(points, 5)
    for sample in range(5):
        alone = density_peaks(points[sample : sample + 1], 5)
        assert torch.equal(together.centres[sample], alone.centres[0])
        assert torch.equal(together.assigned[sample], alone.assigned[0])
        torch.testing.assert_close(together.merged[sample], alone.merged[0])


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3), number=st.integers(1, 20), channels=st.integers(1, 5), data=st.data(),
    seed=st.integers(0, 2**32), spread=st.sampled_from([0.1, 1.0, 3.0]),
)  # fmt: skip
def test_parity_with_the_slow_version(
    batch: int, number: int, channels: int, data: st.DataObject, seed: int, spread: float
) -> None:
    clusters = data.draw(st.integers(1, number))
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, number, channels, generator=generator, dtype=torch.float64) * spread
    found = density_peaks(points, clusters)
    for sample in range(batch):
        centres, members = literal.clusters(points[sample].tolist(), clusters)
        assert found.centres[sample].tolist() == centres
        for cluster, group in enumerate(members):
            assert torch.where(found.assigned[sample] == cluster)[0].tolist() == group
            mean = torch.stack([points[sample, i] for i in group]).mean(0)
            torch.testing.assert_close(found.merged[sample, cluster], mean, rtol=0, atol=1e-10)
