"""Codes become tokens and back; what is none of them is refused by its number."""

from __future__ import annotations

import pytest
import torch
from latentvla_training.latent_action.codes import CODEBOOK_SIZE, MISSING
from latentvla_training.teacher.action_tokens import ACTION_TOKENS, add_action_tokens
from latentvla_training.teacher.processor import make_tokenizer

from latentvla_ros.contract import ContractError


def test_sixteen_tokens_are_added_once() -> None:
    tokenizer = make_tokenizer()
    before = len(tokenizer)
    vocabulary = add_action_tokens(tokenizer)
    assert len(tokenizer) == before + CODEBOOK_SIZE
    assert add_action_tokens(tokenizer) == vocabulary and len(tokenizer) == before + CODEBOOK_SIZE
    assert tokenizer("".join(ACTION_TOKENS))["input_ids"] == list(vocabulary.ids)


def test_codes_come_back_and_missing_ones_are_the_filler() -> None:
    vocabulary = add_action_tokens(make_tokenizer())
    codes = torch.arange(CODEBOOK_SIZE).reshape(2, 8)
    assert torch.equal(vocabulary.decode(vocabulary.encode(codes)), codes)
    assert vocabulary.encode(torch.tensor([MISSING])).tolist() == [vocabulary.filler]


@pytest.mark.parametrize("code", [16, -2, 127])
def test_a_code_out_of_the_vocabulary_is_refused(code: int) -> None:
    vocabulary = add_action_tokens(make_tokenizer())
    with pytest.raises(ContractError, match=rf"codes: found {code}, expected 0 to 15"):
        vocabulary.encode(torch.tensor([3, code]))


def test_a_token_that_is_no_action_is_refused() -> None:
    vocabulary = add_action_tokens(make_tokenizer())
    with pytest.raises(ContractError, match=r"token id: found 5, expected an action token"):
        vocabulary.decode(torch.tensor([vocabulary.ids[0], 5]))
