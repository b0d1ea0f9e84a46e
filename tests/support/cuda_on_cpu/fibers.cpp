#include <fibers.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace emulated {
namespace {

constexpr std::size_t STACK_BYTES = 256 * 1024;
constexpr int MAX_BLOCK_THREADS = 1024;
constexpr int NUM_BARRIERS = 16;
constexpr std::byte POISON{0xFF};

enum class State { ready, waiting, done };

struct Fiber {
    int index = 0;
    State state = State::done;
    Site site;                 // where it waits
    int num_meetings = 0;      // of its warp that it came to
    uint3 thread{};
    ucontext_t start;
    jmp_buf resume;
};

struct Barrier {
    int num_threads = 0;
    Site site;
    std::vector<Fiber*> waiting;
};

// Two meetings take turns: a lane comes to the next one only when all have left the one before the last.
struct Warp {
    std::array<Meeting, 2> meetings;
    std::vector<Fiber*> waiting;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<std::unique_ptr<Warp>> warps;
std::array<Barrier, NUM_BARRIERS> barriers;
std::deque<Fiber*> ready;
Fiber* current = nullptr;
int num_threads = 0;
int num_done = 0;
bool is_reverse_order = false;
const std::function<void()>* kernel = nullptr;
std::byte* shared_start = nullptr;
std::byte* shared_end = nullptr;   // of what the launch asked for
std::byte* shared_fence = nullptr; // of what can be touched: the next multiple of 128 bytes
ucontext_t creator;
jmp_buf after_block;

std::string text(Site site) { return std::string(site.file_name()) + ":" + std::to_string(site.line()); }

bool is_same(Site a, Site b) {
    return a.line() == b.line() && a.column() == b.column() && !std::strcmp(a.file_name(), b.file_name());
}

[[noreturn]] void give_up(const std::string& what) {
    std::fprintf(stderr, "cuda_on_cpu: block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, what.c_str());
    std::fflush(stderr);
    std::abort();
}

[[noreturn]] void report_deadlock() {
    std::map<std::string, int> num_waiting;
    for (int index = 0; index < num_threads; ++index) {
        const Fiber& fiber = *fibers[index];
        ++num_waiting[fiber.state == State::done ? std::string("returned") : "wait at " + text(fiber.site)];
    }
    std::string what = "deadlock: of " + std::to_string(num_threads) + " threads";
    for (const auto& [where, count] : num_waiting) what += ", " + std::to_string(count) + " " + where;
    give_up(what);
}

// Leaves `from` for `to`. A saved jump goes between stacks without the system calls of swapcontext.
__attribute__((noinline)) void jump(jmp_buf& from, jmp_buf& to) {
    if (_setjmp(from) == 0) _longjmp(to, 1);
}

// Runs the next fiber that can, until this one can again.
void leave() {
    Fiber* self = current;
    if (ready.empty()) {
        if (num_done < num_threads) report_deadlock();
        jump(self->resume, after_block);
        return;
    }
    Fiber* next = ready.front();
    ready.pop_front();
    current = next;
    threadIdx = next->thread;
    if (next != self) jump(self->resume, next->resume);
}

void live(unsigned index) {
    Fiber& self = *fibers[index];
    if (_setjmp(self.resume) == 0) setcontext(&creator);
    for (;;) {
        (*kernel)();
        self.state = State::done;
        ++num_done;
        leave();
    }
}

// Memory of at least `size_bytes`, a multiple of pages, between two pages that cannot be touched.
std::byte* fenced_pages(std::size_t size_bytes, std::size_t& mapped_bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_bytes = (size_bytes + page - 1) / page * page;
    void* start = mmap(nullptr, mapped_bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) give_up("no memory for fibers");
    std::byte* inside = static_cast<std::byte*>(start) + page;
    if (mprotect(inside, mapped_bytes, PROT_READ | PROT_WRITE) != 0) give_up("no memory for fibers");
    return inside;
}

void add_fiber() {
    auto fiber = std::make_unique<Fiber>();
    fiber->index = static_cast<int>(fibers.size());
    std::size_t stack_bytes = 0;
    std::byte* stack = fenced_pages(STACK_BYTES, stack_bytes);
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = stack;
    fiber->start.uc_stack.ss_size = stack_bytes;
    fiber->start.uc_link = nullptr;
    const unsigned index = static_cast<unsigned>(fiber->index);
    makecontext(&fiber->start, reinterpret_cast<void (*)()>(live), 1, index);
    fibers.push_back(std::move(fiber));
    swapcontext(&creator, &fibers.back()->start);
}

void poison_shared(std::int64_t shared_bytes) {
    static std::size_t mapped_bytes = 0;
    static std::byte* pages = fenced_pages(MAX_SHARED_BYTES, mapped_bytes);
    const std::size_t rounded_bytes = (static_cast<std::size_t>(shared_bytes) + 127) / 128 * 128;
    shared_fence = pages + mapped_bytes;
    shared_start = shared_fence - rounded_bytes;
    shared_end = shared_start + shared_bytes;
    std::memset(shared_start, static_cast<int>(POISON), rounded_bytes);
}

void check_shared_end() {
    const bool is_poison = std::all_of(shared_end, shared_fence, [](std::byte byte) { return byte == POISON; });
    if (!is_poison) give_up("it wrote beyond the end of its dynamic shared memory");
}

void run_block() {
    num_done = 0;
    ready.clear();
    for (auto& barrier : barriers) barrier = Barrier{};
    for (auto& warp : warps) {
        warp->waiting.clear();
        for (auto& meeting : warp->meetings) meeting.num_arrived = 0;
    }
    for (int position = 0; position < num_threads; ++position) {
        Fiber& fiber = *fibers[is_reverse_order ? num_threads - 1 - position : position];
        const unsigned index = static_cast<unsigned>(fiber.index);
        fiber.thread = {index % blockDim.x, index / blockDim.x % blockDim.y, index / blockDim.x / blockDim.y};
        fiber.state = State::ready;
        fiber.num_meetings = 0;
        ready.push_back(&fiber);
    }
    current = ready.front();
    ready.pop_front();
    threadIdx = current->thread;
    jump(after_block, current->resume);
}

void wait_at(Site site) {
    current->state = State::waiting;
    current->site = site;
    leave();
}

void wake(std::vector<Fiber*>& waiting) {
    for (Fiber* fiber : waiting) {
        fiber->state = State::ready;
        ready.push_back(fiber);
    }
    waiting.clear();
}

// As `wake`, but they go on before all others: a warp runs ahead as far as it can, to the next barrier of its block.
void wake_first(std::vector<Fiber*>& waiting) {
    for (auto fiber = waiting.rbegin(); fiber != waiting.rend(); ++fiber) {
        (*fiber)->state = State::ready;
        ready.push_front(*fiber);
    }
    waiting.clear();
}

bool is_launchable(dim3 grid, dim3 block, std::int64_t shared_bytes) {
    const std::int64_t block_threads = std::int64_t{block.x} * block.y * block.z;
    return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7FFFFFFFu && grid.y <= 65535 && grid.z <= 65535 &&
           block_threads > 0 && block_threads <= MAX_BLOCK_THREADS && block.z <= 64 && shared_bytes >= 0 &&
           shared_bytes <= MAX_SHARED_BYTES;
}

}  // namespace

bool run(dim3 grid, dim3 block, std::int64_t shared_bytes, const std::function<void()>& body) {
    if (!is_launchable(grid, block, shared_bytes)) return false;
    gridDim = grid;
    blockDim = block;
    kernel = &body;
    num_threads = static_cast<int>(block.x * block.y * block.z);
    if (num_threads % WARP_LANES != 0)
        give_up("a block of " + std::to_string(num_threads) + " threads: give whole warps");
    while (static_cast<int>(fibers.size()) < num_threads) add_fiber();
    while (static_cast<int>(warps.size()) * WARP_LANES < num_threads) warps.push_back(std::make_unique<Warp>());
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
                poison_shared(shared_bytes);
                run_block();
                check_shared_end();
            }
    return true;
}

std::byte* dynamic_shared() { return shared_start; }

void set_reverse_order(bool is_reverse) { is_reverse_order = is_reverse; }

int lane() { return current->index % WARP_LANES; }

void refuse(const char* what, Site site) { give_up(text(site) + ": " + what); }

void wait_at_barrier(int id, int threads, Site site) {
    if (id < 0 || id >= NUM_BARRIERS || threads % WARP_LANES != 0) refuse("no such barrier", site);
    Barrier& barrier = barriers[id];
    if (barrier.waiting.empty()) {
        barrier.num_threads = threads;
        barrier.site = site;
    }
    if (barrier.num_threads != threads || !is_same(barrier.site, site))
        give_up("threads wait for each other at " + text(barrier.site) + " and at " + text(site));
    if (static_cast<int>(barrier.waiting.size()) + 1 == threads) return wake(barrier.waiting);
    barrier.waiting.push_back(current);
    wait_at(site);
}

void wait_for_block(Site site) { wait_at_barrier(0, num_threads, site); }

Meeting& meet(const void* mine, std::size_t size_bytes, Site site) {
    Warp& warp = *warps[current->index / WARP_LANES];
    Meeting& meeting = warp.meetings[current->num_meetings++ % 2];
    if (meeting.num_arrived == 0) {
        meeting.site = site;
        meeting.is_computed = false;
    }
    if (!is_same(meeting.site, site))
        give_up("lanes of a warp act together at " + text(meeting.site) + " and at " + text(site));
    std::memcpy(meeting.deposits.data() + lane() * size_bytes, mine, size_bytes);
    if (++meeting.num_arrived == WARP_LANES) {
        meeting.num_arrived = 0;
        wake_first(warp.waiting);
    } else {
        warp.waiting.push_back(current);
        wait_at(site);
    }
    return meeting;
}

}  // namespace emulated
