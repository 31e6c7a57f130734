// The C ABI of chains: defaults, names, and the orders of real runtimes.
#include <algorithm>
#include <cstring>

#include "abi/fields.h"
#include "stages/table.h"

namespace fastsample {

namespace {

fs_stage off(int32_t kind, int32_t joint) {
  fs_stage stage{};
  stage.kind = kind;
  stage.joint = joint;
  const TableRow* row = row_of_kind(kind);
  for (int i = 0; row && row->stage && i < 4; ++i) stage.value[i] = row->stage->numbers[i].off;
  return stage;
}

struct Order {
  const char* name;
  int8_t kinds[12];  // ended by 0; a negative one is joint with what is before it
};

// fastsample/parameters.py has the same.
constexpr Order kOrders[] = {
    {"hf",
     {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_H, FS_STAGE_TOP_K, FS_STAGE_TOP_P, FS_STAGE_MIN_P,
      FS_STAGE_TYPICAL_P, FS_STAGE_EPSILON_CUTOFF, FS_STAGE_ETA_CUTOFF}},
    {"vllm", {FS_STAGE_TEMPERATURE, FS_STAGE_MIN_P, FS_STAGE_TOP_K, FS_STAGE_TOP_P}},
    {"llama.cpp",
     {FS_STAGE_TOP_N_SIGMA, FS_STAGE_TOP_K, FS_STAGE_TYPICAL_P, FS_STAGE_TOP_P, FS_STAGE_MIN_P,
      FS_STAGE_XTC, FS_STAGE_TEMPERATURE, FS_STAGE_MIROSTAT, FS_STAGE_ADAPTIVE}},
    {"mlx-lm",
     {FS_STAGE_TOP_P, FS_STAGE_MIN_P, FS_STAGE_XTC, FS_STAGE_TOP_K, FS_STAGE_TEMPERATURE}},
    {"openvino", {FS_STAGE_TOP_K, FS_STAGE_TEMPERATURE, FS_STAGE_MIN_P, FS_STAGE_TOP_P}},
    {"onnxruntime-genai", {FS_STAGE_TOP_K, FS_STAGE_TEMPERATURE, FS_STAGE_TOP_P}},
    {"text-generation-webui",
     {FS_STAGE_TOP_N_SIGMA, FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, FS_STAGE_TOP_P,
      FS_STAGE_TYPICAL_P, FS_STAGE_EPSILON_CUTOFF, FS_STAGE_ETA_CUTOFF, FS_STAGE_TOP_A,
      FS_STAGE_MIN_P, FS_STAGE_MIROSTAT, FS_STAGE_XTC}},
    {"koboldcpp",
     {FS_STAGE_TOP_K, FS_STAGE_TOP_A, FS_STAGE_TYPICAL_P, FS_STAGE_TOP_P, FS_STAGE_MIN_P,
      FS_STAGE_TEMPERATURE, FS_STAGE_TOP_N_SIGMA, FS_STAGE_XTC, FS_STAGE_ADAPTIVE}},
    {"sglang", {FS_STAGE_TEMPERATURE, FS_STAGE_TOP_K, -FS_STAGE_TOP_P, -FS_STAGE_MIN_P}},
};

}  // namespace

}  // namespace fastsample

using namespace fastsample;

void fs_logits_init(fs_logits* logits, uint64_t size) { fill(logits, size, fs_logits{}); }

void fs_chain_init(fs_chain* chain, uint64_t size) {
  fs_chain value{};
  value.min_tokens_to_keep = 1;
  fill(chain, size, value);
}

void fs_stage_init(fs_stage* stage, uint64_t size, int32_t kind) {
  fill(stage, size, off(kind, 0));
}

void fs_draw_init(fs_draw* draw, uint64_t size) { fill(draw, size, fs_draw{}); }

void fs_masks_init(fs_masks* masks, uint64_t size) { fill(masks, size, fs_masks{}); }

void fs_details_init(fs_details* details, uint64_t size) { fill(details, size, fs_details{}); }

void fs_source_init(fs_source* source, uint64_t size) { fill(source, size, fs_source{}); }

void fs_drafts_init(fs_drafts* drafts, uint64_t size) { fill(drafts, size, fs_drafts{}); }

const char* fs_stage_name(int32_t kind) {
  const TableRow* row = row_of_kind(kind);
  return row ? row->name : nullptr;
}

int32_t fs_stage_kind_of(const char* name) {
  const TableRow* row = name ? row_of_name(name) : nullptr;
  return row ? row->kind : 0;
}

const char* fs_orders(void) {
  return "hf,vllm,llama.cpp,mlx-lm,openvino,onnxruntime-genai,text-generation-webui,koboldcpp,"
         "sglang";
}

int64_t fs_order_init(const char* name, fs_stage* stages, uint64_t size, int64_t capacity) {
  for (const Order& order : kOrders) {
    if (!name || std::strcmp(order.name, name) != 0) continue;
    const auto known = [](int kind) { return row_of_kind(std::abs(kind))->stage != nullptr; };
    const int8_t* end = std::find(order.kinds, order.kinds + 12, 0);
    const int64_t count = std::count_if(order.kinds, end, known);
    if (count > capacity || !stages) return count;
    char* to = reinterpret_cast<char*>(stages);
    for (const int8_t* kind = order.kinds; kind != end; ++kind) {
      if (!known(*kind)) continue;
      fill(to, size, off(std::abs(*kind), *kind < 0));
      to += size;
    }
    return count;
  }
  return -1;
}

fs_stage* fs_find_stage(fs_stage* stages, int64_t count, int32_t kind) {
  char* at = reinterpret_cast<char*>(stages);
  for (int64_t i = 0; at && i < count; ++i, at += stages->struct_size)
    if (reinterpret_cast<fs_stage*>(at)->kind == kind) return reinterpret_cast<fs_stage*>(at);
  return nullptr;
}
