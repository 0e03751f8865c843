"""A hash of code changes with what the code does, and with nothing else."""

from __future__ import annotations

from latentvla_training.data import source_hash


def test_the_code_hash_sees_code_and_nothing_else() -> None:
    source = "'''Doc.'''\ndef f(x):\n    '''Doc.'''\n    return x + 1  # why\n"
    same = "'''Other.'''\n\ndef f(x):\n    '''New.'''\n    return (x + 1)\n"
    assert source_hash._code_of(source) == source_hash._code_of(same)
    assert source_hash._code_of(source) != source_hash._code_of(source.replace("1", "2"))
