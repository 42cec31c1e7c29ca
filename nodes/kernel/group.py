"""How a process of several nodes begins: `python -P -m ... NAME SPEC.json SPEC.json ...`.

They share one executor, which hands messages from one to the other in memory.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from safetypilot.nodes.kernel.node import Node, Spec
from safetypilot.nodes.kernel.process import read_spec, run


def main() -> None:
    """Runs the nodes whose spec files are named on the command line; never returns."""
    if len(sys.argv) < 3:
        sys.exit(
            f"usage: {Path(sys.argv[0]).name} NAME SPEC.json ... (the supervisor starts nodes)"
        )
    specs = [read_spec(Path(word)) for word in sys.argv[2:]]
    run([(_class(spec), spec) for spec in specs], sys.argv[1])


def _class(spec: Spec) -> type[Node]:
    """The class that "module:Class" names."""
    module, _, name = spec.node.partition(":")
    found: type[Node] = getattr(import_module(module), name)
    return found


if __name__ == "__main__":
    main()
