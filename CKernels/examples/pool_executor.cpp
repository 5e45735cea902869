// pool_executor.cpp: the same from C++17: a class that owns threads and runs tasks, and a context that frees itself.
#include "example.h"
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

// Threads that run the tasks of one call at a time. The caller is worker 0.
class ThreadPool {
public:
    explicit ThreadPool(std::size_t workers)
    {
        for (std::size_t worker = 1; worker < workers; worker++) threads.emplace_back([this, worker] { serve(worker); });
    }

    ~ThreadPool()
    {
        {
            std::lock_guard<std::mutex> guard(lock);
            stop = true;
        }
        begin.notify_all();
        for (std::thread &thread : threads) thread.join();
    }

    ThreadPool(const ThreadPool &) = delete;
    ThreadPool &operator=(const ThreadPool &) = delete;

    // What the kernels need of it. It must not move while a context uses it.
    lspan_executor executor() { return {run, this, threads.size() + 1}; }

private:
    // No exception may pass through the kernels that call this.
    static int run(void *user, std::size_t count, lspan_task_function function, void *argument) noexcept
    {
        ThreadPool &pool = *static_cast<ThreadPool *>(user);
        std::lock_guard<std::mutex> one_at_a_time(pool.callers);
        {
            std::lock_guard<std::mutex> guard(pool.lock);
            pool.function = function;
            pool.argument = argument;
            pool.count = count;
            pool.next = 0;
            pool.working = pool.threads.size();
            pool.call++;
        }
        pool.begin.notify_all();
        pool.take_tasks(0);
        std::unique_lock<std::mutex> guard(pool.lock);
        pool.end.wait(guard, [&pool] { return pool.working == 0; });
        return 0;
    }

    void serve(std::size_t worker)
    {
        unsigned long seen = 0;
        std::unique_lock<std::mutex> guard(lock);
        for (;;) {
            begin.wait(guard, [this, seen] { return stop || call != seen; });
            if (stop) return;
            seen = call;
            guard.unlock();
            take_tasks(worker);
            guard.lock();
            if (--working == 0) end.notify_one();
        }
    }

    void take_tasks(std::size_t worker)
    {
        for (std::size_t task; (task = next++) < count;) function(argument, task, worker);
    }

    std::mutex callers, lock;
    std::condition_variable begin, end;
    unsigned long call = 0;
    std::size_t working = 0, count = 0;
    bool stop = false;
    lspan_task_function function = nullptr;
    void *argument = nullptr;
    std::atomic<std::size_t> next{0};
    // last, so that all else is there before a thread starts
    std::vector<std::thread> threads;
};

struct ContextDeleter {
    void operator()(lspan_context *context) const { lspan_context_destroy(context); }
};
using Context = std::unique_ptr<lspan_context, ContextDeleter>;

Context make_context(const lspan_context_options &options)
{
    lspan_context *context = nullptr;
    const lspan_status status = lspan_context_create(&options, &context);
    if (status != lspan_status_ok) throw std::runtime_error(lspan_status_description(status));
    return Context(context);
}

} // namespace

int main()
{
    ThreadPool pool(3);
    const lspan_executor executor = pool.executor();
    lspan_context_options options = {};
    options.executor = &executor;
    const Context context = make_context(options);

    int wrong = 0;
    double worst = 0;
    for (int tokens : {1, 7, 300, 4000}) {
        example e;
        example_make(&e, tokens, static_cast<std::uint32_t>(tokens));
        for (int i = 0; i < 50; i++) wrong += example_run(&e, context.get());
        worst = std::fmax(worst, example_error(&e));
        example_free(&e);
    }
    std::printf("%zu workers of a C++ pool: %d failed, largest difference %.1e\n", lspan_context_workers(context.get()),
                wrong, worst);
    return wrong != 0 || !(worst < 1e-5);
}
