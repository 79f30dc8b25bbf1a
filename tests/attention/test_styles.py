"""What each style draws, compared with transformers and with the paper."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import transformers
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

from bigbird_ds.attention.styles import DrawRequest, draw_random_blocks
from bigbird_ds.errors import ConfigError

# seq_len, heads, block size, random blocks, max_positions, layer
HF_CASES = [
    (1024, 4, 64, 3, 4096, 0),
    (1024, 2, 16, 3, 4096, 5),
    (1024, 2, 16, 3, 1024, 5),
    (3072, 2, 64, 3, 4096, 1),
    (3072, 2, 192, 2, 4096, 0),  # a row with one candidate for two slots: it fills both
    (4096, 12, 64, 3, 4096, 2),
    (4096, 3, 128, 2, 4096, 11),
    (3072, 2, 512, 1, 4096, 6),  # two blocks in the first 1,024 tokens: drawn from all blocks
    (768, 2, 64, 3, 4096, 1),
    (1280, 2, 64, 2, 4096, 3),
    (2048, 3, 64, 3, 4096, 7),
    (8192, 2, 64, 3, 8192, 1),
    (200, 3, 8, 10, 256, 4),  # short: the plan's other two branches
    (64, 3, 8, 3, 128, 4),
]


def drawn_by_transformers(
    seq_len: int, heads: int, size: int, wanted: int, max_positions: int, layer: int
) -> np.ndarray:
    """``rand_attn`` of transformers in training, from its own functions in its own order."""
    config = transformers.BigBirdConfig(
        num_attention_heads=heads,
        hidden_size=heads * 8,
        block_size=size,
        num_random_blocks=wanted,
        max_position_embeddings=max_positions,
    )
    module = BigBirdBlockSparseAttention(config, seed=layer).train()
    np.random.seed(layer)  # its functions draw only from numpy's global generator
    if seq_len in (1024, 3072, 4096):
        drawn = [
            module._bigbird_block_rand_mask(
                max_positions, max_positions, size, size, wanted, last_idx=1024
            )[: seq_len // size - 2]
            for _ in range(heads)
        ]
    else:
        lengths, counts = module._get_rand_attn_plan(seq_len, size, wanted)
        drawn = module._bigbird_block_rand_mask_with_head(
            seq_len, seq_len, size, size, heads, lengths, counts
        )
    return np.stack(drawn)


@pytest.mark.parametrize("case", HF_CASES)
def test_hf_in_training_draws_what_transformers_draws(case: tuple[int, ...]) -> None:
    seq_len, heads, size, wanted, max_positions, layer = case
    request = DrawRequest(seq_len, heads, size, wanted, layer, max_positions)
    ours = draw_random_blocks("hf", request, training=True)
    np.testing.assert_array_equal(ours, drawn_by_transformers(*case))


@pytest.mark.parametrize("style,training", [("hf", False), ("hf_eval", False), ("hf_eval", True)])
def test_evaluation_of_hf_repeats_block_zero(style: str, training: bool) -> None:
    request = DrawRequest(1024, 12, 64, 3, 0, 4096)
    drawn = draw_random_blocks(style, request, training)
    np.testing.assert_array_equal(drawn, np.zeros((1, 14, 3)))


def test_google_draws_the_same_in_training_and_evaluation() -> None:
    request = DrawRequest(1280, 4, 64, 3, 2, 4096)
    np.testing.assert_array_equal(
        draw_random_blocks("google", request, True), draw_random_blocks("google", request, False)
    )


@pytest.mark.parametrize("seq_len", [768, 1024, 1536, 3072, 4096])
def test_google_equals_hf_in_training_but_at_2048(seq_len: int) -> None:
    request = DrawRequest(seq_len, 4, 64, 3, 2, 4096)
    np.testing.assert_array_equal(
        draw_random_blocks("google", request, True), draw_random_blocks("hf", request, True)
    )


def test_google_at_2048_draws_the_first_rows_of_4096_and_ignores_max_positions() -> None:
    at_2048 = draw_random_blocks("google", DrawRequest(2048, 4, 64, 3, 2, 9999), True)
    at_4096 = draw_random_blocks("google", DrawRequest(4096, 4, 64, 3, 2, 4096), True)
    np.testing.assert_array_equal(at_2048, at_4096[:, :30])
    hf = draw_random_blocks("hf", DrawRequest(2048, 4, 64, 3, 2, 4096), True)
    assert hf.max() == 9 and at_2048.max() > 9


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("case", "digest"),
    [
        ((1024, 12, 64, 3, 0), "868d9dcb71bb7057"),
        ((2048, 12, 64, 3, 5), "edbb3cb483ec0d1c"),
        ((3072, 12, 64, 3, 11), "85a121db3ce2719a"),
        ((4096, 16, 64, 3, 23), "d1c90e499064a76c"),
        ((1280, 12, 64, 3, 1), "1d89acfb69191c44"),
        ((16384, 2, 64, 3, 7), "a864bd75907469a8"),
        ((4096, 2, 128, 2, 3), "714e1c45fbfc25d9"),
    ],
)
def test_google_draws_the_bits_of_the_original_program(
    case: tuple[int, ...], digest: str, training: bool
) -> None:
    """The digests are of patterns drawn once with google-research/bigbird's own functions."""
    drawn = draw_random_blocks("google", DrawRequest(*case, max_positions=512), training)
    assert drawn.dtype == np.int32
    assert hashlib.sha256(np.ascontiguousarray(drawn)).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    "seq_len,size,wanted", [(4096, 64, 3), (320, 8, 5), (64, 8, 3), (48, 8, 1)]
)
def test_uniform_never_draws_a_block_that_is_already_read(
    seq_len: int, size: int, wanted: int
) -> None:
    request = DrawRequest(seq_len, 6, size, wanted, 1, 4096)
    drawn = draw_random_blocks("uniform", request, True)
    n = request.num_blocks
    assert drawn.shape == (6, n - 2, wanted)
    for head in range(6):
        for row in range(1, n - 1):
            blocks = drawn[head, row - 1].tolist()
            assert len(set(blocks)) == wanted
            assert not set(blocks) & {0, row - 1, row, row + 1, n - 1}
            assert all(0 < block < n - 1 for block in blocks)


