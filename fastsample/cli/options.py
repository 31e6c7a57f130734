"""The options of sampling, which commands share."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from .. import sample
from ..params import OFF, ORDERS, STAGES, parse_order


def add_sampling_options(
    parser: argparse.ArgumentParser, defaults: dict[str, Any], order: str = "hf"
) -> None:
    """Declare the options of the stages, with their defaults, and of the order."""
    for name, value in defaults.items():
        text = f"default {value}; {OFF[name]} is off"
        parser.add_argument(f"--{name}".replace("_", "-"), type=type(value), metavar="X", help=text)
    text = f"{', '.join(ORDERS)}, or stages as in top_k,top_p,temperature (default {order})"
    parser.add_argument("--order", default=order, help=text)
    parser.set_defaults(stages=defaults)


def sampling_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return valid parameters for `sample`; stages not given have their defaults."""
    order = args.order
    if order in STAGES or "," in order:
        order = [stage.strip() for stage in order.split(",")]
    order = parse_order(order)
    # A stage that the order leaves out is off unless asked for, which the library refuses.
    given = {stage: getattr(args, stage) for stage in STAGES if getattr(args, stage) is not None}
    default = {stage: (args.stages if stage in order else OFF)[stage] for stage in STAGES}
    parameters = default | given | {"order": order}
    sample([0.0], **parameters, seed=args.seed)
    return parameters


def refuse(args: argparse.Namespace, error: Exception) -> NoReturn:
    """Exit with an error that names the option, by which the library's messages begin."""
    name = str(error).split()[0]
    option = f"argument --{name.replace('_', '-')}: " if hasattr(args, name) else ""
    parser: argparse.ArgumentParser = args.parser
    parser.error(f"{option}{error}")
