"""``BigBirdModel``: embeddings, encoder and pooler.

Legend: B = batch, S = sequence length, H = heads, D = hidden size.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_ds.attention.full import full_bias
from bigbird_ds.errors import ConfigError
from bigbird_ds.models.configuration import BigBirdConfig
from bigbird_ds.models.layers import BigBirdEmbeddings, BigBirdEncoder, Visibility
from bigbird_ds.models.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from bigbird_ds.models.pretrained import PretrainedModel


class BigBirdPreTrainedModel(PretrainedModel):
    """Base of all BigBird classes."""

    config_class = BigBirdConfig
    base_prefix: ClassVar[str] = "bert"
    part_names: ClassVar[tuple[str, ...]] = (
        "pooler",
        "cls.predictions",
        "cls.seq_relationship",
        "classifier",
        "qa_classifier",
    )

    config: BigBirdConfig


class BigBirdModel(BigBirdPreTrainedModel):
    """The encoder: token ids to hidden states.

    Args:
        config: of the model.
        add_pooling_layer: whether there is a pooler on the first token.
    """

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BigBirdEmbeddings(config)
        self.encoder = BigBirdEncoder(config)
        self.pooler = (
            nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        )
        self.finish_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple:
        """Hidden states of a batch.

        Inputs longer than ``config.max_full_attention_tokens`` are attended to block-sparsely,
        padded inside to a multiple of the block size; shorter ones in full.

        Args:
            input_ids: (B, S) int64; or give ``inputs_embeds``, (B, S, D).
            attention_mask: (B, S), bool, integer or float, nonzero for real tokens; None: all real.
            token_type_ids: (B, S) int64, default 0.
            position_ids: (B, S) or (1, S) int64, default 0 .. S - 1.
            output_attentions: also return the attention weights, (B, H, S, S) a layer. Quadratic.
            output_hidden_states: also return the states before the first and after each layer.
            return_dict: an object with named fields (default), or a plain tuple.

        Raises:
            ConfigError: neither or both of ``input_ids`` and ``inputs_embeds``, or more tokens than
                positions.
        """
        config = self.config
        given = _first_given(input_ids, inputs_embeds)
        batch, seq_len = given.shape[:2]
        sparse = (
            config.attention_type == "block_sparse" and seq_len > config.max_full_attention_tokens
        )
        padding = -seq_len % config.block_size if sparse else 0
        self._check_length(seq_len + padding)
        if token_type_ids is None:
            token_type_ids = torch.zeros(batch, seq_len, dtype=torch.long, device=given.device)
        if position_ids is None:
            position_ids = torch.arange(seq_len + padding, device=given.device)[None]
        elif padding:
            position_ids = F.pad(position_ids, (0, padding))
        if padding:
            pad_token = config.pad_token_id or 0
            if attention_mask is None:
                attention_mask = torch.ones(batch, seq_len, dtype=torch.bool, device=given.device)
            attention_mask = F.pad(attention_mask, (0, padding))
            token_type_ids = F.pad(token_type_ids, (0, padding))
            if input_ids is not None:
                input_ids = F.pad(input_ids, (0, padding), value=pad_token)
            if inputs_embeds is not None:
                inputs_embeds = F.pad(inputs_embeds, (0, 0, 0, padding))

        hidden = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        if sparse:
            sees = Visibility(sparse=True, mask=attention_mask)
        else:
            bias = full_bias(attention_mask, False, seq_len, seq_len, hidden)
            sees = Visibility(sparse=False, bias=bias)
        hidden, states, weights = self.encoder(
            hidden,
            sees,
            want_states=_chosen(output_hidden_states, config.output_hidden_states),
            want_weights=_chosen(output_attentions, config.output_attentions),
        )
        pooled = None if self.pooler is None else torch.tanh(self.pooler(hidden[:, 0]))
        output = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden[:, :seq_len],
            pooler_output=pooled,
            hidden_states=states and tuple(state[:, :seq_len] for state in states),
            attentions=weights and tuple(part[:, :, :seq_len, :seq_len] for part in weights),
        )
        return self.packed(output, return_dict)

    def _check_length(self, padded: int) -> None:
        if padded > self.config.max_position_embeddings:
            raise ConfigError(
                "the input is longer than the model has positions for",
                seen=f"{padded} tokens (padded to a multiple of block_size)",
                needed=f"at most {self.config.max_position_embeddings} (max_position_embeddings)",
                change="the sequence length, or import the model with more positions",
            )


def _first_given(
    input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None
) -> torch.Tensor:
    if input_ids is not None and inputs_embeds is None:
        return input_ids
    if inputs_embeds is not None and input_ids is None:
        return inputs_embeds
    raise ConfigError(
        "a model takes token ids or word vectors",
        seen="neither" if input_ids is None else "both input_ids and inputs_embeds",
        needed="one of input_ids, inputs_embeds",
        change="the arguments of forward",
    )


def _chosen(argument: bool | None, default: bool) -> bool:
    return default if argument is None else argument
