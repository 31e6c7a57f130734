// A sequence of the C ABI as objects of Python hold it: rules out of tuples, ids in and out.
#pragma once

#include <memory>

#include "bindings/arrays.h"

namespace fastsample::bindings {

using Sampler = std::shared_ptr<fs_sampler>;

// With rules as tuples of (name, numbers, ids, offsets, weights).
Sampler new_sampler(const fs_chain& chain, const py::iterable& rules);

void start(fs_sampler* sampler, const py::object& ids, const py::object& prompt_length);
void push(fs_sampler* sampler, const py::object& ids);
void accept(fs_sampler* sampler, const py::object& ids);
fs_sampler_info info_of(const fs_sampler* sampler);
py::array_t<int64_t> tokens_of(const fs_sampler* sampler);
py::array edits_of(fs_sampler* sampler, int64_t vocab);

}  // namespace fastsample::bindings
