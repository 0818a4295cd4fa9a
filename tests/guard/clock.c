/* Preloaded: the clocks of a process plus what two doubles in the file JUMP say, wall clock first, then monotonic. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile double *jump;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int file = open(getenv("JUMP"), O_RDONLY | O_CLOEXEC);
  void *place = mmap(NULL, 2 * sizeof(double), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (place != MAP_FAILED)
    jump = place;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = real_gettime(clock, now);
  double offset = !jump ? 0 : clock == CLOCK_REALTIME ? jump[0] : clock == CLOCK_MONOTONIC ? jump[1] : 0;
  if (failed == 0 && offset != 0) {
    double whole = floor(offset);
    now->tv_sec += (time_t)whole;
    now->tv_nsec += (long)((offset - whole) * 1e9);
    if (now->tv_nsec >= 1000000000L) {
      now->tv_nsec -= 1000000000L;
      now->tv_sec += 1;
    }
  }
  return failed;
}

time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place)
    *place = now.tv_sec;
  return now.tv_sec;
}
