"""The options of sampling, which commands share: one for each parameter of the table."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from .. import recorded, sample
from ..chains import stages_on
from ..orders import ORDERS, parse_order, stages_of
from ..parameters import DEFAULTS, EDITING, OF_STAGE, TABLE
from ..plans import make_plan, start_of
from ..records import KINDS as STAGES
from ..values import flag
from .lists import FORMS
from .values import Number, Parameter, as_written, written

#: What `sample` takes, by its name there.
KINDS = {name: Parameter(name) for name in (*TABLE, "seed", "offset", "u", "u_xtc")}

#: What stands above the options in help, and whose they are.
GROUPS = {
    "stages": [name for name in TABLE if name not in EDITING],
    "edits of a row, before any stage": [*EDITING],
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


def sentence(name: str) -> str:
    """Return what a parameter does, with the options of others that it names."""
    text = re.sub(r" \[\d\]_", "", TABLE[name].doc).partition(". ")[0].rstrip(".")
    return re.sub(r"`(\w+)`", lambda found: option(found[1]), text)


def help_of(name: str, default: Any = None) -> str:
    """Return what a parameter does, in a sentence, its range and its default."""
    rule = TABLE[name]
    text = sentence(name)
    listed = rule.convert in FORMS
    must = FORMS[rule.convert].must if listed else as_written(rule.requirement)
    said = text if rule.convert is flag else f"{text}; {must}"
    default = rule.default if default is None else default
    return f"{said}{'' if default is None else f' (default {default})'}".replace("%", "%%")


def add_sampling_options(
    parser: argparse.ArgumentParser,
    defaults: Mapping[str, Any] | None = None,
    order: str = "hf",
    names: Iterable[str] = TABLE,
) -> None:
    """Declare the options of parameters, in their groups, and of the order.

    Some may have defaults that are not the library's.
    """
    defaults, wanted = defaults or {}, set(names)
    for title, of_group in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in (n for n in of_group if n in wanted):
            text = help_of(name, defaults.get(name))
            if TABLE[name].convert is flag:
                group.add_argument(option(name), action="store_const", const=True, help=text)
                continue
            kind = KINDS[name]
            group.add_argument(option(name), type=kind, metavar=kind.metavar, help=text)
        if title == "stages":
            text = f"{', '.join(ORDERS)}, or stages as in top_k,top_p,temperature (default {order})"
            group.add_argument("--order", default=order, help=text)
    parser.set_defaults(stages=dict(defaults))


def add_history_options(parser: argparse.ArgumentParser, hint: str = "") -> None:
    """Declare what penalties and bans look at."""
    group = parser.add_argument_group("the history that edits look at")
    ids = KINDS["allowed_token_ids"]
    text = f"the tokens so far, prompt included{hint}"
    group.add_argument("--history", type=History(), metavar=ids.metavar, help=text)
    text = "how many of them are the prompt (default 0)"
    length = Number(0, 2**31 - 1)
    group.add_argument("--prompt-length", type=length, metavar="N", help=text)


class History(Parameter):
    """The ids of a history."""

    def __init__(self) -> None:
        super().__init__("allowed_token_ids")


def parse_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that options say; those not given have the command's defaults."""
    order = args.order
    if order in STAGES or "," in order:
        order = [stage.strip() for stage in order.split(",")]
    order = parse_order(order)
    # A stage that the order leaves out is off unless asked for, which the library refuses.
    usual = {n: v for n, v in args.stages.items() if TABLE[n].stage in stages_of(order)}
    given = {name: getattr(args, name, None) for name in TABLE}
    given = {name: value for name, value in given.items() if value is not None}
    return usual | given | {"order": order}


def sampling_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return valid parameters for `sample`."""
    parameters = parse_options(args)
    plan = make_plan(1, "sample", parameters)
    chain = {n: v for n, v in parameters.items() if n not in EDITING}
    state = {} if plan.stateful is None else {"state": start_of(plan, 1)[0]}
    sample(np.zeros(1), **chain, **state, seed=0)
    return parameters


def past_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the history that options say, as functions take it."""
    if args.history is None and args.prompt_length is not None:
        raise ValueError("prompt_length must come with --history")
    return {"history": args.history, "prompt_length": args.prompt_length}


def label_of(parameters: dict[str, Any]) -> str:
    """Return what is on, in the order that it runs, as text."""
    stages = [name for stage in stages_on(parameters) for name in OF_STAGE[stage]]
    on = [n for n in (*EDITING, *stages) if n in parameters]
    shown = [n for n in on if not same(parameters[n], DEFAULTS[n])]
    return ", ".join(f"{n}={written(parameters[n])}" for n in shown) or "no stage"


def same(value: Any, default: Any) -> bool:
    """Whether a parameter has its default."""
    return type(value) is type(default) and bool(value == default)


def as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON holds them, whose keys are text."""
    return {
        name: {written(key): bias for key, bias in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in parameters.items()
    }


def refuse(args: argparse.Namespace, error: Exception, name: str = "") -> NoReturn:
    """Exit with an error that names the option, by which the library's messages begin."""
    text = re.sub(r"^(an id|a bias) of (\w+)", r"\2 \1", str(error))
    others = r"\b(where|with) (\w+)(?=,| is on| needs)"
    text = re.sub(others, lambda found: f"{found[1]} {option(found[2])}", text)
    text = text.replace("must be None where", "must be off where")
    first, _, rest = text.partition(" ")
    if name:  # of an option that holds what the message begins with
        text = f"argument {option(name)}: {text}"
    elif hasattr(args, first):
        text = f"argument {option(first)}: {rest}"
    parser: argparse.ArgumentParser = args.parser
    parser.error(text)
