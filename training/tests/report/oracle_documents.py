"""Results of oracle-codes, by hand."""

from __future__ import annotations

from typing import Any


def oracle_document() -> dict[str, Any]:
    """Return a result of oracle-codes whose true codes beat two of three controls on test."""
    row = {"pdms": [0.9, 0.85, 0.95], "ade": [0.5, 0.4, 0.6]}
    gains = {"host": 0.01, "free_queries": 0.02, "shuffled_codes": -0.01}
    return {
        "codebook": "nano-0123", "recipe": "nano", "passes": 8000, "seeds": [0, 1],
        "identity": {
            "host": "nano-3-0123456789abcdef", "bundle_sha256": "b0" * 32, "world": "w" * 16,
            "scoring": "s" * 16, "recipes": {"nano": "0racle"}, "commit": "c0ffee" * 6,
            "data": {"test": {"content_sha256": "t" * 64}},
        },
        "gate_opened": {"oracle_codes": [0.3, 0.2]},
        "verdict": {
            "passed": False, "figure": "pdms", "beaten": {"test": ["host", "free_queries"]},
        },
        "splits": {
            "test": {
                "scenes": 12, "networks": 3, "rows": {"host": row, "oracle_codes": row},
                "differences": {
                    f"oracle_codes-{other}": {"pdms": [low + 0.02, low, low + 0.04]}
                    for other, low in gains.items()
                },
            }
        },
    }  # fmt: skip
