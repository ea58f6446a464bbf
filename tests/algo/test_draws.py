"""Random numbers per token."""

from __future__ import annotations

from dataclasses import replace

import torch

from reasontrain import rng
from reasontrain.algo._draws import gumbel_BT, uniform_BT
from reasontrain.rng import Stream


def test_a_draw_depends_on_seed_stream_step_rollout_and_position_alone(steps):
    batch = steps.of([[1, 2, 2], [0, 1, 2]], [5, 9])
    draw_BT = uniform_BT(batch, Stream.TIP_DRAWS)
    # the last token of rollout 9 is its second: left padding does not count
    expected = rng.uniform(7, Stream.TIP_DRAWS, 3, torch.tensor((9 << 24) + 2))
    assert draw_BT[1, 2] == expected
    for other in (
        uniform_BT(batch, Stream.RANDOM_TOKENS),
        *(
            uniform_BT(replace(batch, **new), Stream.TIP_DRAWS)
            for new in ({"seed": 8}, {"step": 4})
        ),
    ):
        assert not torch.isin(other[batch.is_response_BT], draw_BT).any()


def test_gumbel_numbers_have_the_gumbel_distribution(steps):
    gumbel_N = gumbel_BT(steps.of([[2] * 100] * 400), Stream.TIP_DRAWS).flatten()
    cdf_N = (-(-gumbel_N).exp()).exp().sort().values  # uniform if the law is right
    rank_N = (torch.arange(40_000) + 0.5) / 40_000
    assert (
        cdf_N - rank_N
    ).abs().max() < 1.95 / 200  # Kolmogorov-Smirnov, 1.95 / sqrt(n): one in a thousand
    assert gumbel_N.isfinite().all()


def test_the_smallest_draw_is_still_finite(steps, monkeypatch):
    monkeypatch.setattr(rng, "uniform", lambda *key: torch.zeros(1, 2, dtype=torch.float64))
    assert gumbel_BT(steps.of([[2, 2]]), Stream.TIP_DRAWS).isfinite().all()
