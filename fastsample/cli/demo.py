"""`fastsample demo`: real logits, what each stage keeps, and NumPy beside."""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
import timeit
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import Sampler, build_info, recorded, softmax, survivors, top_k
from ..backend import use_backend
from ..chains import stages_on
from ..parameters import OFF
from ..reference import uniform
from .options import KINDS, Prompt, add_sampling_options, refuse, sampling_parameters
from .screen import BAR, Screen, fold

FLOAT32 = np.finfo(np.float32)
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


def cutting_stages(parameters: dict[str, Any]) -> list[str]:
    """Return the stages that are on and remove tokens, in the order that they run."""
    if parameters["temperature"] == 0.0:
        return ["greedy"]  # no stage plays a part
    return [s for s in stages_on(parameters) if s != "temperature"]


def draw(data: recorded.Recorded, index: int, parameters: dict[str, Any], seed: int) -> Report:
    """Draw the token after one recorded prompt, and report what each stage did to the row."""
    row = data.logits[index].astype(np.float32)  # as models give it
    stages = cutting_stages(parameters)
    left: dict[str, npt.NDArray[np.int64]] = {}
    for i, stage in enumerate(stages):
        # Later stages are off, but the order stays: it says which temperature a stage sees.
        left[stage], _ = survivors(row, **parameters | {s: OFF[s] for s in stages[i + 1 :]})
    # At T = 0 one token has all the probability; T = 1 says more.
    probabilities = softmax(row, parameters["temperature"] or 1.0)

    def token(i: int) -> Report:
        return {
            "id": i,
            "text": data.pieces[i].decode(errors="replace"),
            "logit": float(row[i]),
            "prob": float(probabilities[i]),
            "cut_by": next((stage for stage, ids in left.items() if i not in ids), None),
        }

    sampler = Sampler(**parameters, seed=seed, offset=index)
    drawn = sampler(row)
    ids, final = survivors(row, **parameters)
    u = uniform(seed, 0, index)

    def draw_by_numpy() -> int:
        with np.errstate(over="ignore", under="ignore"):  # at temperatures that nobody uses
            return numpy_draw(row, u, parameters)

    return {
        "prompt": index + 1,
        "text": data.prompts[index],
        "kept": {stage: ids.size for stage, ids in left.items()},
        "leading": [token(i) for i in top_k(row, LEADING)[1].tolist()],
        "seed": seed,
        "offset": index,
        "u": u,
        "drawn": token(drawn) | {"final_prob": float(final[ids == drawn][0])},
        "numpy_id": draw_by_numpy(),
        "us": median_us(lambda: sampler(row)),
        "numpy_us": median_us(draw_by_numpy),
    }


def summarise(draws: list[Report], data: recorded.Recorded) -> Report:
    """Report the medians over all draws, and what they were measured on."""
    info = build_info()
    us, numpy_us = np.median([(d["us"], d["numpy_us"]) for d in draws], axis=0).tolist()
    return {
        **{name: info[name] for name in ("version", "numpy", "backend")},
        "isa": info["isa"] if info["backend"] == "core" else None,
        "V": len(data.pieces),
        "draws": len(draws),
        "us": us,
        "numpy_us": numpy_us,
        "ratio": numpy_us / us,
        "same_token_as_numpy": sum(d["numpy_id"] == d["drawn"]["id"] for d in draws),
        "source": data.source,
    }


def show_chain(screen: Screen, parameters: dict[str, Any], seed: int) -> None:
    """Show what every draw does."""
    cutting = cutting_stages(parameters)
    on = [s for s in parameters["order"] if s in {"temperature", *cutting}]
    chain = " → ".join(f"{stage} {parameters[stage]}" for stage in on)
    screen.line(f"chain  {chain or ''.join(cutting) or 'no stage is on'}")
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
    names = "".join(f"{stage:>8}" for stage in stages)
    room = min(24, screen.width - 42 - len(names))  # for the bars
    scale = f"at T = {temperature or 1.0:.4g}"
    screen.line(f"    {'token':16}{'logit':>9}{'p':>9}    {scale:{room}}{names}")
    tokens = {t["id"]: t for t in [*d["leading"], drawn]}.values()
    for i, t in enumerate(tokens):
        if i == LEADING:
            screen.line("    …")
        full, part = divmod(round(t["prob"] / d["leading"][0]["prob"] * room * 8), 8)
        bar = screen.cell("█" * full + BAR[part - 1] * (part > 0), room)
        cut = stages.index(t["cut_by"]) if t["cut_by"] else len(stages)
        fate = ["kept"] * cut + ["cut"] * (cut < len(stages))
        chosen = t["id"] == drawn["id"]
        screen.line(
            f"  {'▸' if chosen else ' '} {screen.cell(data.show(t['id']), 16)}"
            f"{t['logit']:9.2f}{t['prob']:9.2%}    {bar}" + "".join(f"{word:>8}" for word in fate),
            style="1;32" if chosen else "2" if t["cut_by"] else "",
        )
    counts = "".join(f"{screen.encodable('→')} {n}".rjust(8) for n in d["kept"].values())
    screen.line(f"    {f'{len(data.pieces)} tokens':{38 + room}}{counts}\n")

    token = screen.cell(data.show(drawn["id"]), 40).rstrip()
    how = f"id {drawn['id']}, final p {drawn['final_prob']:.2%}, u {d['u']:.6f}"
    screen.line(f"    drawn  {token}  {how}")
    ratio = f"{d['numpy_us'] / d['us']:.3g} times as long"
    same = "same token" if d["numpy_id"] == drawn["id"] else f"another token: {d['numpy_id']}"
    screen.line(f"    time   {d['us']:.1f} us; NumPy {d['numpy_us']:.1f} us, {ratio}, {same}\n")


def show_summary(screen: Screen, s: Report) -> None:
    """Show the medians of all draws."""
    engine = ", ".join(filter(None, (f"fastsample {s['version']}", s["backend"], s["isa"])))
    screen.line(f"{'time per draw, V = ' + str(s['V']):36}{'median of ' + str(s['draws']):>14}")
    screen.line(f"{engine:36}{s['us']:11.1f} us", style="1;32")
    numpy = f"{'NumPy ' + s['numpy']:36}{s['numpy_us']:11.1f} us"
    screen.line(f"{numpy}   {s['ratio']:.3g} times as long\n")
    screen.line(f"NumPy drew the same token in {s['same_token_as_numpy']} of {s['draws']} draws.")
    screen.line("\n".join(textwrap.wrap(f"Logits: {s['source']}.", screen.width)))


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `demo`."""
    add_sampling_options(parser, DEMO)
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
            if args.backend:
                stack.enter_context(use_backend(args.backend))
            parameters = sampling_parameters(args)
        except (ImportError, TypeError, ValueError) as error:
            refuse(args, error)
        screen, draws = Screen(sys.stdout), []
        if not args.json:
            show_chain(screen, parameters, args.seed)
        for n in prompts:
            draws.append(draw(data, n - 1, parameters, args.seed))
            if not args.json:
                show_draw(screen, draws[-1], data, parameters["temperature"])
        summary = summarise(draws, data)
        if not args.json:
            return show_summary(screen, summary)
        print(json.dumps({"parameters": parameters, "draws": draws, "summary": summary}, indent=2))
