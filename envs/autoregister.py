"""Registers our environments when imported, so that Gymnasium alone can make them.

Gymnasium stopped loading plugins in version 1.0; what it offers instead is an id with a module:
`gymnasium.make("safetypilot.envs.autoregister:safetypilot/Maze-v0")`, or importing this module
first. Importing it is the point, hence the one side effect at module level.
"""

from safetypilot.envs.registry import register

register()
