/* A bare relay: what the machine allows to whoever passes a console's bytes on, and nothing else.
 *
 *     relay [LOGS]
 *
 * Does: passes what a VM says to its clients and what they type to the VM, chunk by chunk, in one epoll loop; appends
 * what the VM says to LOGS/<name>.log first, if that folder is given.
 * Owns: two listeners on 127.0.0.1, whose ports are its first line of output: "VM-PORT CLIENT-PORT".
 * Never: looks at a byte that it passes on; reads ahead: whoever speaks is not read while anybody has not taken it all.
 *
 * A connection to either port begins with the console's name and a line feed, and is answered "ok\n" once that is known.
 * VMs come before their clients.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 262144, NAME = 64, EVENTS = 512, QUEUE = 4096 };
enum kind { VM_DOOR, CLIENT_DOOR, VM, CLIENT };

struct end {
    enum kind kind;
    int fd, log;
    unsigned events;
    char name[NAME];
    size_t named;        /* bytes of the name so far; NAME when it is complete */
    struct end *next;    /* VM: of all VMs; client: of the same VM's clients */
    struct end *clients; /* VM: the first of them */
    struct end *vm;      /* client: whose */
    char *chunk;         /* what this end has said and not everybody has taken; lasting memory, touched when used */
    size_t size;
    size_t heard;        /* client: how much of the VM's chunk it has taken */
    size_t typed;        /* client: how much of its own chunk the VM has taken */
};

static int epoll;
static struct end *vms;
static const char *logs;

static void die(const char *what) {
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void wait_for(struct end *end, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = end};
    if (events != end->events && epoll_ctl(epoll, EPOLL_CTL_MOD, end->fd, &event) < 0)
        die("epoll_ctl");
    end->events = events;
}

/* What is waited for follows from what is not taken yet. */
static void settle(struct end *vm) {
    int typing = 0;
    for (struct end *client = vm->clients; client; client = client->next) {
        typing |= client->size > 0;
        wait_for(client, (client->size ? 0u : EPOLLIN) | (client->heard < vm->size ? EPOLLOUT : 0u));
    }
    wait_for(vm, (vm->size ? 0u : EPOLLIN) | (typing ? EPOLLOUT : 0u));
}

static size_t give(int fd, const char *data, size_t size) {
    ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? (errno == EAGAIN ? 0 : size) : (size_t)sent; /* nobody is there any more: it is gone */
}

/* Whether all clients have taken the VM's chunk. */
static int pass_down(struct end *vm) {
    int over = 1;
    for (struct end *client = vm->clients; client; client = client->next) {
        if (client->heard < vm->size)
            client->heard += give(client->fd, vm->chunk + client->heard, vm->size - client->heard);
        over &= client->heard == vm->size;
    }
    if (over) {
        vm->size = 0;
        for (struct end *client = vm->clients; client; client = client->next)
            client->heard = 0;
    }
    return over;
}

static int pass_up(struct end *client) {
    client->typed += give(client->vm->fd, client->chunk + client->typed, client->size - client->typed);
    if (client->typed < client->size)
        return 0;
    client->typed = client->size = 0;
    return 1;
}

static void append(struct end *vm) {
    for (size_t done = 0; done < vm->size;) {
        ssize_t wrote = write(vm->log, vm->chunk + done, vm->size - done);
        if (wrote < 0)
            die("write");
        done += (size_t)wrote;
    }
}

static void leave(struct end *end) {
    struct end **link = end->kind == VM ? &vms : end->vm ? &end->vm->clients : NULL;
    while (link && *link && *link != end)
        link = &(*link)->next;
    if (link && *link)
        *link = end->next;
    struct end *vm = end->vm;
    while (end->kind == VM && end->clients) {
        struct end *client = end->clients;
        end->clients = client->next;
        client->vm = NULL; /* its own end of file tells it */
        shutdown(client->fd, SHUT_RDWR);
    }
    if (end->log >= 0)
        close(end->log);
    if (end->chunk)
        munmap(end->chunk, CHUNK);
    close(end->fd);
    free(end);
    if (vm)
        settle(vm);
}

static void has_data(struct end *end) {
    if (!end->chunk) {
        end->chunk = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (end->chunk == MAP_FAILED)
            die("mmap");
    }
    ssize_t size = recv(end->fd, end->chunk, CHUNK, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0 || (end->kind == CLIENT && !end->vm)) {
        leave(end);
        return;
    }
    end->size = (size_t)size;
    if (end->kind == VM) {
        if (end->log >= 0)
            append(end);
        if (!pass_down(end))
            settle(end);
    } else if (!pass_up(end))
        settle(end->vm);
}

static void has_room(struct end *end) {
    struct end *vm = end->kind == VM ? end : end->vm;
    if (end->kind == VM) {
        for (struct end *client = vm->clients; client; client = client->next)
            if (client->size)
                pass_up(client);
    } else
        pass_down(vm);
    settle(vm);
}

static int known(struct end *end) {
    if (end->kind == VM) {
        end->next = vms;
        vms = end;
        if (logs) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s.log", logs, end->name);
            end->log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
            if (end->log < 0)
                die(path);
        }
        return 1;
    }
    for (struct end *vm = vms; vm; vm = vm->next)
        if (!strcmp(vm->name, end->name)) {
            end->vm = vm;
            end->next = vm->clients;
            end->heard = vm->size; /* what is on its way was said before */
            vm->clients = end;
            return 1;
        }
    return 0;
}

/* The name, byte by byte: nothing behind it may be taken. */
static void introduces_itself(struct end *end) {
    char *at = end->name + end->named;
    if (end->named == NAME - 1 || recv(end->fd, at, 1, MSG_DONTWAIT) != 1) {
        leave(end);
    } else if (*at != '\n') {
        end->named++;
    } else {
        *at = 0;
        end->named = NAME;
        if (strchr(end->name, '/') || !known(end) || send(end->fd, "ok\n", 3, MSG_NOSIGNAL) != 3)
            leave(end);
    }
}

static struct end *watch(enum kind kind, int fd) {
    struct end *end = calloc(1, sizeof *end);
    if (!end)
        die("calloc");
    *end = (struct end){.kind = kind, .fd = fd, .log = -1, .events = EPOLLIN};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = end};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    return end;
}

static unsigned door(enum kind kind) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, QUEUE) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    watch(kind, fd);
    return ntohs(address.sin_port);
}

static void knocks(const struct end *door) {
    int fd;
    while ((fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        watch(door->kind == VM_DOOR ? VM : CLIENT, fd);
    if (errno != EAGAIN)
        die("accept");
}

static void serve(struct end *end, unsigned events) {
    if (end->kind == VM_DOOR || end->kind == CLIENT_DOOR)
        knocks(end);
    else if (end->named < NAME)
        introduces_itself(end);
    else if (events & EPOLLOUT && (end->kind == VM || end->vm))
        has_room(end); /* what there is to read is reported again */
    else if (events & EPOLLIN)
        has_data(end);
    else
        leave(end); /* reset while it was not read */
}

int main(int count, char **words) {
    struct epoll_event events[EVENTS];
    logs = count > 1 ? words[1] : NULL;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    unsigned vm_port = door(VM_DOOR), client_port = door(CLIENT_DOOR);
    printf("%u %u\n", vm_port, client_port);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++)
            serve(events[i].data.ptr, events[i].events);
    }
}
