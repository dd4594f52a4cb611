"""What a run would take, computed without running it: tokens, operations, memory, disk, time and money.

Nothing here imports torch or asks a hub. Every figure is computed from numbers of the configuration, from the store, or
from assumptions that stand as named constants in these files (docs/plan.md); none is measured.
"""
