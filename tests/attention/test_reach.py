"""The reach of patterns: far block pairs that layers connect without the global blocks."""

from __future__ import annotations

import numpy as np
import pytest

from bigbird_ds.attention import BlockPattern, reach
from bigbird_ds.attention.draw import count_matrix

AFTER = (1, 2, 3, 12)


@pytest.mark.parametrize(
    ("style", "tokens", "expected"),
    [
        ("hf", 4096, (0.23, 0.26, 0.28, 0.51)),
        ("uniform", 4096, (0.48, 1.00, 1.00, 1.00)),
        ("hf", 16_384, (0.04, 0.04, 0.05, 0.09)),
        ("uniform", 16_384, (0.13, 1.00, 1.00, 1.00)),
        ("uniform", 65_536, (0.03, 0.77, 1.00, 1.00)),
        ("relay", 16_384, (0.00, 1.00, 1.00, 1.00)),
    ],
)
def test_the_reach_of_the_base_shape(style: str, tokens: int, expected: tuple[float, ...]) -> None:
    shares = reach.reach(style, tokens)
    assert [shares[k - 1] for k in AFTER] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("num_heads", [12, 16])  # base and large
def test_relay_connects_every_far_pair_of_a_million_tokens_in_three_layers(num_heads: int) -> None:
    first, second, third = reach.reach("relay", 1_048_576, 3, num_heads=num_heads)
    assert first == 0 and second < 0.1 and third == 1


def test_the_reach_equals_a_product_of_matrices() -> None:
    blocks, layers, shape = 20, 3, {"num_heads": 2, "block_size": 8, "num_random_blocks": 1}
    middle = np.arange(1, blocks - 1)
    far = np.abs(middle[:, None] - middle) > blocks / 8
    depends, expected = np.eye(len(middle), dtype=int), []
    for layer in range(layers):
        pattern = BlockPattern.build(blocks * 8, style="uniform", layer=layer, **shape)
        reads = sum(count_matrix(pattern, head) for head in range(2))[1:-1, 1:-1]
        depends = np.minimum(reads @ depends, 1)
        expected.append(depends[far].mean())
    assert reach.reach("uniform", blocks * 8, layers, **shape) == pytest.approx(expected)
    assert 0 < expected[0] < expected[1] < expected[2] < 1


def test_the_window_alone_reaches_a_block_a_layer() -> None:
    shares = reach.reach("hf", 16 * 8, 14, block_size=8, num_random_blocks=0)
    assert shares[:2] == [0, 0] and 0 < shares[2] < shares[3]  # far: 3 blocks of 16 and more
    assert shares[11] < shares[12] == 1  # from block 1 to block 14


def test_a_sample_of_source_blocks_is_close_and_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = reach.reach("uniform", 16_384, 2)
    monkeypatch.setattr(reach, "MAX_SOURCES", 100)
    assert len(set(reach.source_blocks(256)) - {0, 255}) == 100
    sampled = reach.reach("uniform", 16_384, 2)
    assert sampled == pytest.approx(exact, abs=0.02) and sampled != exact
    assert sampled == reach.reach("uniform", 16_384, 2)
