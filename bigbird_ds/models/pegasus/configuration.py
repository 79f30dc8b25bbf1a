"""``BigBirdPegasusConfig``: transformers' fields and defaults, plus the random style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bigbird_ds.attention.styles import STYLES
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.activations import ACTIVATIONS
from bigbird_ds.models.config_checks import ATTENTION_TYPES, check_choice, check_range
from bigbird_ds.models.hub_config import HubConfig


@dataclass(kw_only=True)
class BigBirdPegasusConfig(HubConfig):
    """Configuration of a BigBirdPegasus encoder-decoder.

    The encoder uses block-sparse attention, the decoder full attention.

    Attributes (the others are self-explanatory):
        max_position_embeddings: size of the position tables, one each for encoder and decoder.
        attention_dropout: applies to full attention only, as in the original.
        activation_dropout: in the decoder's feed-forward networks only.
        encoder_layerdrop, decoder_layerdrop: must be 0, as in every released model.
        scale_embedding: multiply word embeddings by ``d_model ** 0.5``.
        use_bias: whether the attention projections have a bias.
        decoder_start_token_id: the decoder's first input token.
        random_style: see ``BigBirdConfig``.
        is_decoder, is_encoder_decoder: true and false only for ``BigBirdPegasusForCausalLM``.

    Raises:
        ConfigError: values of the wrong type, out of range, or inconsistent.
    """

    model_type: ClassVar[str] = "bigbird_pegasus"

    vocab_size: int = 96103
    max_position_embeddings: int = 4096
    d_model: int = 1024
    encoder_layers: int = 16
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_layers: int = 16
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu_new"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    classifier_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    use_cache: bool = True
    pad_token_id: int = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int = 2
    attention_type: str = "block_sparse"
    block_size: int = 64
    num_random_blocks: int = 3
    use_bias: bool = False
    is_decoder: bool = False
    is_encoder_decoder: bool = True  # type: ignore[misc]
    tie_word_embeddings: bool = True
    random_style: str = "hf"

    # The encoder's shape under the names that shared code uses.

    @property
    def hidden_size(self) -> int:
        return self.d_model

    @property
    def num_hidden_layers(self) -> int:
        return self.encoder_layers

    @property
    def num_attention_heads(self) -> int:
        return self.encoder_attention_heads

    @property
    def intermediate_size(self) -> int:
        return self.encoder_ffn_dim

    @property
    def attention_probs_dropout_prob(self) -> float:
        return self.attention_dropout

    @property
    def initializer_range(self) -> float:
        return self.init_std

    @property
    def max_full_attention_tokens(self) -> int:
        """Inputs of at most this many tokens use full attention, as in transformers."""
        return (5 + 2 * self.num_random_blocks) * self.block_size

    @property
    def word_scale(self) -> float:
        """The factor of the word embeddings."""
        return self.d_model**0.5 if self.scale_embedding else 1.0

    def _validate(self) -> None:
        for name in (
            "vocab_size",
            "max_position_embeddings",
            "d_model",
            "encoder_layers",
            "encoder_attention_heads",
            "encoder_ffn_dim",
            "decoder_layers",
            "decoder_attention_heads",
            "decoder_ffn_dim",
            "block_size",
        ):
            check_range(name, getattr(self, name), 1, None)
        check_range("num_random_blocks", self.num_random_blocks, 0, None)
        for name in ("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("encoder_layerdrop", "decoder_layerdrop"):
            check_range(name, getattr(self, name), 0, 0)
        check_choice("activation_function", self.activation_function, ACTIVATIONS)
        check_choice("attention_type", self.attention_type, ATTENTION_TYPES)
        check_choice("random_style", self.random_style, STYLES)
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, name):
                raise ConfigError(
                    "the hidden size is not a multiple of the number of heads",
                    seen=f"d_model {self.d_model}, {name} {getattr(self, name)}",
                    needed=f"a d_model that is a multiple of {name}",
                    change=f"d_model or {name}",
                )
        for name in ("pad_token_id", "decoder_start_token_id"):
            check_range(name, getattr(self, name), 0, self.vocab_size - 1)
