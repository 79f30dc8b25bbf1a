"""The layers of a BigBird.

Legend: B = batch, S = sequence length, D = hidden size.
"""

from __future__ import annotations

import torch
from torch import nn

from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.bigbird.layers import BigBirdLayer
from bigbird_ds.models.cache import KeyValueCache
from bigbird_ds.models.layer_stack import EncoderOutput, LayerStack
from bigbird_ds.models.self_attention import AttentionMask, EncoderStates


class BigBirdEncoder(LayerStack):
    """The layers of a BigBird, encoder or decoder."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            BigBirdLayer(config, index) for index in range(config.num_hidden_layers)
        )

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: AttentionMask,
        memory: EncoderStates | None = None,
        cache: KeyValueCache | None = None,
        want_states: bool = False,
        want_weights: bool = False,
    ) -> EncoderOutput:
        """Run the layers on (B, S, D)."""
        return self.run_layers(
            self.layer, hidden, attention_mask, memory, cache, want_states, want_weights
        )
