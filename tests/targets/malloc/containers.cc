// Containers of the C++ library, filled and partly emptied by four threads and the main one; then
// answer on standard output as allocate.c does: "info" malloc's own numbers, "trim" the same after
// malloc_trim(0).
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <dlfcn.h>
#include <list>
#include <malloc.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <vector>

namespace {

constexpr int threads = 4, rounds = 30000;

struct Held {
	std::map<int, std::string> tree;
	std::unordered_map<std::string, std::vector<int>> table;
	std::list<std::unique_ptr<char[]>> list;
	std::deque<std::shared_ptr<double>> queue;
};

void fill(Held &held, int seed)
{
	for (int i = 0; i < rounds; i++) {
		held.tree.emplace(i * 7919 % rounds, std::string(i % 300 + seed, 'x'));
		held.table[std::to_string(i)].resize(i % 50 + 1);
		held.list.emplace_back(new char[i % 2000 + 1]());
		held.queue.push_back(std::make_shared<double>(i));
	}
	for (int i = 0; i < rounds; i++) {
		if (i % 11)
			held.tree.erase(i);
		if (i % 5)
			held.table.erase(std::to_string(i));
		if (i % 7)
			held.list.pop_front();
		else
			held.list.splice(held.list.end(), held.list, held.list.begin());
	}
	held.queue.resize(rounds / 3);
}

struct Numbers {
	size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

// mallinfo2 is of 2.33; the fields of struct mallinfo are ints.
Numbers ask()
{
	auto newer = reinterpret_cast<Numbers (*)()>(dlsym(RTLD_DEFAULT, "mallinfo2"));
	if (newer)
		return newer();
	struct mallinfo m = mallinfo();
	return {size_t(m.arena), 0, 0, size_t(m.hblks), size_t(m.hblkhd), 0, 0, size_t(m.uordblks),
		size_t(m.fordblks), 0};
}

void answer()
{
	Numbers m = ask();
	char line[256];
	int length = snprintf(line, sizeof line,
		"{\"obtained\": %zu, \"in_use\": %zu, \"free\": %zu, \"chunks\": %zu, \"mmapped\": %zu}\n",
		m.arena, m.uordblks, m.fordblks, m.hblks, m.hblkhd);
	if (write(1, line, length) != length)
		_exit(1);
}

} // namespace

int main()
{
	static Held held[threads + 1];
	std::mutex lock;
	std::condition_variable ready;
	int done = 0;

	for (int i = 0; i < threads; i++)
		std::thread([&, i] {
			fill(held[i], i);
			std::unique_lock<std::mutex> mine(lock);
			done++;
			ready.notify_all();
			for (;;)
				ready.wait(mine, [] { return false; });
		}).detach();
	fill(held[threads], threads);
	{
		std::unique_lock<std::mutex> mine(lock);
		ready.wait(mine, [&] { return done == threads; });
	}
	char line[64];
	// snprintf and dlsym allocate when they are first called.
	snprintf(line, sizeof line, "%zu", sizeof line);
	dlsym(RTLD_DEFAULT, "mallinfo2");
	answer();
	while (read(0, line, sizeof line) > 0) {
		if (line[0] == 't')
			malloc_trim(0);
		answer();
	}
	_exit(0);
}
