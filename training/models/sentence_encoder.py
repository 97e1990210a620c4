"""all-MiniLM-L6-v2 as a text tower: its states before they are pooled, 384 wide, 32 tokens.

Its tensors are those that curation fetches, 90 MB. A folder names their sha256 and does not copy them, so
that a small cascade stays small:

    text_encoder/config.json     shape, name and sha256 of the tensors
    tokenizer/tokenizer.json     the tokenizer itself

Shape letters: B prompts, L tokens, D width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curation.weights.catalog import MINILM, MINILM_SHAPE, MINILM_TOKENIZER, find
from curation.weights.torchvision_shim import ensure_torchvision
from training.models.state import fill, read_safetensors

CLASS_NAME = "SentenceEncoder"
NUM_TOKENS = 32
"""Of which a caption has 20 to 30; the sentence encoder itself was trained on up to 128."""
CONFIG, TOKENIZER = Path("text_encoder", "config.json"), Path("tokenizer", "tokenizer.json")


class SentenceEncoder(nn.Module):
    """The tower; states of padding are zero."""

    def __init__(self) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers import BertConfig, BertModel

        self.bert: Any = BertModel(BertConfig(**MINILM_SHAPE), add_pooling_layer=False)

    @property
    def config(self) -> Any:
        """Of transformers, with `hidden_size` and `max_position_embeddings`."""
        return self.bert.config

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        device: torch.device = self.bert.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which it computes."""
        dtype: torch.dtype = self.bert.dtype
        return dtype

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Tokens, and which of them are no padding, to states ``[B, L, D]``."""
        states_BLD: Tensor = self.bert(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return states_BLD * mask_BL[..., None].to(states_BLD.dtype)

    def save_pretrained(self, folder: Path, *, safe_serialization: bool = True) -> None:
        """Write config.json, which names the tensors."""
        named = {"file": MINILM.name, "sha256": MINILM.sha256, "package": MINILM.package}
        values = {"_class_name": CLASS_NAME, "shape": MINILM_SHAPE, "weights": named}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG.name).write_text(text, encoding="utf-8")


def is_sentence_encoder(folder: Path) -> bool:
    """Whether a folder's text_encoder/config.json is a sentence encoder's."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    values = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(values, dict) and values.get("_class_name") == CLASS_NAME


def load_sentence_encoder(folder: Path) -> tuple[SentenceEncoder, Any]:
    """Tower and tokenizer that a folder names, in fp32.

    Raises:
        FileNotFoundError: The tokenizer is not there.
        ValueError: The folder names other tensors than this version knows.
        MissingWeights: The tensors are not on this machine.
    """
    named = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("weights", {})
    if named.get("sha256") != MINILM.sha256:
        raise ValueError(
            f"{folder / CONFIG} must name the tensors of sha256 {MINILM.sha256}, got {named}"
        )
    if not (folder / TOKENIZER).is_file():
        raise FileNotFoundError(f"no text encoder in {folder}: {TOKENIZER} is missing")
    return fetched_tower(), _tokenizer(folder / TOKENIZER)


def fetched_sentence_encoder() -> tuple[SentenceEncoder, Any]:
    """Tower and tokenizer of the files that `lavie weights fetch embedded` brings, in fp32.

    Raises:
        MissingWeights: They are not on this machine.
    """
    return fetched_tower(), _tokenizer(find(MINILM_TOKENIZER))


def fetched_tower() -> SentenceEncoder:
    """The tower with its tensors, which are kept in fp32."""
    tower = SentenceEncoder()
    path = find(MINILM)
    held = read_safetensors(path)
    own = tower.bert.state_dict()
    fill(tower.bert, {name: held[name] for name in own if name in held}, str(path))
    return tower


def _tokenizer(path: Path) -> Any:
    ensure_torchvision()
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer.from_file(str(path))
    plain.no_padding()  # the file's own would pad to 128
    plain.no_truncation()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        model_max_length=NUM_TOKENS,
        **{f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")},
    )
