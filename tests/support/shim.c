/* Preloaded into the daemon under test: has the syncs of the store's files stall or fail while a trigger file exists.
 *
 * SHIM_TRIGGERS names the directory of the trigger files: while `stall` is there, a sync waits; while `fail` is there, a
 * sync that does not wait fails with EIO. A sync that begins to wait creates `stalled`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The path of a trigger file; 0 where no directory is named. */
static int trigger(char *path, const char *name)
{
    const char *directory = getenv("SHIM_TRIGGERS");
    return directory && snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

static int is_there(const char *name)
{
    char path[PATH_MAX];
    return trigger(path, name) && access(path, F_OK) == 0;
}

/* Whether the descriptor is the store, or its write-ahead log. */
static int is_store(int descriptor)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    return name && strncmp(name + 1, "gatepost.db", strlen("gatepost.db")) == 0;
}

static int sync_with(const char *function, int descriptor)
{
    if (is_store(descriptor)) {
        char path[PATH_MAX];
        if (is_there("stall") && trigger(path, "stalled")) {
            int mark = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            if (mark >= 0)
                close(mark);
        }
        while (is_there("stall"))
            usleep(10 * 1000);
        if (is_there("fail")) {
            errno = EIO;
            return -1;
        }
    }
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    return next(descriptor);
}

int fsync(int descriptor)
{
    return sync_with("fsync", descriptor);
}

int fdatasync(int descriptor)
{
    return sync_with("fdatasync", descriptor);
}
