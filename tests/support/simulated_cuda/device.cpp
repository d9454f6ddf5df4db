// A CUDA device without a card: kernels of the CPU over host memory, behind CUDA's dispatch key.
//
// What a test can see of it: every tensor knows its device, so that operands on different devices are refused
// as a card would refuse them; a graph records kernels and their addresses, executes nothing while it is
// captured, and replays exactly what it recorded; what waits for the device cannot be captured.

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace at::native {  // declared in headers that the package does not hold
Tensor as_strided_tensorimpl(const Tensor&, IntArrayRef, IntArrayRef, std::optional<int64_t>);
Tensor view(const Tensor&, IntArrayRef);
Tensor& set_storage_cpu_(Tensor&, Storage, int64_t, IntArrayRef, IntArrayRef);
Tensor _reshape_alias(const Tensor&, IntArrayRef, IntArrayRef);
}  // namespace at::native

namespace {

using c10::Device;
using c10::DeviceType;
using c10::IValue;
using torch::jit::Stack;

// The card of this process: torchrun gives every rank one of its own.
c10::DeviceIndex number(const char* variable, c10::DeviceIndex otherwise) {
  const char* value = std::getenv(variable);
  return value ? static_cast<c10::DeviceIndex>(std::atoi(value)) : otherwise;
}

const c10::DeviceIndex kCount = number("LOCAL_WORLD_SIZE", 1);
const Device kCard(DeviceType::CUDA, number("LOCAL_RANK", 0));

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device exchangeDevice(Device) const override { return kCard; }
  Device getDevice() const override { return kCard; }
  c10::DeviceIndex deviceCount() const noexcept override { return kCount; }
  c10::Stream getStream(Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kCard); }
  c10::Stream getNewStream(Device, int = 0) const override {
    return c10::Stream(c10::Stream::DEFAULT, kCard);
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, kCard);
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs = {}) {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kCount; }
  int getNumGPUs() const override { return kCount; }
  c10::DeviceIndex current_device() const override { return kCard.index(); }
  c10::DeviceIndex getCurrentDevice() const override { return kCard.index(); }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return kCard.index(); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return kCard.index(); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};

size_t allocated = 0;
size_t limit = SIZE_MAX;  // bytes that may be allocated
std::map<void*, size_t> sizes;

void release(void* memory) {
  allocated -= sizes[memory];
  sizes.erase(memory);
  std::free(memory);
}

struct HostAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    TORCH_CHECK_WITH(OutOfMemoryError, bytes <= limit && allocated <= limit - bytes,
                     "CUDA out of memory. Tried to allocate ", bytes, " bytes. GPU 0 has ", allocated,
                     " in use.");
    void* memory = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
    std::memset(memory, 0x7f, (bytes + 127) / 64 * 64);  // what nobody wrote is to be seen
    sizes[memory] = bytes;
    allocated += bytes;
    return {memory, memory, &release, kCard};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

Guard guard;
HostAllocator allocator;

// Graphs -----------------------------------------------------------------------------------------------

struct Kernel {
  c10::OperatorHandle op;
  Stack arguments;
  Stack results;
};

struct Graph {
  std::vector<Kernel> kernels;
  std::vector<std::pair<at::Tensor, at::Tensor>> before;  // what the capture overwrote, and its copy
};

std::map<int64_t, Graph> graphs;
int64_t newest = 0;
Graph* capturing = nullptr;

const std::set<std::string> kWaits = {// kernels whose result the host, or its allocations, wait for
                                      "aten::_local_scalar_dense",
                                      "aten::nonzero",
                                      "aten::masked_select",
                                      "aten::_unique2",
                                      "aten::unique_dim",
                                      "aten::unique_consecutive",
                                      "aten::equal",
                                      "aten::is_nonzero",
                                      "aten::bincount",
                                      "aten::repeat_interleave"};

[[noreturn]] void refuse_capture(const std::string& what) {
  throw std::runtime_error("operation not permitted when stream is capturing: " + what);
}

// Tensors ----------------------------------------------------------------------------------------------

bool on_card(const at::Tensor& t) { return t.defined() && t.device().type() == DeviceType::CUDA; }

