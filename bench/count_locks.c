/* Measures the mutexes of the program it is preloaded into, under its real load: how often each is taken, how long it is
   held and waited for; and counts descriptors that join and leave an epoll set, which for a connection that is already
   there is a change of its worker. COUNT_LOCKS_FILE names a file with an array of the struct below, in native order,
   that another process may read meanwhile; its first entry has the epoll counts.

   Each duration includes one reading of the clock. A thread that is preempted while it holds a mutex makes that time
   count as held.

   cc -O2 -shared -fPIC -o count_locks.so count_locks.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kEntries = 1024, kTries = 16 };

struct entry {
  uint64_t mutex; /* its address; of the first entry: unused */
  uint64_t locks; /* first entry: EPOLL_CTL_ADD */
  uint64_t found_taken; /* first entry: EPOLL_CTL_DEL */
  uint64_t held_ns, waited_ns;
  uint64_t since; /* when the holder got it */
};

static struct entry before_start[kEntries];
static struct entry* entries = before_start;
static int (*real_lock)(pthread_mutex_t*);
static int (*real_trylock)(pthread_mutex_t*);
static int (*real_unlock)(pthread_mutex_t*);
static int (*real_epoll_ctl)(int, int, int, struct epoll_event*);

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
  real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
  real_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
  real_unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
  real_epoll_ctl = dlsym(RTLD_NEXT, "epoll_ctl");
  const char* path = getenv("COUNT_LOCKS_FILE");
  if (path == NULL) return;
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  if (ftruncate(fd, sizeof before_start) == 0) {
    void* memory = mmap(NULL, sizeof before_start, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) entries = memory;
  }
  close(fd);
}

/* NULL when the table has no place for it: a mutex more is not measured. */
static struct entry* find(const pthread_mutex_t* mutex) {
  const uint64_t key = (uint64_t)(uintptr_t)mutex;
  uint64_t at = (key >> 3) * 0x9E3779B97F4A7C15u >> 32;
  for (int i = 0; i < kTries; ++i, ++at) {
    struct entry* entry = &entries[1 + at % (kEntries - 1)];
    uint64_t there = __atomic_load_n(&entry->mutex, __ATOMIC_ACQUIRE);
    if (there == key) return entry;
    if (there == 0 && __atomic_compare_exchange_n(&entry->mutex, &there, key, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      return entry;
    }
    if (there == key) return entry;
  }
  return NULL;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (real_lock == NULL) begin(); /* some library's constructor came first */
  struct entry* entry = find(mutex);
  if (entry == NULL) return real_lock(mutex);
  uint64_t waited = 0;
  int result = real_trylock(mutex);
  if (result == EBUSY) {
    const uint64_t wanted = now();
    result = real_lock(mutex);
    waited = now() - wanted;
    if (result == 0) ++entry->found_taken; /* the holder writes: no other thread does */
  }
  if (result == 0) {
    ++entry->locks;
    entry->waited_ns += waited;
    entry->since = now();
  }
  return result;
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  if (real_unlock == NULL) begin();
  struct entry* entry = find(mutex);
  if (entry != NULL && entry->since != 0) {
    entry->held_ns += now() - entry->since;
    entry->since = 0;
  }
  return real_unlock(mutex);
}

int epoll_ctl(int set, int what, int fd, struct epoll_event* event) {
  if (real_epoll_ctl == NULL) begin();
  if (what == EPOLL_CTL_ADD) __atomic_fetch_add(&entries[0].locks, 1, __ATOMIC_RELAXED);
  if (what == EPOLL_CTL_DEL) __atomic_fetch_add(&entries[0].found_taken, 1, __ATOMIC_RELAXED);
  return real_epoll_ctl(set, what, fd, event);
}
