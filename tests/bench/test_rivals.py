"""The rivals are as large as their papers say, and are networks for saliency."""

import pytest
import torch

from lmwp_bench import published
from lmwp_bench.rivals import RIVALS
from lmwp_models.complexity import summarize

every_rival = pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS)


@every_rival
def test_counts_are_those_of_the_published_tables(rival):
    counts = summarize(rival.build(), rival.input_size)
    assert counts.params == pytest.approx(rival.published_params, rel=0.035)
    assert getattr(counts, rival.flops_are) == pytest.approx(rival.published_flops, rel=0.07)


@every_rival
def test_gives_one_logit_per_pixel_and_learns(rival):
    torch.manual_seed(0)
    model = rival.build()
    images = torch.randn(2, 3, 96, 64)
    logits = model(images)
    assert logits.shape == (2, 1, 96, 64)
    logits.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


@every_rival
def test_stands_in_a_published_table(rival):
    line = published.published(rival.name)
    assert line is not None
    assert rival.name in published.networks_of(line.table)
    assert line.speed == rival.published_speed
