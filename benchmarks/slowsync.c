/* Preloaded into a server: holds up each sync of a file for half a millisecond, as a slower disk would. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int held_up(const char *name, int fd)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    return sync(fd);
}

int fsync(int fd) { return held_up("fsync", fd); }
int fdatasync(int fd) { return held_up("fdatasync", fd); }
