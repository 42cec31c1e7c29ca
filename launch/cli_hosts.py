"""What the command line has for a graph on two hosts: keys, and how the link does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, print_json, print_line

_HOSTS = ("robot", "workstation")


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot keys robot workstation --out keys")(keys)


def keys(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST", help="For whom; else robot and workstation.",
                       show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where they go; launch files look here by default.")
    ] = Path("~/.config/safetypilot/keys"),
    json: Json = False,
) -> None:  # fmt: skip
    """Make the keys by which the hosts of a graph know each other.

    Per host a HOST.public, which both need, and a HOST.secret, which stays on that host alone.
    """
    from safetypilot.launch.keys import PUBLIC, SECRET, UnusableKey, make
    from safetypilot.launch.schema import NAME

    folder, names = out.expanduser(), list(dict.fromkeys(hosts or _HOSTS))
    for name in names:
        if not re.fullmatch(NAME, name):
            raise InputError(f"{name!r} is no name of a host; use letters, digits and underscores")
    try:
        made = make(folder, names)
    except UnusableKey as error:
        raise InputError(str(error)) from None
    if json:
        print_json(made)
        return
    for name, key in made.items():
        print_line(f"{name:<12} {key}  {folder / name}{PUBLIC}")
    print_line(f"each host needs every *{PUBLIC} and its own *{SECRET}, which nobody else may see")


def link_lines(rows: dict[str, dict[str, Any]]) -> list[str]:
    """How the link to the other host does, in words; nothing where there is none."""
    lines = []
    for row in rows.values():
        link = row["node"]
        if "peer" not in link:
            continue
        if link["up"]:
            trip = link["round_trip_us"]
            text = (
                f"up, round trip {_ms(trip['shortest'])} ms at best, {_ms(trip['p50'])} as a rule; "
                f"clocks {link['offset_ms']:g} ms apart, known to {link['uncertainty_ms']:g} ms"
            )
        else:
            text = f"down: {link['down_because']}"
        refused = sum(link["refused_handshakes"].values())
        lines.append(
            f"  {link['peer']}: {text}; lost {link['losses']} times, {refused} strangers refused"
        )
    return lines


def _ms(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:.2f}"