// The same memory as a tensor of the CPU.
at::Tensor host_view(const at::Tensor& t) {
  auto& storage = t.storage();
  c10::Storage host(c10::Storage::use_byte_size_t(), storage.nbytes(),
                    c10::DataPtr(storage.mutable_data(), Device(DeviceType::CPU)), c10::GetCPUAllocator(),
                    true);
  auto impl = c10::make_intrusive<c10::TensorImpl>(std::move(host),
                                                   c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
  impl->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return at::Tensor(std::move(impl));
}

at::Tensor to_card(const at::Tensor& t) {
  at::Tensor out(at::detail::empty_strided_generic(
      t.sizes(), t.strides(), &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA), t.scalar_type()));
  host_view(out).copy_(t);
  return out;
}

// Gives a tensor of the card the size and the memory that its view on the host was resized to.
void take_resized(const at::Tensor& t, const at::Tensor& host) {
  auto fresh = to_card(host);
  t.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(fresh.sizes(), fresh.strides(), 0);
}

template <class F>
c10::List<at::Tensor> mapped(const std::vector<at::Tensor>& tensors, F function) {
  c10::List<at::Tensor> list;
  for (const at::Tensor& t : tensors) list.push_back(function(t));
  return list;
}

struct Views {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // of the card, of the host
  std::vector<at::Tensor> hosts;                         // operands that are on the host
  bool card = false;

  at::Tensor of(const at::Tensor& t) {
    if (!on_card(t)) {
      hosts.push_back(t);
      return t;
    }
    card = true;
    pairs.emplace_back(t, host_view(t));
    return pairs.back().second;
  }
  IValue value(const IValue& v) {
    if (v.isTensor()) return of(v.toTensor());
    if (v.isTensorList()) return mapped(v.toTensorVector(), [&](const at::Tensor& t) { return of(t); });
    if (v.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector())
        list.push_back(t ? std::optional<at::Tensor>(of(*t)) : t);
      return list;
    }
    if (v.isDevice() && v.toDevice().type() == DeviceType::CUDA) {
      card = true;
      return Device(DeviceType::CPU);
    }
    return v;
  }
  at::Tensor back(const at::Tensor& t) {
    if (!t.defined() || !card) return t;
    for (auto& [there, here] : pairs)
      if (here.is_same(t)) return there;
    for (auto& host : hosts)
      if (host.is_same(t)) return t;
    return to_card(t);
  }
  IValue back(const IValue& v) {
    if (v.isTensor()) return back(v.toTensor());
    if (v.isTensorList()) return mapped(v.toTensorVector(), [&](const at::Tensor& t) { return back(t); });
    return v;
  }
};

// What a card says of operands on two devices. Numbers (tensors without dimensions) and indices may be on the
// host.
void check_devices(const std::string& name, const Stack& arguments) {
  if (name == "aten::copy_" || name == "aten::_copy_from") return;
  bool indices = name == "aten::index" || name == "aten::index_put_" || name == "aten::_index_put_impl_" ||
                 name == "aten::index_put";
  bool card = false, host = false;
  auto look = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    if (on_card(t))
      card = true;
    else if (t.dim() > 0)
      host = true;
  };
  for (const auto& v : arguments) {
    if (v.isTensor()) look(v.toTensor());
    if (v.isTensorList())
      for (const at::Tensor& t : v.toTensorVector()) look(t);
    if (v.isOptionalTensorList() && !indices)
      for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector())
        if (t) look(*t);
  }
  TORCH_CHECK(!(card && host),
              "Expected all tensors to be on the same device, but found at least two devices, ", kCard,
              " and cpu! (when checking the arguments of ", name, ")");
}

bool waits(const std::string& name, const Stack& arguments) {
  if (kWaits.count(name)) return true;
  if (name == "aten::copy_") return on_card(arguments[0].toTensor()) != on_card(arguments[1].toTensor());
  for (const auto& v : arguments)
    if (v.isOptionalTensorList())
      for (const std::optional<at::Tensor>& t : v.toOptionalTensorVector())
        if (t && t->defined() && (!on_card(*t) || t->scalar_type() == at::kBool)) return true;
  return false;
}

void execute(const c10::OperatorHandle& op, const Stack& arguments, Stack& results) {
  Views views;
  Stack host;
  for (const auto& v : arguments) host.push_back(views.value(v));
  op.callBoxed(host);
  for (auto& [there, here] : views.pairs)
    if (here.sizes() != there.sizes() || here.strides() != there.strides() ||
        here.storage().data() != there.storage().data())
      take_resized(there, here);
  for (const auto& v : host) results.push_back(views.back(v));
}

