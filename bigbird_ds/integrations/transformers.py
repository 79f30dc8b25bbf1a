"""Our block-sparse attention inside a BigBird or BigBirdPegasus of ``transformers``.

``accelerate(model)`` puts, in every encoder layer, a module of ours in the place of the attention.
It holds the very same projections: parameters, their names, checkpoints and ``save_pretrained`` are
as before. The activations become one operation each. ``restore(model)`` puts the replaced modules
back.

What changes: nothing of size N x N is built; ``autocast`` works; an input that is short enough for
full attention leaves the next long one block-sparse, where transformers stays in full attention for
good; the weights of ``output_attentions`` sum to 1. What does not change: the numbers of a fresh
model of transformers, in training and in evaluation.

Legend: B = batch, S = sequence length, H = heads, D = hidden size.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bigbird_ds.attention.graph import pattern_attention, pattern_probabilities
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.errors import ConfigError
from bigbird_ds.integrations.activations import fuse_activations, restore_activations

try:
    from transformers.models.big_bird.modeling_big_bird import (
        BigBirdAttention,
        BigBirdModel,
        BigBirdSelfAttention,
    )
    from transformers.models.bigbird_pegasus.modeling_bigbird_pegasus import (
        BigBirdPegasusEncoder,
        BigBirdPegasusEncoderAttention,
        BigBirdPegasusSelfAttention,
    )
except ImportError as cause:
    raise ConfigError(
        "transformers is not there, or not as this module knows it",
        seen=" ".join(str(cause).split()),
        needed="transformers 4.57 to 5, with its BigBird classes",
        change="pip install 'transformers>=4.57,<6'",
    ) from cause

_HOOK = "_bigbird_ds_hook"
_PROJECTIONS = ("query", "key", "value")


def accelerate(model: nn.Module, style: str = "hf") -> Any:
    """Replace the block-sparse attention in every layer of ``model``, in place.

    Its activations, where they are the tanh form of GELU, are replaced by the same in one
    operation.

    Args:
        model: any BigBird or BigBirdPegasus class of transformers. Call this before wrapping the
            model (DDP, DeepSpeed) or compiling it.
        style: which random blocks are read. ``hf`` is what transformers does. A model that was
            pretrained with another ``random_style`` reads what it did then with
            ``style=model.config.random_style``.

    Returns:
        ``model`` itself.

    Raises:
        ConfigError: there is no block-sparse attention in it, it is replaced already, or this
            version of transformers is built in another way than the known one.
    """
    found = [
        (encoder, family)
        for encoder, family in _encoders(model)
        if encoder.config.attention_type == "block_sparse" and not encoder.config.is_decoder
    ]
    if not found:
        raise ConfigError(
            "there is no block-sparse attention to replace",
            seen=type(model).__name__,
            needed="a BigBird or BigBirdPegasus encoder with attention_type 'block_sparse'",
            change="the model, or leave out accelerate",
        )
    for encoder, family in found:
        if hasattr(encoder, _HOOK):
            raise ConfigError(
                "the attention is replaced already",
                seen=f"accelerate on the same {type(model).__name__} again",
                needed="one call",
                change="leave out the second call, or restore(model) first",
            )
        _require_known_structure(encoder, family)
    for encoder, family in found:
        for index, layer in enumerate(encoder.get_submodule(family.layers)):
            theirs = getattr(layer, family.attention)
            ours = family.replacement(theirs, encoder.config, index, style)
            setattr(layer, family.attention, ours)
        hook = encoder.register_forward_pre_hook(_choose_attention, with_kwargs=True)
        setattr(encoder, _HOOK, hook)
    fuse_activations(model)
    return model


def restore(model: nn.Module) -> Any:
    """Undo :func:`accelerate`, in place; the weights stay what they have become.

    Raises:
        ConfigError: nothing is replaced in ``model``.
    """
    found = [pair for pair in _encoders(model) if hasattr(pair[0], _HOOK)]
    if not found:
        raise ConfigError(
            "there is nothing to undo",
            seen=f"a {type(model).__name__} as transformers made it",
            needed="a model that accelerate was called on",
            change="leave out restore",
        )
    for encoder, family in found:
        getattr(encoder, _HOOK).remove()
        delattr(encoder, _HOOK)
        for layer in encoder.get_submodule(family.layers):
            ours = getattr(layer, family.attention)
            (theirs,) = ours.replaced
            setattr(layer, family.attention, theirs.train(ours.training))
            encoder.attention_type = theirs.attention_type
    restore_activations(model)
    return model


class _SelfAttention(nn.Module):
    """Ours where the input is block-sparse; else what transformers does in full.

    Mixed into transformers' module for full attention, which it knows to record weights from.
    """

    num_attention_heads: int
    query: nn.Module
    key: nn.Module
    value: nn.Module

    def prepare(self, theirs: Any, config: Any, layer: int, style: str) -> None:
        """Take over the projections and hooks of ``theirs``."""
        for name in _PROJECTIONS:
            setattr(self, name, getattr(theirs, name))
        self._forward_hooks = theirs._forward_hooks  # those that record attention weights
        self.config, self.layer, self.style = config, layer, style

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        to_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, S, D) to the context (B, S, D); the weights are (B, H, S, S).

        Args:
            attention_mask: added to the scores of full attention.
            to_mask: (B, 1, 1, S), nonzero for real tokens; given where block-sparse.
            output_attentions: whether block-sparse weights are wanted; None: as the config says.
        """
        if to_mask is None:
            full: tuple[torch.Tensor, torch.Tensor] = super().forward(hidden_states, attention_mask)
            return full
        q, k, v = (
            project(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        recipe, mask = self._recipe(), to_mask[:, 0, 0]
        context = pattern_attention(q, k, v, recipe, mask)
        wanted = self.config.output_attentions if output_attentions is None else output_attentions
        weights = pattern_probabilities(q, k, recipe, mask) if wanted else None
        return context.transpose(1, 2).flatten(2), weights

    def _recipe(self) -> PatternRecipe:
        return PatternRecipe(
            num_heads=self.num_attention_heads,
            block_size=self.config.block_size,
            num_random_blocks=self.config.num_random_blocks,
            style=self.style,
            layer=self.layer,
            training=self.training,
            max_positions=self.config.max_position_embeddings,
        )


class _BigBirdSelfAttention(_SelfAttention, BigBirdSelfAttention):
    pass


class _PegasusSelfAttention(_SelfAttention, BigBirdPegasusSelfAttention):
    pass


class _Attention(nn.Module, ABC):
    """In the place of transformers' attention module, with the same parameters and their names.

    Whether it is block-sparse follows from the masks of the call and not from a state, so a layer
    that is computed again in the backward pass does what it did before.
    """

    self_class: type[Any]

    def __init__(self, theirs: Any, config: Any, layer: int, style: str) -> None:
        nn.Module.__init__(self)  # not that of transformers, which would make new weights
        with torch.device("meta"):  # its projections are replaced at once
            self.self = self.self_class(config, layer_idx=layer)
        self.self.prepare(theirs.self, config, layer, style)
        self.output = theirs.output
        self.replaced = (theirs,)  # in a tuple, or it would be a submodule
        self._forward_hooks = theirs._forward_hooks
        self.train(theirs.training)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        to_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention, projection and, in BigBird, residual and norm; the other masks go unused."""
        context, weights = self.self(hidden_states, attention_mask, to_mask, output_attentions)
        return self.project(context, hidden_states), weights

    @abstractmethod
    def project(self, context: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """The layer's output (B, S, D) from the context and from what attention read."""

    def set_attention_type(self, value: str, layer_idx: int | None = None) -> None:
        """Refused: which attention is used follows from the length of the input."""
        raise ConfigError(
            "in an accelerated model the attention follows from the length of the input",
            seen=f"set_attention_type({value!r})",
            needed="the model as transformers made it",
            change="call restore(model) first",
        )


class _BigBirdAttention(_Attention, BigBirdAttention):
    self_class = _BigBirdSelfAttention

    def project(self, context: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output(context, hidden_states)


class _PegasusAttention(_Attention, BigBirdPegasusEncoderAttention):
    self_class = _PegasusSelfAttention

    def project(self, context: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output(context)


@dataclass(frozen=True)
class _Family:
    """Where a family of models keeps its attention.

    Attributes:
        encoder: the class that chooses between full and block-sparse attention.
        layers, attention: path of its layers, and name of the attention in one.
        attention_class, replacement: theirs and ours.
    """

    encoder: type[nn.Module]
    layers: str
    attention: str
    attention_class: type[nn.Module]
    replacement: type[_Attention]


# The arguments of transformers' attention that ours uses. transformers passes them by name. The
# others (block masks; the cache, whose name depends on the release) have no effect on the result.
_USED_ARGUMENTS = frozenset({"hidden_states", "attention_mask", "to_mask"})

_FAMILIES = (
    _Family(
        encoder=BigBirdModel,
        layers="encoder.layer",
        attention="attention",
        attention_class=BigBirdAttention,
        replacement=_BigBirdAttention,
    ),
    _Family(
        encoder=BigBirdPegasusEncoder,
        layers="layers",
        attention="self_attn",
        attention_class=BigBirdPegasusEncoderAttention,
        replacement=_PegasusAttention,
    ),
)


def _encoders(model: nn.Module) -> Iterator[tuple[Any, _Family]]:
    for module in model.modules():
        for family in _FAMILIES:
            if isinstance(module, family.encoder):
                yield module, family


def _choose_attention(encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Before each forward pass: full or block-sparse by the length of this input alone.

    In the encoder's own attribute, which it reads to make the masks; it would set it to full for
    good at the first short input.
    """
    inputs = kwargs.get("input_ids", args[0] if args else None)
    if inputs is None:
        inputs = kwargs.get("inputs_embeds")
    if inputs is not None:
        config = encoder.config
        is_long = inputs.shape[1] > (5 + 2 * config.num_random_blocks) * config.block_size
        encoder.attention_type = "block_sparse" if is_long else "original_full"


def _require_known_structure(encoder: Any, family: _Family) -> None:
    arguments = inspect.signature(family.attention_class.forward).parameters
    known = arguments.keys() >= _USED_ARGUMENTS
    try:
        attentions = [
            getattr(layer, family.attention) for layer in encoder.get_submodule(family.layers)
        ]
        known = known and all(
            isinstance(attention, family.attention_class)
            and isinstance(attention.output, nn.Module)
            and all(isinstance(getattr(attention.self, n), nn.Module) for n in _PROJECTIONS)
            for attention in attentions
        )
    except AttributeError:
        known = False
    if not known:
        import transformers

        raise ConfigError(
            "this model is built in another way than the one that is known",
            seen=f"{type(encoder).__name__} of transformers {transformers.__version__}",
            needed=f"layers at {family.layers!r}, each with {family.attention!r}, a "
            f"{family.attention_class.__name__} that takes {', '.join(sorted(_USED_ARGUMENTS))}",
            change="the version of transformers, or leave out accelerate",
        )
