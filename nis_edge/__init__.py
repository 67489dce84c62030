"""nis-edge: the runtime agent that watches AI agents and their device with a packed ternary model.

The floors and what may import what stand in ARCHITECTURE.md; ``tests/architecture`` keeps them.
"""

__version__ = "0.1.0"
