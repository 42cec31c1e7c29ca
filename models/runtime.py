"""The one door to deployed networks: `load` a file, or `stage` it, which also proves it."""

from safetypilot.models.accelerated import Accelerated
from safetypilot.models.errors import ModelError
from safetypilot.models.session import Array, Bound, Model, kind_of, load
from safetypilot.models.staging import stage

__all__ = ["Accelerated", "Array", "Bound", "Model", "ModelError", "kind_of", "load", "stage"]
