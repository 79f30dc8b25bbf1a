"""What a plan and the start of a run say about the reach of the model's pattern."""

from __future__ import annotations

from bigbird_ds.attention.reach import MAX_SOURCES, reach
from bigbird_ds.training.families import ModelConfig

REACHING = "uniform"  # of new models above LONGEST_OF_HF, and what warnings suggest
LONGEST_OF_HF = 4096  # tokens; up to here the default is the pattern of transformers
ENOUGH = 0.5  # of the far block pairs, after all layers


def reach_line(model_config: ModelConfig, sequence_length: int) -> str | None:
    """The line of ``bigbird-ds plan``; None where attention is full.

    Raises:
        ConfigError: the style cannot draw at this length, so the run would fail.
    """
    if not _is_block_sparse(model_config, sequence_length):
        return None
    shares = model_reach(model_config, sequence_length)
    few = min(3, len(shares))
    line = (
        f"reach: style {model_config.random_style} connects {shares[few - 1]:.0%} of far block "
        f"pairs after {few} layer(s)"
    )
    if len(shares) > few:
        line += f", {shares[-1]:.0%} after {len(shares)}"
    if model_config.random_style != REACHING:
        best = model_reach(model_config.replace(random_style=REACHING), sequence_length)
        line += f" ({REACHING}: {best[few - 1]:.0%}"
        line += f", {best[-1]:.0%})" if len(best) > few else ")"
    if (blocks := -(-sequence_length // model_config.block_size)) - 2 > MAX_SOURCES:
        line += f"; {MAX_SOURCES:,} of {blocks:,} blocks sampled"
    return line


def reach_warning(model_config: ModelConfig, sequence_length: int) -> str | None:
    """What to say of a model whose layers connect less than half of the far block pairs.

    Raises:
        ConfigError: see :func:`reach_line`.
    """
    if not _is_block_sparse(model_config, sequence_length):
        return None
    share = model_reach(model_config, sequence_length)[-1]
    if share >= ENOUGH:
        return None
    if model_config.num_random_blocks == 0:
        change = f"model.num_random_blocks=3 model.random_style={REACHING}"
    elif model_config.random_style != REACHING:
        change = f"model.random_style={REACHING}"
    else:
        change = "more layers, or a larger model.num_random_blocks"
    return (
        f"random style {model_config.random_style} connects {share:.0%} of the far block pairs "
        f"of {sequence_length:,} tokens after all {model_config.num_hidden_layers} layers, the "
        f"others only through the two global blocks (change: {change}; see docs/random_styles.md)"
    )


def model_reach(model_config: ModelConfig, sequence_length: int) -> list[float]:
    """``reach`` of the model's encoder in training, at ``sequence_length`` padded to blocks."""
    length = -(-sequence_length // model_config.block_size) * model_config.block_size
    return reach(
        model_config.random_style,
        length,
        model_config.num_hidden_layers,
        num_heads=model_config.num_attention_heads,
        block_size=model_config.block_size,
        num_random_blocks=model_config.num_random_blocks,
        max_positions=max(model_config.max_position_embeddings, length),
    )


def _is_block_sparse(model_config: ModelConfig, sequence_length: int) -> bool:
    return (
        model_config.attention_type == "block_sparse"
        and sequence_length > model_config.max_full_attention_tokens
    )
