/* The load of one console: who says all it can, who checks every byte of it, and who waits for an echo.
 *
 *     load stream SECONDS BYTES SOURCE [SINK...]   until the first of both limits; then what is on its way is waited for
 *     load tolog SECONDS BYTES SOURCE LOG          the same, until LOG has grown by all of it, which is then checked
 *     load verify LOG FROM BYTES                   whether LOG holds the pattern from that offset on
 *     load echo SECONDS COUNT CLIENT VM            one byte at a time from the client, which the VM says again
 *
 * SOURCE, SINK, CLIENT and VM are numbers of connected sockets that it inherits. Prints one JSON object. Does: nothing
 * but send, receive, compare and look at the clock. Owns: nothing. Never: speaks a server's protocol; whoever starts it
 * has done that. On SIGTERM a source says no more, and the rest goes on as at the end of its time.
 */
#include "load.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SINKS = 128, PINGS = 1000000, WARM_UP = 200 };
static const double GIVE_UP = 2; /* seconds without a byte: the rest is lost */

struct source {
    volatile double began;
    volatile uint64_t said;
    volatile int over;
};

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static void stop_on_sigterm(void) {
    struct sigaction action = {.sa_handler = stop}; /* without SA_RESTART: a send that waits ends as well */
    sigaction(SIGTERM, &action, NULL);
}

static void say(int fd, double seconds, uint64_t bytes, struct source *source) {
    uint64_t said = 0;
    double until = (source->began = now()) + seconds;
    /* A server that takes nothing must not hold us for ever. */
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    while (said < bytes && !stopped && now() < until) {
        size_t size = bytes - said < CHUNK ? (size_t)(bytes - said) : CHUNK;
        ssize_t sent = send(fd, pattern + said % PERIOD, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            break; /* the sinks tell what is missing */
        source->said = said += sent > 0 ? (uint64_t)sent : 0;
    }
    source->over = 1;
}

/* A process beside this one, which does not outlive it. */
static pid_t beside(void) {
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static pid_t say_beside(int fd, double seconds, uint64_t bytes, struct source *source) {
    pid_t child = beside();
    if (child == 0) {
        say(fd, seconds, bytes, source);
        _exit(0);
    }
    return child;
}

struct sink {
    uint64_t heard;
    int64_t wrong; /* where the first byte is that should be another, or -1 */
};

static void check(struct sink *sink, const char *data, size_t size) {
    const char *right = pattern + sink->heard % PERIOD;
    if (sink->wrong < 0 && memcmp(data, right, size)) {
        size_t i = 0;
        while (data[i] == right[i])
            i++;
        sink->wrong = (int64_t)(sink->heard + i);
    }
    sink->heard += size;
}

static int all_heard(const struct sink *sinks, int count, uint64_t said) {
    for (int i = 0; i < count; i++)
        if (sinks[i].heard < said)
            return 0;
    return 1;
}

static void stream(double seconds, uint64_t bytes, int source_fd, char **fds, int count) {
    static char data[CHUNK];
    struct sink sinks[SINKS];
    struct source *source = shared(sizeof *source);
    int epoll = epoll_create1(0);
    if (count > SINKS || epoll < 0)
        die("sinks");
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i << 32 | (unsigned)atoi(fds[i])};
        sinks[i] = (struct sink){.wrong = -1};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, atoi(fds[i]), &event) < 0)
            die("epoll_ctl");
    }
    pid_t child = say_beside(source_fd, seconds, bytes, source);
    double last = now();
    for (;;) {
        struct epoll_event ready[SINKS];
        if (stopped) {
            kill(child, SIGTERM);
            stopped = 0;
        }
        int found = epoll_wait(epoll, ready, SINKS, 20);
        for (int i = 0; i < found; i++) {
            int fd = (int)(ready[i].data.u64 & 0xffffffffu);
            ssize_t size = recv(fd, data, CHUNK, MSG_DONTWAIT);
            if (size > 0)
                check(&sinks[ready[i].data.u64 >> 32], data, (size_t)size);
            else if (size == 0 || errno != EAGAIN)
                epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); /* it was hung up on */
        }
        if (found > 0)
            last = now();
        if (source->over && (all_heard(sinks, count, source->said) || now() - last > GIVE_UP))
            break;
    }
    waitpid(child, NULL, 0);
    uint64_t heard = 0, lost = 0;
    int64_t wrong = -1;
    for (int i = 0; i < count; i++) {
        heard += sinks[i].heard;
        lost += source->said > sinks[i].heard ? source->said - sinks[i].heard : 0;
        if (sinks[i].wrong >= 0 && (wrong < 0 || sinks[i].wrong < wrong))
            wrong = sinks[i].wrong;
    }
    printf("{\"said\": %llu, \"heard\": %llu, \"lost\": %llu, \"wrong_at\": %lld, \"seconds\": %.6f}\n",
           (unsigned long long)source->said, (unsigned long long)heard, (unsigned long long)lost, (long long)wrong,
           last - source->began);
}

