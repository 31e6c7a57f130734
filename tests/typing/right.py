"""What a type checker has to accept; every line is one use."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

import fastsample as fs

Ids = npt.NDArray[np.int64]
row: npt.NDArray[np.float32] = np.zeros(4, np.float32)
rows = np.zeros((2, 4))

assert_type(fs.sample([3.0, 2.5]), int)
assert_type(fs.sample([3, 2], temperature=0.8, top_k=None, top_p=np.float32(0.9)), int)
assert_type(fs.sample(array("f", [1.0, 2.0]), u=0.5), int)
assert_type(fs.sample([[3.0, 2.5], [1.0, 2.0]], seed=[42, None]), Ids)
assert_type(
    fs.sample(rows, temperature=[0.0, 1.0], top_k=[None, 3], p_less=[True, False]), int | Ids
)
assert_type(fs.sample(rows, out=np.zeros(2, np.int64), threads=2, errors="mark"), int | Ids)
assert_type(
    fs.sample(rows, top_p=np.array([0.5, 1.0]), seed=np.arange(2), offset=np.arange(2)), int | Ids
)
assert_type(fs.sample(np.zeros(4), mirostat=0, mirostat_tau=3.0), int | Ids)
fs.sample(row, order="llama.cpp", rng=np.random.default_rng(1))
fs.sample(row, order=("temperature", ("top_k", "top_p")), min_tokens_to_keep=2)
fs.sample(row, order=["top_k", "temperature"], adaptive_target=None, top_n_sigma=1.5, top_h=0.4)

fs.sample(row, history=[0, 1], prompt_length=1, repetition_penalty=1.1, penalty_last_n=64)
fs.sample(
    rows, history=[np.arange(1), np.arange(3)], prompt_length=[0, 1], frequency_penalty=[0.1, 0.2]
)
fs.sample(rows, history=np.zeros((2, 3), int), dry_multiplier=0.8, dry_sequence_breakers=[3])
fs.sample(row, logit_bias={3: 1.5}, sequence_bias={(1, 2): -1.0}, bad_words_ids=[[1, 2], [3]])
fs.sample(rows, logit_bias=[{3: 1.5}, None], suppress_tokens=[[1], None], vocab_size=3)
fs.sample(row, logit_bias=(np.arange(2), [0.5, -1.0]), allowed_token_ids=range(3))
of_words = {(1, 2): -1.0}  # all of one length, which is a part of their type
fs.sample(row, sequence_bias=of_words, history=[1])
fs.sample(rows, sequence_bias=[of_words, None], history=[[1], [2]])
of_numpy = {np.int64(3): np.float32(1.0)}
fs.sample(row, logit_bias=of_numpy, bad_words_ids=np.array([[1, 2]]), history=[1])
fs.generate(lambda ids: row, [0], stop_sequences=[np.array([1]), (2, 3)])
fs.generate(lambda ids: row, [0], stop_sequences=np.array([[1, 2]]))
fs.sample(row, min_new_tokens=3, eos_token_id=2, history=[1])
fs.sample(row, min_new_tokens=3, eos_token_id=[2, 3], history=[1])
fs.sample(row, allowed=np.ones(4, bool), state=np.array([10.0]), mirostat=2, u_xtc=0.5)
fs.probs(row, seed=3, offset=2, xtc_probability=0.5, order="llama.cpp")
assert_type(fs.generate(lambda ids: row, [0], do_sample=True, mirostat=2, eos_token_id=3), Ids)
assert_type(fs.probs(row, min_p=0.1), npt.NDArray[np.float32])
assert_type(fs.survivors(row, typical_p=0.9)[0], Ids)
assert_type(fs.argmax([1.0, 2.0]), int)
assert_type(fs.top_k(row, 2), tuple[npt.NDArray[np.float32], Ids])

sampler = fs.Sampler(temperature=0.8, xtc_probability=0.5, xtc_threshold=0.2, seed=7, offset=3)
assert_type(sampler, fs.Sampler)
assert_type(sampler([3.0, 2.5]), int)
assert_type(sampler(rows), int | Ids)
assert_type(sampler([[3.0], [2.0]]), Ids)
assert_type(sampler.copy(seed=3), fs.Sampler)
assert_type(sampler.history, Ids)
assert_type(sampler.state, npt.NDArray[np.float64] | None)
assert_type(sampler([3.0, 2.5], allowed=np.ones(2, bool)), int)
assert_type(fs.step([sampler, sampler.copy()], rows, threads=2, errors="mark"), Ids)
sampler.start([1, 2, 3])
sampler.push(4)
sampler.push([4, 5])
sampler.rollback(1)
sampler.state = np.array([9.5])


class Tensor:
    """An array of another library."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return row


class Capsule:
    """An array of another library."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return row.__dlpack__()


fs.sample(Tensor(), temperature=Tensor(), seed=Tensor())
fs.sample([Tensor(), Tensor()])
fs.sample(Capsule())
with fs.use_backend("core"):
    pass
resumed = fs.Sampler(seed=[1, None, 2])
resumed.seed = 3
resumed.seed = np.array([1, 2])
resumed.start([1, np.int64(2)], prompt_length=1)
resumed.push(3)
resumed.push(row.astype(np.int64))
stateful = fs.Sampler(mirostat=2, order="llama.cpp")
stateful.state = [2.0]
stateful.state = np.array([2.0])
