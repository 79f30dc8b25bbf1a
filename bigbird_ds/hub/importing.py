"""Import a Hub checkpoint: BigBird and BigBird-Pegasus as they are, BERT and RoBERTa converted.

The result is a Hub-format folder (config.json, model.safetensors, the tokenizer's files) with an
``import_report.json``. It loads in ``transformers``, and starts a run as ``model: FOLDER``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigbird_ds import files
from bigbird_ds.attention.styles import STYLES
from bigbird_ds.errors import CheckpointError, ConfigError
from bigbird_ds.hub.auto import MODEL_CLASSES, model_class
from bigbird_ds.hub.base_model import REPORT_NAME
from bigbird_ds.hub.checkpoints import CONFIG_NAME
from bigbird_ds.hub.generation import copy_generation_config
from bigbird_ds.hub.model_folder import require_model_folder
from bigbird_ds.hub.new_folder import new_folder
from bigbird_ds.hub.positions import POSITION_TABLES, repeated_rows
from bigbird_ds.hub.source_tensors import (
    EditedTensors,
    open_tensors,
    read_table,
    widest_dtype,
)
from bigbird_ds.hub.tokenizer_files import (
    TOKENIZER_NAME,
    copy_tokenizer,
    tokenizer_files,
    write_tokenizer_config,
)
from bigbird_ds.hub.verify import require_finite
from bigbird_ds.hub.warm_start import PREDICTIONS, WARM_STARTS, WORDS, Converted, convert
from bigbird_ds.hub.word_map import TOKEN_TEXTS, map_words
from bigbird_ds.models.bigbird.configuration import BigBirdConfig
from bigbird_ds.models.config_checks import check_choice
from bigbird_ds.models.pretrained import PretrainedModel
from bigbird_ds.models.ties import settle_ties
from bigbird_ds.models.weights import Tensors
from bigbird_ds.vocabulary import SPIECE_NAME, Vocabulary

_HUB_PEGASUS_UNKNOWN = 2  # id of <unk> in a file without transformers' offset of 103
_FRESH_WEIGHTS_SEED = 0  # tensors that the source lacks are the same in every import

TokenizerWriter = Callable[[Path, Path], None]


@dataclass(frozen=True)
class ImportReport:
    """The result of an import; also written as ``import_report.json``.

    Attributes:
        source: the folder that was read.
        source_type, source_class: its ``model_type`` and class.
        model_class: the class that was written.
        parameters, dtype: of the written model.
        positions: number of positions of the source, and of the written model.
        fresh: tensors that the source lacks, randomly initialized.
        left_out: tensors of the source that the model does not have.
        differences: descriptions of how the model differs from the source.
        tokenizer: tokenizer files that were copied or created.
        random_style: of the written model, and why it has it.
    """

    source: str
    source_type: str
    source_class: str | None
    model_class: str
    parameters: int
    dtype: str
    positions: tuple[int, int]
    fresh: list[str]
    left_out: list[str]
    differences: list[str]
    tokenizer: list[str]
    random_style: str

    def text(self) -> str:
        """The report as text."""
        lines = [
            f"{self.source}: {self.source_class or self.source_type} -> {self.model_class}, "
            f"{self.parameters:,} parameters in {self.dtype}",
            f"  positions: {self.positions[0]:,} -> {self.positions[1]:,}",
            f"  tokenizer: {', '.join(self.tokenizer) or 'none in the folder'}",
        ]
        lines.append(f"  random style: {self.random_style}")
        lines += [f"  {difference}" for difference in self.differences]
        if self.fresh:
            lines.append(f"  not in the source, newly initialized: {', '.join(self.fresh)}")
        if self.left_out:
            lines.append(f"  not imported: {', '.join(self.left_out)}")
        return "\n".join(lines)


def import_model(
    source: Path,
    target: Path,
    write_tokenizer: TokenizerWriter,
    extend_positions: int | None = None,
    tokenizer: Path | None = None,
    random_style: str | None = None,
) -> ImportReport:
    """Import the Hub-format folder ``source`` into the folder ``target``.

    Args:
        source: a local folder with ``config.json`` and weights: safetensors or
            ``pytorch_model.bin``, in one file or in shards.
        target: the folder to create; it must not exist, or be empty.
        write_tokenizer: creates the tokenizer's files in a folder from a ``spiece.model``; called
            if the source has no ``tokenizer.json``, or if its ``spiece.model`` lacks Pegasus' ids.
        extend_positions: number of positions; the table is repeated up to it.
        tokenizer: a tokenizer folder to replace the source's tokenizer; only for BERT and RoBERTa,
            whose word embeddings are mapped to it.
        random_style: ``random_style`` of the written config; None: that of the source, else ``hf``.

    Raises:
        CheckpointError: an unsupported architecture, a truncated file, or tensors that are
            missing, misshapen, not finite or unknown to the config. Nothing is left at ``target``
            then.
        ConfigError: an inconsistent config, a ``target`` that is not empty or cannot be created,
            an ``extend_positions`` that is not larger, ``tokenizer`` with another family, or an
            unknown ``random_style``.
        DataError: a ``spiece.model`` cannot be read.
    """
    with new_folder(target) as folder:
        require_model_folder(source, CheckpointError, "HUB_FOLDER")
        values = files.read_json(source / CONFIG_NAME, CheckpointError, "the model config")
        converted = _convert(source, values)
        _settle_ties(converted, str(source))
        if random_style is not None:
            check_choice("--random-style", random_style, STYLES)
            converted.config = converted.config.replace(random_style=random_style)
        rows = converted.config.max_position_embeddings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_FRESH_WEIGHTS_SEED)
            if extend_positions is not None:
                _extend(converted, extend_positions, str(source))
            if tokenizer is not None:
                _change_tokenizer(converted, values["model_type"], source, tokenizer)
            model = MODEL_CLASSES[converted.class_name].from_tensors(
                converted.tensors, converted.config, widest_dtype(converted.tensors), str(source)
            )
        _require_no_lost_layers(model, converted.tensors, source)
        for name, tensor in model.state_dict().items():
            require_finite(
                tensor, f"{name}, from {source}", "copy the files again, or use another folder"
            )
        model.save_pretrained(folder)
        copy_generation_config(source, folder, values)
        _copy_tokenizer(tokenizer or source, folder, write_tokenizer)
        if tokenizer_files(folder):
            write_tokenizer_config(
                folder,
                model.config.max_position_embeddings,
                _tokenizer_class(values) if tokenizer is None else None,
            )
        report = ImportReport(
            source=str(source),
            source_type=values["model_type"],
            source_class=(values.get("architectures") or [None])[0],
            model_class=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=str(model.dtype).removeprefix("torch."),
            positions=(rows, model.config.max_position_embeddings),
            fresh=_without_twin(model, model.state_dict(), converted.tensors.names),
            left_out=converted.left_out
            + _without_twin(model, converted.tensors.names, model.state_dict()),
            differences=converted.differences,
            tokenizer=tokenizer_files(folder),
            random_style=_style_in_words(converted.config, values, random_style),
        )
        files.write_json(folder / REPORT_NAME, dataclasses.asdict(report))
    return report


def _convert(source: Path, values: Any) -> Converted:
    """Convert the source according to its ``model_type``."""
    family = values.get("model_type") if isinstance(values, dict) else None
    ours = {found.config_class.model_type for found in MODEL_CLASSES.values()}
    if family not in ours | WARM_STARTS.keys():
        raise CheckpointError(
            "the folder holds a model of a different architecture",
            seen=f"model_type {family!r} in {source / CONFIG_NAME}",
            needed="one of " + ", ".join(sorted(ours | WARM_STARTS.keys())),
            change="the folder",
        )
    tensors = open_tensors(source)
    if family in WARM_STARTS:
        return convert(WARM_STARTS[family], values, tensors, str(source))
    found_class = model_class(values, tensors.names, str(source / CONFIG_NAME))
    config = found_class.config_class.from_pretrained(source)
    same_names = {name: name for name in tensors.names}
    return Converted(config, found_class.__name__, EditedTensors(tensors, same_names), [])


def _style_in_words(config: BigBirdConfig, values: dict[str, Any], wanted: str | None) -> str:
    """The random style of the written model, and where it comes from.

    transformers' checkpoints do not say with which style they were trained. Those that Google
    released were trained by the original program, whose draw transformers does not repeat.
    """
    style = config.random_style
    if wanted is not None:
        return f"{style}, as --random-style says"
    if "random_style" in values:
        return f"{style}, as in the source's config.json"
    if values["model_type"] in WARM_STARTS:
        return f"{style}, the default; the source has full attention (--random-style chooses)"
    return (
        f"{style}, as transformers computes it, for the source's config.json has none; the "
        "checkpoints that Google released were trained with google (--random-style google)"
    )


def _settle_ties(converted: Converted, origin: str) -> None:
    """Untie the model if tensors that the config ties differ in the files."""
    model_class = MODEL_CLASSES[converted.class_name]
    config, tensors = settle_ties(model_class, converted.tensors, converted.config, origin)
    if config is not converted.config:
        converted.config = config
        converted.tensors = EditedTensors(tensors, {name: name for name in tensors.names})
        converted.differences.append(
            "ties: config.json ties the word embeddings, but the stored tensors differ; all are "
            "kept, with tie_word_embeddings false"
        )


def _extend(converted: Converted, wanted: int, origin: str) -> None:
    """Repeat the position tables up to ``wanted`` rows, as BigBird did with RoBERTa's."""
    config = converted.config
    rows = config.max_position_embeddings
    if wanted <= rows or wanted % config.block_size:
        raise ConfigError(
            "invalid number of positions to extend to",
            seen=f"--extend-positions {wanted}; the checkpoint has {rows:,}",
            needed=f"more than {rows:,}, and a multiple of the block size {config.block_size}",
            change="--extend-positions",
        )
    for name in [name for name in converted.tensors.names if name.endswith(POSITION_TABLES)]:
        width = converted.tensors.shape(name)[-1]
        table = read_table(converted.tensors, name, (rows, width), origin)
        converted.tensors.replace(name, repeated_rows(table, wanted))
    converted.config = config.replace(max_position_embeddings=wanted)
    converted.differences.append(
        f"positions: row i is row i modulo {rows:,} of the source; transformers' and `hf` random "
        "blocks at 1,024, 3,072 and 4,096 tokens change with the number of positions"
    )