static uint64_t size_of(int fd) {
    struct stat found;
    if (fstat(fd, &found) < 0)
        die("fstat");
    return (uint64_t)found.st_size;
}

static struct sink read_log(int fd, uint64_t from, uint64_t bytes) {
    static char data[CHUNK];
    struct sink sink = {.wrong = -1};
    while (sink.heard < bytes) {
        size_t size = bytes - sink.heard < CHUNK ? (size_t)(bytes - sink.heard) : CHUNK;
        ssize_t got = pread(fd, data, size, (off_t)(from + sink.heard));
        if (got <= 0)
            break;
        check(&sink, data, (size_t)got);
    }
    return sink;
}

static int opened(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die(path);
    return fd;
}

static void print_log(int fd, uint64_t from, uint64_t said, double seconds) {
    struct sink sink = read_log(fd, from, said);
    printf("{\"said\": %llu, \"heard\": %llu, \"lost\": %llu, \"wrong_at\": %lld, \"seconds\": %.6f}\n",
           (unsigned long long)said, (unsigned long long)sink.heard, (unsigned long long)(said - sink.heard),
           (long long)sink.wrong, seconds);
}

static void tolog(double seconds, uint64_t bytes, int source_fd, const char *path) {
    int fd = opened(path);
    struct source *source = shared(sizeof *source);
    uint64_t from = size_of(fd), size = from;
    double last = now();
    pid_t child = say_beside(source_fd, seconds, bytes, source);
    while (!source->over || (size - from < source->said && now() - last < GIVE_UP)) {
        struct timespec pause = {.tv_nsec = 500000};
        nanosleep(&pause, NULL);
        uint64_t before = size;
        size = size_of(fd);
        if (size != before)
            last = now();
    }
    waitpid(child, NULL, 0);
    print_log(fd, from, source->said, last - source->began);
}

static void say_again(int fd) {
    char data[4096];
    ssize_t size;
    while ((size = recv(fd, data, sizeof data, 0)) > 0)
        if (send(fd, data, (size_t)size, MSG_NOSIGNAL) != size)
            break;
    _exit(0);
}

static int slower(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void echo(double seconds, int count, int client, int vm) {
    static double took[PINGS];
    struct timeval patience = {.tv_sec = 5};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    pid_t child = beside();
    if (child == 0)
        say_again(vm);
    double begin = now();
    int done = 0, wrong = 0;
    /* Whoever is slow is asked less often, but is asked. */
    for (int i = -WARM_UP; i < count && i < PINGS && !stopped && (done == 0 || now() < begin + seconds); i++) {
        if (i < 0 && now() > begin + seconds / 4)
            i = 0;
        char typed = pattern[(i + WARM_UP) % PERIOD], shown = 0;
        double sent = now();
        if (send(client, &typed, 1, MSG_NOSIGNAL) != 1 || recv(client, &shown, 1, 0) != 1 || shown != typed) {
            wrong = 1;
            break;
        }
        if (i >= 0)
            took[done++] = now() - sent;
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    qsort(took, (size_t)done, sizeof *took, slower);
    double half = done ? took[done / 2] * 1e6 : 0, most = done ? took[(size_t)done * 99 / 100] * 1e6 : 0;
    printf("{\"count\": %d, \"wrong\": %d, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", done, wrong, half, most);
}

int main(int count, char **words) {
    make_pattern();
    stop_on_sigterm();
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "stream") && count >= 5)
        stream(atof(words[2]), strtoull(words[3], NULL, 10), atoi(words[4]), words + 5, count - 5);
    else if (!strcmp(what, "tolog") && count == 6)
        tolog(atof(words[2]), strtoull(words[3], NULL, 10), atoi(words[4]), words[5]);
    else if (!strcmp(what, "verify") && count == 5)
        print_log(opened(words[2]), strtoull(words[3], NULL, 10), strtoull(words[4], NULL, 10), 0);
    else if (!strcmp(what, "echo") && count == 6)
        echo(atof(words[2]), atoi(words[3]), atoi(words[4]), atoi(words[5]));
    else {
        fprintf(stderr, "load: see the head of bench/load.c for what it is called with\n");
        return 2;
    }
    return 0;
}
