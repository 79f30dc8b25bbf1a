"""``BigBirdConfig``: the fields and defaults of ``transformers``, plus the random style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bigbird_ds.attention.styles import STYLES
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.activations import ACTIVATIONS
from bigbird_ds.models.config_checks import ATTENTION_TYPES, check_choice, check_range
from bigbird_ds.models.hub_config import HubConfig


@dataclass(kw_only=True)
class BigBirdConfig(HubConfig):
    """Configuration of a BigBird encoder (or decoder).

    Attributes (the others are self-explanatory):
        rescale_embeddings: multiply word embeddings by ``hidden_size ** 0.5``.
        use_bias: whether the query, key and value projections have a bias.
        block_size, num_random_blocks: of block-sparse attention. Inputs of at most
            :attr:`max_full_attention_tokens` tokens use full attention.
        random_style: how random blocks are drawn: ``hf``, ``hf_eval``, ``google``, ``uniform`` or
            ``relay`` (see ``BlockPattern.build``). transformers ignores it and always uses ``hf``.
        attention_probs_dropout_prob: applies to full attention only, as in the original.

    Raises:
        ConfigError: values of the wrong type, out of range, or inconsistent.
    """

    model_type: ClassVar[str] = "big_bird"

    vocab_size: int = 50358
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 4096
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    sep_token_id: int | None = 66
    attention_type: str = "block_sparse"
    use_bias: bool = True
    rescale_embeddings: bool = False
    block_size: int = 64
    num_random_blocks: int = 3
    classifier_dropout: float | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    random_style: str = "hf"

    @property
    def max_full_attention_tokens(self) -> int:
        """Inputs of at most this many tokens use full attention, as in transformers."""
        return (5 + 2 * self.num_random_blocks) * self.block_size

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def head_dropout(self) -> float:
        """Dropout of the classification heads."""
        own = self.classifier_dropout
        return self.hidden_dropout_prob if own is None else own

    def _validate(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "block_size",
        ):
            check_range(name, getattr(self, name), 1, None)
        check_range("num_random_blocks", self.num_random_blocks, 0, None)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0, 1)
        check_choice("hidden_act", self.hidden_act, ACTIVATIONS)
        check_choice("attention_type", self.attention_type, ATTENTION_TYPES)
        check_choice("random_style", self.random_style, STYLES)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                "the hidden size is not a multiple of the number of heads",
                seen=f"hidden_size {self.hidden_size}, {self.num_attention_heads} heads",
                needed="a hidden_size that is a multiple of num_attention_heads",
                change="hidden_size or num_attention_heads",
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigError(
                "the padding id is not in the vocabulary",
                seen=f"pad_token_id {self.pad_token_id}, vocab_size {self.vocab_size}",
                needed=f"0 .. {self.vocab_size - 1}",
                change="pad_token_id or vocab_size",
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ConfigError(
                "cross-attention needs a decoder",
                seen="add_cross_attention true, is_decoder false",
                needed="is_decoder: true",
                change="is_decoder or add_cross_attention",
            )
