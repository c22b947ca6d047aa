/* Counts heap allocations of the program it is preloaded into, in a file that another process may read meanwhile:
   two 64-bit numbers in native order, how many and how many bytes. COUNT_ALLOCATIONS_FILE names the file.

   cc -O2 -shared -fPIC -o count_allocations.so count_allocations.c */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own, below the names that are counted here. */
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

struct counters {
  uint64_t number, bytes;
};

static struct counters before_start;
static struct counters* counters = &before_start;

static void count(size_t size) {
  __atomic_fetch_add(&counters->number, 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&counters->bytes, size, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void begin(void) {
  const char* path = getenv("COUNT_ALLOCATIONS_FILE");
  if (path == NULL) return;
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  if (ftruncate(fd, sizeof *counters) == 0) {
    void* memory = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) counters = memory;
  }
  close(fd);
}

void* malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
  count(number * size);
  return __libc_calloc(number, size);
}

void* realloc(void* memory, size_t size) {
  count(size);
  return __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

int posix_memalign(void** result, size_t alignment, size_t size) {
  void* memory = memalign(alignment, size);
  if (memory == NULL) return ENOMEM;
  *result = memory;
  return 0;
}
