"""The options of sampling, which commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn

from .. import recorded, sample
from ..orders import ORDERS, parse_order, stages_of
from ..parameters import EDITING, OF_STAGE, OFF, TABLE
from ..values import flag, integer
from .values import Literal, Number, Parameter

#: What `sample` takes, by its name there.
KINDS = {
    **{stage: Parameter(stage, type(value)) for stage, value in OFF.items()},
    "min_tokens_to_keep": Parameter("min_tokens_to_keep", int),
    "seed": Parameter("seed", int),
    "offset": Parameter("offset", int),
    "u": Parameter("u", float),
}


class Prompt(Number):
    """The number of a recorded prompt."""

    def __init__(self, hint: str) -> None:
        super().__init__(1, 1, hint=hint)

    def __call__(self, text: str) -> Any:
        """Return the number."""
        self.high = len(recorded.load().prompts)  # read where it is asked for
        return super().__call__(text)


def option(name: str) -> str:
    """Return the option of a name in Python."""
    return f"--{name.replace('_', '-')}"


def add_sampling_options(
    parser: argparse.ArgumentParser,
    defaults: dict[str, Any],
    order: str = "hf",
    others: Iterable[str] = (),
) -> None:
    """Declare the options of stages, with their defaults, of other parameters, and of the order."""
    for name, value in defaults.items():
        text = f"default {value}; {OFF[name]} is off"
        parser.add_argument(option(name), type=KINDS[name], metavar="X", help=text)
    for name in others:
        rule = TABLE[name]
        text = rule.doc.partition(". ")[0].rstrip(".").replace(" [", "[").split("[")[0]
        if rule.convert is flag:
            parser.add_argument(option(name), action="store_const", const=True, help=text)
            continue
        number = Parameter(name, int if rule.convert is integer else float)
        kind = Literal(name) if rule.listed else number
        text = f"{text}; {rule.requirement}".replace("%", "%%")
        parser.add_argument(option(name), type=kind, metavar="X", help=text)
    text = f"{', '.join(ORDERS)}, or stages as in top_k,top_p,temperature (default {order})"
    parser.add_argument("--order", default=order, help=text)
    parser.set_defaults(stages=defaults)


def sampling_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return valid parameters for `sample`; those not given have the defaults of the command."""
    order = args.order
    if order in OF_STAGE or "," in order:
        order = [stage.strip() for stage in order.split(",")]
    order = parse_order(order)
    # A stage that the order leaves out is off unless asked for, which the library refuses.
    given = {name: getattr(args, name, None) for name in TABLE}
    given = {name: value for name, value in given.items() if value is not None}
    default = {
        stage: (args.stages if stage in stages_of(order) else OFF)[stage] for stage in args.stages
    }
    parameters: dict[str, Any] = default | given | {"order": order}
    # What edits rows needs a vocabulary and a history, which are not here.
    sample([0.0], **{n: v for n, v in parameters.items() if n not in EDITING})
    return parameters


def refuse(args: argparse.Namespace, error: Exception, name: str = "") -> NoReturn:
    """Exit with an error that names the option, by which the library's messages begin."""
    first, _, rest = str(error).partition(" ")
    if name:  # of an option that holds what the message begins with
        text = f"argument {option(name)}: {error}"
    else:
        text = f"argument {option(first)}: {rest}" if hasattr(args, first) else str(error)
    parser: argparse.ArgumentParser = args.parser
    parser.error(text)
