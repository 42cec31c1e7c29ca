"""Soft actor-critic without any constraint (Haarnoja et al. 2018, arXiv 1812.05905).

The comparison called Unconstrained: it learns of violations only that the episode ends with them.
"""

from __future__ import annotations

from safetypilot.policies.learn.algorithms.base import Algorithm


class Unconstrained(Algorithm):
    """The base as it is."""
