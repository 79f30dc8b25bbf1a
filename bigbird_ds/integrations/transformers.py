"""Our block-sparse attention inside a BigBird or BigBirdPegasus of ``transformers``.

``use_block_sparse_attention(model)`` replaces the attention module of every encoder layer. The new
module keeps the same projections, so parameters, their names, checkpoints and ``save_pretrained``
do not change. It also replaces GELU activations by fused ones. ``restore(model)`` undoes all
replacements.

What changes: nothing of size N x N is built; ``autocast`` works; a short input, which uses full
attention, does not switch later long inputs to full attention, as it permanently does in
transformers; the weights of ``output_attentions`` sum to 1. What does not change: the results of an
unmodified transformers model, in training and evaluation.

Legend: B = batch, S = sequence length, H = heads, D = hidden size.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bigbird_ds.attention.graph import pattern_attention, pattern_probabilities
from bigbird_ds.attention.recipe import PatternRecipe
from bigbird_ds.attention.styles import STYLES
from bigbird_ds.errors import ConfigError
from bigbird_ds.integrations.activations import fuse_activations, restore_activations
from bigbird_ds.models.config_checks import check_choice

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
        "transformers is missing or of an unsupported version",
        seen=" ".join(str(cause).split()),
        needed="transformers 4.57 to 5, with its BigBird classes",
        change="pip install 'transformers>=4.57,<6'",
    ) from cause

_HOOK = "_bigbird_ds_hook"
_PROJECTIONS = ("query", "key", "value")
_DROPOUT = "dropout"  # a child of the full-attention class (our base), not of their sparse one


def use_block_sparse_attention(model: nn.Module, style: str | None = None) -> Any:
    """Replace the block-sparse attention in every layer of ``model``, in place.

    Tanh-GELU activations are replaced by a fused version.

    Args:
        model: any BigBird or BigBirdPegasus class of transformers. Call this before wrapping the
            model (DDP, DeepSpeed) or compiling it.
        style: the random style. None: that of the model's config, ``random_style``, which our
            exports have; without one ``hf``, which matches transformers.

    Returns:
        ``model``.

    Raises:
        ConfigError: the model has no block-sparse attention, its attention is already replaced, or
            the structure of this version of transformers is unknown.
    """
    found = [
        (encoder, family)
        for encoder, family in _encoders(model)
        if encoder.config.attention_type == "block_sparse" and not encoder.config.is_decoder
    ]
    if not found:
        raise ConfigError(
            "the model has no block-sparse attention to replace",
            seen=type(model).__name__,
            needed="a BigBird or BigBirdPegasus encoder with attention_type 'block_sparse'",
            change="the model, or leave out use_block_sparse_attention",
        )
    for encoder, family in found:
        if hasattr(encoder, _HOOK):
            raise ConfigError(
                "the attention is already replaced",
                seen=f"use_block_sparse_attention on the same {type(model).__name__} again",
                needed="one call",
                change="leave out the second call, or restore(model) first",
            )
        _require_known_structure(encoder, family)
        check_choice("style", _style_of(encoder, style), STYLES)
    for encoder, family in found:
        for index, layer in enumerate(encoder.get_submodule(family.layers)):
            theirs = getattr(layer, family.attention)
            ours = family.replacement(theirs, encoder.config, index, _style_of(encoder, style))
            setattr(layer, family.attention, ours)
        hook = encoder.register_forward_pre_hook(_choose_attention, with_kwargs=True)
        setattr(encoder, _HOOK, hook)
    fuse_activations(model)
    return model


def _style_of(encoder: Any, style: str | None) -> str:
    return getattr(encoder.config, "random_style", "hf") if style is None else style


def accelerate(model: nn.Module, style: str | None = None) -> Any:
    """:func:`use_block_sparse_attention` under its former name; warns."""
    warnings.warn(
        "bigbird_ds.integrations.transformers.accelerate is now use_block_sparse_attention",
        FutureWarning,
        stacklevel=2,
    )
    return use_block_sparse_attention(model, style)


def restore(model: nn.Module) -> Any:
    """Undo :func:`use_block_sparse_attention`, in place; keep the weights and projections.

    Adapters (LoRA) and quantized layers that have replaced a projection since then are kept.

    Raises:
        ConfigError: nothing is replaced in ``model``.
    """
    found = [pair for pair in _encoders(model) if hasattr(pair[0], _HOOK)]
    if not found:
        raise ConfigError(
            "nothing to undo",
            seen=f"an unmodified {type(model).__name__}",
            needed="a model on which use_block_sparse_attention was called",
            change="leave out restore",
        )
    for encoder, _ in found:
        getattr(encoder, _HOOK).remove()
        delattr(encoder, _HOOK)
        for parent, name, ours in _found_in(encoder, _Attention):
            (theirs,) = ours.replaced
            _give_back(ours, theirs)
            setattr(parent, name, theirs)
            encoder.attention_type = theirs.attention_type
    restore_activations(model)
    return model


def _give_back(ours: Any, theirs: Any) -> None:
    """Move the current child modules of ``ours`` into ``theirs``."""
    their_self = theirs.self
    for parent, name, our_self in _found_in(ours, _SelfAttention):
        _move_children(our_self, their_self)
        setattr(parent, name, their_self)
    _move_children(ours, theirs)


def _move_children(ours: nn.Module, theirs: nn.Module) -> None:
    for name, child in ours.named_children():
        if name != _DROPOUT:
            setattr(theirs, name, child)
    theirs.training = ours.training


def _found_in(root: nn.Module, kind: type[Any]) -> list[tuple[nn.Module, str, Any]]:
    """Every module of ``kind`` inside ``root``, as (parent, name, module)."""
    return [
        (parent, name, child)
        for parent in root.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]


class _SelfAttention(nn.Module):
    """Our block-sparse attention for long inputs; transformers' full attention for short ones.

    A mixin for subclasses of transformers' full-attention class: transformers records the attention
    weights of that class.
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
        """Return the context (B, S, D) and the weights (B, H, S, S) or None.

        Args:
            attention_mask: additive mask of full attention.
            to_mask: (B, 1, 1, S), nonzero for non-padding tokens; given for block-sparse inputs.
            output_attentions: whether to return block-sparse weights; None: as in the config.
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
    """Replaces transformers' attention module, with the same parameters and names.

    The masks of a call, not a state, decide whether it is block-sparse, so activation checkpointing
    recomputes the same.
    """

    self_class: type[Any]

    def __init__(self, theirs: Any, config: Any, layer: int, style: str) -> None:
        nn.Module.__init__(self)  # not that of transformers, which would create new weights
        with torch.device("meta"):  # its projections are replaced immediately
            self.self = self.self_class(config, layer_idx=layer)
        self.self.prepare(theirs.self, config, layer, style)
        self.output = theirs.output
        self.replaced = (theirs,)  # in a tuple, so that it is not registered as a submodule
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
        """Attention, projection and, in BigBird, residual and norm; other masks are unused."""
        context, weights = self.self(hidden_states, attention_mask, to_mask, output_attentions)
        return self.project(context, hidden_states), weights

    @abstractmethod
    def project(self, context: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the output (B, S, D) from the context and the attention's input."""

    def set_attention_type(self, value: str, layer_idx: int | None = None) -> None:
        """Not supported: the length of the input decides which attention is used."""
        raise ConfigError(
            "in an accelerated model the input length selects the attention",
            seen=f"set_attention_type({value!r})",
            needed="the original model of transformers",
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
    """Where a model family keeps its attention.

    Attributes:
        encoder: the class that chooses between full and block-sparse attention.
        layers, attention: path of its layers, and name of the attention in a layer.
        attention_class, replacement: their class and ours.
    """

    encoder: type[nn.Module]
    layers: str
    attention: str
    attention_class: type[nn.Module]
    replacement: type[_Attention]


# The arguments of transformers' attention that ours uses, passed by name. The others (block masks;
# the cache, whose name depends on the release) do not affect the result.
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
    """Forward pre-hook: choose full or block-sparse attention by the length of this input.

    Sets the encoder's own attribute, from which it builds the masks, and which it would otherwise
    set to full attention permanently at the first short input.
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
            "unknown structure of the model",
            seen=f"{type(encoder).__name__} of transformers {transformers.__version__}",
            needed=f"layers at {family.layers!r}, each with {family.attention!r}, a "
            f"{family.attention_class.__name__} with {', '.join(sorted(_USED_ARGUMENTS))}",
            change="use a supported version of transformers, or leave out "
            "use_block_sparse_attention",
        )