def test_uniform_draws_every_free_block_equally_often() -> None:
    request = DrawRequest(16 * 8, 4000, 8, 2, 0, 4096)
    drawn = draw_random_blocks("uniform", request, True)
    row = 6
    counts = np.bincount(drawn[:, row - 1].reshape(-1), minlength=16)
    free = [block for block in range(16) if block not in (0, 5, 6, 7, 15)]
    assert counts.sum() == counts[free].sum()
    expected = 8000 / len(free)
    # five standard deviations of a binomial count
    assert np.abs(counts[free] - expected).max() < 5 * expected**0.5


def test_uniform_differs_by_layer_and_head() -> None:
    first, second = (
        draw_random_blocks("uniform", DrawRequest(4096, 2, 64, 3, layer, 4096), True)
        for layer in (0, 1)
    )
    assert (first != second).any() and (first[0] != first[1]).any()


@pytest.mark.parametrize("style", ["hf", "google", "uniform", "relay", "hf_eval"])
def test_no_random_blocks_is_a_pattern_too(style: str) -> None:
    drawn = draw_random_blocks(style, DrawRequest(1024, 3, 64, 0, 0, 4096), True)
    assert drawn.shape == (1, 14, 0)


@pytest.mark.parametrize("style", ["hf", "google", "uniform", "relay"])
def test_drawing_touches_no_global_generator(style: str) -> None:
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    draw_random_blocks(style, DrawRequest(1024, 2, 64, 3, 0, 4096), True)
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])
    assert torch.equal(torch_before, torch.get_rng_state())


@pytest.mark.parametrize(
    "style,request_",
    [
        ("hf", DrawRequest(4096, 2, 256, 3, 0, 4096)),
        ("google", DrawRequest(4096, 2, 256, 3, 0, 4096)),
        ("hf", DrawRequest(56, 2, 8, 3, 0, 4096)),
        ("uniform", DrawRequest(56, 2, 8, 3, 0, 4096)),
        ("relay", DrawRequest(56, 2, 8, 3, 0, 4096)),
    ],
)
def test_an_impossible_draw_says_what_to_change(style: str, request_: DrawRequest) -> None:
    with pytest.raises(ConfigError, match="too few candidate blocks") as caught:
        draw_random_blocks(style, request_, True)
    assert "block_size" in caught.value.change
    named = "uniform" in caught.value.change
    if request_.num_blocks > 7:
        assert named and draw_random_blocks("uniform", request_, True).size
    else:
        assert not named  # it cannot draw there either


def test_hf_refuses_a_length_beyond_its_positions() -> None:
    with pytest.raises(ConfigError, match="longer than the model has positions"):
        draw_random_blocks("hf", DrawRequest(4096, 2, 64, 3, 0, 1024), True)
