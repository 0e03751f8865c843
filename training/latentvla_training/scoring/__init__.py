"""Scores as the field computes them: NAVSIM's PDMS and EPDMS, open-loop and closed-loop figures.

``pdm`` is the entry to NAVSIM's scores; definitions and quirks are in design/metrics.md.
"""