def _change_tokenizer(converted: Converted, family: str, source: Path, tokenizer: Path) -> None:
    """Map the word embeddings to another tokenizer, and adopt its special ids."""
    if family not in TOKEN_TEXTS:
        raise ConfigError(
            "--tokenizer does not apply to this checkpoint",
            seen=f"--tokenizer {tokenizer} for a {family}",
            needed="--tokenizer only for " + " or ".join(sorted(TOKEN_TEXTS)),
            change="leave out --tokenizer",
        )
    vocabulary = Vocabulary.from_folder(tokenizer)
    words = map_words(TOKEN_TEXTS[family], source, tokenizer)
    config = converted.config
    tables = {WORDS: config.initializer_range, f"{PREDICTIONS}.bias": 0.0}
    of_decoder = {f"{PREDICTIONS}.decoder.weight": config.initializer_range}
    of_decoder |= {f"{PREDICTIONS}.decoder.bias": 0.0}
    if config.tie_word_embeddings:
        for name in of_decoder:  # tied copies, which the model recreates
            converted.tensors.drop(name)
    else:
        tables |= of_decoder
    for name, std in tables.items():
        if name in converted.tensors.names:
            old = converted.tensors.read(name)
            if old.shape[0] != config.vocab_size:
                raise CheckpointError(
                    "tensor shapes do not match the config",
                    seen=f"{name} {tuple(old.shape)}",
                    needed=f"{name} {(config.vocab_size, *old.shape[1:])}",
                    change="config.json, or the folder",
                )
            converted.tensors.replace(name, words.table(old, std))
    converted.config = config.replace(
        vocab_size=vocabulary.size,
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos,
        eos_token_id=vocabulary.eos,
        sep_token_id=vocabulary.sep,
    )
    converted.differences.append(words.text())


