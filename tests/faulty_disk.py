"""A disk that fails when a test wants it to: the system's own errors, in a real process.

The process is started with `environ`. Whatever it writes below the folder then fails with the error
that `fail` was told, as a disk that dies, fills up or is remounted would have it; `bad_read` has it
read once in vain.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int trouble(int fd) {
    char link[64], path[4096], text[16];
    const char *folder = getenv("FAULTY_FOLDER"), *said = getenv("FAULTY_ERRNO");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) || strstr(path, "-shm")) return 0;
    int file = open(said, O_RDONLY);
    if (file < 0) return 0;
    ssize_t (*reads)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    length = reads(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return atoi(text);
}

static int bad_read(int fd) {
    char link[64], path[4096];
    const char *folder = getenv("FAULTY_FOLDER"), *said = getenv("FAULTY_READ");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) || strstr(path, "-shm")) return 0;
    return unlink(said) == 0;
}

#define GUARD(fd) do { int e = trouble(fd); if (e) { errno = e; return -1; } } while (0)

ssize_t write(int fd, const void *b, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    GUARD(fd); return real(fd, b, n);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    GUARD(fd); return real(fd, b, n, o);
}
ssize_t pread64(int fd, void *b, size_t n, off64_t o) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    if (bad_read(fd)) { errno = EIO; return -1; }
    return real(fd, b, n, o);
}
ssize_t pread(int fd, void *b, size_t n, off_t o) { return pread64(fd, b, n, o); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return pwrite64(fd, b, n, o); }
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    GUARD(fd); return real(fd);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    GUARD(fd); return real(fd);
}
int ftruncate64(int fd, off64_t n) {
    static int (*real)(int, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "ftruncate64");
    GUARD(fd); return real(fd, n);
}
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
"""


class FaultyDisk:
    """The folder `folder`, whose disk may fail; `environ` is for the process that is to see it."""

    def __init__(self, home: Path) -> None:
        """Skips the test where no C compiler is there. `home`: an empty folder of the test's."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler to make a disk fail with")
        self.folder = home / "disk"
        self.folder.mkdir()
        source, library, self._errno = home / "faulty.c", home / "faulty.so", home / "errno"
        source.write_text(SOURCE)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
        )
        self.bad_read = home / "bad_read"
        """While this file is there, the next read fails with EIO, and removes it."""
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULTY_FOLDER": str(self.folder),
            "FAULTY_ERRNO": str(self._errno),
            "FAULTY_READ": str(self.bad_read),
        }

    def fail(self, number: int) -> None:
        """Whatever is written fails with this errno from now on."""
        new = self._errno.with_suffix(".new")
        new.write_text(str(number))
        os.replace(new, self._errno)

    def mend(self) -> None:
        """It works again."""
        self._errno.unlink()