void save_written(const c10::OperatorHandle& op, const Stack& arguments) {
  auto& schema = op.schema().arguments();
  auto save = [&](const at::Tensor& t) {
    if (!on_card(t)) return;
    for (auto& [there, copy] : capturing->before)
      if (there.storage().is_alias_of(t.storage())) return;
    int64_t bytes = t.storage().nbytes();
    auto memory = at::empty({bytes}, at::kByte);
    std::memcpy(memory.data_ptr(), t.storage().data(), bytes);
    capturing->before.emplace_back(t, memory);
  };
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!schema[i].alias_info() || !schema[i].alias_info()->isWrite()) continue;
    if (arguments[i].isTensor()) save(arguments[i].toTensor());
    if (arguments[i].isTensorList())
      for (const at::Tensor& t : arguments[i].toTensorVector()) save(t);
  }
}

void run_kernel(const c10::OperatorHandle& op, Stack* stack) {
  const auto count = op.schema().arguments().size();
  Stack arguments(stack->end() - count, stack->end());
  const std::string& name = op.schema().name();
  check_devices(name, arguments);
  if (capturing) {
    if (waits(name, arguments)) refuse_capture(name);
    save_written(op, arguments);
  }
  Stack results;
  execute(op, arguments, results);
  if (capturing) capturing->kernels.push_back({op, arguments, results});
  torch::jit::drop(*stack, count);
  stack->insert(stack->end(), results.begin(), results.end());
}

void replay(Graph& graph) {
  for (auto& kernel : graph.kernels) {
    Stack results;
    execute(kernel.op, kernel.arguments, results);
    for (size_t i = 0; i < results.size(); ++i) {
      auto copy = [](const at::Tensor& to, const at::Tensor& from) {
        if (to.defined() && !to.is_same(from)) host_view(to).copy_(on_card(from) ? host_view(from) : from);
      };
      if (results[i].isTensor()) copy(kernel.results[i].toTensor(), results[i].toTensor());
      if (results[i].isTensorList())
        for (size_t j = 0; j < results[i].toTensorVector().size(); ++j)
          copy(kernel.results[i].toTensorVector()[j], results[i].toTensorVector()[j]);
    }
  }
}

// Memory and views of it, which are no kernels --------------------------------------------------------------

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

}  // namespace

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}  // namespace at

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_kernel>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&run_kernel>());
}

// What ranks send each other goes over the host's memory: gloo in NCCL's place.
TORCH_LIBRARY_IMPL(c10d, CUDA, m) {
  for (auto name : {"allreduce_", "broadcast_", "allgather_", "_allgather_base_", "reduce_scatter_",
                    "_reduce_scatter_base_", "allgather_into_tensor_coalesced_",
                    "reduce_scatter_tensor_coalesced_", "scatter_", "gather_", "barrier"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_kernel>());
}

extern "C" {

void simulated_cuda_start() {
  c10::impl::ensureCUDADeviceGuardSet();
  c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&guard);
  c10::SetAllocator(DeviceType::CUDA, &allocator);
}

void simulated_cuda_begin_capture() { capturing = &graphs[++newest]; }

// Restores what the capture overwrote, since a card executes nothing; returns the graph's number.
int64_t simulated_cuda_end_capture() {
  for (auto& [there, copy] : capturing->before)
    std::memcpy(there.storage().mutable_data(), copy.data_ptr(), copy.nbytes());
  capturing->before.clear();
  capturing = nullptr;
  return newest;
}

// As UntypedStorage.resize_, of the storage at this address.
void simulated_cuda_resize(int64_t address, int64_t bytes) {
  auto* storage = reinterpret_cast<c10::StorageImpl*>(address);
  auto data = allocator.allocate(bytes);
  std::memcpy(data.get(), storage->data(), std::min<size_t>(bytes, storage->nbytes()));
  storage->set_data_ptr_noswap(std::move(data));
  storage->set_nbytes(bytes);
}

int64_t simulated_cuda_kernels(int64_t graph) { return graphs[graph].kernels.size(); }

// 0, or 1 where a kernel failed.
int64_t simulated_cuda_replay(int64_t graph) {
  try {
    replay(graphs[graph]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "replay: %s\n", error.what());
    return 1;
  }
}

void simulated_cuda_drop(int64_t graph) { graphs.erase(graph); }
int64_t simulated_cuda_allocated() { return allocated; }

// Bytes that may be allocated beyond what is now; negative: no limit.
void simulated_cuda_limit(int64_t more) { limit = more < 0 ? SIZE_MAX : allocated + more; }
}