def _require_no_lost_layers(model: PretrainedModel, tensors: Tensors, source: Path) -> None:
    """Check that only heads are left out; a base model tensor means that the config is wrong."""
    lost = [
        name
        for name in _without_twin(model, tensors.names, model.state_dict())
        if name.removeprefix(model.base_prefix + ".").startswith(
            ("embeddings.", "encoder.", "decoder.")
        )
    ]
    if lost:
        shown = ", ".join(f"{name} {tensors.shape(name)}" for name in lost[:8])
        raise CheckpointError(
            "the folder holds tensors that do not belong to its config",
            seen=shown + (f" and {len(lost) - 8} more" if len(lost) > 8 else ""),
            needed=f"the tensors of a model as {source / CONFIG_NAME} describes it "
            f"({model.config.num_hidden_layers} layers)",
            change="config.json, or the folder",
        )


def _without_twin(model: PretrainedModel, names: Any, others: Any) -> list[str]:
    """The ``names`` that are not in ``others``, ignoring tied copies and prefixes."""
    prefix = model.base_prefix + "."
    ties = model.tied_names
    known = {name.removeprefix(prefix) for name in [*others, *ties, *ties.values()]}
    return [name for name in names if name.removeprefix(prefix) not in known]


def _lacks_ids(folder: Path) -> bool:
    """Whether ``spiece.model`` lacks 103 of Pegasus' ids, as the Hub's files do."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto((folder / SPIECE_NAME).read_bytes())
    except RuntimeError:
        return True  # creating the tokenizer's files reads it again and raises the error
    return bool(processor.unk_id() == _HUB_PEGASUS_UNKNOWN)


def _tokenizer_class(values: dict[str, Any]) -> str | None:
    """The transformers class of the source's tokenizer, by the source's ``config.json``."""
    family = WARM_STARTS.get(values["model_type"])
    return values.get("tokenizer_class") or (family.tokenizer_class if family else None)


def _copy_tokenizer(source: Path, folder: Path, write_tokenizer: TokenizerWriter) -> None:
    found = tokenizer_files(source)
    if SPIECE_NAME in found and (TOKENIZER_NAME not in found or _lacks_ids(source)):
        write_tokenizer(source / SPIECE_NAME, folder)
    else:
        copy_tokenizer(source, folder)
