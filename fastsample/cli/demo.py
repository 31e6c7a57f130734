"""`fastsample demo`: real logits, what each stage keeps, and NumPy beside."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
import timeit
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import Sampler, build_info, recorded
from ..backend import use_backend
from ..explain import Explanation, Token, explain
from .looks import logit_text
from .options import (
    KINDS,
    Prompt,
    add_history_options,
    add_sampling_options,
    as_json,
    label_of,
    past_of,
    refuse,
    sampling_parameters,
)
from .screen import BAR, Screen, fold

FLOAT32 = np.finfo(np.float32)
KEEPING = {"temperature", "adaptive", "softmax", "edits"}  # which remove no token, or may not
LEADING = 8  # tokens shown of each row
MEASURE_SECONDS = 0.02  # for each median

# The demo's own values make every stage cut something.
DEMO = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.05}

Report: TypeAlias = "dict[str, Any]"  # what --json writes


def numpy_draw(row: npt.NDArray[np.float32], u: float, parameters: dict[str, Any]) -> int:
    """Draw by the same chain in plain NumPy, which cuts by value: ties at a cut are all kept."""
    if parameters["temperature"] == 0.0:
        return int(row.argmax())
    k, p, m = (parameters[name] for name in ("top_k", "top_p", "min_p"))
    kept, largest, temperature = row, row.max(), 1.0
    for stage in parameters["order"]:
        if stage == "temperature":
            # Beyond float32 there is nothing left to level or to sharpen.
            temperature = min(max(parameters["temperature"], FLOAT32.tiny), FLOAT32.max)
        elif stage == "top_k" and 0 < k < kept.size:
            kept = kept[kept >= np.partition(kept, -k)[-k]]
        elif stage == "top_p" and p < 1.0:
            falling = np.sort(kept)[::-1]
            mass = np.cumsum(np.exp((falling - largest) / temperature), dtype=np.float64)
            kept = kept[kept >= falling[np.searchsorted(mass, p * mass[-1])]]
        elif stage == "min_p" and m > 0.0:
            kept = kept[kept >= largest + temperature * math.log(m)]
    mass = np.cumsum(np.exp((kept - largest) / temperature), dtype=np.float64)
    place = np.searchsorted(mass, u * mass[-1], side="right")
    return int(place if kept is row else np.flatnonzero(row >= kept.min())[place])


def median_us(call: Callable[[], object]) -> float:
    """Return the median time of a call in microseconds."""
    once = timeit.timeit(call, number=1) + 1e-6  # a coarse clock may say 0
    times = timeit.repeat(call, number=1, repeat=max(5, int(MEASURE_SECONDS / once)))
    return float(np.median(times)) * 1e6


#: The stages that `numpy_draw` knows.
OF_NUMPY = {"temperature", "top_k", "top_p", "min_p", "softmax", "greedy"}


def known_to_numpy(e: Explanation) -> bool:
    """Whether `numpy_draw` means the same."""
    joint = any(isinstance(stage, tuple) for stage in e.parameters["order"])
    plain = e.parameters["min_tokens_to_keep"] == 1 and not joint
    return plain and {stage.name for stage in e.stages} <= OF_NUMPY


def draw(
    data: recorded.Recorded,
    index: int,
    parameters: dict[str, Any],
    seed: int,
    past: Mapping[str, Any],
) -> Report:
    """Draw the token after one recorded prompt, and report what each stage did to the row."""
    row = data.logits[index].astype(np.float32)  # as models give it
    place: dict[str, Any] = {"seed": seed, "offset": index}
    e = explain(row, data.show, **parameters, **place, **past, top=LEADING)
    sampler = Sampler(**parameters, **place)
    if past["history"] is not None:
        sampler.start(past["history"], prompt_length=past["prompt_length"] or 0)
    moves = past["history"] is not None or sampler.state is not None

    def draw_here() -> int:
        token: int = sampler(row)
        if moves:  # else each draw would be another one
            sampler.reset(offset=index)
        return token

    def draw_by_numpy() -> int:
        with np.errstate(over="ignore", under="ignore"):  # at temperatures that nobody uses
            return numpy_draw(row, e.draw.u, e.parameters)

    def token(t: Token) -> Report:
        return {
            "id": t.id,
            "text": data.pieces[t.id].decode(errors="replace"),
            "logit": t.logit,
            "prob": t.prob,
            "cut_by": t.cut_by,
        }

    assert draw_here() == e.drawn.id
    compared = known_to_numpy(e)
    return {
        "prompt": index + 1,
        "text": data.prompts[index],
        "kept": {s.name: s.kept for s in e.stages if s.name not in KEEPING or s.kept < s.entered},
        "leading": [token(e.tokens[i]) for i in e.leading[:LEADING]],
        "seed": seed,
        "offset": index,
        "u": e.draw.u,
        "drawn": token(e.drawn) | {"final_prob": e.drawn.final},
        "numpy_id": draw_by_numpy() if compared else None,
        "us": median_us(draw_here if moves else lambda: sampler(row)),
        "numpy_us": median_us(draw_by_numpy) if compared else None,
    }


def summarise(draws: list[Report], data: recorded.Recorded) -> Report:
    """Report the medians over all draws, and what they were measured on."""
    info = build_info()
    us = float(np.median([d["us"] for d in draws]))
    compared = [d["numpy_us"] for d in draws if d["numpy_us"] is not None]
    numpy_us = float(np.median(compared)) if compared else None
    return {
        **{name: info[name] for name in ("version", "numpy", "backend")},
        "isa": info["isa"] if info["backend"] == "core" else None,
        "V": len(data.pieces),
        "draws": len(draws),
        "us": us,
        "numpy_us": numpy_us,
        "ratio": numpy_us / us if numpy_us else None,
        "same_token_as_numpy": sum(d["numpy_id"] == d["drawn"]["id"] for d in draws)
        if compared
        else None,
        "source": data.source,
    }


def show_chain(screen: Screen, parameters: dict[str, Any], seed: int) -> None:
    """Show what every draw does."""
    greedy = parameters.get("temperature") == 0.0
    chain = "greedy" if greedy else label_of(parameters).replace(", ", " → ").replace("=", " ")
    for part in fold(f"chain  {chain}", screen.width):
        screen.line(part)
    screen.line(f"seed   {seed}; prompt n is drawn at offset n - 1\n")


def show_draw(screen: Screen, d: Report, data: recorded.Recorded, temperature: float) -> None:
    """Show a prompt, its leading tokens, what each stage kept, the draw and the times."""
    number = d["prompt"]
    for paragraph in screen.encodable(d["text"]).splitlines():
        for part in fold(paragraph, screen.width - 5):
            screen.line(f"{number:>2} │ {part}")
            number = ""
    screen.line()

    drawn, stages = d["drawn"], list(d["kept"])
    widths = [max(8, len(stage) + 1) for stage in stages]
    names = "".join(map(str.rjust, stages, widths))
    room = max(0, min(24, screen.width - 42 - len(names)))  # for the bars
    scale = f"at T = {temperature or 1.0:.4g}"
    screen.line(f"    {'token':16}{'logit':>9}{'p':>9}    {scale:{room}}{names}")
    tokens = {t["id"]: t for t in [*d["leading"], drawn]}.values()
    most = max(t["prob"] for t in tokens)
    for i, t in enumerate(tokens):
        if i == LEADING:
            screen.line("    …")
        full, part = divmod(round(t["prob"] / most * room * 8), 8)
        bar = screen.cell("█" * full + BAR[part - 1] * (part > 0), room)
        cut = stages.index(t["cut_by"]) if t["cut_by"] else len(stages)
        fate = ["kept"] * cut + ["cut"] * (cut < len(stages))
        words = "".join(map(str.rjust, fate, widths))
        chosen = t["id"] == drawn["id"]
        screen.line(
            f"  {'▸' if chosen else ' '} {screen.cell(data.show(t['id']), 16)}"
            f"{logit_text(t['logit']):>9}{t['prob']:9.2%}    {bar}{words}",
            style="1;32" if chosen else "2" if t["cut_by"] else "",
        )
    arrows = [f"{screen.encodable('→')} {n}" for n in d["kept"].values()]
    counts = "".join(map(str.rjust, arrows, widths))
    screen.line(f"    {f'{len(data.pieces)} tokens':{38 + room}}{counts}\n")

    token = screen.cell(data.show(drawn["id"]), 40).rstrip()
    how = f"id {drawn['id']}, final p {drawn['final_prob']:.2%}, u {d['u']:.6f}"
    screen.line(f"    drawn  {token}  {how}")
    if d["numpy_us"] is None:
        screen.line(f"    time   {d['us']:.1f} us\n")
        return
    ratio = f"{d['numpy_us'] / d['us']:.3g} times as long"
    same = "same token" if d["numpy_id"] == drawn["id"] else f"another token: {d['numpy_id']}"
    screen.line(f"    time   {d['us']:.1f} us; NumPy {d['numpy_us']:.1f} us, {ratio}, {same}\n")


def show_summary(screen: Screen, s: Report) -> None:
    """Show the medians of all draws."""
    engine = ", ".join(filter(None, (f"fastsample {s['version']}", s["backend"], s["isa"])))
    screen.line(f"{'time per draw, V = ' + str(s['V']):36}{'median of ' + str(s['draws']):>14}")
    screen.line(f"{engine:36}{s['us']:11.1f} us", style="1;32")
    if s["numpy_us"] is None:
        screen.line("NumPy is compared where only temperature, top_k, top_p and min_p are on.")
    else:
        numpy = f"{'NumPy ' + s['numpy']:36}{s['numpy_us']:11.1f} us"
        screen.line(f"{numpy}   {s['ratio']:.3g} times as long\n")
        same = s["same_token_as_numpy"]
        screen.line(f"NumPy drew the same token in {same} of {s['draws']} draws.")
    screen.line("\n".join(textwrap.wrap(f"Logits: {s['source']}.", screen.width)))


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `demo`."""
    add_sampling_options(parser, DEMO)
    add_history_options(parser)
    parser.add_argument("--seed", type=KINDS["seed"], default=0, metavar="N", help="default 0")
    text = "only the Nth prompt, from 1; may be repeated"
    prompt = Prompt("; for a text of your own: fastsample generate TEXT")
    parser.add_argument("--prompt", type=prompt, action="append", metavar="N", help=text)
    parser.add_argument("--backend", help="core, numba or reference (default: the best here)")
    parser.add_argument("--json", action="store_true", help="write JSON")


def demo(args: argparse.Namespace) -> None:
    """Draw from a real model's logits, show what each stage keeps, and time NumPy beside."""
    data = recorded.load()
    prompts = args.prompt or range(1, len(data.prompts) + 1)
    with ExitStack() as stack:
        try:
            if args.backend is not None:
                stack.enter_context(use_backend(args.backend))
            parameters = sampling_parameters(args)
            past = past_of(args)
            # What is wrong with the parameters and a vocabulary is wrong with each prompt.
            explain(data.logits[prompts[0] - 1], **parameters, **past)
        except (ImportError, TypeError, ValueError) as error:
            refuse(args, error)
        screen, draws = Screen(sys.stdout), []
        if not args.json:
            show_chain(screen, parameters, args.seed)
        for n in prompts:
            draws.append(draw(data, n - 1, parameters, args.seed, past))
            if not args.json:
                show_draw(screen, draws[-1], data, parameters.get("temperature", 1.0))
        summary = summarise(draws, data)
        if not args.json:
            return show_summary(screen, summary)
        report = {"parameters": as_json(parameters), "draws": draws, "summary": summary}
        print(json.dumps(report, indent=2))
