"""The 16 action tokens: how codes become token ids and back, and where they stand in a vocabulary.

method.md 3.2 C: 16 special tokens are added; the teacher's answer is 12 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentvla_ros.contract import ContractError
from latentvla_training.latent_action.codes import CODEBOOK_SIZE, MISSING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ACTION_TOKENS = tuple(f"<|action_{code}|>" for code in range(CODEBOOK_SIZE))


@dataclass(frozen=True)
class ActionVocabulary:
    """Ids of the action tokens in a tokenizer, by code.

    Attributes:
        ids: 16 ids. filler: id that stands where a code is missing, and where embeddings that are
            no token's go (the tokenizer's padding).
    """

    ids: tuple[int, ...]
    filler: int

    def __post_init__(self) -> None:
        if len(set(self.ids)) != CODEBOOK_SIZE or self.filler in self.ids:
            raise ContractError("action tokens", self.ids, f"{CODEBOOK_SIZE} ids of their own")

    def encode(self, codes: Tensor) -> Tensor:
        """Return token ids of codes, of the same shape; ``MISSING`` becomes the filler.

        Raises:
            ContractError: a code that the codebook has not.
        """
        if codes.numel() and not (codes.min() >= MISSING and codes.max() < CODEBOOK_SIZE):
            wrong = codes[(codes < MISSING) | (codes >= CODEBOOK_SIZE)]
            raise ContractError(
                "codes", int(wrong[0]), f"0 to {CODEBOOK_SIZE - 1}, or {MISSING} where missing"
            )
        # The last of the table is where -1 points to.
        table = torch.tensor([*self.ids, self.filler], device=codes.device)
        return table[codes.long()]

    def decode(self, ids: Tensor) -> Tensor:
        """Return the codes of action tokens, of the same shape.

        Raises:
            ContractError: an id that is no action token; names it.
        """
        known = torch.tensor(self.ids, device=ids.device)
        same = ids[..., None] == known
        strange = ids[~same.any(dim=-1)]
        if strange.numel():
            raise ContractError(
                "token id", int(strange[0]), f"an action token, {min(self.ids)} to {max(self.ids)}"
            )
        return same.to(torch.int64).argmax(dim=-1)


def add_action_tokens(tokenizer: PreTrainedTokenizerBase) -> ActionVocabulary:
    """Add the action tokens that a tokenizer has not yet; returns where all of them are.

    Raises:
        ContractError: the tokenizer has no padding token.
    """
    tokenizer.add_tokens(list(ACTION_TOKENS), special_tokens=True)
    if tokenizer.pad_token_id is None:
        raise ContractError("tokenizer.pad_token", None, "a padding token, as Qwen2.5-VL has")
    ids = tokenizer.convert_tokens_to_ids(list(ACTION_TOKENS))
    return ActionVocabulary(tuple(ids), int(tokenizer.pad_token_id))
