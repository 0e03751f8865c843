"""From result files to ``docs/results.md``: sums by network, identities, tables, a figure."""
