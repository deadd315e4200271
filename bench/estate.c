/* Many VMs in one process: they dial in at once, or are dialled, and then each says a line a second.
 *
 *     estate COUNT dial PORT SCRIPT     connect to 127.0.0.1 and go through SCRIPT
 *     estate COUNT answer LISTENER      accept on the listening socket that it inherits
 *
 * SCRIPT has lines "hear HEX" and "say HEX": a VM says the next thing when it has heard all that stands before it. "@H" and
 * "@L" in what is said become the VM's number, two digits in hexadecimal each. Prints {"ready": SECONDS} when the last one
 * is through. Then it reads commands: "lines SECONDS" answers {"lines": how many each VM has said}; "quit" ends it.
 *
 * Does: keeps up to 19,000 connections, each with what it has heard until it is through. Owns them. Never: keeps what is
 * said later; sends before it is its turn.
 */
#include "load.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORDS = 64, WORD = 512, HEARD = 4096, EVENTS = 1024, LINE = 64, TICKS = 100 };
static const double PATIENCE = 180;

struct word {
    int said;
    size_t size;
    char bytes[WORD];
};

struct vm {
    int fd, next; /* the word that comes next */
    size_t size;
    char *heard;
};

static struct word words[WORDS];
static int word_count, vm_count, through, epoll;
static struct vm *vms;

static void fail(const char *what) {
    fprintf(stderr, "estate: %s\n", what);
    exit(1);
}

static void read_script(const char *path) {
    char line[2 * WORD + 16];
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    while (fgets(line, sizeof line, file)) {
        if (word_count == WORDS)
            fail("the script is too long");
        struct word *word = &words[word_count++];
        word->said = !strncmp(line, "say ", 4);
        const char *at = strchr(line, ' ');
        for (unsigned byte; at && sscanf(at += word->size ? 2 : 1, "%2x", &byte) == 1 && word->size < WORD;)
            word->bytes[word->size++] = (char)byte;
    }
    fclose(file);
}

static void number_it(char *bytes, size_t size, int number) {
    char digits[5];
    snprintf(digits, sizeof digits, "%04x", (unsigned)number & 0xffff);
    for (size_t i = 0; i + 1 < size; i++)
        if (bytes[i] == '@' && (bytes[i + 1] == 'H' || bytes[i + 1] == 'L'))
            memcpy(bytes + i, digits + (bytes[i + 1] == 'L' ? 2 : 0), 2);
}

/* Say what is due; whether it is through. */
static int go_on(struct vm *vm) {
    for (; vm->next < word_count; vm->next++) {
        const struct word *word = &words[vm->next];
        if (word->said) {
            char bytes[WORD];
            memcpy(bytes, word->bytes, word->size);
            number_it(bytes, word->size, (int)(vm - vms));
            if (send(vm->fd, bytes, word->size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)word->size)
                fail("a VM could not say its part");
        } else if (!vm->size || !memmem(vm->heard, vm->size, word->bytes, word->size))
            return 0;
    }
    return 1;
}

static void joins(struct vm *vm, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = vm};
    vm->fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    if (word_count && !(vm->heard = malloc(HEARD)))
        die("malloc");
}

static void is_through(struct vm *vm) {
    free(vm->heard);
    vm->heard = NULL;
    through++;
}

static void hears(struct vm *vm) {
    char scrap[65536];
    ssize_t size = vm->heard ? recv(vm->fd, vm->heard + vm->size, HEARD - vm->size, MSG_DONTWAIT)
                             : recv(vm->fd, scrap, sizeof scrap, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN))
        fail("a VM was hung up on");
    if (size > 0 && vm->heard) {
        vm->size += (size_t)size;
        if (go_on(vm))
            is_through(vm);
        else if (vm->size == HEARD)
            fail("a VM was told more than it listens to");
    }
}

static void listen_for(int milliseconds) {
    struct epoll_event events[EVENTS];
    int found = epoll_wait(epoll, events, EVENTS, milliseconds);
    for (int i = 0; i < found; i++)
        hears(events[i].data.ptr);
}

static void dial(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < vm_count; i++) {
        /* Connected before it goes on: with room in the listener's queue that takes no time, and who has none shows. */
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            die("connect");
        joins(&vms[i], fd);
        if (go_on(&vms[i]))
            is_through(&vms[i]);
    }
}

static void answer(int listener, double until) {
    for (int i = 0; i < vm_count; i++) {
        struct pollfd waits = {.fd = listener, .events = POLLIN};
        if (poll(&waits, 1, (int)((until - now()) * 1000)) != 1)
            fail("not every VM was dialled in time");
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            die("accept");
        joins(&vms[i], fd);
        is_through(&vms[i]);
    }
}

static void say_lines(int seconds) {
    double begin = now();
    for (int tick = 0; tick < seconds * TICKS; tick++) {
        /* Spread over the second, as VMs are that have nothing to do with each other. */
        for (int i = tick % TICKS; i < vm_count; i += TICKS) {
            char line[LINE + 1];
            int size = snprintf(line, sizeof line, "%04x %08d ", (unsigned)i, tick / TICKS);
            memset(line + size, '.', (size_t)(LINE - 1 - size));
            line[LINE - 1] = '\n';
            if (send(vms[i].fd, line, LINE, MSG_NOSIGNAL | MSG_DONTWAIT) != LINE)
                fail("a VM could not say its line");
        }
        double due = begin + (tick + 1.0) / TICKS;
        for (double left; (left = due - now()) > 0;)
            listen_for((int)(left * 1000) + 1);
    }
    printf("{\"lines\": %d}\n", seconds);
    fflush(stdout);
}

int main(int count, char **args) {
    int dials = count == 5 && !strcmp(args[2], "dial"), answers = count == 4 && !strcmp(args[2], "answer");
    vm_count = count > 1 ? atoi(args[1]) : 0;
    if (vm_count <= 0 || vm_count > 19000 || (!dials && !answers))
        fail("see the head of bench/estate.c for what it is called with");
    vms = calloc((size_t)vm_count, sizeof *vms);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!vms || epoll < 0)
        die("estate");
    if (dials)
        read_script(args[4]);
    double begin = now();
    if (dials)
        dial(atoi(args[3]));
    else
        answer(atoi(args[3]), begin + PATIENCE);
    while (through < vm_count) {
        listen_for(100);
        if (now() - begin > PATIENCE)
            fail("not every VM was answered in time");
    }
    printf("{\"ready\": %.6f}\n", now() - begin);
    fflush(stdout);
    for (;;) {
        char command[64];
        struct pollfd waits = {.fd = 0, .events = POLLIN};
        while (poll(&waits, 1, 0) == 0)
            listen_for(50);
        if (!fgets(command, sizeof command, stdin) || !strncmp(command, "quit", 4))
            return 0;
        if (!strncmp(command, "lines ", 6))
            say_lines(atoi(command + 6));
    }
}
